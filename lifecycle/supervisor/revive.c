/*
 * revive.c - starts lost workloads again from what the database knows, with growing, jittered
 * pauses.
 */
#include <string.h>
#include <sys/random.h>
#include <talloc.h>

#include "libtrack/clock.h"
#include "libtrack/json.h"
#include "libtrack/log.h"
#include "libtrack/manifest.h"
#include "libtrack/mem.h"
#include "lifecycle/deploy/secrets.h"
#include "lifecycle/deploy/spec.h"
#include "lifecycle/store/job.h"
#include "lifecycle/supervisor/internal.h"

enum { PAUSE_FIRST_MS = 1000, PAUSE_MAX_MS = 60000 };

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

/* May it be tried now? Counts the attempt and sets the pause after it. */
static bool is_due(struct supervisor *s, const char *id)
{
    struct revival *r = find(s, id);
    if (r == NULL) {
        s->revivals = trk_xrealloc(s->revivals, (s->revival_count + 1) * sizeof(*s->revivals));
        r = &s->revivals[s->revival_count++];
        memset(r, 0, sizeof(*r));
        snprintf(r->generation_id, sizeof(r->generation_id), "%s", id);
    }
    if (trk_now_ns() < r->next_ns) {
        return false;
    }
    int64_t pause_ms = PAUSE_FIRST_MS;
    for (unsigned i = 0; i < r->attempts && pause_ms < PAUSE_MAX_MS; i++) {
        pause_ms *= 2;
    }
    pause_ms = pause_ms > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause_ms;
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof(random), GRND_NONBLOCK);
    (void)n;
    pause_ms = pause_ms / 2 + (int64_t)(random % (uint32_t)(pause_ms / 2 + 1));
    r->attempts++;
    r->next_ns = trk_now_ns() + pause_ms * TRK_NS_PER_MS;
    return true;
}

/* What the job should run with, from its row, its family's token and its sealed secrets. */
static int load_spec(struct supervisor *s, void *mem, const struct generation *g,
                     struct infra_generation_spec *ret, struct trk_err *err)
{
    TRK_PG_AUTO(conn)
    = NULL;
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

void supervisor_revive(struct supervisor *s, const struct infra_target *target,
                       const struct generation *g)
{
    s->is_hurried = true;
    if (!is_due(s, g->id)) {
        return;
    }
    struct trk_err err = {0};
    struct infra_generation_spec spec;
    struct infra_observation seen;
    void *mem = talloc_new(NULL);
    int rc = load_spec(s, mem, g, &spec, &err);
    rc = rc == 0 ? target->apply(target, &spec, &seen, &err) : rc;
    if (rc < 0) {
        trk_log_warn("a lost job cannot be started again", "job", g->job_name, "version",
                     g->job_version, "error", err.text, NULL);
    } else {
        trk_metric_inc(s->revived);
        trk_log_info("lost job started again", "job", g->job_name, "version", g->job_version,
                     "generation", g->id, NULL);
    }
    talloc_free(mem);
}
