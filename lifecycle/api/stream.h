/*
 * stream.h - one reader of the hub as an answer of server-sent events: what it gets at first, then
 * what comes, with heartbeats. Streams differ in what they begin with and in what they let pass.
 */
#ifndef LIFECYCLE_API_STREAM_H
#define LIFECYCLE_API_STREAM_H

#include "libtrack/http/http_server.h"
#include "lifecycle/api/hub.h"

struct stream {
    struct hub_reader reader;
    struct lifecycle *lc;
    struct trk_buf out;
    int64_t seen_id; /* events up to this one are in what it began with */
    /* Appends to out what this reader gets of a message. False: the stream ends. */
    bool (*pass)(struct stream *s, const struct hub_message *message);
    bool (*is_still_allowed)(struct stream *s); /* asked at each heartbeat; may be NULL */
    void *mem;                                  /* talloc: the reader's own; freed with it */
};

/* Takes mem (talloc). */
struct stream *stream_new(struct trk_request *req, void *mem, size_t bytes_max);
void stream_free(struct stream *s); /* before it was started */
/* Joins the hub, then begin (in a transaction that sees one moment) fills `out` and sets seen_id.
 * Takes the stream. */
int stream_start(struct trk_request *req, struct stream *s,
                 int (*begin)(struct trk_pg *conn, void *stream, struct trk_err *err),
                 struct trk_err *err) TRK_MUST_CHECK;
/* Last-Event-ID of the request; -1 when there is none. */
int64_t stream_last_event_id(struct trk_request *req);
/* Is everything after `id` still in the table? *ret_last: the newest event of this moment. */
int stream_can_resume(struct trk_pg *conn, int64_t id, bool *ret, int64_t *ret_last,
                      struct trk_err *err) TRK_MUST_CHECK;
/* Calls each for the events after `id`, in batches. */
int stream_catch_up(struct trk_pg *conn, int64_t id,
                    int (*each)(struct trk_pg *conn, const struct event *events, size_t count,
                                void *ctx, struct trk_err *err),
                    void *ctx, struct trk_err *err) TRK_MUST_CHECK;

#endif
