#include "libtrack/base/mem.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"

/* A family shows to those who may read it, or any job of it. */
static int list_families(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct family *families;
    size_t count;
    int code = api_acquire(req, &conn, err);
    if (code == 0) {
        code = family_store_list(conn, trk_req_mem(req), &families, &count, err);
    }
    if (code < 0) {
        return code;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        if (subject_can_in_family(api_subject(req), SCOPE_READ_JOB, families[i].name)) {
            (void)json_array_append_new(
                list, json_pack("{s:s,s:s}", "name", families[i].name, "id", families[i].id));
        }
    }
    return trk_reply_json(req, 200, list);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/job_family",
     .access = "scope:" SCOPE_READ_JOB,
     .response_schema = API_LIST("JobFamily"),
     .handler = list_families,
     .help = "Job families that the caller may read something of."},
};
API_TABLE(api_family_routes, "job families", routes);
