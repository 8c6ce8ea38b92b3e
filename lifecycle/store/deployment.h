/*
 * deployment.h - rows of registry_deployment (the durable queue), the sealed
 * secrets, registry_jobgeneration.
 *
 * Claiming, renewing and moving a step are single statements guarded by the lease owner: a worker
 * that lost its lease changes nothing (TRK_CONFLICT). Structs hang on `mem`.
 */
#ifndef LIFECYCLE_STORE_DEPLOYMENT_H
#define LIFECYCLE_STORE_DEPLOYMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/pg/pg.h"

struct deployment {
    const char *id, *status, *manifest, *error, *job_name, *job_version, *deployed_by, *build_logs,
        *phase, *image_name;
    const char *infrastructure_target, *target_instance, *warnings, *kind, *step, *build_flags,
        *subject_id, *source_digest, *image_digest, *generation_id;
    int64_t create_time, update_time; /* Unix seconds */
    const char *update_mark;          /* update_time to the microsecond, as Postgres writes it */
    bool force, created_job;
    int64_t attempts;
};

/* TRK_NOT_FOUND. */
int deployment_store_get(struct trk_pg *conn, void *mem, const char *id, struct deployment **ret,
                         struct trk_err *err) TRK_MUST_CHECK;
/* Its status and phase alone (long-polling asks often); strings hang on mem. TRK_NOT_FOUND. */
int deployment_store_state(struct trk_pg *conn, void *mem, const char *id, const char **ret_status,
                           const char **ret_phase, struct trk_err *err) TRK_MUST_CHECK;
/* Newest update first, those behind `after` (NULL: from the first); build_logs left out. */
int deployment_store_list(struct trk_pg *conn, void *mem, const struct deployment *after,
                          int64_t limit, struct deployment **ret, size_t *ret_count,
                          struct trk_err *err) TRK_MUST_CHECK;
/* The newest attempt of a job (for build-logs). TRK_NOT_FOUND. */
int deployment_store_last_of_job(struct trk_pg *conn, void *mem, const char *name,
                                 const char *version, struct deployment **ret,
                                 struct trk_err *err) TRK_MUST_CHECK;
/* Inserts it in_progress with its step (NULL: "build") and phase "queued"; TRK_CONFLICT naming the
 * running one when the job has one in progress. */
int deployment_store_insert(struct trk_pg *conn, const struct deployment *deployment,
                            struct trk_err *err) TRK_MUST_CHECK;
/* Reported by image_builder while the deployment is in progress; TRK_NOT_FOUND / TRK_CONFLICT
 * (ended). */
int deployment_store_set_phase(struct trk_pg *conn, const char *id, const char *phase,
                               struct trk_err *err) TRK_MUST_CHECK;
int deployment_store_add_warnings(struct trk_pg *conn, const char *id, const char *warnings,
                                  struct trk_err *err) TRK_MUST_CHECK;

#endif
