/*
 * rows.h - small helpers of the store files: result columns onto a talloc context, and what two of
 * them read.
 */
#ifndef LIFECYCLE_STORE_ROWS_H
#define LIFECYCLE_STORE_ROWS_H

#include <talloc.h>

#include "libtrack/pg/pg.h"
#include "lifecycle/domain/subject.h"

/* NULL for SQL null. */
static inline const char *row_text(void *mem, const struct trk_pg_result *res, int row,
                                   const char *column)
{
    const char *text = trk_pg_text(res, row, column);
    if (text == NULL) {
        return NULL;
    }
    const char *copy = talloc_strdup(mem, text);
    if (copy == NULL) {
        trk_die("out of memory");
    }
    return copy;
}

/* Zeroed array of `count`; never NULL, also for 0. */
#define row_array(mem, type, count)                                                                \
    ({                                                                                             \
        type *array_ = talloc_zero_array(mem, type, (unsigned)(count) + 1);                        \
        if (array_ == NULL) {                                                                      \
            trk_die("out of memory");                                                              \
        }                                                                                          \
        array_;                                                                                    \
    })

/* Of the job `j`: host:port of its replicas, a comma list. */
#define JOB_ADDRESSES                                                                              \
    "(select string_agg(r.address, ',' order by r.replica) from registry_jobreplica r where "      \
    "r.generation_id = j.generation_id) as addresses"

/* -- tokens and their subjects (subject.c): `t` is registry_authtoken, `s` registry_authsubject,
 * `u` auth_user, `p` registry_authresourcepermission -- */

#define TOKEN_COLUMNS                                                                              \
    "t.id as token_id, t.active, t.is_session, t.expiry_time is not null and t.expiry_time <= "    \
    "now() as "                                                                                    \
    "expired, case when t.expiry_time is null then 0 else greatest(1, extract(epoch from "         \
    "t.expiry_time - now()) * 1000)::bigint end as valid_for_ms, t.last_use_time is null or "      \
    "t.last_use_time < date_trunc('day', now()) as not_used_today, s.id as subject_id, "           \
    "u.username, u.is_active, u.is_staff, s.esc_id, (select name from registry_esc e where e.id "  \
    "= s.esc_id) as esc_name, (select name from registry_jobfamily f where f.id = "                \
    "s.job_family_id) as family_name"
/* The subject of the first row's token with the permissions of all rows, or TRK_UNAUTHENTICATED:
 * unknown (token_id is null), revoked, expired. Notes the use. */
int subject_of_rows(struct trk_pg *conn, void *mem, const struct trk_pg_result *res,
                    struct subject **ret, struct trk_err *err) TRK_MUST_CHECK;

#endif
