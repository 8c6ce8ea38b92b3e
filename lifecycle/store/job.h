/*
 * job.h - rows of registry_job and registry_jobfamily.
 *
 * Structs and their strings hang on the talloc context `mem` that the caller gives. Functions
 * taking `struct trk_pg *` run in the caller's unit of work. No rules here: who may do what and
 * which version `latest` means is domain/.
 */
#ifndef LIFECYCLE_STORE_JOB_H
#define LIFECYCLE_STORE_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/pg/pg.h"

struct job {
    const char *id, *family_id, *name, *version;
    const char *status; /* domain/status.h: starting | running | error | orphaned | lost */
    int64_t create_time, update_time, last_call_time; /* Unix seconds; 0: never */
    const char *manifest;                             /* YAML text as submitted, or NULL */
    const char *manifest_json; /* what is shown of it, JSON; job_store_save makes it */
    const char *error, *notice, *image_tag, *deployed_by, *infrastructure_target;
    const char *addresses; /* host:port of its replicas, a comma list; NULL: none. Only read */
    const char *job_type_version, *infrastructure_stats;
    const char *generation_id, *image_name, *image_digest, *source_digest,
        *spec_digest; /* or NULL */
};

/* TRK_NOT_FOUND: "no job named x …". Exact version. */
int job_store_get(struct trk_pg *conn, void *mem, const char *name, const char *version,
                  struct job **ret, struct trk_err *err) TRK_MUST_CHECK;
/* The same for `latest` and wildcards too (libtrack/data/version.h says which is meant).
 * TRK_NOT_FOUND. */
int job_store_resolve(struct trk_pg *conn, void *mem, const char *name, const char *version,
                      struct job **ret, struct trk_err *err) TRK_MUST_CHECK;
/* An alias of a version to the version it stands for now; *ret_version hangs on mem.
 * TRK_NOT_FOUND. */
int job_store_resolve_version(struct trk_pg *conn, void *mem, const char *name, const char *wanted,
                              const char **ret_version, struct trk_err *err) TRK_MUST_CHECK;
/* Shows `see` the jobs behind (after_name, after_version), by name and version, at most `limit`;
 * texts are valid until it returns. ("", "") is before the first. */
int job_store_page(struct trk_pg *conn, const char *after_name, const char *after_version,
                   int64_t limit, void (*see)(void *ctx, const struct job *job), void *ctx,
                   size_t *ret_count, struct trk_err *err) TRK_MUST_CHECK;
/* At start: fills what rows of older versions lack (manifest_json). */
int job_store_complete(struct trk_pg *conn, struct trk_err *err) TRK_MUST_CHECK;
/* Inserts or updates by (name, version); create_time and id of an existing row stay. update_time :=
 * job->update_time, or now when 0; id: a new one when NULL. Writes no event: job_store_set_status
 * or event_store_add does, in the same transaction. */
int job_store_save(struct trk_pg *conn, const struct job *job, struct trk_err *err) TRK_MUST_CHECK;
/* Status with its reason: writes the row, a registry_jobstatusevent, and a job_changed event, in
 * the caller's transaction. `error` NULL clears. */
int job_store_set_status(struct trk_pg *conn, const char *name, const char *version,
                         const char *status, const char *error, const char *reason,
                         struct trk_err *err) TRK_MUST_CHECK;
/* ret_counts[i]: how many jobs have statuses[i]. */
int job_store_count(struct trk_pg *conn, const char *const *statuses, size_t count,
                    int64_t *ret_counts, struct trk_err *err) TRK_MUST_CHECK;
/* What hinders a job whose status stays as it is. */
int job_store_set_error(struct trk_pg *conn, const char *name, const char *version,
                        const char *error, struct trk_err *err) TRK_MUST_CHECK;
/* Deletes the row, keeps it in registry_trashjob when to_trash; writes job_removed. A missing row
 * is fine. */
int job_store_delete(struct trk_pg *conn, const char *name, const char *version, bool to_trash,
                     struct trk_err *err) TRK_MUST_CHECK;
/* Was this version deployed and deleted before? */
int job_store_is_in_trash(struct trk_pg *conn, const char *name, const char *version, bool *ret,
                          struct trk_err *err) TRK_MUST_CHECK;

/* Family by name; TRK_NOT_FOUND. *ret_id hangs on mem. */
int family_store_get(struct trk_pg *conn, void *mem, const char *name, const char **ret_id,
                     struct trk_err *err) TRK_MUST_CHECK;
struct family {
    const char *id, *name;
};
/* By name. */
int family_store_list(struct trk_pg *conn, void *mem, struct family **ret, size_t *ret_count,
                      struct trk_err *err) TRK_MUST_CHECK;
/* The row alone (auth/issue.h makes all of it), made unless it is there. */
int family_store_ensure(struct trk_pg *conn, void *mem, const char *name, const char **ret_id,
                        bool *ret_is_new, struct trk_err *err) TRK_MUST_CHECK;
/* The family's active token (what its jobs get as AUTH_TOKEN). */
int family_store_token(struct trk_pg *conn, void *mem, const char *name, const char **ret_token,
                       struct trk_err *err) TRK_MUST_CHECK;

#endif
