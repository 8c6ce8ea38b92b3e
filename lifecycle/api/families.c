#include "libtrack/base/mem.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"

static const struct dto_field family_fields[] = {
    {"name", DTO_TEXT, DTO_AT(struct family, name)},
    {"id", DTO_TEXT, DTO_AT(struct family, id)},
};
const struct dto api_family_dto = DTO("JobFamily", struct family, family_fields);

/* A family shows to those who may read it, or any job of it. */
static int list_families(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct family *families;
    size_t count;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = family_store_list(conn, trk_req_mem(req), &families, &count, err);
    }
    if (rc < 0) {
        return rc;
    }
    size_t shown = 0;
    for (size_t i = 0; i < count; i++) {
        if (subject_can_in_family(api_subject(req), SCOPE_READ_JOB, families[i].name)) {
            families[shown++] = families[i];
        }
    }
    return api_reply_dtos(req, &api_family_dto, families, shown);
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
