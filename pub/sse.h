/*
 * sse.h - server-sent events, the reading side (WHATWG HTML §9.2.6), for lifecycle's stream.
 *
 * Fed with pieces of any size. Lines and events are bounded: what is longer is a fault.
 */
#ifndef PUB_SSE_H
#define PUB_SSE_H

#include <stddef.h>

#include "libtrack/base/buf.h"

struct pub_sse {
    struct trk_buf line, data;
    char event[64], id[64];
    char next_id[64]; /* of the event being read; counts once that is whole */
    bool was_cr;
    /* `id` is the last one given, "" if none. */
    void (*on_event)(void *ctx, const char *event, const char *id, const char *data);
    void *ctx;
};
void pub_sse_init(struct pub_sse *sse,
                  void (*on_event)(void *ctx, const char *event, const char *id, const char *data),
                  void *ctx);
void pub_sse_fini(struct pub_sse *sse);
/* Forgets a half-read event, keeps the last id. */
void pub_sse_reset(struct pub_sse *sse);
/* 0 or -1: a line or an event is too long. */
int pub_sse_feed(struct pub_sse *sse, const char *bytes, size_t len);

#endif
