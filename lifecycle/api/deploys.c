#include <string.h>
#include <talloc.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"
#include "lifecycle/api/api.h"
#include "lifecycle/api/deploy_body.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/deployment.h"

#define BODY_MAX     (96u << 20)
#define WAIT_MAX_MS  25000
#define LIST_MAX     1000
#define PAGE         100
#define PHASE_MAX    256
#define WARNINGS_MAX 65536

/* -- what a deployment looks like -- */

/* The job comes beside it (add_job), in the words of both eras. */
static void write_null(struct trk_buf *out, const void *object, const void *ctx)
{
    (void)object;
    (void)ctx;
    (void)trk_buf_adds(out, "null");
}

static const struct dto_field deployment_fields[] = {
    {"id", DTO_TEXT, DTO_AT(struct deployment, id)},
    {"status", DTO_TEXT, DTO_AT(struct deployment, status),
     .schema = "\"enum\":[\"in_progress\",\"done\",\"failed\"]"},
    {"create_time", DTO_TIME, DTO_AT(struct deployment, create_time)},
    {"update_time", DTO_TIME, DTO_AT(struct deployment, update_time)},
    {"error", DTO_TEXT, DTO_AT(struct deployment, error), .is_nullable = true},
    {"job", DTO_OBJECT, .write = write_null, .is_nullable = true,
     .schema = "\"description\":\"the Job once it is done\""},
    {"deployed_by", DTO_TEXT, DTO_AT(struct deployment, deployed_by), .is_nullable = true},
    {"phase", DTO_TEXT, DTO_AT(struct deployment, phase), .is_nullable = true},
    {"image_name", DTO_TEXT, DTO_AT(struct deployment, image_name), .is_nullable = true},
    {"infrastructure_target", DTO_TEXT, DTO_AT(struct deployment, infrastructure_target),
     .is_nullable = true},
    {"manifest_yaml", DTO_TEXT, DTO_AT(struct deployment, manifest), .is_nullable = true},
    {"job_name", DTO_TEXT, DTO_AT(struct deployment, job_name), .is_nullable = true},
    {"job_version", DTO_TEXT, DTO_AT(struct deployment, job_version), .is_nullable = true},
    {"warnings", DTO_TEXT, DTO_AT(struct deployment, warnings), .is_nullable = true},
};
const struct dto api_deployment_dto = DTO("Deployment", struct deployment, deployment_fields);

DTO_ONE_TEXT(api_deployment_id_dto, "DeploymentId", "id");

/* A manifest holds the job's environment: its deployment shows to those who may read the job, to
 * who made it, and to our own services. */
static bool is_visible(const struct subject *subject, const struct deployment *d)
{
    return subject_can(subject, SCOPE_READ_JOB, d->job_name, d->job_version, NULL) ||
           (subject->id != NULL && d->subject_id != NULL &&
            strcmp(subject->id, d->subject_id) == 0);
}

static int load(struct trk_request *req, struct deployment **ret, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = deployment_store_get(conn, trk_req_mem(req), trk_req_param(req, "id"), ret, err);
    }
    if (rc == 0 && !is_visible(api_subject(req), *ret)) {
        rc = trk_err_set(err, TRK_FORBIDDEN,
                         "no permission to see deployment %s: it takes the scope read_job on %s "
                         "%s",
                         (*ret)->id, (*ret)->job_name, (*ret)->job_version);
    }
    return rc;
}

static int list_deployments(struct trk_request *req, struct trk_err *err)
{
    int64_t limit = trk_req_query_int(req, "limit", 100);
    if (limit < 1 || limit > LIST_MAX) {
        return trk_err_set(err, TRK_INVALID, "limit must be from 1 to %d", LIST_MAX);
    }
    trk_pg_auto struct trk_pg *conn = NULL;
    json_auto_t *array = json_array();
    const struct deployment *last = NULL;
    struct deployment *page;
    size_t count = PAGE;
    int rc = api_acquire(req, &conn, err);
    while (rc == 0 && count == PAGE && json_array_size(array) < (size_t)limit) {
        rc = deployment_store_list(conn, trk_req_mem(req), last, PAGE, &page, &count, err);
        for (size_t i = 0; rc == 0 && i < count && json_array_size(array) < (size_t)limit; i++) {
            if (is_visible(api_subject(req), &page[i])) {
                (void)json_array_append_new(array, dto_json(&api_deployment_dto, &page[i], NULL));
            }
        }
        last = rc == 0 && count > 0 ? &page[count - 1] : NULL;
    }
    return rc < 0 ? rc : trk_reply_json(req, 200, TRK_STEAL(array));
}

static bool is_same(const char *a, const char *b)
{
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

static int add_job(struct trk_request *req, const struct deployment *d, json_t *reply,
                   struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct job *job;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = job_store_get(conn, trk_req_mem(req), d->job_name, d->job_version, &job, err);
    }
    if (rc == 0) {
        json_t *value = dto_json(&api_job_dto, job, api_lifecycle(req));
        (void)json_object_set(reply, "job", value);
        /* both eras ask on this path */
        (void)json_object_set_new(reply, "fatman", api_fatman(value));
    }
    return rc == TRK_NOT_FOUND ? 0 : rc; /* deleted since */
}

static int get_deployment(struct trk_request *req, struct trk_err *err)
{
    struct deployment *d;
    int rc = load(req, &d, err);
    if (rc < 0) {
        return rc;
    }
    int64_t wait_ms = trk_req_query_int(req, "wait_ms", 0);
    const char *status = trk_req_query(req, "status");
    const char *phase = trk_req_query(req, "phase");
    if (wait_ms > 0 && strcmp(d->status, DEPLOYMENT_IN_PROGRESS) == 0 &&
        (status == NULL || is_same(status, d->status)) &&
        (phase == NULL || is_same(phase, d->phase))) {
        rc = deploy_wait_change(api_lifecycle(req), d->id, d->status, d->phase,
                                wait_ms < WAIT_MAX_MS ? wait_ms : WAIT_MAX_MS, err);
        if (rc == 0) {
            rc = load(req, &d, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
    json_auto_t *reply = dto_json(&api_deployment_dto, d, NULL);
    if (strcmp(d->status, DEPLOYMENT_DONE) == 0) {
        rc = add_job(req, d, reply, err);
    }
    return rc < 0 ? rc : trk_reply_json(req, 200, TRK_STEAL(reply));
}

/* -- what image_builder reports -- */

static int put_phase(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = deployment_store_set_phase(conn, trk_req_param(req, "id"),
                                        trk_json_string_or(trk_req_json(req), "phase", ""), err);
    }
    return rc < 0 ? rc : trk_reply_null(req);
}

static int put_warnings(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = deployment_store_add_warnings(conn, trk_req_param(req, "id"),
                                           trk_json_string_or(trk_req_json(req), "warnings", ""),
                                           err);
    }
    return rc < 0 ? rc : trk_reply_null(req);
}

/* -- submitting -- */

/* Clients send every field they know; null means that it was not given. Returns owned. */
static json_t *without_nulls(const json_t *value, int depth)
{
    if (!json_is_object(value) || depth > 8) {
        return json_deep_copy(value);
    }
    json_t *out = json_object();
    const char *key;
    json_t *member;
    json_object_foreach ((json_t *)(uintptr_t)value, key, member) {
        if (!json_is_null(member)) {
            (void)json_object_set_new(out, key, without_nulls(member, depth + 1));
        }
    }
    return out;
}

static int reply_faults(struct trk_request *req, const struct trk_faults *faults)
{
    struct trk_err text = {0};
    (void)trk_faults_to_err(faults, TRK_SCHEMA, "the manifest is not valid", &text);
    json_t *list = json_array();
    for (size_t i = 0; i < faults->count && i < TRK_FAULTS_MAX; i++) {
        (void)json_array_append_new(list, json_pack("{s:s,s:s}", "path", faults->list[i].path,
                                                    "text", faults->list[i].text));
    }
    return trk_reply_json(
        req, 422,
        json_pack("{s:s,s:s,s:o}", "error", text.text, "type", "ValidationError", "faults", list));
}

/* The text as the client sent it, when it says the same as the object; else a text made of that. */
static char *manifest_text(const json_t *body, const json_t *manifest)
{
    const char *sent = trk_json_string_or(body, "manifest_yaml", NULL);
    json_auto_t *parsed = NULL;
    if (sent != NULL && trk_yaml_parse(sent, strlen(sent), "manifest_yaml", &parsed, NULL) == 0) {
        json_auto_t *plain = without_nulls(parsed, 0);
        if (json_equal(plain, manifest) != 0) {
            return trk_xstrdup(sent);
        }
    }
    struct trk_buf buf;
    trk_buf_init(&buf, 1 << 20);
    (void)trk_yaml_dump(manifest, &buf);
    return trk_buf_steal(&buf, NULL);
}

static int check_build_flags(const json_t *flags, const char **ret, struct trk_err *err)
{
    *ret = "";
    size_t i;
    json_t *flag;
    json_array_foreach (flags, i, flag) {
        if (!json_is_string(flag) || strcmp(json_string_value(flag), "--no-cache") != 0) {
            return trk_err_set(err, TRK_INVALID, "build_flags[%zu]: only --no-cache is allowed", i);
        }
        *ret = "--no-cache";
    }
    return 0;
}

/* The deployment is accepted by then: what fails here is no failure of the request. */
static void note_warnings(struct trk_request *req, const char *id,
                          const struct trk_faults *warnings)
{
    if (warnings->count == 0) {
        return;
    }
    struct trk_err err = {0};
    struct trk_buf buf;
    trk_buf_init(&buf, WARNINGS_MAX);
    for (size_t i = 0; i < warnings->count && i < TRK_FAULTS_MAX; i++) {
        const struct trk_fault *w = &warnings->list[i];
        (void)trk_buf_addf(&buf, "%s%s%s%s", i > 0 ? "\n" : "", w->path,
                           w->path[0] != '\0' ? ": " : "", w->text);
    }
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, &err);
    rc = rc == 0 ? deployment_store_add_warnings(conn, id, buf.data, &err) : rc;
    if (rc < 0 && rc != TRK_CONFLICT) { /* conflict: it has ended already */
        trk_log_warn("the warnings of a manifest cannot be noted", "deployment", id, "error",
                     err.text, NULL);
    }
    trk_buf_fini(&buf);
}

static const json_t *object_or_null(const json_t *body, const char *key)
{
    const json_t *value = json_object_get(body, key);
    return json_is_object(value) ? value : NULL;
}

static int post_deploy(struct trk_request *req, struct trk_err *err)
{
    int rc = api_refuse_in_maintenance(req, err);
    if (rc < 0) {
        return rc;
    }
    const json_t *body = trk_req_json(req);
    json_auto_t *manifest = without_nulls(json_object_get(body, "manifest"), 0);
    struct trk_faults *faults = talloc_zero(trk_req_mem(req), struct trk_faults);
    struct trk_faults *warnings = talloc_zero(trk_req_mem(req), struct trk_faults);
    if (trk_manifest_check(manifest, faults, warnings) < 0) {
        return reply_faults(req, faults);
    }
    trk_autofree char *yaml = manifest_text(body, manifest);
    struct deploy_request request = {
        .manifest = manifest,
        .manifest_yaml = yaml,
        .git_credentials = object_or_null(body, "git_credentials"),
        .secret_vars = object_or_null(body, "secret_vars"),
        .force = trk_json_bool_or(body, "force", false),
    };
    rc = check_build_flags(json_object_get(body, "build_flags"), &request.build_flags, err);
    if (rc == 0) {
        rc = deploy_body_context(req, &request.context, err);
    }
    if (rc < 0) {
        return rc;
    }
    trk_autofree char *id = NULL;
    rc = deploy_submit(api_lifecycle(req), api_subject(req), &request, &id, err);
    if (rc == 0) {
        note_warnings(req, id, warnings);
    }
    return rc < 0 ? rc : api_reply_dto(req, &api_deployment_id_dto, &id);
}

#define NULLABLE_OBJECT "{\"type\":[\"object\",\"null\"]}"
#define NULLABLE_STRINGS                                                                           \
    "{\"type\":[\"object\",\"null\"],\"additionalProperties\":{\"type\":\"string\"}}"
static const char deploy_schema[] =
    "{\"type\":\"object\",\"required\":[\"manifest\"],\"properties\":{"
    "\"manifest\":{\"type\":\"object\",\"description\":\"job.yaml as an object\"},"
    "\"manifest_yaml\":{\"type\":[\"string\",\"null\"],\"maxLength\":262144,\"description\":\"its "
    "text, kept when it says the same\"},"
    "\"git_credentials\":{\"type\":[\"object\",\"null\"],\"required\":[\"username\",\"password\"],"
    "\"properties\":{\"username\":{\"type\":\"string\"},\"password\":{\"type\":\"string\"}}},"
    "\"secret_vars\":{\"type\":[\"object\",\"null\"],\"properties\":{"
    "\"build_env\":" NULLABLE_STRINGS ",\"runtime_env\":" NULLABLE_STRINGS "}},"
    "\"build_context\":{\"type\":[\"string\",\"null\"],\"description\":\"base64 of a tar.gz; "
    "without it the git remote is cloned\"},"
    "\"force\":{\"type\":[\"boolean\",\"null\"],\"default\":false},"
    "\"build_flags\":{\"type\":[\"array\",\"null\"],\"items\":{\"type\":\"string\"}}}}";

static const struct trk_route routes[] = {
    {.method = "POST",
     .path = "/api/v1/deploy",
     .access = "subject",
     .request_schema = deploy_schema,
     .response_schema = API_REF("DeploymentId"),
     .flags = TRK_ROUTE_STREAM_BODY,
     .body_max_bytes = BODY_MAX,
     .on_body = deploy_body_add,
     .handler = post_deploy,
     .help = "Submits a deployment; ask for it by the id that comes back."},
    {.method = "GET",
     .path = "/api/v1/deploy",
     .access = "authenticated",
     .query = "limit:int=100:at most so many",
     .response_schema = API_LIST("Deployment"),
     .handler = list_deployments,
     .help = "Deployments that the caller may see, the latest change first."},
    {.method = "GET",
     .path = "/api/v1/deploy/{id}",
     .access = "authenticated",
     .query = "wait_ms:int=0:wait for a change so long (25000 at most);status:string=:status known "
              "to the caller;phase:string=:phase known to the caller",
     .response_schema = API_REF("Deployment"),
     .handler = get_deployment,
     .help = "One deployment; with wait_ms the answer comes when status or phase differ from those "
             "given."},
    {.method = "PUT",
     .path = "/api/v1/deploy/{id}/phase",
     .access = "internal",
     .request_schema = "{\"type\":\"object\",\"required\":[\"phase\"],\"properties\":{\"phase\":{"
                       "\"type\":\"string\",\"maxLength\":256}}}",
     .handler = put_phase,
     .help = "What a deployment is at now (reported by image_builder)."},
    {.method = "PUT",
     .path = "/api/v1/deploy/{id}/warnings",
     .access = "internal",
     .request_schema = "{\"type\":\"object\",\"required\":[\"warnings\"],\"properties\":{"
                       "\"warnings\":{\"type\":\"string\",\"maxLength\":65536}}}",
     .handler = put_warnings,
     .help = "Adds a warning to a deployment (reported by image_builder)."},
};
API_TABLE(api_deploy_routes, "deployments", routes);
