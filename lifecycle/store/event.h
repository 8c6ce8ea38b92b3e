/*
 * event.h - what happened, for those who must know: the event stream, the audit log.
 *
 * event_store_add belongs into the transaction that makes the change: it takes an advisory lock
 * until commit so that ids become visible in order, and notifies channel "racetrack_event" with the
 * id.
 */
#ifndef LIFECYCLE_STORE_EVENT_H
#define LIFECYCLE_STORE_EVENT_H

#include <jansson.h>

#include "libtrack/pg.h"

#define EVENT_JOB_CHANGED        "job_changed"        /* {"job_name","job_version"} */
#define EVENT_JOB_REMOVED        "job_removed"        /* {"job_name","job_version"} */
#define EVENT_PERMISSION_CHANGED "permission_changed" /* {} */
#define EVENT_TOKEN_CHANGED      "token_changed"      /* {} */
#define EVENT_SETTINGS_CHANGED   "settings_changed"   /* {} */

int event_store_add(struct trk_pg *conn, const char *kind, const char *job_name,
                    const char *job_version, struct trk_err *err) TRK_MUST_CHECK;

/* Types: job_deployed job_redeployed job_deleted job_moved deployment_failed … `properties`
 * borrows, or NULL. */
int audit_store_add(struct trk_pg *conn, const char *event_type, const char *username_executor,
                    const char *username_subject, const char *job_name, const char *job_version,
                    const json_t *properties, struct trk_err *err) TRK_MUST_CHECK;

#endif
