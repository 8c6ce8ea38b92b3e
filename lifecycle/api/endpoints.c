#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/endpoint.h"

/* Paths of a job that anybody may call: asked for by its manifest, opened by an administrator. */

static json_t *endpoint_json(const struct job *job, const struct public_endpoint *e)
{
    return json_pack("{s:s,s:s,s:s,s:b}", "job_name", job->name, "job_version", job->version,
                     "endpoint", e->endpoint, "active", (int)e->is_active);
}

static int list_endpoints(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    void *mem = trk_req_mem(req);
    struct job *job;
    struct public_endpoint *endpoints;
    size_t count;
    int code = api_acquire(req, &conn, err);
    if (code == 0) {
        code = job_store_get(conn, mem, trk_req_param(req, "name"), api_job_version(req), &job,
                             err);
    }
    if (code == 0) {
        code = endpoint_store_list(conn, mem, job->id, &endpoints, &count, err);
    }
    if (code < 0) {
        return code;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(list, endpoint_json(job, &endpoints[i]));
    }
    return trk_reply_json(req, 200, list);
}

struct change {
    void *mem;
    const char *name, *version;
    struct public_endpoint endpoint;
    struct job *job;
};

static int not_asked_for(struct trk_pg *conn, const struct change *c, struct trk_err *err)
{
    struct public_endpoint *asked;
    size_t count;
    int code = endpoint_store_list(conn, c->mem, c->job->id, &asked, &count, err);
    if (code < 0) {
        return code;
    }
    char *known = talloc_strdup(c->mem, count == 0 ? "nothing" : "");
    for (size_t i = 0; i < count; i++) {
        known = talloc_asprintf_append_buffer(known, "%s%s", i > 0 ? ", " : "", asked[i].endpoint);
    }
    return trk_err_set(err, TRK_NOT_FOUND,
                       "the manifest of %s %s does not ask for the public endpoint %s; it asks for "
                       "%s",
                       c->job->name, c->job->version, c->endpoint.endpoint, known);
}

static int run_change(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct change *c = ctx;
    bool is_found = false;
    int code = job_store_resolve(conn, c->mem, c->name, c->version, &c->job, err);
    if (code == 0) {
        code = endpoint_store_set(conn, c->job->id, &c->endpoint, &is_found, err);
    }
    if (code == 0 && !is_found) {
        return not_asked_for(conn, c, err);
    }
    return code;
}

static int put_endpoint(struct trk_request *req, struct trk_err *err)
{
    const json_t *body = trk_req_json(req);
    struct change c = {
        .mem = trk_req_mem(req),
        .name = trk_req_param(req, "name"),
        .version = trk_req_param(req, "version"),
        .endpoint = {.endpoint = trk_json_string_or(body, "endpoint", ""),
                     .is_active = trk_json_bool_or(body, "active", false)},
    };
    const struct api_deed deed = {.event_type = "public_endpoint_changed",
                                  .job_name = c.name,
                                  .job_version = c.version,
                                  .properties = json_pack("{s:s,s:b}", "endpoint",
                                                          c.endpoint.endpoint, "active",
                                                          (int)c.endpoint.is_active)};
    int code = api_transaction_audited(req, &deed, run_change, &c, err);
    return code < 0 ? code : trk_reply_json(req, 200, endpoint_json(c.job, &c.endpoint));
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/job/{name}/{version}/public-endpoints",
     .access = "job:" SCOPE_READ_JOB,
     .response_schema = API_LIST("PublicEndpoint"),
     .handler = list_endpoints,
     .help =
         "Endpoints that the manifest asks to be callable without a token; only active ones are."},
    {.method = "PUT",
     .path = "/api/v1/job/{name}/{version}/public-endpoints",
     .access = "admin",
     .request_schema = "{\"type\":\"object\",\"required\":[\"endpoint\",\"active\"],"
                       "\"properties\":{\"endpoint\":{\"type\":\"string\",\"minLength\":1,"
                       "\"maxLength\":512},\"active\":{\"type\":\"boolean\"}}}",
     .response_schema = API_REF("PublicEndpoint"),
     .handler = put_endpoint,
     .help = "Opens one of them, and what is below it, to callers without a token, or closes it."},
};
API_TABLE(api_endpoint_routes, "public endpoints", routes);
