/*
 * reconcile.c - compares what should run (registry_jobgeneration) with what does (the targets).
 *
 * The targets are listed first and the rows read after: a workload without a row is then an orphan
 * for sure, since rows are written before anything is started. A row without a workload is looked
 * up once more before it counts as lost.
 */
#include <string.h>
#include <talloc.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/job.h"
#include "lifecycle/supervisor/internal.h"

/* What one target reported. */
struct listing {
    const struct infra_target *target;
    struct infra_observation *list;
    size_t count;
    bool is_known; /* false: it could not be listed, so nothing follows from it */
};

static void list_target(const struct infra_target *target, struct listing *ret)
{
    struct trk_err err = {0};
    *ret = (struct listing){.target = target};
    ret->is_known = target->list(target, NULL, &ret->list, &ret->count, &err) == 0;
    if (!ret->is_known) {
        trk_log_warn("an infrastructure target cannot be listed; its jobs are left as they are",
                     "target", target->name, "error", err.text, NULL);
    }
}

/* -- one serving generation -- */

struct status_change {
    void *mem;
    const struct generation *generation;
    const char *status, *error, *reason;
    const char *replicas; /* as generation_store_replicas_text, or NULL: as they were */
    bool is_noted;        /* not when the job is in transition */
};

static int do_change(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct status_change *c = ctx;
    const struct generation *g = c->generation;
    const char *current;
    int rc = generation_store_lock_job(conn, c->mem, g, &current, err);
    if (rc < 0 || current == NULL) {
        return rc; /* in transition: whoever moves it says what it is */
    }
    c->is_noted = true;
    if (c->replicas != NULL) {
        rc = generation_store_put_replicas(conn, g->id, c->replicas, err);
    }
    if (rc == 0 && c->status != NULL && strcmp(current, c->status) != 0) {
        return job_store_set_status(conn, g->job_name, g->job_version, c->status, c->error,
                                    c->reason, err);
    }
    return rc;
}

static void change(struct supervisor *s, struct status_change *c)
{
    struct trk_err err = {0};
    const struct generation *g = c->generation;
    c->mem = talloc_new(NULL);
    c->is_noted = false;
    if (trk_pg_transaction(s->lc->pool, do_change, c, &err) < 0) {
        trk_log_warn("a job's state cannot be noted", "job", g->job_name, "version", g->job_version,
                     "error", err.text, NULL);
    } else if (c->is_noted) {
        trk_log_info("job state", "job", g->job_name, "version", g->job_version, "status",
                     c->status, "reason", c->reason, "replicas", c->replicas, NULL);
    }
    talloc_free(c->mem);
}

static bool has_status(const struct generation *g, const char *status)
{
    return g->job_status != NULL && strcmp(g->job_status, status) == 0;
}

/* The replicas that a generation should have, as they are. */
struct roll {
    struct replica *list;
    size_t serving, waiting, failing, lost;
    const char *reason; /* of the first that does not serve; "" when there is none */
};

static const char *judge_replica(struct supervisor *s, void *mem, const struct generation *g,
                                 const struct infra_observation *seen, struct roll *roll,
                                 const char **ret_reason)
{
    if (seen == NULL || seen->state == INFRA_GONE) {
        roll->lost++;
        *ret_reason = seen != NULL && seen->reason[0] != '\0'
                          ? seen->reason
                          : "its workload is gone from the infrastructure target";
        return REPLICA_LOST;
    }
    if (seen->state == INFRA_BACKOFF || seen->state == INFRA_FAILED) {
        roll->failing++;
        *ret_reason = seen->reason;
        return REPLICA_ERROR;
    }
    if (seen->state != INFRA_RUNNING) {
        roll->waiting++;
        return REPLICA_WAITING;
    }
    char id[64];
    struct replica before = {.state = "", .reason = ""};
    (void)generation_store_replica(mem, g->replicas, seen->replica, &before);
    /* One that was started again since the last look has to be ready first. */
    bool is_running = has_status(g, JOB_RUNNING) && strcmp(before.state, REPLICA_RUNNING) == 0 &&
                      before.restarts == seen->restarts;
    trk_autofree char *trouble = NULL;
    (void)snprintf(id, sizeof(id), "%s.%d#%lld", g->id, seen->replica, (long long)seen->restarts);
    enum health_state health = health_of(s->health, id, seen->address, is_running, &trouble);
    if (is_running && health == HEALTH_FAILING) {
        roll->failing++;
        *ret_reason = talloc_strdup(mem, trouble);
        return REPLICA_ERROR;
    }
    bool is_serving = is_running || health == HEALTH_READY;
    *(is_serving ? &roll->serving : &roll->waiting) += 1;
    if (!is_serving && strcmp(before.state, REPLICA_ERROR) == 0) {
        *ret_reason = before.reason;
        return REPLICA_ERROR; /* until it is ready again */
    }
    return is_serving ? REPLICA_RUNNING : REPLICA_WAITING;
}

static void call_roll(struct supervisor *s, void *mem, const struct generation *g,
                      const struct infra_observation *list, size_t count, struct roll *ret)
{
    *ret = (struct roll){.reason = ""};
    ret->list = talloc_zero_array(mem, struct replica, (unsigned)g->replica_count + 1);
    for (int64_t k = 0; k < g->replica_count; k++) {
        const struct infra_observation *seen = NULL;
        for (size_t i = 0; i < count && seen == NULL; i++) {
            seen = list[i].replica == k ? &list[i] : NULL;
        }
        struct replica *r = &ret->list[k];
        r->number = k;
        r->reason = "";
        r->restarts = seen != NULL ? seen->restarts : 0;
        r->address = seen != NULL && seen->address[0] != '\0' ? seen->address : NULL;
        r->state = judge_replica(s, mem, g, seen, ret, &r->reason);
        ret->reason = ret->reason[0] == '\0' ? r->reason : ret->reason;
    }
}

/* The replicas of one generation within what was listed. */
static const struct infra_observation *find_replicas(const struct listing *listing, const char *id,
                                                     size_t *ret_count)
{
    size_t from = 0;
    while (from < listing->count && strcmp(listing->list[from].generation_id, id) != 0) {
        from++;
    }
    size_t end = from;
    while (end < listing->count && strcmp(listing->list[end].generation_id, id) == 0) {
        end++;
    }
    *ret_count = end - from;
    return &listing->list[from];
}

static void note_roll(struct supervisor *s, const struct generation *g, const struct roll *roll)
{
    trk_autofree char *text = generation_store_replicas_text(roll->list, (size_t)g->replica_count);
    struct status_change c = {.generation = g, .reason = roll->reason, .error = roll->reason};
    c.replicas = strcmp(text, g->replicas) != 0 ? text : NULL;
    if (roll->serving > 0 && !has_status(g, JOB_RUNNING)) {
        c.status = JOB_RUNNING;
        c.reason = "it runs and answers again";
        c.error = NULL;
    } else if (roll->serving + roll->waiting == 0) {
        c.status = roll->failing > 0 ? JOB_ERROR : JOB_LOST;
        c.status = has_status(g, c.status) ? NULL : c.status;
    }
    if (c.status != NULL || c.replicas != NULL) {
        change(s, &c);
    }
}

static void tend_serving(struct supervisor *s, const struct listing *listing,
                         const struct generation *g)
{
    trk_autofree struct infra_observation *fresh = NULL;
    size_t count;
    const struct infra_observation *list = find_replicas(listing, g->id, &count);
    if (count < (size_t)g->replica_count) {
        if (listing->target->list(listing->target, g->id, &fresh, &count, NULL) < 0) {
            return; /* unknown, not gone */
        }
        list = fresh;
    }
    void *mem = talloc_new(NULL);
    struct roll roll;
    call_roll(s, mem, g, list, count, &roll);
    if (g->replica_count > 0) {
        note_roll(s, g, &roll);
    }
    if (roll.lost > 0 && s->lc->config->reconciliation_loop) {
        supervisor_revive(s, listing->target, g);
    } else if (roll.serving == (size_t)g->replica_count) {
        supervisor_forget_revival(s, g->id);
    }
    talloc_free(mem);
}

/* -- generations on their way out -- */

static void set_state(struct supervisor *s, const struct generation *g, const char *state)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    int rc = trk_pg_acquire(s->lc->pool, &conn, &err);
    if (rc == 0) {
        rc = state != NULL ? generation_store_set(conn, g->id, state, &err)
                           : generation_store_delete(conn, g->id, &err);
    }
    if (rc < 0) {
        trk_log_warn("a generation's state cannot be noted", "generation", g->id, "error", err.text,
                     NULL);
    }
}

static void stop(struct supervisor *s, const struct infra_target *t, const struct generation *g)
{
    struct trk_err err = {0};
    if (t->stop(t, g->id, s->lc->config->drain_grace_ms, &err) < 0) {
        trk_log_warn("a generation cannot be stopped", "generation", g->id, "error", err.text,
                     NULL);
    }
}

static void tend_removing(struct supervisor *s, const struct infra_target *t,
                          const struct generation *g)
{
    struct infra_observation seen;
    struct trk_err err = {0};
    int rc = infra_observe(t, g->id, &seen, &err);
    if (rc == 0 && seen.state != INFRA_GONE) {
        stop(s, t, g); /* does nothing when that was asked before */
        s->is_hurried = true;
    } else if (rc == 0 || rc == TRK_NOT_FOUND) {
        if (t->remove(t, g->id, &err) == 0) {
            set_state(s, g, NULL);
            supervisor_forget_revival(s, g->id);
        } else {
            trk_log_warn("a generation cannot be removed", "generation", g->id, "error", err.text,
                         NULL);
        }
    }
}

static void tend(struct supervisor *s, const struct listing *listing, const struct generation *g)
{
    if (strcmp(g->state, GENERATION_SERVING) == 0) {
        if (listing->is_known) {
            tend_serving(s, listing, g);
        }
    } else if (strcmp(g->state, GENERATION_DRAINING) == 0) {
        if (g->state_age_ms >= s->lc->config->drain_delay_ms) {
            set_state(s, g, GENERATION_REMOVING);
            stop(s, listing->target, g);
            s->is_hurried = true;
        }
    } else if (strcmp(g->state, GENERATION_REMOVING) == 0) {
        tend_removing(s, listing->target, g);
    }
}

/* -- orphans -- */

static bool is_in_rows(const struct generation *rows, size_t count, const char *id)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].id, id) == 0) {
            return true;
        }
    }
    return false;
}

static bool was_reported(const struct supervisor *s, const char *id)
{
    for (size_t i = 0; i < s->orphan_count; i++) {
        if (strcmp(s->orphans[i], id) == 0) {
            return true;
        }
    }
    return false;
}

/* Counted and told, once each; never touched: somebody may know what they are for. */
static void report_orphans(struct supervisor *s, const struct listing *listings,
                           const struct generation *rows, size_t row_count)
{
    char(*orphans)[40] = NULL;
    size_t count = 0;
    for (size_t t = 0; t < s->lc->targets.count; t++) {
        for (size_t i = 0; i < listings[t].count; i++) {
            const struct infra_observation *seen = &listings[t].list[i];
            if (is_in_rows(rows, row_count, seen->generation_id)) {
                continue;
            }
            orphans = trk_xrealloc(orphans, (count + 1) * sizeof(*orphans));
            memcpy(orphans[count++], seen->generation_id, sizeof(*orphans));
            if (!was_reported(s, seen->generation_id)) {
                trk_log_warn("orphaned workload: no record knows it; it is left alone", "target",
                             listings[t].target->name, "generation", seen->generation_id, "job",
                             seen->job_name, "version", seen->job_version, NULL);
            }
        }
    }
    free(s->orphans);
    s->orphans = orphans;
    s->orphan_count = count;
    trk_series_set(trk_metric_series(s->orphan_gauge, NULL), (double)count);
}

static int read_rows(struct supervisor *s, void *mem, struct generation **ret, size_t *ret_count)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    int rc = trk_pg_acquire(s->lc->pool, &conn, &err);
    rc = rc == 0 ? generation_store_retire_stray(conn, &err) : rc;
    rc = rc == 0 ? generation_store_list(conn, mem, NULL, NULL, ret, ret_count, &err) : rc;
    if (rc < 0) {
        trk_log_warn("supervisor: the database cannot be read", "error", err.text, NULL);
    }
    return rc;
}

void supervisor_reconcile(struct supervisor *s)
{
    const struct infra_registry *targets = &s->lc->targets;
    size_t count = 0;
    struct listing *listings = trk_xcalloc(targets->count + 1, sizeof(*listings));
    void *mem = talloc_new(NULL);
    struct generation *rows;
    for (size_t t = 0; t < targets->count; t++) {
        if (s->leads_target[t]) {
            list_target(targets->list[t], &listings[t]);
        }
    }
    if (read_rows(s, mem, &rows, &count) == 0) {
        for (size_t i = 0; i < count; i++) {
            for (size_t t = 0; t < targets->count; t++) {
                if (listings[t].target != NULL &&
                    listings[t].target == infra_reached(targets, rows[i].target_instance)) {
                    tend(s, &listings[t], &rows[i]);
                }
            }
        }
        report_orphans(s, listings, rows, count);
        health_sweep(s->health);
    }
    for (size_t t = 0; t < targets->count; t++) {
        free(listings[t].list);
    }
    free(listings);
    talloc_free(mem);
}
