/*
 * queue.h - registry_deployment as a queue: leases and steps.
 *
 * Claiming, renewing and moving on are single statements guarded by the owner of the lease. Those
 * that may be lost with the database server's last milliseconds (a step is idempotent: it is just
 * done again) do not wait for the disk.
 */
#ifndef LIFECYCLE_STORE_QUEUE_H
#define LIFECYCLE_STORE_QUEUE_H

#include "lifecycle/store/deployment.h"

#define QUEUE_LEASE_S 15

/* Where-condition that is always true and makes this transaction's commit not wait for the disk. */
#define ASYNC_COMMIT "set_config('synchronous_commit', 'off', true) = 'off'"

#define DEPLOYMENT_COLUMNS_WITH(logs)                                                              \
    "d.id, d.status, d.manifest, d.error, d.job_name, d.job_version, d.deployed_by, " logs         \
    " as build_logs, d.phase, d.image_name, d.infrastructure_target, d.target_instance, "          \
    "d.warnings, d.kind, d.step, "                                                                 \
    "d.build_flags, d.subject_id, d.source_digest, d.image_digest, d.generation_id, d.force, "     \
    "d.created_job, d.attempts, extract(epoch from d.create_time)::bigint as created, "            \
    "extract(epoch from d.update_time)::bigint as updated, d.update_time::text as update_mark"
#define DEPLOYMENT_COLUMNS DEPLOYMENT_COLUMNS_WITH("d.build_logs")
void deployment_from_row(void *mem, const struct trk_pg_result *res, int row,
                         struct deployment *ret);

/* Rows from before there were instances become those of this one. */
int queue_adopt(struct trk_pg *conn, const char *target_name, const char *instance,
                struct trk_err *err) TRK_MUST_CHECK;
/* Takes the oldest deployment that nobody holds and that is for one of the target instances (a line
 * each); counts the attempt. *ret NULL when there is none. */
int queue_claim(struct trk_pg *conn, void *mem, const char *owner, const char *instances,
                struct deployment **ret, struct trk_err *err) TRK_MUST_CHECK;
/* Is there one to claim? False also when the database is away. */
bool queue_has_work(struct trk_pg *conn, const char *instances);
/* TRK_CONFLICT when the lease is another's by now. */
int queue_renew(struct trk_pg *conn, const char *owner, const char *id,
                struct trk_err *err) TRK_MUST_CHECK;
/* Gives it back to be taken after pause_s; the interrupted attempt does not count. */
int queue_release(struct trk_pg *conn, const char *owner, const char *id, int64_t pause_s,
                  struct trk_err *err) TRK_MUST_CHECK;

/* The owner is dead: what it held is free. */
int queue_expire(struct trk_pg *conn, const char *owner, struct trk_err *err) TRK_MUST_CHECK;

/* What a finished step leaves in the row; NULL leaves a column as it is. */
struct queue_progress {
    const char *step, *phase;
    const char *image_name, *image_digest, *build_logs, *warnings, *generation_id;
    bool created_job; /* true: set */
};
/* TRK_CONFLICT when the lease was lost or the deployment has ended. is_durable: wait for the disk.
 */
int queue_advance(struct trk_pg *conn, const char *owner, const char *id,
                  const struct queue_progress *progress, bool is_durable,
                  struct trk_err *err) TRK_MUST_CHECK;
/* Ends it: done (error NULL) or failed. TRK_CONFLICT as above. The deployment's secrets go. */
int queue_finish(struct trk_pg *conn, const char *owner, const char *id, const char *error,
                 const char *warning, struct trk_err *err) TRK_MUST_CHECK;
/* Is a deployment of the job on the way? */
int queue_is_in_progress(struct trk_pg *conn, const char *name, const char *version, bool *ret,
                         struct trk_err *err) TRK_MUST_CHECK;

#endif
