/*
 * flow.h - one direction of a call: a bounded buffer between two sockets, and where the body in it
 * ends.
 *
 * Bytes arrive at `len`, are checked against the framing up to `checked`, and leave from `sent`.
 * What lies below `base` (the request's head) stays. Bytes behind a finished body belong to the
 * next message. The framing is checked strictly, so that forwarding the same bytes is safe; chunked
 * trailers and extensions are left out.
 */
#ifndef PUB_FLOW_H
#define PUB_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/http/h1.h"

struct pub_flow {
    char *bytes; /* PUB_BUFFER_SIZE, or NULL */
    size_t base, sent, checked, len;
    enum trk_h1_body body;
    bool dechunk;  /* forward the payload only */
    bool is_done;  /* the body's end was checked */
    bool is_whole; /* the buffer still has all of the body from base on: it could be sent again */
    uint64_t left;
    struct trk_h1_chunked chunked;
};

/* The head was `head_len` bytes long: begins the body behind it. */
void pub_flow_begin(struct pub_flow *flow, size_t base, size_t head_len, enum trk_h1_body body,
                    uint64_t content_length);
/* Checks what has arrived. 0, or -1: the chunks are malformed. */
int pub_flow_check(struct pub_flow *flow);
/* Bytes of room at bytes + len, making some if possible. */
size_t pub_flow_room(struct pub_flow *flow);
static inline size_t pub_flow_pending(const struct pub_flow *flow)
{
    return flow->checked - flow->sent;
}

#endif
