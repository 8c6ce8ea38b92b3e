#include "pub/sse.h"

#include <string.h>

#define LINE_MAX_BYTES 65536
#define DATA_MAX_BYTES 262144

void pub_sse_init(struct pub_sse *sse,
                  void (*on_event)(void *ctx, const char *event, const char *id, const char *data),
                  void *ctx)
{
    *sse = (struct pub_sse){.on_event = on_event, .ctx = ctx};
    trk_buf_init(&sse->line, LINE_MAX_BYTES);
    trk_buf_init(&sse->data, DATA_MAX_BYTES);
}

void pub_sse_fini(struct pub_sse *sse)
{
    trk_buf_fini(&sse->line);
    trk_buf_fini(&sse->data);
}

void pub_sse_reset(struct pub_sse *sse)
{
    trk_buf_reset(&sse->line);
    trk_buf_reset(&sse->data);
    sse->event[0] = '\0';
    memcpy(sse->next_id, sse->id, sizeof(sse->id));
    sse->was_cr = false;
}

static void copy(char *out, size_t size, const char *value)
{
    size_t len = strlen(value);
    if (len < size) {
        memcpy(out, value, len + 1);
    }
}

static void dispatch(struct pub_sse *sse)
{
    memcpy(sse->id, sse->next_id, sizeof(sse->id));
    if (sse->data.len > 0) {
        sse->data.data[sse->data.len - 1] = '\0'; /* the last line's newline */
        sse->on_event(sse->ctx, sse->event[0] != '\0' ? sse->event : "message", sse->id,
                      sse->data.data);
    }
    trk_buf_reset(&sse->data);
    sse->event[0] = '\0';
}

static void end_line(struct pub_sse *sse)
{
    char *line = sse->line.data;
    if (sse->line.len == 0) {
        dispatch(sse);
        return;
    }
    char *value = strchr(line, ':');
    if (value == line) { /* a comment: the heartbeat */
        trk_buf_reset(&sse->line);
        return;
    }
    if (value != NULL) {
        *value++ = '\0';
        value += *value == ' ';
    } else {
        value = line + strlen(line);
    }
    if (strcmp(line, "data") == 0) {
        (void)trk_buf_adds(&sse->data, value);
        (void)trk_buf_addc(&sse->data, '\n');
    } else if (strcmp(line, "event") == 0) {
        copy(sse->event, sizeof(sse->event), value);
    } else if (strcmp(line, "id") == 0) {
        copy(sse->next_id, sizeof(sse->next_id), value);
    }
    trk_buf_reset(&sse->line);
}

int pub_sse_feed(struct pub_sse *sse, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];
        if (c == '\n' && sse->was_cr) {
            sse->was_cr = false;
            continue;
        }
        sse->was_cr = c == '\r';
        if (c == '\r' || c == '\n') {
            end_line(sse);
        } else if (c != '\0') {
            (void)trk_buf_addc(&sse->line, c);
        }
        if (sse->line.failed || sse->data.failed) {
            return -1;
        }
    }
    return 0;
}
