#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/endpoint.h"

/* Paths of a job that anybody may call: asked for by its manifest, opened by an administrator. */

struct shown {
    const char *job_name, *job_version, *endpoint;
    bool is_active;
};
static const struct dto_field shown_fields[] = {
    {"job_name", DTO_TEXT, DTO_AT(struct shown, job_name)},
    {"job_version", DTO_TEXT, DTO_AT(struct shown, job_version)},
    {"endpoint", DTO_TEXT, DTO_AT(struct shown, endpoint)},
    {"active", DTO_BOOLEAN, DTO_AT(struct shown, is_active)},
};
const struct dto api_endpoint_dto = DTO("PublicEndpoint", struct shown, shown_fields);

static const struct dto_field change_fields[] = {
    {"endpoint", DTO_TEXT, DTO_AT(struct public_endpoint, endpoint), .is_required = true,
     .schema = "\"minLength\":1,\"maxLength\":512"},
    {"active", DTO_BOOLEAN, DTO_AT(struct public_endpoint, is_active), .is_required = true},
};
const struct dto api_endpoint_change_dto = DTO("PublicEndpointChange", struct public_endpoint,
                                               change_fields);

static struct shown shown_of(const struct job *job, const struct public_endpoint *e)
{
    return (struct shown){.job_name = job->name,
                          .job_version = job->version,
                          .endpoint = e->endpoint,
                          .is_active = e->is_active};
}

static int list_endpoints(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    void *mem = trk_req_mem(req);
    struct job *job;
    struct public_endpoint *endpoints;
    size_t count;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = job_store_get(conn, mem, trk_req_param(req, "name"), api_job_version(req), &job, err);
    }
    if (rc == 0) {
        rc = endpoint_store_list(conn, mem, job->id, &endpoints, &count, err);
    }
    if (rc < 0) {
        return rc;
    }
    struct shown *list = talloc_array(mem, struct shown, (unsigned)count);
    for (size_t i = 0; i < count; i++) {
        list[i] = shown_of(job, &endpoints[i]);
    }
    return api_reply_dtos(req, &api_endpoint_dto, list, count);
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
    int rc = endpoint_store_list(conn, c->mem, c->job->id, &asked, &count, err);
    if (rc < 0) {
        return rc;
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
    int rc = job_store_resolve(conn, c->mem, c->name, c->version, &c->job, err);
    if (rc == 0) {
        rc = endpoint_store_set(conn, c->job->id, &c->endpoint, &is_found, err);
    }
    if (rc == 0 && !is_found) {
        return not_asked_for(conn, c, err);
    }
    return rc;
}

static int put_endpoint(struct trk_request *req, struct trk_err *err)
{
    struct change c = {
        .mem = trk_req_mem(req),
        .name = trk_req_param(req, "name"),
        .version = trk_req_param(req, "version"),
    };
    dto_read(&api_endpoint_change_dto, trk_req_json(req), &c.endpoint);
    const struct api_deed deed = {.event_type = "public_endpoint_changed",
                                  .job_name = c.name,
                                  .job_version = c.version,
                                  .properties = json_pack("{s:s,s:b}", "endpoint",
                                                          c.endpoint.endpoint, "active",
                                                          (int)c.endpoint.is_active)};
    int rc = api_transaction_audited(req, &deed, run_change, &c, err);
    if (rc < 0) {
        return rc;
    }
    const struct shown shown = shown_of(c.job, &c.endpoint);
    return api_reply_dto(req, &api_endpoint_dto, &shown);
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
     .request_schema = API_REF("PublicEndpointChange"),
     .response_schema = API_REF("PublicEndpoint"),
     .handler = put_endpoint,
     .help = "Opens one of them, and what is below it, to callers without a token, or closes it."},
};
API_TABLE(api_endpoint_routes, "public endpoints", routes);
