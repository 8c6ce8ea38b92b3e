/*
 * retention.h - rows that are not needed any more, and what the others still need of the image
 * store.
 */
#ifndef LIFECYCLE_STORE_RETENTION_H
#define LIFECYCLE_STORE_RETENTION_H

#include <jansson.h>

#include "libtrack/pg/pg.h"

/* 0 days: for ever. */
struct retention_limits {
    int64_t deployments_per_job, build_logs_per_job; /* of those that have ended, newest first */
    int64_t deployment_days, audit_days, status_event_days;
};
/* The newest deployment of a job that exists and the one that made a generation stay in any case.
 */
int retention_store_clean(struct trk_pg *conn, const struct retention_limits *limits,
                          struct trk_err *err) TRK_MUST_CHECK;
/* What jobs and deployments under way refer to: {"images": ["<name>@<digest>"], "sources":
 * [digest]}; *ret owned. */
int retention_store_in_use(struct trk_pg *conn, json_t **ret, struct trk_err *err) TRK_MUST_CHECK;

#endif
