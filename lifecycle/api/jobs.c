#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/version.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/deployment.h"

#define WAIT_SLICE_MS 5000
#define PAGE          200

json_t *api_time_or_null(int64_t unix_s)
{
    return unix_s != 0 ? json_integer(unix_s) : json_null();
}

/* -- what a job looks like -- */

static void write_pub_url(struct trk_buf *out, const void *object, const void *ctx)
{
    const struct job *job = object;
    const struct lifecycle *lc = ctx;
    trk_autofree char *url = trk_xasprintf("%s/job/%s/%s", lc->config->external_pub_url, job->name,
                                           job->version);
    (void)trk_json_add_string(out, url, strlen(url));
}

static void write_internal_name(struct trk_buf *out, const void *object, const void *ctx)
{
    const struct job *job = object;
    (void)ctx;
    if (job->addresses == NULL) {
        (void)trk_buf_adds(out, "null");
        return;
    }
    (void)trk_json_add_string(out, job->addresses, strcspn(job->addresses, ","));
}

static const struct dto_field job_fields[] = {
    {"name", DTO_TEXT, DTO_AT(struct job, name)},
    {"version", DTO_TEXT, DTO_AT(struct job, version)},
    {"status", DTO_TEXT, DTO_AT(struct job, status),
     .schema = "\"enum\":[\"starting\",\"running\",\"error\",\"orphaned\",\"lost\"]"},
    {"create_time", DTO_TIME, DTO_AT(struct job, create_time)},
    {"update_time", DTO_TIME, DTO_AT(struct job, update_time)},
    {"id", DTO_TEXT, DTO_AT(struct job, id)},
    {"manifest", DTO_JSON, DTO_AT(struct job, manifest_json), .is_nullable = true},
    {"manifest_yaml", DTO_TEXT, DTO_AT(struct job, manifest), .is_nullable = true},
    {"internal_name", DTO_TEXT, .write = write_internal_name, .is_nullable = true},
    {"pub_url", DTO_TEXT, .write = write_pub_url},
    {"error", DTO_TEXT, DTO_AT(struct job, error), .is_nullable = true},
    {"notice", DTO_TEXT, DTO_AT(struct job, notice), .is_nullable = true},
    {"image_tag", DTO_TEXT, DTO_AT(struct job, image_tag), .is_nullable = true},
    {"deployed_by", DTO_TEXT, DTO_AT(struct job, deployed_by), .is_nullable = true},
    {"last_call_time", DTO_TIME, DTO_AT(struct job, last_call_time), .is_nullable = true},
    {"infrastructure_target", DTO_TEXT, DTO_AT(struct job, infrastructure_target),
     .is_nullable = true},
    {"replica_internal_names", DTO_NAMES, DTO_AT(struct job, addresses)},
    {"job_type_version", DTO_TEXT, DTO_AT(struct job, job_type_version)},
    {"infrastructure_stats", DTO_JSON, DTO_AT(struct job, infrastructure_stats)},
};
const struct dto api_job_dto = DTO("Job", struct job, job_fields);

/* -- the list: read, made and sent page by page -- */

struct job_list {
    struct lifecycle *lc;
    struct subject *reader;
    bool reads_all, is_fatman;
    char *name, *version; /* of the last one seen */
    struct trk_buf *out;
};

static void add_job(void *ctx, const struct job *job)
{
    struct job_list *l = ctx;
    talloc_free(l->name);
    talloc_free(l->version);
    l->name = talloc_strdup(l, job->name);
    l->version = talloc_strdup(l, job->version);
    if (!l->reads_all && !subject_can(l->reader, SCOPE_READ_JOB, job->name, job->version, NULL)) {
        return;
    }
    (void)trk_buf_addc(l->out, ',');
    if (l->is_fatman) {
        json_auto_t *value = api_fatman(dto_json(&api_job_dto, job, l->lc));
        (void)trk_json_dump(value, l->out);
    } else {
        dto_write(l->out, &api_job_dto, job, l->lc);
    }
}

static int next_page(void *user, struct trk_buf *out, struct trk_err *err)
{
    struct job_list *l = user;
    trk_pg_auto struct trk_pg *conn = NULL;
    size_t count = 0;
    int rc = trk_pg_acquire(l->lc->pool, &conn, err);
    l->out = out;
    if (rc == 0) {
        rc = job_store_page(conn, l->name, l->version, PAGE, add_job, l, &count, err);
    }
    return rc < 0 ? rc : count == PAGE;
}

static int list_jobs(struct trk_request *req, struct trk_err *err)
{
    struct job_list *l = talloc_zero(trk_req_mem(req), struct job_list);
    l->lc = api_lifecycle(req);
    l->reader = api_subject(req);
    l->reads_all = subject_can_everywhere(l->reader, SCOPE_READ_JOB);
    l->is_fatman = trk_req_is_alias(req);
    l->name = talloc_strdup(l, "");
    l->version = talloc_strdup(l, "");
    return trk_reply_list(req, 200, next_page, l, NULL, err);
}

/* -- one job -- */

static int load(struct trk_request *req, struct job **ret, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, err);
    return rc < 0 ? rc
                  : job_store_get(conn, trk_req_mem(req), trk_req_param(req, "name"),
                                  api_job_version(req), ret, err);
}

static int get_job(struct trk_request *req, struct trk_err *err)
{
    struct job *job;
    int rc = load(req, &job, err);
    return rc < 0 ? rc : api_reply_dto(req, &api_job_dto, job);
}

static int refuse_alias(struct trk_request *req, const char *what, struct trk_err *err)
{
    const char *version = trk_req_param(req, "version");
    return trk_version_is_alias(version)
               ? trk_err_set(err, TRK_INVALID, "%s takes an exact version, not %s", what, version)
               : 0;
}

static int delete_job(struct trk_request *req, struct trk_err *err)
{
    int rc = refuse_alias(req, "deleting", err);
    if (rc == 0) {
        rc = api_refuse_in_maintenance(req, err);
    }
    struct job *job;
    if (rc == 0) {
        rc = load(req, &job, err); /* 404 for what never was; deploy_delete itself is idempotent */
    }
    if (rc == 0) {
        rc = deploy_delete(api_lifecycle(req), api_subject(req), job->name, job->version, err);
    }
    return rc < 0 ? rc : trk_reply_null(req);
}

static int get_deployment(struct trk_request *req, const char *id, struct deployment **ret,
                          struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, err);
    return rc < 0 ? rc : deployment_store_get(conn, trk_req_mem(req), id, ret, err);
}

/* The original answers when it is done. Whoever goes away meanwhile finds the deployment in the
 * list. */
static int wait_for_end(struct trk_request *req, const char *id, struct trk_err *err)
{
    struct lifecycle *lc = api_lifecycle(req);
    struct deployment *d;
    for (;;) {
        int rc = get_deployment(req, id, &d, err);
        if (rc < 0) {
            return rc;
        }
        if (strcmp(d->status, DEPLOYMENT_IN_PROGRESS) != 0) {
            break;
        }
        if (trk_req_is_disconnected(req)) {
            return trk_err_set(err, TRK_CANCELLED, "the caller went away");
        }
        if (trk_http_server_is_stopping(trk_req_server(req))) {
            return trk_err_set(err, TRK_UNAVAILABLE,
                               "lifecycle is stopping; deployment %s goes on when it is back", id);
        }
        rc = deploy_wait_change(lc, id, d->status, d->phase, WAIT_SLICE_MS, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (strcmp(d->status, DEPLOYMENT_FAILED) == 0) {
        return trk_err_set(err, TRK_INVALID, "%s", d->error != NULL ? d->error : "it failed");
    }
    return trk_reply_null(req);
}

static int resubmit(struct trk_request *req, const char *kind, struct trk_err *err)
{
    int rc = refuse_alias(req, kind, err);
    if (rc == 0) {
        rc = api_refuse_in_maintenance(req, err);
    }
    trk_autofree char *id = NULL;
    if (rc == 0) {
        rc = deploy_resubmit(api_lifecycle(req), api_subject(req), kind, trk_req_param(req, "name"),
                             api_job_version(req), &id, err);
    }
    return rc < 0 ? rc : wait_for_end(req, id, err);
}

static int redeploy(struct trk_request *req, struct trk_err *err)
{
    return resubmit(req, "redeploy", err);
}

static int reprovision(struct trk_request *req, struct trk_err *err)
{
    return resubmit(req, "reprovision", err);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/job",
     .access = "scope:" SCOPE_READ_JOB,
     .response_schema = API_LIST("Job"),
     .handler = list_jobs,
     .help = "All jobs that the caller may read, by name and version."},
    {.method = "GET",
     .path = "/api/v1/job/{name}/{version}",
     .access = "job:" SCOPE_READ_JOB,
     .response_schema = API_REF("Job"),
     .handler = get_job,
     .help = "One job; version may be `latest` or a wildcard such as `1.x`."},
    {.method = "DELETE",
     .path = "/api/v1/job/{name}/{version}",
     .access = "job:" SCOPE_DELETE_JOB,
     .handler = delete_job,
     .help = "Stops and removes a job; its record moves to the trash."},
    {.method = "POST",
     .path = "/api/v1/job/{name}/{version}/redeploy",
     .access = "job:" SCOPE_DEPLOY_JOB,
     .handler = redeploy,
     .help = "Builds and starts it again from what is stored; answers when it is done."},
    {.method = "POST",
     .path = "/api/v1/job/{name}/{version}/reprovision",
     .access = "job:" SCOPE_DEPLOY_JOB,
     .handler = reprovision,
     .help = "Starts it again from the stored image; answers when it is done."},
};
API_TABLE(api_job_routes, "jobs", routes);
