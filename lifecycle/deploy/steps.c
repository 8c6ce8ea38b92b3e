#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/deploy/rules.h"
#include "lifecycle/deploy/secrets.h"
#include "lifecycle/deploy/spec.h"
#include "lifecycle/deploy/work.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/endpoint.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/subject.h"

const struct step deploy_steps[] = {
    {STEP_BUILD, "building an image", step_build, "image_builder"},
    {STEP_APPLY, "creating job resource", step_apply, "the image store"},
    {STEP_ALIVE, "verifying deployed job", step_alive, NULL},
    {STEP_READY, "verifying deployed job", step_ready, NULL},
    {STEP_SWITCH, "saving job in database", step_switch, NULL},
};
const size_t deploy_step_count = TRK_COUNT(deploy_steps);

/* -- the row -- */

int work_transaction(struct work *w, int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err),
                     void *ctx, struct trk_err *err)
{
    int rc = trk_pg_transaction(w->lc->pool, fn, ctx, err);
    /* A transaction that was tried again may have failed inside before it succeeded. */
    w->is_abandoned = rc == TRK_UNAVAILABLE || (rc == TRK_CONFLICT && w->is_abandoned);
    return rc;
}

static int held(struct work *w, int rc)
{
    if (rc == TRK_CONFLICT || rc == TRK_UNAVAILABLE) {
        w->is_abandoned = true;
    }
    return rc;
}

static const char *keep(struct work *w, const char *fresh, const char *old)
{
    return fresh != NULL ? talloc_strdup(w->mem, fresh) : old;
}

int work_advance(struct work *w, struct trk_pg *conn, const struct queue_progress *p,
                 bool is_durable, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *own = NULL;
    int rc = 0;
    if (conn == NULL) {
        rc = trk_pg_acquire(w->lc->pool, &own, err);
        conn = own;
    }
    if (rc == 0) {
        rc = queue_advance(conn, w->lc->instance_id, w->d->id, p, is_durable, err);
    }
    if (held(w, rc) == 0) {
        w->d->step = keep(w, p->step, w->d->step);
        w->d->phase = keep(w, p->phase, w->d->phase);
        w->d->image_name = keep(w, p->image_name, w->d->image_name);
        w->d->image_digest = keep(w, p->image_digest, w->d->image_digest);
        w->d->generation_id = keep(w, p->generation_id, w->d->generation_id);
        w->d->created_job = w->d->created_job || p->created_job;
        if (own != NULL) {
            deploy_notify(w->lc);
        }
    }
    return rc;
}

int work_finish(struct work *w, struct trk_pg *conn, const char *error, const char *warning,
                struct trk_err *err)
{
    return held(w, queue_finish(conn, w->lc->instance_id, w->d->id, error, warning, err));
}

/* -- apply -- */

/* What the step "apply" finds out in its transaction. */
struct apply {
    struct work *w;
    bool is_unchanged_fine; /* may end as unchanged */
    bool is_unchanged;
    char generation_id[TRK_UUID_SIZE];
    const char *serving_id; /* the job's present generation */
    struct infra_generation_spec spec;
};

static int check_still_allowed(struct apply *a, struct trk_pg *conn, struct trk_err *err)
{
    struct work *w = a->w;
    if (w->d->generation_id != NULL) {
        return 0; /* checked before the generation was made */
    }
    struct subject *who;
    int rc = w->d->subject_id != NULL ? subject_store_get(conn, w->mem, w->d->subject_id, &who, err)
                                      : trk_err_set(err, TRK_FORBIDDEN, "nobody asked for it");
    if (rc == TRK_NOT_FOUND) {
        return trk_err_set(err, TRK_FORBIDDEN,
                           "who asked for this deployment does not exist any "
                           "more");
    }
    rc = rc == 0 ? rules_refuse_in_maintenance(conn, err) : rc;
    return rc < 0 ? rc
                  : rules_may_deploy(conn, w->mem, who, w->d->job_name, w->d->job_version, err);
}

static json_t *generation_spec_json(const struct apply *a, const char *digest)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:s}", "image_name", a->spec.image_name,
                     "image_digest", a->spec.image_digest, "deployment_timestamp",
                     (json_int_t)a->spec.deployment_timestamp, "memory_max_bytes",
                     (json_int_t)a->spec.memory_max_bytes, "cpu_max_milli",
                     (json_int_t)a->spec.cpu_max_milli, "replicas", (json_int_t)a->spec.replicas,
                     "spec_digest", digest);
}

/* A job seen for the first time shows as starting; it goes again when this deployment fails. */
static int insert_new_job(struct apply *a, struct trk_pg *conn, const char *family_id,
                          struct trk_err *err)
{
    const struct deployment *d = a->w->d;
    struct job job = {
        .family_id = family_id,
        .name = d->job_name,
        .version = d->job_version,
        .status = JOB_STARTING,
        .update_time = d->create_time,
        .manifest = d->manifest,
        .deployed_by = d->deployed_by,
        .infrastructure_target = d->infrastructure_target,
        .image_name = d->image_name,
        .image_digest = d->image_digest,
        .source_digest = d->source_digest,
        .job_type_version = spec_job_type(a->w->mem, a->w->manifest),
    };
    return job_store_save(conn, &job, err);
}

static int write_generation(struct apply *a, struct trk_pg *conn, const char *family_id,
                            bool is_new_job, const char *digest, struct trk_err *err)
{
    const struct deployment *d = a->w->d;
    json_auto_t *spec = generation_spec_json(a, digest);
    trk_autofree char *text = trk_json_text(spec);
    struct generation generation = {
        .id = a->generation_id,
        .job_name = d->job_name,
        .job_version = d->job_version,
        .deployment_id = d->id,
        .infrastructure_target = d->infrastructure_target,
        .target_instance = d->target_instance,
        .spec = text,
        .replica_count = a->spec.replicas,
    };
    struct queue_progress progress = {.generation_id = a->generation_id, .created_job = is_new_job};
    int rc = work_advance(a->w, conn, &progress, true, err);
    rc = rc == 0 ? generation_store_insert(conn, &generation, err) : rc;
    if (rc == 0 && is_new_job) {
        rc = insert_new_job(a, conn, family_id, err);
    }
    return rc;
}

static int begin_apply(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct apply *a = ctx;
    struct work *w = a->w;
    struct deployment *d = w->d;
    const char *family_id, *token;
    struct job *job = NULL;
    json_auto_t *secrets = NULL;
    char digest[TRK_DIGEST_SIZE];
    int rc = check_still_allowed(a, conn, err);
    if (rc == 0) {
        rc = job_store_get(conn, w->mem, d->job_name, d->job_version, &job, err);
        rc = rc == TRK_NOT_FOUND ? 0 : rc;
    }
    if (rc < 0 ||
        (rc = issue_family(conn, w->mem, d->job_name, w->lc->auth_key, &family_id, err)) < 0 ||
        (rc = family_store_token(conn, w->mem, d->job_name, &token, err)) < 0 ||
        (rc = secrets_load_deployment(conn, w->lc->secret_key, d->id, &secrets, err)) < 0) {
        return rc;
    }
    if (d->generation_id != NULL) {
        (void)snprintf(a->generation_id, sizeof(a->generation_id), "%s", d->generation_id);
    }
    struct spec_input input = {
        .manifest = w->manifest,
        .manifest_yaml = d->manifest,
        .secrets = secrets,
        .family_token = token,
        .image_name = d->image_name,
        .image_digest = d->image_digest,
        .generation_id = a->generation_id,
        .deployment_timestamp = d->create_time,
    };
    rc = spec_make(w->lc->config, w->mem, &input, &a->spec, digest, err);
    a->is_unchanged = rc == 0 && a->is_unchanged_fine && job != NULL &&
                      strcmp(job->status, JOB_RUNNING) == 0 && job->spec_digest != NULL &&
                      strcmp(job->spec_digest, digest) == 0 && job->generation_id != NULL &&
                      strcmp(job->infrastructure_target, d->infrastructure_target) == 0;
    if (rc < 0 || a->is_unchanged) {
        a->serving_id = a->is_unchanged ? job->generation_id : NULL;
        return rc;
    }
    return write_generation(a, conn, family_id, job == NULL, digest, err);
}

static int move_secrets(struct work *w, struct trk_pg *conn, struct trk_err *err)
{
    json_auto_t *secrets = NULL;
    const struct deployment *d = w->d;
    int rc = secrets_load_deployment(conn, w->lc->secret_key, d->id, &secrets, err);
    return rc < 0 ? rc
                  : secrets_save_job(conn, w->lc->secret_key, d->job_name, d->job_version, secrets,
                                     err);
}

static int finish_unchanged(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct work *w = ctx;
    int rc = move_secrets(w, conn, err); /* other git credentials make no other workload */
    return rc < 0
               ? rc
               : work_finish(w, conn, NULL,
                             "unchanged: the running job already is what was deployed; it was not "
                             "restarted",
                             err);
}

/* Nothing differs from what runs, and that runs well. */
static bool is_serving_well(const struct apply *a)
{
    struct infra_observation seen;
    const struct infra_target *t = a->w->target;
    return a->is_unchanged && infra_observe(t, a->serving_id, &seen, NULL) == 0 &&
           seen.state == INFRA_RUNNING;
}

int step_apply(struct work *w, struct trk_err *err)
{
    struct apply a = {.w = w,
                      .is_unchanged_fine = strcmp(w->d->kind, "deploy") == 0 &&
                                           w->d->generation_id == NULL};
    if (w->target == NULL) {
        return trk_err_set(err, TRK_INVALID, "there is no infrastructure target %s here",
                           w->d->infrastructure_target);
    }
    trk_uuid7(a.generation_id);
    int rc = work_transaction(w, begin_apply, &a, err);
    if (rc == 0 && is_serving_well(&a)) {
        rc = work_transaction(w, finish_unchanged, w, err);
        w->is_finished = rc == 0;
        return rc;
    }
    if (rc == 0 && a.is_unchanged) { /* the same, but it does not run: bring it up anew */
        a.is_unchanged_fine = false;
        rc = work_transaction(w, begin_apply, &a, err);
    }
    if (rc < 0) {
        return rc;
    }
    struct infra_observation seen;
    a.spec.cancel = &w->cancel;
    rc = w->target->apply(w->target, &a.spec, &seen, err);
    struct queue_progress progress = {.step = STEP_ALIVE, .phase = "starting Job server"};
    rc = rc < 0 ? rc : work_advance(w, NULL, &progress, false, err);
    if (rc == TRK_CONFLICT) {
        /* Whoever has it now may have failed and removed it before it was started here. */
        deploy_take_back(w->lc, w->target, w->d->generation_id);
    }
    return rc;
}

/* -- switch -- */

static int save_job(struct work *w, struct trk_pg *conn, const struct generation *g,
                    struct trk_err *err)
{
    struct deployment *d = w->d;
    const char *family_id;
    json_auto_t *spec = NULL;
    int rc = trk_json_parse(g->spec, strlen(g->spec), &spec, err);
    rc = rc == 0 ? family_store_get(conn, w->mem, d->job_name, &family_id, err) : rc;
    if (rc < 0) {
        return rc;
    }
    const char *tag = strrchr(d->image_name, ':');
    struct job job = {
        .family_id = family_id,
        .name = d->job_name,
        .version = d->job_version,
        .status = JOB_RUNNING,
        .update_time = d->create_time,
        .manifest = d->manifest,
        .image_tag = tag != NULL ? tag + 1 : NULL,
        .deployed_by = d->deployed_by,
        .infrastructure_target = d->infrastructure_target,
        .job_type_version = spec_job_type(w->mem, w->manifest),
        .generation_id = g->id,
        .image_name = d->image_name,
        .image_digest = d->image_digest,
        .source_digest = d->source_digest,
        .spec_digest = trk_json_string_or(spec, "spec_digest", NULL),
    };
    return job_store_save(conn, &job, err);
}

/* The first deployer's permissions, and the endpoints that the manifest wants public. */
static int post_deploy(struct work *w, struct trk_pg *conn, struct trk_err *err)
{
    const struct deployment *d = w->d;
    struct job *job;
    int rc = job_store_get(conn, w->mem, d->job_name, d->job_version, &job, err);
    if (rc == 0 && d->created_job && d->subject_id != NULL) {
        rc = permission_store_grant_deployer(conn, d->subject_id, job->id, err);
    }
    const json_t *endpoints = json_object_get(w->manifest, "public_endpoints");
    if (rc == 0) { /* what the manifest asks for no more is closed */
        rc = endpoint_store_keep(conn, job->id, endpoints, err);
    }
    for (size_t i = 0; rc == 0 && i < json_array_size(endpoints); i++) {
        const char *path = json_string_value(json_array_get(endpoints, i));
        rc = path != NULL ? endpoint_store_request(conn, job->id, path, err) : 0;
    }
    return rc < 0 ? rc
                  : audit_store_add(conn, d->created_job ? "job_deployed" : "job_redeployed",
                                    d->deployed_by, NULL, d->job_name, d->job_version, NULL, err);
}

struct switching {
    struct work *w;
    char *replicas; /* as generation_store_replicas_text */
};

/* All at once: from its commit on the new generation has the calls. */
static int do_switch(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct switching *s = ctx;
    struct work *w = s->w;
    struct deployment *d = w->d;
    struct generation *g;
    trk_autofree char *reason = trk_xasprintf("deployed by %s",
                                              d->deployed_by != NULL ? d->deployed_by : "nobody");
    int rc = move_secrets(w, conn, err);
    if (rc < 0 || (rc = work_finish(w, conn, NULL, NULL, err)) < 0 ||
        (rc = generation_store_get(conn, w->mem, d->generation_id, &g, err)) < 0 ||
        (rc = generation_store_set(conn, g->id, GENERATION_SERVING, err)) < 0 ||
        (rc = generation_store_put_replicas(conn, g->id, s->replicas, err)) < 0 ||
        (rc = generation_store_replace(conn, d->job_name, d->job_version, g->id,
                                       GENERATION_DRAINING, err)) < 0 ||
        (rc = save_job(w, conn, g, err)) < 0 || (rc = post_deploy(w, conn, err)) < 0) {
        return rc;
    }
    return job_store_set_status(conn, d->job_name, d->job_version, JOB_RUNNING, NULL, reason, err);
}

/* The replicas as they are now, all of which run. *ret owned. */
static int list_running(struct work *w, char **ret, struct trk_err *err)
{
    trk_autofree struct infra_observation *list = NULL;
    size_t count;
    int rc = w->target->list(w->target, w->d->generation_id, &list, &count, err);
    if (rc == 0 && count < work_replicas(w)) {
        rc = trk_err_set(err, TRK_INVALID, "the job ended just after it was ready");
    }
    struct replica *replicas = talloc_zero_array(w->mem, struct replica, (unsigned)count + 1);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        replicas[i] = (struct replica){.number = list[i].replica,
                                       .state = REPLICA_RUNNING,
                                       .address = list[i].address,
                                       .restarts = list[i].restarts,
                                       .reason = ""};
        if (list[i].state != INFRA_RUNNING) {
            rc = trk_err_set(err, TRK_INVALID, "the job ended just after it was ready: %s",
                             list[i].reason);
        }
    }
    if (rc == 0) {
        *ret = generation_store_replicas_text(replicas, count);
    }
    return rc;
}

int step_switch(struct work *w, struct trk_err *err)
{
    struct switching s = {.w = w};
    int rc = list_running(w, &s.replicas, err);
    rc = rc == 0 ? work_transaction(w, do_switch, &s, err) : rc;
    free(s.replicas);
    w->is_finished = rc == 0;
    return rc;
}

/* -- failure -- */

struct failure {
    struct work *w;
    const char *error;
};

static int do_fail(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct failure *f = ctx;
    const struct deployment *d = f->w->d;
    json_auto_t *properties = json_object();
    (void)json_object_set_new(properties, "error", json_string(f->error));
    int rc = work_finish(f->w, conn, f->error, NULL, err);
    if (rc == 0 && d->generation_id != NULL) {
        rc = generation_store_set(conn, d->generation_id, GENERATION_REMOVING, err);
    }
    if (rc == 0 && d->created_job) { /* nothing that was there before this deployment */
        rc = job_store_delete(conn, d->job_name, d->job_version, false, err);
    }
    return rc < 0 ? rc
                  : audit_store_add(conn, "deployment_failed", d->deployed_by, NULL, d->job_name,
                                    d->job_version, properties, err);
}

int work_fail(struct work *w, const char *error, struct trk_err *err)
{
    /* It may quote what the job printed, which may be any bytes; the database takes text only. */
    trk_autofree char *text = trk_xstrdup(error);
    trk_utf8_repair(text, strlen(text));
    struct failure failure = {.w = w, .error = text};
    int rc = work_transaction(w, do_fail, &failure, err);
    if (rc < 0) {
        return rc;
    }
    w->is_finished = true;
    if (w->d->generation_id == NULL || w->target == NULL) {
        return 0;
    }
    /* What cannot be removed now stays in state removing: the supervisor tries again. */
    struct trk_err why = {0};
    trk_pg_auto struct trk_pg *conn = NULL;
    if (w->target->remove(w->target, w->d->generation_id, &why) < 0 ||
        trk_pg_acquire(w->lc->pool, &conn, &why) < 0 ||
        generation_store_delete(conn, w->d->generation_id, &why) < 0) {
        trk_log_warn("a failed deployment's workload remains for now", "generation",
                     w->d->generation_id, "error", why.text, NULL);
    }
    return 0;
}
