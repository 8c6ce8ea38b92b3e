/*
 * revive.c - starts lost workloads again from what the database knows, with growing, jittered
 * pauses. What hinders is kept in the job's error. An image that is gone is built again once, when
 * the source is stored: a job that was cloned might come back as other code.
 */
#include <string.h>
#include <sys/random.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/manifest/manifest.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/deploy/secrets.h"
#include "lifecycle/deploy/spec.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/domain/subject.h"
#include "lifecycle/store/deployment.h"
#include "lifecycle/store/job.h"
#include "lifecycle/supervisor/internal.h"

enum { PAUSE_FIRST_MS = 1000, PAUSE_MAX_MS = 60000, PAUSE_GONE_MAX_MS = 300000 };

static struct revival *find(struct supervisor *s, const char *id)
{
    for (size_t i = 0; i < s->revival_count; i++) {
        if (strcmp(s->revivals[i].generation_id, id) == 0) {
            return &s->revivals[i];
        }
    }
    return NULL;
}

void supervisor_forget_revival(struct supervisor *s, const char *id)
{
    struct revival *r = find(s, id);
    if (r != NULL) {
        *r = s->revivals[--s->revival_count];
    }
}

int64_t supervisor_revival_pause_ms(unsigned attempts, bool is_image_gone)
{
    int64_t max_ms = is_image_gone ? PAUSE_GONE_MAX_MS : PAUSE_MAX_MS;
    int64_t pause_ms = PAUSE_FIRST_MS;
    for (unsigned i = 0; i < attempts && pause_ms < max_ms; i++) {
        pause_ms *= 2;
    }
    return pause_ms > max_ms ? max_ms : pause_ms;
}

static struct revival *revival_of(struct supervisor *s, const char *id)
{
    struct revival *r = find(s, id);
    if (r == NULL) {
        s->revivals = trk_xrealloc(s->revivals, (s->revival_count + 1) * sizeof(*s->revivals));
        r = &s->revivals[s->revival_count++];
        memset(r, 0, sizeof(*r));
        snprintf(r->generation_id, sizeof(r->generation_id), "%s", id);
    }
    return r;
}

/* Sets the pause after an attempt. */
static void put_off(struct revival *r)
{
    int64_t pause_ms = supervisor_revival_pause_ms(r->attempts, r->is_image_gone);
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof(random), GRND_NONBLOCK);
    (void)n;
    pause_ms = pause_ms / 2 + (int64_t)(random % (uint32_t)(pause_ms / 2 + 1));
    r->attempts++;
    r->next_ns = trk_now_ns() + pause_ms * TRK_NS_PER_MS;
}

/* What the job should run with, from its row, its family's token and its sealed secrets. */
static int load_spec(struct supervisor *s, void *mem, const struct generation *g,
                     struct infra_generation_spec *ret, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct job *job;
    const char *token;
    json_auto_t *secrets = NULL, *manifest = NULL;
    char digest[TRK_DIGEST_SIZE];
    int rc = trk_pg_acquire(s->lc->pool, &conn, err);
    if (rc < 0 || (rc = job_store_get(conn, mem, g->job_name, g->job_version, &job, err)) < 0 ||
        (rc = family_store_token(conn, mem, g->job_name, &token, err)) < 0 ||
        (rc = secrets_load_job(conn, s->lc->secret_key, g->job_name, g->job_version, &secrets,
                               err)) < 0) {
        return rc;
    }
    if (job->generation_id == NULL || strcmp(job->generation_id, g->id) != 0) {
        return trk_err_set(err, TRK_CONFLICT, "it does not serve the job any more");
    }
    rc = trk_manifest_parse(job->manifest, strlen(job->manifest), "job.yaml", &manifest, err);
    struct spec_input input = {
        .manifest = manifest,
        .manifest_yaml = job->manifest,
        .secrets = secrets,
        .family_token = token,
        .image_name = job->image_name,
        .image_digest = job->image_digest,
        .generation_id = g->id,
        .deployment_timestamp = job->update_time,
    };
    rc = rc == 0 ? spec_make(s->lc->config, mem, &input, ret, digest, err) : rc;
    if (rc == 0) { /* these borrow from the manifest, which goes now */
        ret->job_name = g->job_name;
        ret->job_version = g->job_version;
    }
    return rc;
}

/* -- what a person is told -- */

struct note {
    void *mem;
    const struct generation *generation;
    const char *error;
};

static int do_note(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct note *n = ctx;
    const struct generation *g = n->generation;
    const char *status;
    int rc = generation_store_lock_job(conn, n->mem, g, &status, err);
    if (rc < 0 || status == NULL || strcmp(status, JOB_LOST) != 0) {
        return rc; /* in other hands by now */
    }
    return job_store_set_error(conn, g->job_name, g->job_version, n->error, err);
}

static void tell(struct supervisor *s, void *mem, const struct generation *g, const char *error)
{
    struct note note = {.mem = mem, .generation = g, .error = error};
    struct trk_err err = {0};
    if (trk_pg_transaction(s->lc->pool, do_note, &note, &err) < 0) {
        trk_log_warn("why a job is lost cannot be noted", "job", g->job_name, "version",
                     g->job_version, "error", err.text, NULL);
    }
}

/* -- an image that is gone -- */

#define IMAGE_GONE "its image is gone from the image store"

/* What is known of the ways back. */
struct way_back {
    struct job *job;
    struct deployment *made_by; /* the serving generation */
    struct deployment *last;    /* the newest attempt; may be the same */
};

static int find_way_back(struct supervisor *s, void *mem, const struct generation *g,
                         struct way_back *ret, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = trk_pg_acquire(s->lc->pool, &conn, err);
    rc = rc == 0 ? job_store_get(conn, mem, g->job_name, g->job_version, &ret->job, err) : rc;
    rc = rc == 0 ? deployment_store_get(conn, mem, g->deployment_id, &ret->made_by, err) : rc;
    return rc < 0 ? rc
                  : deployment_store_last_of_job(conn, mem, g->job_name, g->job_version, &ret->last,
                                                 err);
}

/* On behalf of whom it was deployed by: without the permission any more, it stays down. */
static int submit_rebuild(struct supervisor *s, const struct generation *g,
                          const struct way_back *way, struct trk_err *err)
{
    const struct subject who = {.type = TRK_SUBJECT_USER,
                                .id = way->made_by->subject_id,
                                .name = way->made_by->deployed_by,
                                .is_active = true};
    trk_autofree char *id = NULL;
    int rc = deploy_resubmit(s->lc, &who, "redeploy", g->job_name, g->job_version, &id, err);
    if (rc == 0) {
        trk_log_warn("a lost job's image is gone; it is built again", "job", g->job_name, "version",
                     g->job_version, "deployment", id, NULL);
    }
    return rc;
}

static void tell_what_to_do(struct supervisor *s, void *mem, const struct generation *g,
                            const char *why)
{
    tell(s, mem, g,
         talloc_asprintf(mem,
                         IMAGE_GONE "%s. Deploy it again: racetrack deploy DIR --force, or POST "
                                    "/api/v1/job/%s/%s/redeploy",
                         why, g->job_name, g->job_version));
}

static void bring_back_image(struct supervisor *s, void *mem, const struct generation *g)
{
    struct way_back way;
    struct trk_err err = {0};
    if (find_way_back(s, mem, g, &way, &err) < 0) {
        tell_what_to_do(s, mem, g, "");
        return;
    }
    if (strcmp(way.last->status, DEPLOYMENT_IN_PROGRESS) == 0) {
        return;
    }
    if (way.job->source_digest == NULL) {
        tell_what_to_do(s, mem, g, ", and it was built from git, which may have changed since");
        return;
    }
    if (strcmp(way.last->id, way.made_by->id) != 0 && strcmp(way.last->kind, "redeploy") == 0 &&
        strcmp(way.last->status, DEPLOYMENT_FAILED) == 0) {
        tell_what_to_do(s, mem, g,
                        talloc_asprintf(mem, ", and building it again has failed: %s",
                                        way.last->error != NULL ? way.last->error : "?"));
        return;
    }
    tell(s, mem, g, IMAGE_GONE "; it is being built again from the stored source");
    int rc = submit_rebuild(s, g, &way, &err);
    if (rc < 0 && rc != TRK_CONFLICT) { /* conflict: somebody deploys it already */
        tell_what_to_do(s, mem, g,
                        talloc_asprintf(mem, ", and it cannot be built again: %s", err.text));
    }
}

/* -- one attempt -- */

static int start(struct supervisor *s, void *mem, const struct infra_target *target,
                 const struct generation *g, struct trk_err *err)
{
    struct infra_generation_spec spec;
    struct infra_observation seen;
    int rc = load_spec(s, mem, g, &spec, err);
    return rc == 0 ? target->apply(target, &spec, &seen, err) : rc;
}

void supervisor_revive(struct supervisor *s, const struct infra_target *target,
                       const struct generation *g)
{
    struct revival *r = revival_of(s, g->id);
    if (trk_now_ns() < r->next_ns) {
        int64_t soon_ns = trk_now_ns() + s->lc->config->supervisor_interval_ms * TRK_NS_PER_MS;
        s->is_hurried = s->is_hurried || r->next_ns < soon_ns;
        return;
    }
    s->is_hurried = true;
    struct trk_err err = {0};
    void *mem = talloc_new(NULL);
    int rc = start(s, mem, target, g, &err);
    r->is_image_gone = rc == TRK_GONE;
    put_off(r);
    if (rc == 0) {
        trk_metric_inc(s->revived);
        trk_log_info("lost job started again", "job", g->job_name, "version", g->job_version,
                     "generation", g->id, NULL);
        deploy_take_back(s->lc, target, g->id); /* when it was deleted meanwhile */
    } else {
        trk_log_warn("a lost job cannot be started again", "job", g->job_name, "version",
                     g->job_version, "error", err.text, NULL);
    }
    if (rc == TRK_GONE) {
        bring_back_image(s, mem, g);
    } else if (rc < 0) {
        tell(s, mem, g, talloc_asprintf(mem, "it cannot be started again: %s", err.text));
    }
    talloc_free(mem);
}
