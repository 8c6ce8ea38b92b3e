/* Request to the job, answer to the client, both at once and piece by piece: a side that does not
 * take its bytes holds the other side back by the one buffer between them. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "pub/client.h"
#include "pub/text.h"
#include "pub/websocket.h"

/* Does the call wait for the client, to send or to take? */
static bool waits_for_client(const struct pub_client *c)
{
    return c->to_client.bytes != NULL || pub_flow_pending(&c->out) > 0 ||
           (c->can_send && !c->in.is_done && c->up->is_writable);
}

static void arm(struct pub_client *c)
{
    const struct pub_config *config = c->worker->shared->config;
    pub_client_arm(c, waits_for_client(c) ? config->idle_timeout_ms : config->response_timeout_ms);
}

static void too_long(struct pub_client *c)
{
    pub_stat(&c->worker->stats, PUB_BAD_REQUESTS);
    c->keep_alive = false;
    pub_reply_error(c, 431, "Bad request: ", "the request head is too long to be forwarded");
    pub_call_end(c, 431, false);
}

/* The client waits for permission to send the body (RFC 9110 §10.1.1). */
static void send_continue(struct pub_client *c)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    size_t none = 0;
    bool is_full;
    if (pub_send_two(c->watch.fd, &c->to_client, text, sizeof(text) - 1, "", 0, &none, &is_full) <
        0) {
        c->has_error = true;
    }
    c->wants_continue = false;
}

void pub_exchange_begin(struct pub_client *c)
{
    struct pub_worker *w = c->worker;
    struct pub_text t;
    pub_text_init(&t, w->scratch, sizeof(w->scratch));
    if (!pub_head_request(c, &t)) {
        too_long(c);
        return;
    }
    c->state = PUB_CLIENT_EXCHANGE;
    c->can_send = true;
    if (!c->has_started) {
        c->has_started = true;
        pub_add(&c->target->stats->started, 1);
    }
    size_t head_len = pub_text_len(&t);
    size_t body_sent = 0;
    bool is_full = false;
    int n = pub_send_two(c->up->watch.fd, &c->to_job, w->scratch, head_len,
                         c->in.bytes + c->in.sent, pub_flow_pending(&c->in), &body_sent, &is_full);
    if (n < 0) {
        pub_call_lost(c, -n);
        return;
    }
    c->sent_to_job = head_len - (c->to_job.len - c->to_job.at) + body_sent;
    c->in.sent += body_sent;
    c->up->is_writable = !is_full;
    if (c->wants_continue && !c->in.is_done) {
        send_continue(c);
    }
    arm(c);
}

/* -- request -- */

/* The job takes no more: it may have answered before, or is gone; reading tells. */
static void stop_sending(struct pub_client *c)
{
    c->can_send = false;
    c->keep_alive = false;
    pub_block_reset(&c->to_job);
    c->up->is_readable = true;
}

static bool send_request(struct pub_client *c)
{
    bool is_full = false;
    bool progress = false;
    if (c->to_job.bytes != NULL) {
        size_t before = c->to_job.at;
        if (pub_send_block(c->up->watch.fd, &c->to_job, &is_full) < 0) {
            stop_sending(c);
            return true;
        }
        progress = c->to_job.bytes == NULL || c->to_job.at > before;
    }
    while (!is_full && pub_flow_pending(&c->in) > 0) {
        ssize_t n = send(c->up->watch.fd, c->in.bytes + c->in.sent, pub_flow_pending(&c->in),
                         MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            stop_sending(c);
            return true;
        }
        is_full = n < (ssize_t)pub_flow_pending(&c->in);
        if (n > 0) {
            c->in.sent += (size_t)n;
            c->sent_to_job += (uint64_t)n;
            progress = true;
        }
    }
    c->up->is_writable = !is_full;
    return progress;
}

/* Reads more of the body. Sets the state when the call is over. */
static bool receive_request(struct pub_client *c)
{
    size_t room = pub_flow_room(&c->in);
    if (room == 0) {
        return false;
    }
    ssize_t n = recv(c->watch.fd, c->in.bytes + c->in.len, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        c->is_readable = false;
        return false;
    }
    if (n <= 0) {
        pub_call_cancel(c);
        return true;
    }
    if ((size_t)n < room && !c->has_fin) {
        c->is_readable = false;
    }
    c->in.len += (size_t)n;
    if (pub_flow_check(&c->in) < 0) {
        pub_stat(&c->worker->stats, PUB_BAD_REQUESTS);
        c->keep_alive = false;
        if (c->has_response) {
            pub_call_end(c, c->status, false);
            pub_client_abort(c);
        } else {
            pub_reply_error(c, 400, "Bad request: ", "the chunked body is malformed");
            pub_call_end(c, 400, false);
        }
    }
    return true;
}

static bool pump_request(struct pub_client *c)
{
    bool progress = false;
    if (c->can_send && c->up->is_writable &&
        (c->to_job.bytes != NULL || pub_flow_pending(&c->in) > 0)) {
        progress = send_request(c);
    }
    if (c->can_send && !c->in.is_done && c->is_readable && c->state == PUB_CLIENT_EXCHANGE) {
        progress |= receive_request(c);
    }
    return progress;
}

static bool is_request_sent(const struct pub_client *c)
{
    return c->in.is_done && pub_flow_pending(&c->in) == 0 && c->to_job.bytes == NULL;
}

/* -- answer -- */

static void bad_answer(struct pub_client *c, const char *why)
{
    struct pub_worker *w = c->worker;
    pub_stat(&w->stats, PUB_ERRORS);
    pub_stat(&w->stats, PUB_CONNECTION_BROKEN);
    trk_log_error("invalid answer of a job", "error", why, "job", c->target->job, "version",
                  c->target->version, "tracing_id", c->tracing_id, NULL);
    if (c->has_response) {
        pub_call_end(c, c->status, false);
        pub_client_abort(c);
        return;
    }
    pub_reply_job_error(c, 502, "invalid response of a target job", why);
    pub_call_end(c, 502, false);
}

/* The job's connection ended, at error 0 in an orderly way. */
static void lost(struct pub_client *c, int error)
{
    if (!c->has_response) {
        pub_call_lost(c, error);
        return;
    }
    pub_stat(&c->worker->stats, PUB_ERRORS);
    pub_stat(&c->worker->stats, PUB_CONNECTION_BROKEN);
    trk_log_error("connection broken to a target job in the middle of its answer", "job",
                  c->target->job, "version", c->target->version, "tracing_id", c->tracing_id, NULL);
    pub_call_end(c, c->status, false);
    pub_client_abort(c);
}

static void frame_answer(struct pub_client *c, const struct trk_h1_response *r, size_t head_len)
{
    enum trk_h1_body body = c->is_head ? TRK_H1_NO_BODY : r->body;
    pub_flow_begin(&c->out, 0, head_len, body, r->content_length);
    c->out.dechunk = body == TRK_H1_CHUNKED && c->minor == 0;
    c->keep_alive = c->keep_alive && c->in.is_done && body != TRK_H1_UNTIL_CLOSE &&
                    !c->out.dechunk && !c->worker->is_draining;
    c->job_keeps_alive = r->keep_alive;
}

/* A whole head is in c->out. */
static void answer_head(struct pub_client *c, struct trk_h1_response *r, size_t head_len)
{
    struct pub_worker *w = c->worker;
    if (r->status == 101 && !(c->is_upgrade && pub_websocket_is_answered(pub_call_request(c), r))) {
        bad_answer(c, "101 that is no answer to a WebSocket's handshake");
        return;
    }
    c->status = r->status;
    if (r->status == 101) {
        pub_call_note(c, 101);
        pub_tunnel_begin(c, head_len);
    } else {
        frame_answer(c, r, head_len);
        if (pub_flow_check(&c->out) < 0) {
            bad_answer(c, "malformed chunks");
            return;
        }
    }
    struct pub_text t;
    pub_text_init(&t, w->scratch, sizeof(w->scratch));
    if (!pub_head_response(c, r, head_len, &t)) {
        bad_answer(c, "its head is too long");
        return;
    }
    c->has_response = true;
    size_t body_sent = 0;
    bool is_full = false;
    int n = pub_send_two(c->watch.fd, &c->to_client, w->scratch, pub_text_len(&t),
                         c->out.bytes + c->out.sent, pub_flow_pending(&c->out), &body_sent,
                         &is_full);
    if (n < 0) {
        pub_call_cancel(c);
        return;
    }
    c->out.sent += body_sent;
    c->is_writable = !is_full;
    if (r->status == 101 && !pub_call_may_go_on(c)) { /* it was revoked meanwhile */
        pub_call_end(c, 101, false);
        pub_client_close(c);
    }
}

static void parse_answer(struct pub_client *c)
{
    struct trk_h1_response *r = &c->worker->response;
    int n = trk_h1_parse_response(r, c->out.bytes, c->out.len);
    while (n > 0 && r->status < 200 && r->status != 101) {
        memmove(c->out.bytes, c->out.bytes + n, c->out.len - (size_t)n);
        c->out.len -= (size_t)n;
        n = trk_h1_parse_response(r, c->out.bytes, c->out.len);
    }
    if (n < 0) {
        bad_answer(c, trk_h1_fault());
    } else if (n > 0) {
        answer_head(c, r, (size_t)n);
    }
}

static bool receive_answer(struct pub_client *c)
{
    if (c->out.bytes == NULL) {
        c->out.bytes = pub_buffer_get(c->worker);
    }
    size_t room = c->has_response ? pub_flow_room(&c->out) : PUB_BUFFER_SIZE - 2 - c->out.len;
    if (room == 0) {
        return false;
    }
    ssize_t n = pub_up_recv(c->up, c->out.bytes + c->out.len, room);
    if (n == -EAGAIN) {
        return false;
    }
    if (n == 0 && c->has_response && c->out.body == TRK_H1_UNTIL_CLOSE) {
        c->out.is_done = true;
        return true;
    }
    if (n <= 0) {
        lost(c, (int)-n);
        return true;
    }
    c->out.len += (size_t)n;
    if (!c->has_response) {
        parse_answer(c);
    } else if (pub_flow_check(&c->out) < 0) {
        bad_answer(c, "malformed chunks");
    }
    return true;
}

static bool send_answer(struct pub_client *c)
{
    bool is_full = false;
    size_t before = c->to_client.at;
    bool had_block = c->to_client.bytes != NULL;
    if (pub_send_block(c->watch.fd, &c->to_client, &is_full) < 0) {
        pub_call_cancel(c);
        return true;
    }
    bool progress = had_block && (c->to_client.bytes == NULL || c->to_client.at > before);
    if (!is_full && pub_flow_pending(&c->out) > 0) {
        ssize_t n = send(c->watch.fd, c->out.bytes + c->out.sent, pub_flow_pending(&c->out),
                         MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            pub_call_cancel(c);
            return true;
        }
        is_full = n < (ssize_t)pub_flow_pending(&c->out);
        if (n > 0) {
            c->out.sent += (size_t)n;
            progress = true;
        }
    }
    c->is_writable = !is_full;
    return progress;
}

static void complete(struct pub_client *c)
{
    bool can_reuse = c->job_keeps_alive && is_request_sent(c) && c->out.len == c->out.checked;
    pub_call_end(c, c->status, can_reuse);
    pub_block_reset(&c->to_job);
    pub_client_next(c);
}

static bool pump_answer(struct pub_client *c)
{
    bool progress = false;
    if (c->is_writable && (c->to_client.bytes != NULL || pub_flow_pending(&c->out) > 0)) {
        progress = send_answer(c);
        if (c->state != PUB_CLIENT_EXCHANGE) {
            return true;
        }
    }
    if (c->has_response && c->out.is_done && pub_flow_pending(&c->out) == 0 &&
        c->to_client.bytes == NULL) {
        complete(c);
        return true;
    }
    if (c->up->is_readable && !c->out.is_done) {
        progress |= receive_answer(c);
    }
    return progress;
}

bool pub_exchange_step(struct pub_client *c)
{
    if ((c->has_fin || c->has_error) && pub_client_is_gone(c)) {
        pub_call_cancel(c);
        return false;
    }
    bool progress = true;
    bool ever = false;
    while (progress) {
        progress = pump_request(c);
        if (c->state != PUB_CLIENT_EXCHANGE) {
            return true;
        }
        progress |= pump_answer(c);
        if (c->state != PUB_CLIENT_EXCHANGE) {
            return true;
        }
        ever |= progress;
    }
    if (ever) {
        arm(c);
    }
    return false;
}

void pub_exchange_timeout(struct pub_client *c)
{
    struct pub_worker *w = c->worker;
    bool client_is_slow = waits_for_client(c);
    if (c->has_response) {
        pub_stat(&w->stats, PUB_ERRORS);
        pub_stat(&w->stats, client_is_slow ? PUB_CANCELED : PUB_DEADLINE);
        pub_call_end(c, c->status, false);
        pub_client_abort(c);
    } else if (client_is_slow) {
        pub_stat(&w->stats, PUB_REQUEST_ERRORS);
        c->keep_alive = false;
        pub_reply_error(c, 408, "Bad request: ", "the request body did not come in time");
        pub_call_end(c, 408, false);
    } else {
        pub_stat(&w->stats, PUB_ERRORS);
        pub_stat(&w->stats, PUB_DEADLINE);
        pub_reply_job_error(c, 504, "request to a job timed out", "no answer in time");
        pub_call_end(c, 504, false);
    }
}
