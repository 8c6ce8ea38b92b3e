/* One request at libmicrohttpd: written anew there, its answer back. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/gate_internal.h"

#define CLOSE_LINE "Connection: close\r\n"

/* -- the request: to libmicrohttpd -- */

static char *put(char *at, const char *bytes, size_t len)
{
    memcpy(at, bytes, len);
    return at + len;
}

static bool is_passed_on(const struct trk_h1_request *r, const struct trk_h1_header *h)
{
    switch (h->id) {
    case TRK_H1_CONNECTION:
    case TRK_H1_KEEP_ALIVE:
    case TRK_H1_PROXY_CONNECTION:
    case TRK_H1_TE:
    case TRK_H1_TRAILER:
    case TRK_H1_UPGRADE:
        return false;
    case TRK_H1_EXPECT:
        return r->expect_continue;
    default:
        return true;
    }
}

char *gate_put_head(char *at, const struct trk_h1_request *r)
{
    at = put(at, r->method.at, r->method.len);
    at = put(at, " ", 1);
    at = put(at, r->target.at, r->target.len);
    at = put(at, r->minor == 1 ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n", 11);
    for (size_t i = 0; i < r->header_count; i++) {
        const struct trk_h1_header *h = &r->headers[i];
        if (is_passed_on(r, h)) {
            at = put(at, h->name.at, h->name.len);
            at = put(at, ": ", 2);
            at = put(at, h->value.at, h->value.len);
            at = put(at, "\r\n", 2);
        }
    }
    return put(at, "\r\n", 2);
}

char *gate_put_body(struct gate_conn *c, char *at)
{
    size_t used = 0;
    if (c->up.body == TRK_H1_LENGTH) {
        used = c->in.len < c->up.left ? c->in.len : (size_t)c->up.left;
        c->up.left -= used;
        c->up.is_done = c->up.left == 0;
        at = put(at, c->in.data, used);
    }
    while (c->up.body == TRK_H1_CHUNKED && used < c->in.len && !c->up.is_done) {
        struct trk_h1_slice data;
        size_t n_used;
        int n = trk_h1_chunked_next(&c->up.chunked, c->in.data + used, c->in.len - used, &n_used,
                                    &data);
        if (n < 0) {
            return NULL;
        }
        used += n_used;
        c->up.is_done = n == 1;
        if (data.len > 0) {
            at += snprintf(at, 2 + 2 * sizeof(data.len) + 1, "%zx\r\n", data.len);
            at = put(at, data.at, data.len);
            at = put(at, "\r\n", 2);
        }
        if (c->up.is_done) {
            at = put(at, "0\r\n\r\n", 5);
        }
    }
    c->up_bytes += used;
    gate_consume(c, used);
    if (c->up.is_done) {
        gate_conn_upload_over(c);
    }
    return at;
}

/* Sends the gate's text up to `end`. */
static void pass_on(struct gate_conn *c, const char *end)
{
    if (end == NULL) {
        if (c->has_answer) {
            gate_conn_abort(c);
        } else {
            gate_conn_refuse(c, 400, "the chunked body is malformed");
        }
        return;
    }
    const char *text = c->gate->text;
    if (!gate_send(&c->pair->watch, &c->to_mhd, text, (size_t)(end - text))) {
        c->is_refused = true; /* there may be an answer all the same */
        c->pair->watch.is_readable = true;
    } else if (c->to_mhd.bytes != NULL) {
        gate_watch_pair(c->gate, c->pair, GATE_EVENTS | EPOLLOUT);
    }
}

void gate_exchange_start(struct gate_conn *c)
{
    struct http_gate *gate = c->gate;
    struct trk_h1_request *r = &gate->request;
    size_t head_len = (size_t)trk_h1_parse_request(r, c->in.data, c->in.len); /* it was fine */
    bool is_upload = c->is_upload;
    gate_conn_set_state(c, GATE_RUNNING);
    c->pair = gate_pair_take(gate, c);
    if (c->pair == NULL) {
        c->is_upload = false;
        gate_conn_refuse(c, 503, "no connection to the server is free");
        return;
    }
    gate->uploads += is_upload;
    c->begun_ns = gate->now_ns;
    c->keep_alive = r->keep_alive && r->minor == 1;
    c->is_head = trk_h1_is(r->method, "head");
    c->up = (struct gate_flow){
        .body = r->body, .left = r->content_length, .is_done = r->body == TRK_H1_NO_BODY};
    trk_h1_chunked_init(&c->up.chunked);
    char *at = gate_put_head(gate->text, r);
    gate_consume(c, head_len);
    if (is_upload) { /* it may be answered at any time */
        gate_watch_pair(gate, c->pair, GATE_EVENTS);
    }
    pass_on(c, gate_put_body(c, at));
}

/* More of the body. True when something went on. */
static bool pump_request(struct gate_conn *c)
{
    if (c->to_mhd.bytes != NULL) {
        if (!c->pair->watch.is_writable) {
            return false;
        }
        ssize_t n = gate_send_kept(&c->pair->watch, &c->to_mhd);
        if (n < 0) {
            gate_block_drop(&c->to_mhd);
            c->is_refused = true;
            c->pair->watch.is_readable = true;
        } else if (c->to_mhd.bytes == NULL) {
            gate_watch_pair(c->gate, c->pair, GATE_EVENTS);
        }
        return n != 0;
    }
    if (c->up.is_done) {
        return false;
    }
    if (c->in.len == 0) {
        ssize_t n = gate_receive_request(c);
        if (n < 0) {
            gate_conn_abort(c); /* in the middle of its request */
        }
        if (n <= 0) {
            return false;
        }
    }
    pass_on(c, gate_put_body(c, c->gate->text));
    return true;
}

/* -- the answer -- */

/* How many of the bytes belong to it. */
static size_t follow(struct gate_flow *flow, const char *bytes, size_t len)
{
    if (flow->body == TRK_H1_NO_BODY) {
        return 0;
    }
    if (flow->body == TRK_H1_LENGTH) {
        len = len < flow->left ? len : (size_t)flow->left;
        flow->left -= len;
        flow->is_done = flow->left == 0;
        return len;
    }
    size_t at = 0;
    while (flow->body == TRK_H1_CHUNKED && at < len && !flow->is_done) {
        struct trk_h1_slice data;
        size_t used;
        flow->is_done = trk_h1_chunked_next(&flow->chunked, bytes + at, len - at, &used, &data) !=
                        0;
        at += used;
    }
    return flow->body == TRK_H1_CHUNKED ? at : len;
}

static void to_client(struct gate_conn *c, const char *bytes, size_t len)
{
    bool was_stalled = c->to_client.bytes != NULL;
    if (!gate_send(&c->watch, &c->to_client, bytes, len)) {
        gate_conn_close(c);
    } else if (!was_stalled && c->to_client.bytes != NULL) {
        c->stalled_ns = c->gate->now_ns;
        c->stalled_bytes = 0;
    }
}

/* A whole head of an answer lies at `bytes`, with `len` bytes in all. */
static void answer(struct gate_conn *c, const char *bytes, size_t head_len, size_t len)
{
    const struct trk_h1_response *r = &c->gate->response;
    c->has_answer = true;
    c->down = (struct gate_flow){.body = c->is_head ? TRK_H1_NO_BODY : r->body,
                                 .left = r->content_length};
    c->down.is_done = c->down.body == TRK_H1_NO_BODY;
    trk_h1_chunked_init(&c->down.chunked);
    c->pair_keeps_alive = r->keep_alive;
    size_t body_len = follow(&c->down, bytes + head_len, len - head_len);
    bool is_last = !c->keep_alive || !c->up.is_done || c->gate->is_draining;
    c->keep_alive = r->keep_alive && !is_last;
    char *at = put(c->gate->text, bytes, head_len - 2);
    if (is_last && r->keep_alive) {
        at = put(at, CLOSE_LINE, strlen(CLOSE_LINE));
    }
    at = put(at, "\r\n", 2);
    at = put(at, bytes + head_len, body_len);
    to_client(c, c->gate->text, (size_t)(at - c->gate->text));
}

/* True when something went on. */
static bool find_head(struct gate_conn *c, const char *bytes, size_t len)
{
    struct trk_h1_response *r = &c->gate->response;
    if (c->head.len > 0) {
        (void)trk_buf_add(&c->head, bytes, len);
        bytes = c->head.data;
        len = c->head.len;
    }
    int n = trk_h1_parse_response(r, bytes, len);
    while (n > 0 && r->status < 200) {
        to_client(c, bytes, (size_t)n);
        if (c->state != GATE_RUNNING) {
            return true;
        }
        bytes += n;
        len -= (size_t)n;
        n = trk_h1_parse_response(r, bytes, len);
    }
    if (n < 0) {
        trk_log_error("an answer of our own cannot be read", "fault", trk_h1_fault(), NULL);
        gate_conn_abort(c);
        return true;
    }
    if (n > 0) {
        answer(c, bytes, (size_t)n, len);
        return true;
    }
    trk_autofree char *rest = trk_xstrndup(bytes, len);
    trk_buf_reset(&c->head);
    (void)trk_buf_add(&c->head, rest, len);
    return true;
}

static bool receive_answer(struct gate_conn *c)
{
    ssize_t n = gate_receive(c->gate, &c->pair->watch);
    if (n == 0) {
        return false;
    }
    if (n > 0 && !c->has_answer) {
        return find_head(c, c->gate->scratch, (size_t)n);
    }
    if (n > 0) {
        to_client(c, c->gate->scratch, follow(&c->down, c->gate->scratch, (size_t)n));
    } else if (c->has_answer && c->down.body == TRK_H1_UNTIL_CLOSE) {
        c->down.is_done = true;
    } else {
        gate_conn_abort(c);
    }
    return true;
}

static void finish(struct gate_conn *c)
{
    bool is_clean = c->up.is_done && c->to_mhd.bytes == NULL && !c->is_refused && !c->is_fin_told;
    gate_conn_leave_pair(c, c->pair_keeps_alive && is_clean);
    if (!c->keep_alive || !c->up.is_done) {
        gate_conn_linger(c);
    } else {
        gate_conn_await(c);
        if (c->gate->is_draining && c->in.len == 0) {
            gate_conn_close(c);
        }
    }
}

static bool pump_answer(struct gate_conn *c)
{
    if (c->to_client.bytes != NULL) {
        if (!c->watch.is_writable) {
            return false;
        }
        ssize_t n = gate_send_kept(&c->watch, &c->to_client);
        if (n < 0) {
            gate_conn_close(c);
            return true;
        }
        c->stalled_bytes += (uint64_t)n;
        return n > 0;
    }
    if (c->has_answer && c->down.is_done) {
        finish(c);
        return true;
    }
    return receive_answer(c);
}

bool gate_exchange_step(struct gate_conn *c)
{
    if (c->watch.has_error) {
        gate_conn_close(c);
        return false;
    }
    bool goes_on = !c->is_refused && pump_request(c);
    if (c->state != GATE_RUNNING) {
        return true;
    }
    if (c->up.is_done && c->watch.has_fin && c->to_mhd.bytes == NULL && !c->is_fin_told) {
        c->is_fin_told = true; /* trk_req_is_disconnected() */
        (void)shutdown(c->pair->watch.fd, SHUT_WR);
    }
    return pump_answer(c) || goes_on;
}

int64_t gate_exchange_deadline(const struct gate_conn *c)
{
    if (c->to_client.bytes != NULL) {
        return c->stalled_ns + gate_limit_ns(c->gate) +
               (int64_t)(c->stalled_bytes / HTTP_RATE_MIN_BYTES_PER_S) * TRK_NS_PER_S;
    }
    if (!c->up.is_done && !c->is_refused && c->to_mhd.bytes == NULL) {
        return c->begun_ns + gate_limit_ns(c->gate) +
               (int64_t)(c->up_bytes / HTTP_RATE_MIN_BYTES_PER_S) * TRK_NS_PER_S;
    }
    return 0; /* a handler may take any time */
}
