#include "lifecycle/api/stream.h"

#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "lifecycle/api/api.h"
#include "lifecycle/store/gateway.h"

#define BATCH 500

struct stream *stream_new(struct trk_request *req, void *mem, size_t bytes_max)
{
    struct stream *s = trk_xcalloc(1, sizeof(*s));
    s->lc = api_lifecycle(req);
    s->mem = mem;
    trk_buf_init(&s->out, bytes_max);
    return s;
}

void stream_free(struct stream *s)
{
    trk_buf_fini(&s->out);
    talloc_free(s->mem);
    free(s);
}

static void end_stream(void *user)
{
    struct stream *s = user;
    hub_leave(&s->reader);
    stream_free(s);
}

/* Puts something into `out`, if only a heartbeat. False: the stream is over. */
static bool wait_for_news(struct stream *s)
{
    while (s->out.len == 0) {
        struct hub_message *message = NULL;
        enum hub_news news = hub_next(&s->reader, HUB_HEARTBEAT_MS, &message);
        bool goes_on = news != HUB_ENDED;
        if (news == HUB_MESSAGE && message->id > s->seen_id) {
            goes_on = s->pass(s, message);
        } else if (news == HUB_QUIET) {
            goes_on = s->is_still_allowed == NULL || s->is_still_allowed(s);
            (void)trk_buf_adds(&s->out, ": heartbeat\n\n");
        }
        hub_message_unref(message);
        if (!goes_on || s->out.failed) {
            return false;
        }
    }
    return true;
}

static ssize_t next(void *user, char *bytes, size_t size)
{
    struct stream *s = user;
    if (s->out.len == 0) {
        trk_buf_reset(&s->out);
        if (!wait_for_news(s)) {
            return 0;
        }
    }
    size_t len = s->out.len < size ? s->out.len : size;
    memcpy(bytes, s->out.data, len);
    trk_buf_consume(&s->out, len);
    return (ssize_t)len;
}

struct beginning {
    struct stream *stream;
    int (*begin)(struct trk_pg *conn, void *stream, struct trk_err *err);
};

static int run_beginning(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct beginning *b = ctx;
    trk_buf_reset(&b->stream->out); /* the transaction may be tried again */
    int code = gateway_store_freeze(conn, err);
    code = code == 0 ? b->begin(conn, b->stream, err) : code;
    return code == 0 && b->stream->out.failed
               ? trk_err_set(err, TRK_TOO_LARGE, "the stream's beginning exceeds %zu bytes",
                             b->stream->out.cap_bytes)
               : code;
}

int stream_start(struct trk_request *req, struct stream *s,
                 int (*begin)(struct trk_pg *conn, void *stream, struct trk_err *err),
                 struct trk_err *err)
{
    int code = hub_join(s->lc->events, &s->reader, err);
    if (code < 0) {
        stream_free(s);
        return code;
    }
    struct beginning b = {s, begin};
    code = api_transaction(req, run_beginning, &b, err);
    if (code < 0) {
        end_stream(s);
        return code;
    }
    (void)trk_reply_header(req, "Cache-Control", "no-store");
    (void)trk_reply_header(req, "X-Accel-Buffering", "no");
    return trk_reply_stream(req, 200, "text/event-stream", next, s, end_stream);
}

int64_t stream_last_event_id(struct trk_request *req)
{
    const char *text = trk_req_header(req, "Last-Event-ID");
    int64_t id = -1;
    return text != NULL && trk_parse_int64(text, 0, INT64_MAX, &id, NULL) == 0 ? id : -1;
}

int stream_can_resume(struct trk_pg *conn, int64_t id, bool *ret, int64_t *ret_last,
                      struct trk_err *err)
{
    int64_t first;
    int code = event_store_range(conn, &first, ret_last, err);
    if (code == 0) {
        /* The newest event is never cleaned away, so a gap before the oldest one is visible. */
        *ret = id >= 0 && id <= *ret_last && (*ret_last == 0 || id >= first - 1);
    }
    return code;
}

int stream_catch_up(struct trk_pg *conn, int64_t id,
                    int (*each)(struct trk_pg *conn, const struct event *events, size_t count,
                                void *ctx, struct trk_err *err),
                    void *ctx, struct trk_err *err)
{
    size_t count = BATCH;
    int code = 0;
    while (code == 0 && count == BATCH) {
        void *mem = talloc_new(NULL);
        struct event *events;
        code = event_store_after(conn, mem, id, BATCH, &events, &count, err);
        if (code == 0 && count > 0) {
            id = events[count - 1].id;
            code = each(conn, events, count, ctx, err);
        }
        talloc_free(mem);
    }
    return code;
}
