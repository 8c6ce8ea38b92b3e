#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/version.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/deployment.h"

#define WAIT_SLICE_MS 5000

json_t *api_time_or_null(int64_t unix_s)
{
    return unix_s != 0 ? json_integer(unix_s) : json_null();
}

static json_t *manifest_json(const char *yaml)
{
    json_auto_t *value = NULL;
    if (yaml == NULL || trk_yaml_parse(yaml, strlen(yaml), "manifest", &value, NULL) < 0 ||
        !json_is_object(value)) {
        return json_null();
    }
    return trk_manifest_full(value);
}

static json_t *replicas_json(const char *comma_list)
{
    json_t *list = json_array();
    while (comma_list != NULL && comma_list[0] != '\0') {
        size_t len = strcspn(comma_list, ",");
        if (len > 0) {
            (void)json_array_append_new(list, json_stringn(comma_list, len));
        }
        comma_list += len + (comma_list[len] == ',');
    }
    return list;
}

static json_t *object_json(const char *text)
{
    json_t *value = NULL;
    if (text == NULL || trk_json_parse(text, strlen(text), &value, NULL) < 0) {
        return json_object();
    }
    return value;
}

json_t *api_job_json(struct trk_request *req, const struct job *job)
{
    char *pub_url = talloc_asprintf(trk_req_mem(req), "%s/job/%s/%s",
                                    api_lifecycle(req)->config->external_pub_url, job->name,
                                    job->version);
    return json_pack(
        "{s:s,s:s,s:s,s:I,s:I,s:s,s:o,s:s?,s:s?,s:s,s:s?,s:s?,s:s?,s:s?,s:o,s:s?,s:o,s:s?,s:o}",
        "name", job->name, "version", job->version, "status", job->status, "create_time",
        (json_int_t)job->create_time, "update_time", (json_int_t)job->update_time, "id", job->id,
        "manifest", manifest_json(job->manifest), "manifest_yaml", job->manifest, "internal_name",
        job->internal_name, "pub_url", pub_url, "error", job->error, "notice", job->notice,
        "image_tag", job->image_tag, "deployed_by", job->deployed_by, "last_call_time",
        api_time_or_null(job->last_call_time), "infrastructure_target", job->infrastructure_target,
        "replica_internal_names", replicas_json(job->replica_internal_names), "job_type_version",
        job->job_type_version, "infrastructure_stats", object_json(job->infrastructure_stats));
}

static int list_jobs(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct job *jobs;
    size_t count;
    int code = api_acquire(req, &conn, err);
    if (code == 0) {
        code = job_store_list(conn, trk_req_mem(req), NULL, &jobs, &count, err);
    }
    if (code < 0) {
        return code;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        if (subject_can(api_subject(req), SCOPE_READ_JOB, jobs[i].name, jobs[i].version, NULL)) {
            (void)json_array_append_new(list, api_job_json(req, &jobs[i]));
        }
    }
    return trk_reply_json(req, 200, list);
}

static int load(struct trk_request *req, struct job **ret, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int code = api_acquire(req, &conn, err);
    return code < 0 ? code
                    : job_store_get(conn, trk_req_mem(req), trk_req_param(req, "name"),
                                    api_job_version(req), ret, err);
}

static int get_job(struct trk_request *req, struct trk_err *err)
{
    struct job *job;
    int code = load(req, &job, err);
    return code < 0 ? code : trk_reply_json(req, 200, api_job_json(req, job));
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
    int code = refuse_alias(req, "deleting", err);
    if (code == 0) {
        code = api_refuse_in_maintenance(req, err);
    }
    struct job *job;
    if (code == 0) {
        code = load(req, &job,
                    err); /* 404 for what never was; deploy_delete itself is idempotent */
    }
    if (code == 0) {
        code = deploy_delete(api_lifecycle(req), api_subject(req), job->name, job->version, err);
    }
    return code < 0 ? code : trk_reply_null(req);
}

static int get_deployment(struct trk_request *req, const char *id, struct deployment **ret,
                          struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int code = api_acquire(req, &conn, err);
    return code < 0 ? code : deployment_store_get(conn, trk_req_mem(req), id, ret, err);
}

/* The original answers when it is done. Whoever goes away meanwhile finds the deployment in the
 * list. */
static int wait_for_end(struct trk_request *req, const char *id, struct trk_err *err)
{
    struct lifecycle *lc = api_lifecycle(req);
    struct deployment *d;
    for (;;) {
        int code = get_deployment(req, id, &d, err);
        if (code < 0) {
            return code;
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
        code = deploy_wait_change(lc, id, d->status, d->phase, WAIT_SLICE_MS, err);
        if (code < 0) {
            return code;
        }
    }
    if (strcmp(d->status, DEPLOYMENT_FAILED) == 0) {
        return trk_err_set(err, TRK_INVALID, "%s", d->error != NULL ? d->error : "it failed");
    }
    return trk_reply_null(req);
}

static int resubmit(struct trk_request *req, const char *kind, struct trk_err *err)
{
    int code = refuse_alias(req, kind, err);
    if (code == 0) {
        code = api_refuse_in_maintenance(req, err);
    }
    trk_autofree char *id = NULL;
    if (code == 0) {
        code = deploy_resubmit(api_lifecycle(req), api_subject(req), kind,
                               trk_req_param(req, "name"), api_job_version(req), &id, err);
    }
    return code < 0 ? code : wait_for_end(req, id, err);
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
