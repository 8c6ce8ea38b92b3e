#include "lifecycle/supervisor/supervisor.h"

#include <string.h>
#include <time.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/store/leader.h"
#include "lifecycle/supervisor/internal.h"

enum { HURRIED_MS = 100, NEWS_MS = 50, FIRST_CLEAN_S = 60 };

/* -- leading -- */

static void resign(struct supervisor *s)
{
    if (s->session != NULL) {
        trk_pg_release(s->session);
        s->session = NULL;
    }
    if (s->leads) {
        trk_log_info("supervisor: not the leader any more", NULL);
    }
    s->leads = false;
    memset(s->leads_target, 0, s->lc->targets.count * sizeof(*s->leads_target));
    /* The locks belong to the session: they go with the connection. */
    trk_pg_pool_free(s->leader_pool);
    s->leader_pool = NULL;
}

static bool open_session(struct supervisor *s)
{
    if (s->leader_pool == NULL) {
        struct trk_pg_options options = s->lc->pg_options;
        options.size = 1;
        options.application_name = "racetrack lifecycle supervisor";
        s->leader_pool = trk_pg_pool_new(&options);
    }
    return trk_pg_acquire(s->leader_pool, &s->session, NULL) == 0;
}

/* Takes every part that nobody leads. True when there is anything to do here. */
static bool take_the_lead(struct supervisor *s)
{
    if (s->session != NULL && !leader_store_is_alive(s->session)) {
        resign(s);
    }
    if (s->session == NULL && !open_session(s)) {
        return false;
    }
    if (!s->leads && leader_store_try(s->session, "")) {
        s->leads = true;
        trk_log_info("supervisor: this process leads", NULL);
    }
    bool has_any = s->leads;
    for (size_t i = 0; i < s->lc->targets.count; i++) {
        const char *instance = s->lc->targets.list[i]->instance;
        if (!s->leads_target[i] && leader_store_try(s->session, instance)) {
            s->leads_target[i] = true;
            trk_log_info("supervisor: this process tends an infrastructure target", "instance",
                         instance, NULL);
        }
        has_any = has_any || s->leads_target[i];
    }
    return has_any;
}

/* -- the loop -- */

static void look_around(struct supervisor *s)
{
    int64_t now = trk_now_ns();
    s->is_hurried = false;
    supervisor_reconcile(s);
    if (!s->leads) {
        return;
    }
    supervisor_count_jobs(s);
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

static struct timespec after_ms(int64_t ms)
{
    int64_t at_ns = trk_now_ns() + ms * TRK_NS_PER_MS;
    return (struct timespec){.tv_sec = at_ns / TRK_NS_PER_S, .tv_nsec = at_ns % TRK_NS_PER_S};
}

/* Until there is news, or it is time; news that come one after the other are looked at together. */
static bool wait_for_next(struct supervisor *s)
{
    struct timespec soonest = after_ms(NEWS_MS);
    struct timespec until = after_ms(s->is_hurried ? HURRIED_MS
                                                   : s->lc->config->supervisor_interval_ms);
    pthread_mutex_lock(&s->mutex);
    while (!s->stop && pthread_cond_timedwait(&s->wake, &s->mutex, &soonest) == 0) {
    }
    while (!s->stop && !s->has_news && pthread_cond_timedwait(&s->wake, &s->mutex, &until) == 0) {
    }
    s->has_news = false;
    bool stop = s->stop;
    pthread_mutex_unlock(&s->mutex);
    return !stop;
}

static void on_change(void *ctx, const char *generation_id)
{
    (void)generation_id; /* all are looked at: that costs little, and is right in any case */
    supervisor_wake(ctx);
}

static void watch_targets(struct supervisor *s, bool is_on)
{
    for (size_t i = 0; i < s->lc->targets.count; i++) {
        const struct infra_target *t = s->lc->targets.list[i];
        if (t->watch != NULL) {
            t->watch(t, is_on ? on_change : NULL, s);
        }
    }
}

static void *supervisor_main(void *arg)
{
    struct supervisor *s = arg;
    s->client = trk_http_client_new();
    int64_t clean_s = s->lc->config->retention_interval_s;
    s->next_clean_ns = trk_now_ns() +
                       (clean_s < FIRST_CLEAN_S ? clean_s : FIRST_CLEAN_S) * TRK_NS_PER_S;
    do {
        bool has_work = take_the_lead(s);
        trk_series_set(trk_metric_series(s->is_leader, NULL), s->leads);
        if (has_work) {
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
    s->leads_target = trk_xcalloc(lc->targets.count + 1, sizeof(*s->leads_target));
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
    watch_targets(s, true);
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
    watch_targets(s, false);
    if (s->is_running) {
        pthread_join(s->thread, NULL);
    }
    health_stop(s->health);
    lc->supervisor = NULL;
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->mutex);
    free(s->revivals);
    free(s->orphans);
    free(s->leads_target);
    free(s);
}
