#include "pub/flow.h"

#include <string.h>

#include "pub/worker.h"

/* Two bytes are kept free for the line end that replaces a trailer section. */
#define SPARE 2

void pub_flow_begin(struct pub_flow *flow, size_t base, size_t head_len, enum trk_h1_body body,
                    uint64_t content_length)
{
    flow->base = base;
    flow->sent = flow->checked = head_len;
    flow->body = body;
    flow->left = content_length;
    flow->dechunk = false;
    flow->is_done = body == TRK_H1_NO_BODY;
    flow->is_whole = true;
    if (body == TRK_H1_CHUNKED) {
        trk_h1_chunked_init(&flow->chunked);
    }
}

/* Moves the unread bytes from `from` down to `to`. */
static void close_gap(struct pub_flow *flow, size_t to, size_t from)
{
    if (from != to) {
        memmove(flow->bytes + to, flow->bytes + from, flow->len - from);
        flow->len -= from - to;
    }
}

static int check_chunked(struct pub_flow *flow)
{
    size_t out = flow->checked; /* what is forwarded ends here */
    size_t in = flow->checked;
    int n = 0;
    while (n == 0 && in < flow->len) {
        bool was_trailer = trk_h1_chunked_in_trailer(&flow->chunked);
        bool was_extension = trk_h1_chunked_in_extension(&flow->chunked);
        struct trk_h1_slice data;
        size_t used;
        n = trk_h1_chunked_next(&flow->chunked, flow->bytes + in, flow->len - in, &used, &data);
        if (n < 0) {
            return -1;
        }
        const char *kept = flow->dechunk ? data.at : flow->bytes + in;
        size_t kept_len = flow->dechunk ? data.len : was_trailer ? 0 : used;
        if (!flow->dechunk && was_extension != trk_h1_chunked_in_extension(&flow->chunked)) {
            kept += was_extension ? used - 1 : 0; /* the CR behind it, or all but its ';' */
            kept_len = was_extension ? 1 : used - 1;
        } else if (was_extension) {
            kept_len = 0;
        }
        if (kept != flow->bytes + out) {
            memmove(flow->bytes + out, kept, kept_len);
        }
        out += kept_len;
        in += used;
    }
    close_gap(flow, out, in);
    flow->checked = out;
    if (n == 1) {
        flow->is_done = true;
        if (!flow->dechunk) {
            memmove(flow->bytes + out + 2, flow->bytes + out, flow->len - out);
            memcpy(flow->bytes + out, "\r\n", 2);
            flow->checked += 2;
            flow->len += 2;
        }
    }
    return 0;
}

int pub_flow_check(struct pub_flow *flow)
{
    size_t fresh = flow->len - flow->checked;
    if (flow->is_done || fresh == 0) {
        return 0;
    }
    switch (flow->body) {
    case TRK_H1_LENGTH:
        if (fresh > flow->left) {
            fresh = (size_t)flow->left;
        }
        flow->left -= fresh;
        flow->checked += fresh;
        flow->is_done = flow->left == 0;
        return 0;
    case TRK_H1_CHUNKED:
        return check_chunked(flow);
    default:
        flow->checked = flow->len;
        return 0;
    }
}

size_t pub_flow_room(struct pub_flow *flow)
{
    if (flow->sent == flow->len) {
        flow->is_whole &= flow->len == flow->base;
        flow->sent = flow->checked = flow->len = flow->base;
    } else if (flow->len > PUB_BUFFER_SIZE - SPARE - 4096 && flow->sent > flow->base) {
        size_t gap = flow->sent - flow->base;
        flow->is_whole = false;
        memmove(flow->bytes + flow->base, flow->bytes + flow->sent, flow->len - flow->sent);
        flow->sent -= gap;
        flow->checked -= gap;
        flow->len -= gap;
    }
    return PUB_BUFFER_SIZE - SPARE - flow->len;
}
