#include "lifecycle/supervisor/supervisor.h"

#include <time.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/store/leader.h"
#include "lifecycle/supervisor/internal.h"

enum { HURRIED_MS = 100, USAGE_S = 30, FIRST_CLEAN_S = 60 };

/* -- leading -- */

static void resign(struct supervisor *s)
{
    if (s->leader != NULL) {
        trk_pg_release(s->leader);
        s->leader = NULL;
        trk_log_info("supervisor: not the leader any more", NULL);
    }
    /* The lock belongs to the session: it goes with the connection. */
    trk_pg_pool_free(s->leader_pool);
    s->leader_pool = NULL;
}

/* The lock holds as long as its connection: a question on it shows whether both are there. */
static bool is_still_leader(struct supervisor *s)
{
    if (s->leader == NULL) {
        return false;
    }
    if (leader_store_is_held(s->leader)) {
        return true;
    }
    resign(s);
    return false;
}

static bool try_to_lead(struct supervisor *s)
{
    struct trk_pg *conn = NULL;
    if (s->leader_pool == NULL) {
        struct trk_pg_options options = s->lc->pg_options;
        options.size = 1;
        options.application_name = "racetrack lifecycle supervisor";
        s->leader_pool = trk_pg_pool_new(&options);
    }
    if (trk_pg_acquire(s->leader_pool, &conn, NULL) < 0) {
        return false;
    }
    if (!leader_store_try(conn)) {
        trk_pg_release(conn);
        return false;
    }
    s->leader = conn;
    trk_log_info("supervisor: this process leads", NULL);
    return true;
}

/* -- the loop -- */

static void look_around(struct supervisor *s)
{
    int64_t now = trk_now_ns();
    s->is_hurried = false;
    supervisor_reconcile(s);
    supervisor_count_jobs(s);
    if (now >= s->next_usage_ns) {
        supervisor_read_usage(s);
        s->next_usage_ns = now + USAGE_S * TRK_NS_PER_S;
    }
    if (now >= s->next_clean_ns) {
        supervisor_clean(s);
        s->next_clean_ns = now + s->lc->config->retention_interval_s * TRK_NS_PER_S;
    }
}

void supervisor_wake(struct supervisor *s)
{
    pthread_mutex_lock(&s->mutex);
    s->has_news = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->mutex);
}

static bool wait_for_next(struct supervisor *s)
{
    int64_t ms = s->is_hurried ? HURRIED_MS : s->lc->config->supervisor_interval_ms;
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s->mutex);
    int waited = 0;
    while (!s->stop && !s->has_news && waited == 0) {
        waited = pthread_cond_timedwait(&s->wake, &s->mutex, &until);
    }
    s->has_news = false;
    bool stop = s->stop;
    pthread_mutex_unlock(&s->mutex);
    return !stop;
}

static void *supervisor_main(void *arg)
{
    struct supervisor *s = arg;
    s->client = trk_http_client_new();
    s->next_usage_ns = trk_now_ns() + USAGE_S * TRK_NS_PER_S;
    int64_t clean_s = s->lc->config->retention_interval_s;
    s->next_clean_ns = trk_now_ns() +
                       (clean_s < FIRST_CLEAN_S ? clean_s : FIRST_CLEAN_S) * TRK_NS_PER_S;
    do {
        bool leads = is_still_leader(s) || try_to_lead(s);
        trk_series_set(trk_metric_series(s->is_leader, NULL), leads);
        if (leads) {
            look_around(s);
        } else {
            health_clear(s->health);
        }
    } while (wait_for_next(s));
    resign(s);
    trk_http_client_free(s->client);
    return NULL;
}

int supervisor_start(struct lifecycle *lc, struct trk_err *err)
{
    struct supervisor *s = trk_xcalloc(1, sizeof(*s));
    pthread_condattr_t attr;
    s->lc = lc;
    s->is_leader = trk_metrics_gauge(lc->metrics, "lifecycle_supervisor_is_leader",
                                     "1 when this process does the periodic work", NULL);
    s->jobs_by_status = trk_metrics_gauge(lc->metrics, "jobs_count_by_status",
                                          "Jobs by their status", "status");
    s->orphan_gauge = trk_metrics_gauge(lc->metrics, "lifecycle_orphaned_workloads",
                                        "Workloads that no record knows", NULL);
    s->revived = trk_metrics_counter(lc->metrics, "lifecycle_revived_workloads_total",
                                     "Lost workloads started again", NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    lc->supervisor = s;
    s->health = health_start(s, lc->config->health_probe_interval_s * 1000, err);
    int rc = s->health != NULL ? 0 : TRK_INTERNAL;
    s->is_running = rc == 0 && pthread_create(&s->thread, NULL, supervisor_main, s) == 0;
    if (rc == 0 && !s->is_running) {
        rc = trk_err_set(err, TRK_INTERNAL, "starting the supervisor failed");
    }
    if (rc < 0) {
        supervisor_stop(lc);
    }
    return rc;
}

void supervisor_stop(struct lifecycle *lc)
{
    struct supervisor *s = lc->supervisor;
    if (s == NULL) {
        return;
    }
    pthread_mutex_lock(&s->mutex);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->mutex);
    if (s->is_running) {
        pthread_join(s->thread, NULL);
    }
    health_stop(s->health);
    lc->supervisor = NULL;
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->mutex);
    free(s->revivals);
    free(s->orphans);
    free(s);
}
