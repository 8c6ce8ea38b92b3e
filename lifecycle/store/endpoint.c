#include "lifecycle/store/endpoint.h"

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/store/rows.h"

int endpoint_store_list(struct trk_pg *conn, void *mem, const char *job_id,
                        struct public_endpoint **ret, size_t *ret_count, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "select endpoint, active from registry_publicendpointrequest where "
                          "job_id = $1 order by endpoint",
                          "s", job_id);
    if (rc < 0) {
        return rc;
    }
    int count = trk_pg_rows(res);
    struct public_endpoint *endpoints = row_array(mem, struct public_endpoint, count);
    for (int row = 0; row < count; row++) {
        endpoints[row].endpoint = row_text(endpoints, res, row, "endpoint");
        endpoints[row].is_active = trk_pg_bool(res, row, "active");
    }
    *ret = endpoints;
    *ret_count = (size_t)count;
    return 0;
}

int endpoint_store_set(struct trk_pg *conn, const char *job_id,
                       const struct public_endpoint *endpoint, bool *ret_found, struct trk_err *err)
{
    int rc = trk_pg_query(conn, NULL, err,
                          "update registry_publicendpointrequest set active = $3 where job_id = "
                          "$1 and endpoint = $2",
                          "ssb", job_id, endpoint->endpoint, (int)endpoint->is_active);
    if (rc == 0) {
        *ret_found = trk_pg_affected(conn) > 0;
    }
    return rc;
}

int endpoint_store_keep(struct trk_pg *conn, const char *job_id, const json_t *endpoints,
                        struct trk_err *err)
{
    trk_autofree char *text = endpoints != NULL ? trk_json_text(endpoints) : trk_xstrdup("[]");
    return trk_pg_query(conn, NULL, err,
                        "delete from registry_publicendpointrequest where job_id = $1 and endpoint "
                        "not in (select jsonb_array_elements_text($2::jsonb))",
                        "ss", job_id, text);
}

int endpoint_store_request(struct trk_pg *conn, const char *job_id, const char *endpoint,
                           struct trk_err *err)
{
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    return trk_pg_query(conn, NULL, err,
                        "insert into registry_publicendpointrequest (id, job_id, endpoint) values "
                        "($1, $2, $3) on conflict do nothing",
                        "sss", id, job_id, endpoint);
}
