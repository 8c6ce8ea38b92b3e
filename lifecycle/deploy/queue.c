/*
 * queue.c - workers that take deployments through their steps, and the keeper that renews leases
 * and sees what other replicas left.
 */
#include <stdatomic.h>
#include <talloc.h>
#include <time.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/manifest/manifest.h"
#include "lifecycle/deploy/context.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/deploy/work.h"
#include "lifecycle/domain/status.h"

enum {
    WORKERS_MAX = 64,
    ATTEMPTS_MAX = 5,
    KEEPER_MS = 1000,
    RENEW_EVERY = 4,
    WAIT_POLL_MS = 200,
    DATABASE_LOOK_MS = 100,
    NEED_FIRST_MS = 50,
    NEED_MAX_MS = 2000,
    UNNOTED_PAUSE_S = 1
};
#define DATABASE_WAIT_NS (10 * 60 * TRK_NS_PER_S)

struct deploy_queue {
    struct lifecycle *lc;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t wake;   /* something to claim, or stop */
    pthread_cond_t change; /* a deployment moved, or stop */
    pthread_cond_t ended;  /* a worker finished its deployment */
    pthread_cond_t keep;   /* stop, for the keeper */
    uint64_t wake_count, change_count;
    atomic_bool stop;
    pthread_t workers[WORKERS_MAX], keeper;
    unsigned worker_count, started;
    bool has_keeper;
    struct work *active[WORKERS_MAX];
    struct trk_metric *requested, *ended_total, *deployed;
    int instance_fd;
    char *target_instances; /* whose deployments are worked on here: a line each */
};

static void timed_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_cond_timedwait(cond, mutex, &until);
}

void deploy_notify(struct lifecycle *lc)
{
    struct deploy_queue *q = lc->deploy;
    if (q == NULL) {
        return;
    }
    pthread_mutex_lock(&q->mutex);
    q->change_count++;
    pthread_cond_broadcast(&q->change);
    pthread_mutex_unlock(&q->mutex);
}

void deploy_wake(struct lifecycle *lc)
{
    struct deploy_queue *q = lc->deploy;
    if (q == NULL) {
        return; /* not started yet: the workers look at their start */
    }
    pthread_mutex_lock(&q->mutex);
    q->wake_count++;
    pthread_cond_signal(&q->wake);
    pthread_mutex_unlock(&q->mutex);
}

void deploy_count_requested(struct lifecycle *lc)
{
    if (lc->deploy != NULL) {
        trk_metric_inc(lc->deploy->requested);
    }
}

void deploy_count_ended(struct lifecycle *lc, bool is_done)
{
    trk_metric_inc(lc->deploy->ended_total);
    if (is_done) {
        trk_metric_inc(lc->deploy->deployed);
    }
}

/* -- one deployment -- */

static const struct step *find_step(const char *name)
{
    for (size_t i = 0; i < deploy_step_count; i++) {
        if (strcmp(deploy_steps[i].name, name) == 0) {
            return &deploy_steps[i];
        }
    }
    return NULL;
}

/* What is there again by itself, mostly soon. */
static bool is_passing(int rc)
{
    return rc == TRK_UNAVAILABLE || rc == TRK_BAD_GATEWAY || rc == TRK_TIMEOUT ||
           rc == TRK_TOO_MANY;
}

static int tell_wait(struct work *w, const struct step *step, const struct trk_err *why)
{
    char phase[240];
    struct trk_err err = {0};
    (void)snprintf(phase, sizeof(phase), "waiting for %.40s: %.180s", step->needs, why->text);
    trk_utf8_repair(phase, strlen(phase));
    trk_log_debug("deployment waits", "deployment", w->d->id, "step", step->name, "reason",
                  why->text, NULL);
    return work_advance(w, NULL, &(struct queue_progress){.phase = phase}, false, &err);
}

/* Steps are idempotent: one that found away what it needs is done again until that is there. */
static int run_patiently(struct work *w, const struct step *step, struct trk_err *err)
{
    int64_t wait_s = w->lc->config->image_builder_wait_s, until_ns = 0;
    for (int64_t pause_ms = NEED_FIRST_MS;; pause_ms *= 2) {
        int rc = step->run(w, err);
        if (rc == 0 || step->needs == NULL || !is_passing(rc) || w->is_abandoned || w->cancel) {
            return rc;
        }
        until_ns = until_ns != 0 ? until_ns : trk_now_ns() + wait_s * TRK_NS_PER_S;
        if (trk_now_ns() >= until_ns) {
            return trk_err_append(err, "\n%s was waited for %lld s (image_builder_wait_s)",
                                  step->needs, (long long)wait_s);
        }
        if (tell_wait(w, step, err) < 0) {
            return rc;
        }
        pause_ms = pause_ms < NEED_MAX_MS ? pause_ms : NEED_MAX_MS;
        trk_sleep_ms(pause_ms);
        if (w->cancel) {
            return rc;
        }
    }
}

static int run_step(struct work *w, struct trk_err *err)
{
    const struct step *step = find_step(w->d->step);
    if (step == NULL) {
        return trk_err_set(err, TRK_INTERNAL, "this version of lifecycle knows no step named %s",
                           w->d->step);
    }
    int64_t start = trk_now_ns();
    int rc = run_patiently(w, step, err);
    char ms[32];
    snprintf(ms, sizeof(ms), "%.1f", (double)(trk_now_ns() - start) / 1e6);
    trk_log_debug("deployment step", "deployment", w->d->id, "step", step->name, "ms", ms, NULL);
    return rc < 0 ? trk_err_wrap(err, "%s", step->context) : 0;
}

/* Until it is finished, failed, or must be left to somebody else. */
static void run_steps(struct work *w)
{
    struct trk_err err = {0};
    int rc = trk_manifest_parse(w->d->manifest, strlen(w->d->manifest), "job.yaml", &w->manifest,
                                &err);
    if (rc == 0 && w->d->attempts > ATTEMPTS_MAX) {
        rc = trk_err_set(&err, TRK_INTERNAL,
                         "given up: interrupted %d times, the last time in the step %s",
                         ATTEMPTS_MAX, w->d->step);
    }
    while (rc == 0 && !w->is_finished && !w->cancel) {
        rc = run_step(w, &err);
    }
    if (w->is_finished) {
        trk_log_info("deployment done", "deployment", w->d->id, "job", w->d->job_name, "version",
                     w->d->job_version, NULL);
        deploy_count_ended(w->lc, true);
        return;
    }
    if (w->is_abandoned || w->cancel) {
        trk_log_warn("deployment interrupted; it will be taken up again", "deployment", w->d->id,
                     "step", w->d->step, "reason", err.text, NULL);
        return;
    }
    if (err.code == TRK_NO_SPACE) {
        (void)trk_err_append(&err,
                             "\nA disk of the platform is full: when whoever runs it has made "
                             "room, deploy again");
    }
    trk_log_warn("deployment failed", "deployment", w->d->id, "job", w->d->job_name, "version",
                 w->d->job_version, "error", err.text, NULL);
    struct trk_err why = {0};
    if (work_fail(w, err.text, &why) < 0) {
        trk_log_error("a failed deployment cannot be noted as such", "deployment", w->d->id,
                      "error", why.text, NULL);
        return;
    }
    deploy_count_ended(w->lc, false);
}

static void release(struct work *w, int64_t pause_s)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    if (trk_pg_acquire(w->lc->pool, &conn, &err) < 0 ||
        queue_release(conn, w->lc->instance_id, w->d->id, pause_s, &err) < 0) {
        trk_log_warn("a lease cannot be given back; it runs out by itself", "deployment", w->d->id,
                     "error", err.text, NULL);
    }
}

/* The database went away under the worker: as soon as it is back, the deployment goes on, rather
 * than when its lease has run out. */
static void wait_for_database(const struct work *w)
{
    int64_t until_ns = trk_now_ns() + DATABASE_WAIT_NS;
    while (!trk_pg_pool_is_up(w->lc->pool) && !w->cancel && trk_now_ns() < until_ns) {
        trk_sleep_ms(DATABASE_LOOK_MS);
    }
}

static void work_on(struct deploy_queue *q, unsigned slot, struct trk_http_client *client,
                    void *mem, struct deployment *d)
{
    struct work *w = talloc_zero(mem, struct work);
    w->lc = q->lc;
    w->mem = mem;
    w->d = d;
    w->client = client;
    w->target = infra_reached(&q->lc->targets, d->target_instance);
    bool is_in_hand = false;
    pthread_mutex_lock(&q->mutex);
    for (unsigned i = 0; i < q->worker_count; i++) {
        is_in_hand = is_in_hand ||
                     (q->active[i] != NULL && strcmp(q->active[i]->d->id, d->id) == 0);
    }
    q->active[slot] = is_in_hand ? NULL : w;
    w->cancel = q->stop;
    pthread_mutex_unlock(&q->mutex);
    if (is_in_hand) {
        /* Its lease ran out here (no connection was free to renew it), and the lease names the
         * process, not the worker: it would be worked on twice. */
        trk_log_warn("a deployment in hand was claimed again", "deployment", d->id, NULL);
        return;
    }
    run_steps(w);
    if (!w->is_finished) { /* whoever is free takes it up; a lease that was lost is left alone */
        bool is_cut_off = w->cancel || !trk_pg_pool_is_up(w->lc->pool);
        wait_for_database(w);
        release(w, is_cut_off ? 0 : UNNOTED_PAUSE_S);
    }
    pthread_mutex_lock(&q->mutex);
    q->active[slot] = NULL;
    pthread_cond_broadcast(&q->ended);
    pthread_mutex_unlock(&q->mutex);
    json_decref(w->manifest);
    deploy_notify(q->lc);
}

static int claim(struct deploy_queue *q, void *mem, struct deployment **ret)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    int rc = trk_pg_acquire(q->lc->pool, &conn, &err);
    if (rc == 0) {
        rc = queue_claim(conn, mem, q->lc->instance_id, q->target_instances, ret, &err);
    }
    if (rc < 0) {
        trk_log_debug("no deployment can be claimed", "error", err.text, NULL);
    }
    return rc;
}

struct worker_args {
    struct deploy_queue *queue;
    unsigned slot;
};

static void *worker_main(void *arg)
{
    struct worker_args args = *(struct worker_args *)arg;
    struct deploy_queue *q = args.queue;
    free(arg);
    struct trk_http_client *client = trk_http_client_new();
    uint64_t seen = 0; /* != wake_count at first: look once at start */
    pthread_mutex_lock(&q->mutex);
    seen = q->wake_count - 1;
    while (!q->stop) {
        if (seen == q->wake_count) {
            timed_wait(&q->wake, &q->mutex, 60000);
            continue;
        }
        seen = q->wake_count;
        pthread_mutex_unlock(&q->mutex);
        void *mem = talloc_new(NULL);
        struct deployment *d = NULL;
        while (claim(q, mem, &d) == 0 && d != NULL) {
            work_on(q, args.slot, client, mem, d);
            d = NULL;
            talloc_free(mem);
            mem = talloc_new(NULL);
            if (q->stop) {
                break;
            }
        }
        talloc_free(mem);
        pthread_mutex_lock(&q->mutex);
    }
    pthread_mutex_unlock(&q->mutex);
    trk_http_client_free(client);
    return NULL;
}

/* -- the keeper -- */

/* Renews the lease of everything in hand; what has been taken by somebody else is let go. */
static void renew_leases(struct deploy_queue *q)
{
    char ids[WORKERS_MAX][TRK_UUID_SIZE];
    unsigned count = 0;
    pthread_mutex_lock(&q->mutex);
    for (unsigned i = 0; i < q->worker_count; i++) {
        if (q->active[i] != NULL) {
            snprintf(ids[count++], TRK_UUID_SIZE, "%s", q->active[i]->d->id);
        }
    }
    pthread_mutex_unlock(&q->mutex);
    trk_pg_auto struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    if (count == 0 || trk_pg_acquire(q->lc->pool, &conn, &err) < 0) {
        return; /* the database is away: nobody else can take them either */
    }
    for (unsigned k = 0; k < count; k++) {
        if (queue_renew(conn, q->lc->instance_id, ids[k], &err) != TRK_CONFLICT) {
            continue;
        }
        pthread_mutex_lock(&q->mutex);
        for (unsigned i = 0; i < q->worker_count; i++) {
            /* It may just have ended here: then the flag has no effect any more. */
            if (q->active[i] != NULL && strcmp(q->active[i]->d->id, ids[k]) == 0) {
                q->active[i]->cancel = true;
            }
        }
        pthread_mutex_unlock(&q->mutex);
    }
}

static void *keeper_main(void *arg)
{
    struct deploy_queue *q = arg;
    unsigned round = 0;
    for (;;) {
        pthread_mutex_lock(&q->mutex);
        if (!q->stop && round > 0) {
            timed_wait(&q->keep, &q->mutex, KEEPER_MS);
        }
        bool stop = q->stop, is_idle = true;
        for (unsigned i = 0; i < q->worker_count; i++) {
            is_idle = is_idle && q->active[i] == NULL;
        }
        pthread_mutex_unlock(&q->mutex);
        if (stop && is_idle) {
            return NULL;
        }
        if (stop) {
            trk_sleep_ms(20);
        }
        if (++round % RENEW_EVERY == 0) {
            renew_leases(q);
        }
        if (!stop && trk_pg_pool_is_up(q->lc->pool)) {
            instances_bury(q->lc);
        }
        trk_pg_auto struct trk_pg *conn = NULL;
        if (!stop && trk_pg_pool_is_up(q->lc->pool) &&
            trk_pg_acquire(q->lc->pool, &conn, NULL) == 0 &&
            queue_has_work(conn, q->target_instances)) {
            deploy_wake(q->lc);
        }
    }
}

/* -- waiting for a change -- */

static bool is_same(const char *a, const char *b)
{
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

static int read_state(struct lifecycle *lc, const char *id, const char *status, const char *phase,
                      bool *ret_changed, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    void *mem = talloc_new(NULL);
    const char *now_status, *now_phase;
    int rc = trk_pg_acquire(lc->pool, &conn, err);
    rc = rc == 0 ? deployment_store_state(conn, mem, id, &now_status, &now_phase, err) : rc;
    if (rc == 0) {
        *ret_changed = strcmp(now_status, DEPLOYMENT_IN_PROGRESS) != 0 ||
                       !is_same(now_status, status) || !is_same(now_phase, phase);
    }
    talloc_free(mem);
    return rc;
}

int deploy_wait_change(struct lifecycle *lc, const char *id, const char *status, const char *phase,
                       int64_t timeout_ms, struct trk_err *err)
{
    struct deploy_queue *q = lc->deploy;
    int64_t deadline = trk_now_ns() + timeout_ms * TRK_NS_PER_MS;
    if (q == NULL) {
        return trk_err_set(err, TRK_UNAVAILABLE, "lifecycle is still starting; try again");
    }
    for (;;) {
        pthread_mutex_lock(&q->mutex);
        uint64_t seen = q->change_count; /* before the look: what comes after it is not missed */
        bool stop = q->stop;
        pthread_mutex_unlock(&q->mutex);
        bool is_changed = false;
        int rc = read_state(lc, id, status, phase, &is_changed, err);
        int64_t left_ms = (deadline - trk_now_ns()) / TRK_NS_PER_MS;
        if (rc < 0 || is_changed || left_ms <= 0 || stop) {
            return rc;
        }
        pthread_mutex_lock(&q->mutex);
        if (seen == q->change_count && !q->stop) {
            /* Other replicas' changes are only seen by looking. */
            timed_wait(&q->change, &q->mutex, left_ms < WAIT_POLL_MS ? left_ms : WAIT_POLL_MS);
        }
        pthread_mutex_unlock(&q->mutex);
    }
}

/* -- life -- */

static void init_conditions(struct deploy_queue *q)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->wake, &attr);
    pthread_cond_init(&q->change, &attr);
    pthread_cond_init(&q->ended, &attr);
    pthread_cond_init(&q->keep, &attr);
    pthread_condattr_destroy(&attr);
}

static int start_threads(struct deploy_queue *q, struct trk_err *err)
{
    q->has_keeper = pthread_create(&q->keeper, NULL, keeper_main, q) == 0;
    for (unsigned i = 0; q->has_keeper && i < q->worker_count; i++) {
        struct worker_args *args = trk_xmalloc(sizeof(*args));
        *args = (struct worker_args){q, i};
        if (pthread_create(&q->workers[i], NULL, worker_main, args) != 0) {
            free(args);
            break;
        }
        q->started++;
    }
    return q->started == q->worker_count
               ? 0
               : trk_err_set(err, TRK_INTERNAL, "starting the deployment workers failed");
}

static int adopt_rows(struct lifecycle *lc, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = trk_pg_acquire(lc->pool, &conn, err);
    for (size_t i = 0; rc == 0 && i < lc->targets.count; i++) {
        const struct infra_target *t = lc->targets.list[i];
        rc = queue_adopt(conn, t->name, t->instance, err);
    }
    return rc;
}

int deploy_start(struct lifecycle *lc, struct trk_err *err)
{
    struct deploy_queue *q = trk_xcalloc(1, sizeof(*q));
    q->lc = lc;
    q->worker_count = (unsigned)lc->config->deploy_workers;
    q->worker_count = q->worker_count > WORKERS_MAX ? WORKERS_MAX : q->worker_count;
    q->requested = trk_metrics_counter(lc->metrics, "requested_job_deployments_total",
                                       "Deployments asked for", NULL);
    q->ended_total = trk_metrics_counter(lc->metrics, "done_job_deployments_total",
                                         "Deployments ended, well or not", NULL);
    q->deployed = trk_metrics_counter(lc->metrics, "deployed_job_total",
                                      "Deployments that succeeded", NULL);
    init_conditions(q);
    context_sweep(lc->config->state_dir);
    q->target_instances = infra_instances(&lc->targets);
    int rc = adopt_rows(lc, err);
    rc = rc == 0 ? instances_enter(lc, &q->instance_fd, err) : rc;
    if (rc < 0) {
        free(q->target_instances);
        free(q);
        return rc;
    }
    lc->deploy = q;
    rc = start_threads(q, err);
    if (rc < 0) {
        deploy_stop(lc, 0);
    }
    return rc;
}

void deploy_stop(struct lifecycle *lc, int64_t grace_ms)
{
    struct deploy_queue *q = lc->deploy;
    if (q == NULL) {
        return;
    }
    int64_t deadline = trk_now_ns() + grace_ms * TRK_NS_PER_MS;
    pthread_mutex_lock(&q->mutex);
    atomic_store(&q->stop, true);
    pthread_cond_broadcast(&q->wake);
    pthread_cond_broadcast(&q->change);
    pthread_cond_broadcast(&q->keep);
    for (bool is_busy = true; is_busy && trk_now_ns() < deadline;) {
        is_busy = false;
        for (unsigned i = 0; i < q->worker_count; i++) {
            is_busy = is_busy || q->active[i] != NULL;
        }
        if (is_busy) {
            timed_wait(&q->ended, &q->mutex, (deadline - trk_now_ns()) / TRK_NS_PER_MS + 1);
        }
    }
    for (unsigned i = 0; i < q->worker_count; i++) {
        if (q->active[i] != NULL) {
            q->active[i]->cancel = true;
        }
    }
    pthread_mutex_unlock(&q->mutex);
    for (unsigned i = 0; i < q->started; i++) {
        pthread_join(q->workers[i], NULL);
    }
    if (q->has_keeper) {
        pthread_join(q->keeper, NULL);
    }
    q->started = 0;
    q->has_keeper = false;
    free(TRK_STEAL(q->target_instances));
    instances_leave(lc, TRK_STEAL_FD(q->instance_fd));
    /* The queue itself stays: requests that are still being answered may ask about it. */
}
