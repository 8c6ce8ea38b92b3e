/* Server-sent events, WHATWG HTML §9.2.6 "Interpreting an event stream". */
#include <stdbool.h>
#include <string.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/http_client.h"

#define LINE_BYTES_MAX  (16 << 20)
#define EVENT_BYTES_MAX (16 << 20)
#define NAME_BYTES_MAX  1024

struct trk_sse {
    int (*on_event)(void *ctx, const char *event, const char *id, const char *data,
                    struct trk_err *err);
    void *ctx;
    struct trk_buf line, data, event, id;
    bool has_data;
    bool after_cr;  /* a LF that follows belongs to the CR before */
    bool is_begun;  /* a byte order mark may stand at the very beginning only */
    bool is_failed; /* nothing more is taken */
};

struct trk_sse *trk_sse_new(int (*on_event)(void *ctx, const char *event, const char *id,
                                            const char *data, struct trk_err *err),
                            void *ctx)
{
    struct trk_sse *sse = trk_xcalloc(1, sizeof(*sse));
    sse->on_event = on_event;
    sse->ctx = ctx;
    trk_buf_init(&sse->line, LINE_BYTES_MAX);
    trk_buf_init(&sse->data, EVENT_BYTES_MAX);
    trk_buf_init(&sse->event, NAME_BYTES_MAX);
    trk_buf_init(&sse->id, NAME_BYTES_MAX);
    return sse;
}

void trk_sse_free(struct trk_sse *sse)
{
    if (sse == NULL) {
        return;
    }
    trk_buf_fini(&sse->line);
    trk_buf_fini(&sse->data);
    trk_buf_fini(&sse->event);
    trk_buf_fini(&sse->id);
    free(sse);
}

static int dispatch(struct trk_sse *sse, struct trk_err *err)
{
    int rc = 0;
    if (sse->has_data) {
        rc = sse->on_event(sse->ctx, sse->event.len > 0 ? sse->event.data : "message", sse->id.data,
                           sse->data.data, err);
    }
    sse->has_data = false;
    trk_buf_reset(&sse->data);
    trk_buf_reset(&sse->event);
    return rc;
}

static bool is_field(const char *line, size_t len, const char *name)
{
    return len == strlen(name) && memcmp(line, name, len) == 0;
}

static int take_field(struct trk_sse *sse, const char *line, size_t name_len, const char *value,
                      size_t len)
{
    if (is_field(line, name_len, "data")) {
        int rc = sse->has_data ? trk_buf_addc(&sse->data, '\n') : 0;
        sse->has_data = true;
        return rc < 0 ? rc : trk_buf_add(&sse->data, value, len);
    }
    if (is_field(line, name_len, "event")) {
        trk_buf_reset(&sse->event);
        return trk_buf_add(&sse->event, value, len);
    }
    if (is_field(line, name_len, "id") && memchr(value, '\0', len) == NULL) {
        trk_buf_reset(&sse->id);
        return trk_buf_add(&sse->id, value, len);
    }
    return 0; /* retry, and what we do not know */
}

static int take_line(struct trk_sse *sse, struct trk_err *err)
{
    const char *line = sse->line.data;
    size_t len = sse->line.len;
    if (!sse->is_begun && len >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
        line += 3;
        len -= 3;
    }
    sse->is_begun = true;
    if (len == 0) {
        return dispatch(sse, err);
    }
    const char *colon = memchr(line, ':', len);
    size_t name_len = colon == NULL ? len : (size_t)(colon - line);
    const char *value = colon == NULL ? line + len : colon + 1;
    if (value < line + len && *value == ' ') {
        value++;
    }
    if (take_field(sse, line, name_len, value, (size_t)(line + len - value)) < 0) {
        return trk_err_set(err, TRK_TOO_LARGE, "an event of the stream is too large");
    }
    return 0;
}

int trk_sse_feed(struct trk_sse *sse, const char *bytes, size_t len, struct trk_err *err)
{
    if (sse->is_failed) {
        return trk_err_set(err, TRK_INVALID, "the event stream has failed before");
    }
    size_t at = 0;
    while (at < len) {
        if (sse->after_cr && bytes[at] == '\n') {
            at++;
        }
        sse->after_cr = false;
        size_t end = at;
        while (end < len && bytes[end] != '\n' && bytes[end] != '\r') {
            end++;
        }
        int rc = 0;
        if (trk_buf_add(&sse->line, bytes + at, end - at) < 0) {
            rc = trk_err_set(err, TRK_TOO_LARGE, "a line of the event stream is too long");
        } else if (end < len) {
            rc = take_line(sse, err);
            trk_buf_reset(&sse->line);
            sse->after_cr = bytes[end] == '\r';
        }
        if (rc < 0) {
            sse->is_failed = true;
            return rc;
        }
        at = end + 1;
    }
    return 0;
}
