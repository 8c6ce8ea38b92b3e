/*
 * event.h - what happened, for those who must know: the rows of registry_event and the audit log.
 *
 * Triggers of the database write the events (sql/0030_events.sql), in the transaction that makes
 * the change and in the order of their numbers, and notify the channel.
 */
#ifndef LIFECYCLE_STORE_EVENT_H
#define LIFECYCLE_STORE_EVENT_H

#include <jansson.h>

#include "libtrack/pg/pg.h"

#define EVENT_CHANNEL "racetrack_event"

#define EVENT_JOB_CHANGED      "job_changed"      /* {"job_id","job_name","job_version"} */
#define EVENT_JOB_REMOVED      "job_removed"      /* {"job_id","job_name","job_version"} */
#define EVENT_SUBJECT_CHANGED  "subject_changed"  /* {"subject_id"} */
#define EVENT_SETTINGS_CHANGED "settings_changed" /* {} */
/* {"deployment_id","job_name","job_version","status","phase","error"} */
#define EVENT_DEPLOYMENT_CHANGED "deployment_changed"

struct event {
    int64_t id;
    const char *kind, *payload; /* JSON text */
};
/* Numbers of the oldest and the newest event kept; 0 when there is none. */
int event_store_range(struct trk_pg *conn, int64_t *ret_first, int64_t *ret_last,
                      struct trk_err *err) TRK_MUST_CHECK;
/* The first `limit` events after number `after`, in order. */
int event_store_after(struct trk_pg *conn, void *mem, int64_t after, int64_t limit,
                      struct event **ret, size_t *ret_count, struct trk_err *err) TRK_MUST_CHECK;
/* Forgets old ones; the newest always stays, so that a reader can tell whether it missed some. */
int event_store_clean(struct trk_pg *conn, int64_t older_than_s,
                      struct trk_err *err) TRK_MUST_CHECK;

/* Types: job_deployed job_redeployed job_deleted job_moved deployment_failed; user_logged_in
 * user_logged_out password_changed tokens_regenerated esc_created esc_token_created
 * esc_token_revoked permission_granted permission_revoked public_endpoint_changed. `properties`
 * borrows; NULL: {}. */
int audit_store_add(struct trk_pg *conn, const char *event_type, const char *username_executor,
                    const char *username_subject, const char *job_name, const char *job_version,
                    const json_t *properties, struct trk_err *err) TRK_MUST_CHECK;

struct audit_event {
    const char *id, *event_type;
    const char *properties; /* JSON text of an object */
    const char *username_executor, *username_subject, *job_name, *job_version; /* or NULL */
    int64_t version, timestamp;
};
struct audit_filter {
    const char *job_name, *job_version; /* or NULL */
    const char *related_to;             /* a user name: executor or subject; or NULL */
    int64_t limit, offset;
};
/* Newest first. */
int audit_store_list(struct trk_pg *conn, void *mem, const struct audit_filter *filter,
                     struct audit_event **ret, size_t *ret_count,
                     struct trk_err *err) TRK_MUST_CHECK;

#endif
