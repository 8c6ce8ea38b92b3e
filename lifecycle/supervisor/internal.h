/*
 * internal.h - what the files of the supervisor share. One thread uses it all.
 */
#ifndef LIFECYCLE_SUPERVISOR_INTERNAL_H
#define LIFECYCLE_SUPERVISOR_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>

#include "libtrack/http/http_client.h"
#include "lifecycle/config.h"
#include "lifecycle/infra/target.h"
#include "lifecycle/lifecycle.h"
#include "lifecycle/store/generation.h"

/* health.c: whether jobs are ready, asked in threads of its own. */
enum health_state { HEALTH_UNKNOWN, HEALTH_READY, HEALTH_FAILING };
struct health;
struct supervisor;
/* What was found out lately about the replica `id`, which is asked from now on. is_running: it
 * served at the last look; what was found out otherwise, or at another address, does not count.
 * *ret_reason owned, set for HEALTH_FAILING. */
enum health_state health_of(struct health *health, const char *id, const char *address,
                            bool is_running, char **ret_reason);
void health_sweep(struct health *health); /* forgets those not named since the last time */
void health_clear(struct health *health);
/* NULL when its threads cannot be started. */
struct health *health_start(struct supervisor *s, int64_t interval_ms,
                            struct trk_err *err) TRK_MUST_CHECK;
void health_stop(struct health *health);

/* A lost workload that is being brought back: when to try again. */
struct revival {
    char generation_id[40];
    unsigned attempts;
    bool is_image_gone;
    int64_t next_ns;
};

struct supervisor {
    struct lifecycle *lc;
    pthread_t thread;
    bool is_running;
    pthread_mutex_t mutex; /* guards stop and has_news */
    pthread_cond_t wake;
    bool stop, has_news;
    struct health *health;
    struct trk_pg_pool *leader_pool; /* one connection: its session holds the locks */
    struct trk_pg *session;
    bool leads;         /* does what concerns the whole database */
    bool *leads_target; /* tends lc->targets.list[i] */
    struct trk_http_client *client;
    struct revival *revivals;
    size_t revival_count;
    char (*orphans)[40]; /* reported already */
    size_t orphan_count;
    int64_t next_clean_ns;
    bool is_hurried; /* something is coming back: look again soon */
    struct trk_metric *is_leader, *jobs_by_status, *orphan_gauge, *revived;
};

/* supervisor.c: there is something to look at. Any thread. */
void supervisor_wake(struct supervisor *s);
/* reconcile.c */
void supervisor_reconcile(struct supervisor *s);
/* revive.c: starts the generation's workload again from desired state, unless it is too early. */
void supervisor_revive(struct supervisor *s, const struct infra_target *target,
                       const struct generation *generation);
/* The pause after so many attempts, without jitter: doubled up to a minute, or to five when trying
 * again is of little use. */
int64_t supervisor_revival_pause_ms(unsigned attempts, bool is_image_gone);
void supervisor_forget_revival(struct supervisor *s, const char *generation_id);
/* clean.c */
void supervisor_count_jobs(struct supervisor *s);
void supervisor_clean(struct supervisor *s);

#endif
