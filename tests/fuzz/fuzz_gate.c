/* What the gate writes of a request that it took says the same as what came: one head with the same
 * method, target, framing and fields, a body with the same bytes, nothing behind it; however the
 * body was cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/err.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/gate_internal.h"

#define INPUT_MAX (GATE_HOLD_BYTES + TRK_H1_HEAD_MAX)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_same(struct trk_h1_slice a, struct trk_h1_slice b)
{
    return a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

/* Each field of `b` is one of `a`, in the same order. */
static void compare_fields(const struct trk_h1_request *a, const struct trk_h1_request *b)
{
    size_t k = 0;
    for (size_t i = 0; i < a->header_count; i++) {
        k += k < b->header_count && is_same(a->headers[i].name, b->headers[k].name) &&
             is_same(a->headers[i].value, b->headers[k].value);
    }
    trk_assert(k == b->header_count);
}

/* The payload of a body; returns its length, *ret_used how much of `bytes` it took. */
static size_t payload(const struct trk_h1_request *r, const char *bytes, size_t len, char *out,
                      size_t *ret_used)
{
    size_t n = 0;
    *ret_used = 0;
    if (r->body != TRK_H1_CHUNKED) {
        n = len < r->content_length ? len : (size_t)r->content_length;
        memcpy(out, bytes, n);
        *ret_used = n;
        return n;
    }
    struct trk_h1_chunked chunked;
    trk_h1_chunked_init(&chunked);
    int done = 0;
    while (done == 0 && *ret_used < len) {
        struct trk_h1_slice piece;
        size_t used;
        done = trk_h1_chunked_next(&chunked, bytes + *ret_used, len - *ret_used, &used, &piece);
        trk_assert(done >= 0);
        memcpy(out + n, piece.at, piece.len);
        n += piece.len;
        *ret_used += used;
    }
    return n;
}

/* All of the body, `step` bytes at a time. NULL: it is malformed. */
static char *rewrite(struct http_gate *gate, const struct trk_h1_request *r, const char *body,
                     size_t len, size_t step, char *at)
{
    struct gate_conn c = {.gate = gate};
    c.up = (struct gate_flow){
        .body = r->body, .left = r->content_length, .is_done = r->body == TRK_H1_NO_BODY};
    trk_h1_chunked_init(&c.up.chunked);
    trk_buf_init(&c.in, GATE_IN_MAX);
    for (size_t i = 0; i < len && at != NULL && !c.up.is_done; i += step) {
        size_t piece = len - i < step ? len - i : step;
        trk_assert(trk_buf_add(&c.in, body + i, piece) == 0);
        gate->held_bytes += piece;
        at = gate_put_body(&c, at);
    }
    trk_buf_fini(&c.in);
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http_gate gate;
    static struct trk_h1_request a, b;
    static char text[8 * INPUT_MAX], came[INPUT_MAX], went[INPUT_MAX];
    if (size > INPUT_MAX) {
        return 0;
    }
    trk_autofree char *bytes = trk_xmalloc(size + 1);
    memcpy(bytes, data, size);
    int head_len = trk_h1_parse_request(&a, bytes, size);
    if (head_len <= 0) {
        return 0;
    }
    const char *body = bytes + head_len;
    size_t body_len = size - (size_t)head_len;
    for (size_t step = 1; step <= INPUT_MAX; step *= 61) {
        char *head_end = gate_put_head(text, &a);
        char *end = rewrite(&gate, &a, body, body_len, step, head_end);
        int n = trk_h1_parse_request(&b, text, (size_t)(head_end - text));
        trk_assert(n == head_end - text && is_same(a.method, b.method) &&
                   is_same(a.target, b.target));
        trk_assert(a.body == b.body && a.content_length == b.content_length && a.minor == b.minor);
        compare_fields(&a, &b);
        if (end != NULL) {
            size_t came_used, went_used;
            size_t len = payload(&a, body, body_len, came, &came_used);
            trk_assert(payload(&b, head_end, (size_t)(end - head_end), went, &went_used) == len);
            trk_assert(memcmp(came, went, len) == 0);
            trk_assert(went_used == (size_t)(end - head_end));
        }
    }
    return 0;
}
