/*
 * work.h - one deployment in a worker's hands, and the queue's own state. Only for deploy/.
 *
 * A step does its work and moves the row on (work_advance) or ends the deployment (is_finished). A
 * failed step fails the deployment, unless is_abandoned says that it is not the deployment's fault
 * (database away, lease lost, shutdown): then somebody goes on later from the step in the row.
 */
#ifndef LIFECYCLE_DEPLOY_WORK_H
#define LIFECYCLE_DEPLOY_WORK_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "libtrack/http/http_client.h"
#include "lifecycle/config.h"
#include "lifecycle/infra/target.h"
#include "lifecycle/lifecycle.h"
#include "lifecycle/store/deployment.h"
#include "lifecycle/store/generation.h"
#include "lifecycle/store/queue.h"

#define STEP_BUILD  "build"
#define STEP_APPLY  "apply"
#define STEP_ALIVE  "alive"
#define STEP_READY  "ready"
#define STEP_SWITCH "switch"

struct work {
    struct lifecycle *lc;
    void *mem; /* talloc: goes with the work */
    struct deployment *d;
    json_t *manifest;                  /* checked */
    const struct infra_target *target; /* NULL when it does not exist (any more) */
    struct trk_http_client *client;
    atomic_bool cancel; /* lease lost or shutdown: stop waiting */
    bool is_abandoned, is_finished;
};

struct step {
    const char *name;
    const char *context; /* in front of an error's text */
    int (*run)(struct work *work, struct trk_err *err);
    const char *needs; /* what it asks that may be away for a while: then it is tried again; NULL:
                          nothing */
};
extern const struct step deploy_steps[];
extern const size_t deploy_step_count;

int step_build(struct work *work, struct trk_err *err) TRK_MUST_CHECK;
int step_apply(struct work *work, struct trk_err *err) TRK_MUST_CHECK;
int step_alive(struct work *work, struct trk_err *err) TRK_MUST_CHECK;
int step_ready(struct work *work, struct trk_err *err) TRK_MUST_CHECK;
int step_switch(struct work *work, struct trk_err *err) TRK_MUST_CHECK;
size_t work_replicas(const struct work *work); /* how many its manifest wants */
/* Ends it as failed: what it made goes, what was there stays. */
int work_fail(struct work *work, const char *error, struct trk_err *err) TRK_MUST_CHECK;

/* trk_pg_transaction that marks the work abandoned when the database is away or the lease lost. */
int work_transaction(struct work *work,
                     int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err), void *ctx,
                     struct trk_err *err) TRK_MUST_CHECK;
/* queue_advance within a transaction, or by itself (conn NULL); a lost lease abandons the work. */
int work_advance(struct work *work, struct trk_pg *conn, const struct queue_progress *progress,
                 bool is_durable, struct trk_err *err) TRK_MUST_CHECK;
int work_finish(struct work *work, struct trk_pg *conn, const char *error, const char *warning,
                struct trk_err *err) TRK_MUST_CHECK;

/* instances.c: this process among those of its state folder. */
int instances_enter(struct lifecycle *lc, int *ret_fd, struct trk_err *err) TRK_MUST_CHECK;
void instances_leave(struct lifecycle *lc, int fd);
void instances_bury(struct lifecycle *lc); /* frees what dead ones had in hand */

/* queue.c: there is something to claim. */
void deploy_wake(struct lifecycle *lc);
void deploy_count_requested(struct lifecycle *lc);
void deploy_count_ended(struct lifecycle *lc, bool is_done);

#endif
