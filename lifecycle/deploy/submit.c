/*
 * submit.c - takes deployments in: everything that can be refused is refused before there is an id.
 */
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"
#include "lifecycle/deploy/context.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/deploy/image_store.h"
#include "lifecycle/deploy/rules.h"
#include "lifecycle/deploy/secrets.h"
#include "lifecycle/deploy/spec.h"
#include "lifecycle/deploy/work.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/infra/target.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/setting.h"
#include "lifecycle/store/subject.h"

#define WARNINGS_MAX 4096

/* A submission on its way through its transaction. */
struct submission {
    struct lifecycle *lc;
    void *mem;
    const struct subject *who;
    const struct deploy_request *request; /* NULL: from what is stored */
    const char *kind, *name, *version;
    json_t *secrets;
    struct trk_buf warnings;
    struct deployment d;
    char id[TRK_UUID_SIZE];
};

static int choose_target(struct lifecycle *lc, const json_t *manifest,
                         const struct infra_target **ret, struct trk_err *err)
{
    const struct infra_registry *targets = &lc->targets;
    char names[512] = "";
    size_t len = 0;
    for (size_t i = 0; i < targets->count && len < sizeof(names); i++) {
        len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", i > 0 ? ", " : "",
                                targets->list[i]->name);
    }
    const char *wanted = json_string_value(json_object_get(manifest, "infrastructure_target"));
    if (wanted == NULL && targets->count > 1 && lc->config->infrastructure_target[0] != '\0') {
        wanted = lc->config->infrastructure_target;
    }
    if (targets->count == 0) {
        return trk_err_set(err, TRK_UNAVAILABLE, "No infrastructure targets available");
    }
    if (wanted == NULL && targets->count > 1) {
        return trk_err_set(err, TRK_INVALID,
                           "Multiple infrastructure targets available: %s. Please pick one.",
                           names);
    }
    *ret = wanted != NULL ? infra_named(targets, wanted) : targets->list[0];
    if (*ret == NULL) {
        return trk_err_set(err, TRK_INVALID,
                           "Selected infrastructure target %s is unavailable. Available are: %s",
                           wanted, names);
    }
    return 0;
}

static int check_subject(const struct subject *who, struct trk_err *err)
{
    if (who->type == TRK_SUBJECT_INTERNAL || who->id == NULL) {
        return trk_err_set(err, TRK_FORBIDDEN,
                           "wrong subject type to do this operation: a deployment belongs to a "
                           "user or an ESC, not to a service");
    }
    return 0;
}

/* The subject with all of its permissions: what came with the request may be filtered. */
static int check_permission(struct submission *s, struct trk_pg *conn, struct trk_err *err)
{
    struct subject *who;
    int rc = subject_store_get(conn, s->mem, s->who->id, &who, err);
    return rc < 0 ? rc : rules_may_deploy(conn, s->mem, who, s->name, s->version, err);
}

static int check_overwrite(struct submission *s, struct trk_pg *conn, struct trk_err *err)
{
    struct job *job;
    bool is_in_trash = false;
    if (s->request->force || s->lc->config->allow_job_overwrite) {
        return 0;
    }
    int rc = job_store_get(conn, s->mem, s->name, s->version, &job, err);
    if (rc == 0) {
        return trk_err_set(
            err, TRK_CONFLICT,
            "job %s %s is already deployed. Try deploying next version or use --force "
            "flag",
            s->name, s->version);
    }
    rc = rc == TRK_NOT_FOUND ? job_store_is_in_trash(conn, s->name, s->version, &is_in_trash, err)
                             : rc;
    if (rc == 0 && is_in_trash) {
        return trk_err_set(err, TRK_CONFLICT,
                           "job %s %s has already been deployed and deleted. Can't claim it again. "
                           "Try deploying next version or use --force flag",
                           s->name, s->version);
    }
    return rc;
}

static int write_rows(struct submission *s, struct trk_pg *conn, struct trk_err *err)
{
    int rc = deployment_store_insert(conn, &s->d, err);
    return rc < 0 ? rc : secrets_save_deployment(conn, s->lc->secret_key, s->d.id, s->secrets, err);
}

/* May it be deployed at all? */
static int check_admission(struct submission *s, struct trk_pg *conn, struct trk_err *err)
{
    int rc = setting_store_refuse_in_maintenance(conn, err);
    rc = rc == 0 ? check_permission(s, conn, err) : rc;
    bool is_busy = false;
    rc = rc == 0 ? queue_is_in_progress(conn, s->name, s->version, &is_busy, err) : rc;
    if (rc == 0 && !is_busy) { /* else the insertion says which one is on the way */
        rc = check_overwrite(s, conn, err);
    }
    return rc;
}

static int do_submit(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct submission *s = ctx;
    int rc = check_admission(s, conn, err);
    return rc < 0 ? rc : write_rows(s, conn, err);
}

/* What costs time and space is done for those only who may deploy, and outside of a transaction.
 * The source is in the store before there is a row that names it. */
static int take_context(struct submission *s, struct trk_err *err)
{
    const struct deploy_request *request = s->request;
    trk_pg_auto struct trk_pg *conn = NULL;
    if (request->context == NULL) {
        return 0;
    }
    int rc = trk_pg_acquire(s->lc->pool, &conn, err);
    rc = rc == 0 ? check_admission(s, conn, err) : rc;
    trk_pg_release(TRK_STEAL(conn));
    rc = rc == 0
             ? context_take_out_secrets(request->context, s->lc->config->state_dir,
                                        request->manifest, request->secret_vars, &s->warnings, err)
             : rc;
    if (rc == 0) {
        s->d.source_digest = request->context->digest;
        rc = image_store_put_source(s->lc, request->context->fd, request->context->size_bytes,
                                    request->context->digest, err);
    }
    s->d.warnings = s->warnings.len > 0 ? s->warnings.data : NULL;
    return rc;
}

static int finish_submission(struct submission *s, int rc, char **ret_id)
{
    if (rc == 0) {
        *ret_id = trk_xstrdup(s->id);
        deploy_count_requested(s->lc);
        deploy_wake(s->lc);
        trk_log_info("deployment accepted", "deployment", s->id, "job", s->name, "version",
                     s->version, "kind", s->kind, "by", s->who->name, NULL);
    }
    json_decref(s->secrets);
    trk_buf_fini(&s->warnings);
    talloc_free(s->mem);
    return rc;
}

/* The text that is kept must say what was checked; one that was merged or overridden on the client
 * is written anew from the object. Owned. */
static char *manifest_text(const struct deploy_request *request)
{
    json_auto_t *parsed = NULL;
    const char *text = request->manifest_yaml;
    if (text != NULL && trk_manifest_parse(text, strlen(text), "job.yaml", &parsed, NULL) == 0 &&
        json_equal(parsed, request->manifest)) {
        return trk_xstrdup(text);
    }
    struct trk_buf buf;
    trk_buf_init(&buf, TRK_YAML_BYTES_MAX);
    int rc = trk_yaml_dump(request->manifest, &buf);
    char *made = rc == 0 ? trk_xstrdup(buf.data) : NULL;
    trk_buf_fini(&buf);
    return made;
}

int deploy_submit(struct lifecycle *lc, const struct subject *who,
                  const struct deploy_request *request, char **ret_id, struct trk_err *err)
{
    struct submission s = {.lc = lc, .who = who, .request = request, .kind = "deploy"};
    const struct infra_target *target = NULL;
    struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    struct trk_faults *warnings = trk_xcalloc(1, sizeof(*warnings));
    int rc = check_subject(who, err);
    if (rc == 0 && trk_manifest_check(request->manifest, faults, warnings) < 0) {
        rc = trk_faults_to_err(faults, TRK_SCHEMA, "manifest", err);
    }
    free(faults);
    free(warnings);
    if (rc < 0 || (rc = choose_target(lc, request->manifest, &target, err)) < 0) {
        return rc;
    }
    trk_buf_init(&s.warnings, WARNINGS_MAX);
    s.secrets = secrets_make(request->git_credentials, request->secret_vars);
    trk_autofree char *text = manifest_text(request);
    s.mem = talloc_new(NULL);
    spec_job(request->manifest, &s.name, &s.version);
    rc = text == NULL ? trk_err_set(err, TRK_TOO_LARGE, "the manifest exceeds %s",
                                    trk_size_text(TRK_YAML_BYTES_MAX).text)
                      : spec_check(lc->config, request->manifest, s.secrets, err);
    trk_uuid4(s.id);
    s.d = (struct deployment){
        .id = s.id,
        .manifest = text,
        .job_name = s.name,
        .job_version = s.version,
        .deployed_by = who->name,
        .infrastructure_target = target->name,
        .target_instance = target->instance,
        .kind = s.kind,
        .step = STEP_BUILD,
        .force = request->force,
        .build_flags = request->build_flags,
        .subject_id = who->id,
    };
    rc = rc == 0 ? take_context(&s, err) : rc;
    rc = rc == 0 ? trk_pg_transaction(lc->pool, do_submit, &s, err) : rc;
    return finish_submission(&s, rc, ret_id);
}

/* -- again, from what is stored -- */

static int do_resubmit(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct submission *s = ctx;
    struct job *job;
    struct subject *who;
    int rc = setting_store_refuse_in_maintenance(conn, err);
    rc = rc == 0 ? subject_store_get(conn, s->mem, s->who->id, &who, err) : rc;
    rc = rc == 0 ? rules_require(who, SCOPE_DEPLOY_JOB, s->name, s->version, err) : rc;
    rc = rc == 0 ? job_store_get(conn, s->mem, s->name, s->version, &job, err) : rc;
    if (rc < 0) {
        return rc;
    }
    const struct infra_target *target = infra_named(&s->lc->targets, job->infrastructure_target);
    if (target == NULL) {
        return trk_err_set(err, TRK_INVALID, "there is no infrastructure target %s here",
                           job->infrastructure_target);
    }
    bool is_stored = strcmp(s->kind, "reprovision") == 0;
    if (job->manifest == NULL || (is_stored && job->image_digest == NULL)) {
        return trk_err_set(err, TRK_INVALID, "job %s %s keeps no %s to start from; deploy it again",
                           s->name, s->version, is_stored ? "image" : "manifest");
    }
    json_decref(s->secrets);
    s->secrets = NULL;
    rc = secrets_load_job(conn, s->lc->secret_key, s->name, s->version, &s->secrets, err);
    s->d = (struct deployment){
        .id = s->id,
        .manifest = job->manifest,
        .job_name = s->name,
        .job_version = s->version,
        .deployed_by = s->who->name,
        .infrastructure_target = target->name,
        .target_instance = target->instance,
        .kind = s->kind,
        .step = is_stored ? STEP_APPLY : STEP_BUILD,
        .force = true,
        .subject_id = s->who->id,
        .source_digest = job->source_digest,
        .image_name = is_stored ? job->image_name : NULL,
        .image_digest = is_stored ? job->image_digest : NULL,
    };
    return rc < 0 ? rc : write_rows(s, conn, err);
}

int deploy_resubmit(struct lifecycle *lc, const struct subject *who, const char *kind,
                    const char *name, const char *version, char **ret_id, struct trk_err *err)
{
    trk_assert(strcmp(kind, "redeploy") == 0 || strcmp(kind, "reprovision") == 0);
    int rc = check_subject(who, err);
    if (rc < 0) {
        return rc;
    }
    struct submission s = {.lc = lc, .who = who, .kind = kind, .name = name, .version = version};
    trk_buf_init(&s.warnings, WARNINGS_MAX);
    s.mem = talloc_new(NULL);
    trk_uuid4(s.id);
    rc = trk_pg_transaction(lc->pool, do_resubmit, &s, err);
    return finish_submission(&s, rc, ret_id);
}
