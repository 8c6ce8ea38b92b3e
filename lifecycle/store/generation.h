/*
 * generation.h - rows of registry_jobgeneration (desired state of workloads) and the sealed secrets
 * of deployments and jobs.
 */
#ifndef LIFECYCLE_STORE_GENERATION_H
#define LIFECYCLE_STORE_GENERATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/pg/pg.h"

#define GENERATION_STARTING "starting" /* its deployment is on the way */
#define GENERATION_SERVING  "serving"
#define GENERATION_DRAINING                                                                        \
    "draining" /* replaced: still answers, until drain_delay_ms has passed */
#define GENERATION_REMOVING "removing" /* asked to end */

#define REPLICA_RUNNING "running"
#define REPLICA_ERROR   "error"   /* ended by itself and waits, or is not ready */
#define REPLICA_LOST    "lost"    /* its target does not have it (any more) */
#define REPLICA_WAITING "waiting" /* it starts, is not ready yet, or was asked to end */

struct replica {
    int64_t number;
    const char *state, *address, *reason; /* address NULL: none; reason "": none */
    int64_t restarts;                     /* by itself */
};

struct generation {
    const char *id, *job_name, *job_version, *deployment_id, *infrastructure_target,
        *target_instance, *state, *spec;
    int64_t replica_count;  /* how many there should be */
    const char *replicas;   /* those known, as JSON (generation_store_replicas_text) */
    int64_t state_age_ms;   /* since state_time */
    const char *job_status; /* of the job that serves with it; NULL when none does */
};
/* All, or those of one job (name not NULL). */
int generation_store_list(struct trk_pg *conn, void *mem, const char *name, const char *version,
                          struct generation **ret, size_t *ret_count,
                          struct trk_err *err) TRK_MUST_CHECK;
/* A missing row is TRK_NOT_FOUND. */
int generation_store_get(struct trk_pg *conn, void *mem, const char *id, struct generation **ret,
                         struct trk_err *err) TRK_MUST_CHECK;
/* In state starting; once more is fine. */
int generation_store_insert(struct trk_pg *conn, const struct generation *generation,
                            struct trk_err *err) TRK_MUST_CHECK;
/* The time of the state restarts only when the state changes. */
int generation_store_set(struct trk_pg *conn, const char *id, const char *state,
                         struct trk_err *err) TRK_MUST_CHECK;
/* What is known of its replicas: those named, and no others. */
int generation_store_put_replicas(struct trk_pg *conn, const char *id, const char *replicas,
                                  struct trk_err *err) TRK_MUST_CHECK;
/* The same as text, comparable with generation.replicas; owned. */
char *generation_store_replicas_text(const struct replica *list, size_t count);
/* The replica of that number in generation.replicas; false when it is not known. Strings hang on
 * mem. */
bool generation_store_replica(void *mem, const char *replicas, int64_t number, struct replica *ret);
/* Every other generation of the job goes from serving to `state`. */
int generation_store_replace(struct trk_pg *conn, const char *name, const char *version,
                             const char *keep_id, const char *state,
                             struct trk_err *err) TRK_MUST_CHECK;
int generation_store_delete(struct trk_pg *conn, const char *id,
                            struct trk_err *err) TRK_MUST_CHECK;

/* Generations whose deployment ended without them, and serving ones that no job has, are to go. */
int generation_store_retire_stray(struct trk_pg *conn, struct trk_err *err) TRK_MUST_CHECK;
/* Locks the job's row until the transaction ends; *ret_status NULL when the generation does not
 * serve the job any more, or a deployment of the job is on the way: then hands off. */
int generation_store_lock_job(struct trk_pg *conn, void *mem, const struct generation *generation,
                              const char **ret_status, struct trk_err *err) TRK_MUST_CHECK;

/* Sealed bytes; *ret NULL when there are none; owned otherwise. */
int secret_store_put_deployment(struct trk_pg *conn, const char *deployment_id, const void *sealed,
                                size_t len, struct trk_err *err) TRK_MUST_CHECK;
int secret_store_get_deployment(struct trk_pg *conn, const char *deployment_id, void **ret,
                                size_t *ret_len, struct trk_err *err) TRK_MUST_CHECK;
int secret_store_put_job(struct trk_pg *conn, const char *name, const char *version,
                         const void *sealed, size_t len, struct trk_err *err) TRK_MUST_CHECK;
int secret_store_get_job(struct trk_pg *conn, const char *name, const char *version, void **ret,
                         size_t *ret_len, struct trk_err *err) TRK_MUST_CHECK;
int secret_store_delete_job(struct trk_pg *conn, const char *name, const char *version,
                            struct trk_err *err) TRK_MUST_CHECK;

#endif
