/*
 * gateway.h - what a gateway decides calls from: jobs with what serves them, callers with their
 * tokens' digests and grants; and what gateways report back.
 *
 * A record is the whole present state of its key as JSON on one line; the gateway stream
 * (api/gateway.c) hands them on as they are.
 */
#ifndef LIFECYCLE_STORE_GATEWAY_H
#define LIFECYCLE_STORE_GATEWAY_H

#include <jansson.h>

#include "libtrack/pg/pg.h"

struct gateway_record {
    const char *id;            /* of the job, of the subject */
    const char *generation_id; /* what serves the job now; NULL: nothing, or no job */
    const char *json;          /* a job's: without its secret */
};
/* The first `limit` records after id `after` ("": from the first), in the order of ids; of `ids`
 * only (array of texts) unless that is NULL. They hang on `mem`. */
int gateway_store_jobs(struct trk_pg *conn, void *mem, const json_t *ids, const char *after,
                       int64_t limit, struct gateway_record **ret, size_t *ret_count,
                       struct trk_err *err) TRK_MUST_CHECK;
int gateway_store_subjects(struct trk_pg *conn, void *mem, const json_t *ids, const char *after,
                           int64_t limit, struct gateway_record **ret, size_t *ret_count,
                           struct trk_err *err) TRK_MUST_CHECK;
/* This transaction sees one moment of the database. First statement of it. */
int gateway_store_freeze(struct trk_pg *conn, struct trk_err *err) TRK_MUST_CHECK;

/* [{"d": digest of a token, "t": Unix seconds of its last use}]; times go forward only. */
int gateway_store_note_tokens(struct trk_pg *conn, const json_t *tokens,
                              struct trk_err *err) TRK_MUST_CHECK;
/* [{"name","version","t": Unix seconds of the last call,"calls": since the last report}] */
int gateway_store_note_jobs(struct trk_pg *conn, const json_t *jobs,
                            struct trk_err *err) TRK_MUST_CHECK;

#endif
