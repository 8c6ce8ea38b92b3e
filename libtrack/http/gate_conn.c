/* A client's connection: its requests in, libmicrohttpd's answers out. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/http/gate_internal.h"

#define HEAD_LIMIT_NS   (15 * TRK_NS_PER_S)
#define LINGER_NS       (10 * TRK_NS_PER_S) /* with a body that nobody takes */
#define LINGER_QUICK_NS (2 * TRK_NS_PER_S)
#define ROUNDS_A_TURN   32 /* then others have theirs */
#define CLOSE_LINE      "Connection: close\r\n"

/* -- sending and receiving -- */

bool gate_send(struct gate_watch *watch, struct gate_block *block, const char *bytes, size_t len)
{
    ssize_t n = 0;
    if (block->bytes == NULL && len > 0) {
        n = send(watch->fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return false;
        }
    }
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent == len) {
        return true;
    }
    size_t left = block->len - block->at;
    char *joined = trk_xmalloc(left + len - sent);
    if (left > 0) {
        memcpy(joined, block->bytes + block->at, left);
    }
    memcpy(joined + left, bytes + sent, len - sent);
    watch->is_writable &= block->bytes != NULL; /* else it was tried just now */
    free(block->bytes);
    *block = (struct gate_block){.bytes = joined, .len = left + len - sent};
    return true;
}

void gate_block_drop(struct gate_block *block)
{
    free(block->bytes);
    *block = (struct gate_block){0};
}

ssize_t gate_send_kept(struct gate_watch *watch, struct gate_block *block)
{
    ssize_t n = send(watch->fd, block->bytes + block->at, block->len - block->at, MSG_NOSIGNAL);
    if (n < 0) {
        watch->is_writable = errno == EINTR;
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    block->at += (size_t)n;
    if (block->at == block->len) {
        gate_block_drop(block);
    } else {
        watch->is_writable = false;
    }
    return n;
}

ssize_t gate_receive(struct http_gate *gate, struct gate_watch *watch)
{
    if (!watch->is_readable) {
        return 0;
    }
    ssize_t n = recv(watch->fd, gate->scratch, sizeof(gate->scratch), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        watch->is_readable = errno == EINTR;
        return 0;
    }
    if ((size_t)n < sizeof(gate->scratch) && !watch->has_fin) {
        watch->is_readable = false;
    }
    return n > 0 ? n : -1;
}

ssize_t gate_receive_request(struct gate_conn *c)
{
    ssize_t n = gate_receive(c->gate, &c->watch);
    if (n > 0) {
        (void)trk_buf_add(&c->in, c->gate->scratch, (size_t)n); /* room: see GATE_IN_MAX */
        c->gate->held_bytes += (size_t)n;
    }
    return n;
}

void gate_consume(struct gate_conn *c, size_t len)
{
    c->gate->held_bytes -= len;
    if (len == c->in.len) {
        trk_buf_fini(&c->in);
    } else {
        trk_buf_consume(&c->in, len);
    }
}

/* -- life -- */

static void leave_queues(struct gate_conn *c)
{
    if (c->state == GATE_WAITING) {
        TAILQ_REMOVE(&c->gate->waiting[c->is_upload], c, turn);
    } else if (c->is_again) {
        TAILQ_REMOVE(&c->gate->again, c, turn);
        c->is_again = false;
    }
}

void gate_conn_upload_over(struct gate_conn *c)
{
    if (c->is_upload) {
        c->is_upload = false;
        c->gate->uploads--;
    }
}

void gate_conn_leave_pair(struct gate_conn *c, bool can_reuse)
{
    if (c->pair != NULL) {
        gate_conn_upload_over(c);
        gate_pair_give(c->gate, TRK_STEAL(c->pair), can_reuse);
    }
    gate_block_drop(&c->to_mhd);
    trk_buf_fini(&c->head);
}

void gate_conn_close(struct gate_conn *c)
{
    if (c->state == GATE_CLOSED) {
        return;
    }
    struct http_gate *gate = c->gate;
    leave_queues(c);
    gate_conn_leave_pair(c, false);
    c->state = GATE_CLOSED;
    gate_consume(c, c->in.len);
    gate_block_drop(&c->to_client);
    TAILQ_REMOVE(&gate->all, c, all);
    gate->conn_count--;
    (void)close(c->watch.fd);
    c->watch.fd = -1;
    c->next_grave = gate->graves;
    gate->graves = c;
}

void gate_conn_abort(struct gate_conn *c)
{
    struct linger at_once = {.l_onoff = 1};
    (void)setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    gate_conn_close(c);
}

void gate_conn_set_state(struct gate_conn *c, enum gate_state state)
{
    leave_queues(c);
    c->state = state;
    if (state == GATE_HEAD || state == GATE_RUNNING) {
        TAILQ_REMOVE(&c->gate->all, c, all);
        TAILQ_INSERT_TAIL(&c->gate->all, c, all);
    }
}

void gate_conn_linger(struct gate_conn *c)
{
    gate_conn_set_state(c, GATE_LINGER);
    gate_consume(c, c->in.len);
    (void)shutdown(c->watch.fd, SHUT_WR);
    c->deadline_ns = c->gate->now_ns + (c->up.is_done ? LINGER_QUICK_NS : LINGER_NS);
}

void gate_conn_await(struct gate_conn *c)
{
    gate_conn_set_state(c, GATE_HEAD);
    c->need = 1;
    c->scanned = 0;
    c->is_timed = false;
    c->up_bytes = 0;
    c->has_answer = c->is_refused = c->is_fin_told = false;
    c->deadline_ns = c->gate->now_ns + gate_limit_ns(c->gate);
}

/* -- own answers -- */

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {{400, "Bad Request"},
                   {408, "Request Timeout"},
                   {414, "URI Too Long"},
                   {431, "Request Header Fields Too Large"},
                   {501, "Not Implemented"},
                   {503, "Service Unavailable"},
                   {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < TRK_COUNT(reasons); i++) {
        if (reasons[i].status == status) {
            return reasons[i].reason;
        }
    }
    return "Error";
}

void gate_conn_refuse(struct gate_conn *c, int status, const char *why)
{
    const struct trk_http_server *server = c->gate->server;
    char id[37];
    trk_uuid4(id);
    gate_conn_leave_pair(c, false);
    bool is_late = status == 503;
    trk_autofree char *body = trk_xasprintf(
        "{\"error\":\"%s%s\",\"type\":\"%s\"%s%s%s}", is_late ? "" : "bad request: ", why,
        trk_code_info(is_late ? TRK_UNAVAILABLE : TRK_INVALID)->type,
        is_late ? ",\"tracing_id\":\"" : "", is_late ? id : "", is_late ? "\"" : "");
    trk_autofree char *text = trk_xasprintf(
        "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s%s: %s\r\n"
        "X-Content-Type-Options: nosniff\r\n" CLOSE_LINE "\r\n%s",
        status, reason_of(status), strlen(body), is_late ? "Retry-After: 1\r\n" : "",
        server->options.tracing_header, id, body);
    trk_log_info("request refused", "peer", c->peer, "reason", why, "tracing_id", id, NULL);
    (void)send(c->watch.fd, text, strlen(text), MSG_NOSIGNAL);
    c->up.is_done = false;
    gate_conn_linger(c);
}

/* -- the request: until it can be passed on -- */

/* How much of a body is there. True when it needs no more waiting: whole, or too large to be held.
 */
static bool is_ready(struct gate_conn *c, const struct trk_h1_request *r, size_t head_len,
                     bool *ret_is_whole, bool *ret_is_bad)
{
    *ret_is_whole = r->body == TRK_H1_NO_BODY;
    if (r->body == TRK_H1_NO_BODY || r->expect_continue) {
        return true;
    }
    size_t have = c->in.len - head_len;
    if (r->body == TRK_H1_LENGTH) {
        *ret_is_whole = have >= r->content_length;
        c->need = head_len + (size_t)r->content_length;
        return *ret_is_whole || r->content_length > GATE_HOLD_BYTES;
    }
    if (c->scanned == 0) {
        c->scanned = head_len;
        trk_h1_chunked_init(&c->up.chunked);
    }
    int n = 0;
    while (n == 0 && c->scanned < c->in.len) {
        struct trk_h1_slice data;
        size_t used;
        n = trk_h1_chunked_next(&c->up.chunked, c->in.data + c->scanned, c->in.len - c->scanned,
                                &used, &data);
        c->scanned += used;
    }
    *ret_is_bad = n < 0;
    *ret_is_whole = n > 0;
    c->need = c->in.len + 1;
    return n != 0 || have > GATE_HOLD_BYTES;
}

/* Looks at what has come. True when the state changed. */
static bool take_request(struct gate_conn *c)
{
    struct http_gate *gate = c->gate;
    struct trk_h1_request *r = &gate->request;
    if (!c->is_timed) {
        c->is_timed = true;
        c->begun_ns = gate->now_ns;
        c->deadline_ns = gate->now_ns + (gate_limit_ns(c->gate) < HEAD_LIMIT_NS
                                             ? gate_limit_ns(c->gate)
                                             : HEAD_LIMIT_NS);
    }
    int n = trk_h1_parse_request(r, c->in.data, c->in.len);
    if (n < 0) {
        gate_conn_refuse(c, -n, trk_h1_fault());
        return true;
    }
    bool is_whole = false, is_bad = false;
    c->need = c->in.len + 1;
    if (n > 0 && is_ready(c, r, (size_t)n, &is_whole, &is_bad)) {
        if (is_bad) {
            gate_conn_refuse(c, 400, "the chunked body is malformed");
            return true;
        }
        c->is_upload = !is_whole;
        bool must_wait = gate->is_guest || !gate_has_place(gate, c->is_upload) ||
                         !TAILQ_EMPTY(&gate->waiting[c->is_upload]);
        c->state = GATE_WAITING;
        TAILQ_INSERT_TAIL(&gate->waiting[c->is_upload], c, turn);
        c->deadline_ns = gate->now_ns + gate_limit_ns(c->gate);
        if (!must_wait) {
            gate_exchange_start(c);
        }
        return true;
    }
    if (n > 0) {
        c->deadline_ns = c->begun_ns + gate_limit_ns(c->gate);
    }
    if (gate->held_bytes > GATE_HELD_MAX) {
        gate_conn_refuse(c, 503, "too many requests are on their way");
        return true;
    }
    return false;
}

static bool step_head(struct gate_conn *c)
{
    if (c->in.len >= c->need && take_request(c)) {
        return true;
    }
    ssize_t n = gate_receive_request(c);
    if (n < 0) {
        gate_conn_close(c);
    }
    return n > 0;
}

static bool step_linger(struct gate_conn *c)
{
    ssize_t n = gate_receive(c->gate, &c->watch);
    if (n < 0) {
        gate_conn_close(c);
    }
    return n > 0;
}

/* -- driving -- */

void gate_conn_run(struct gate_conn *c)
{
    bool goes_on = true;
    if (c->is_again) {
        leave_queues(c);
    }
    for (int i = 0; goes_on && i < ROUNDS_A_TURN; i++) {
        switch (c->state) {
        case GATE_HEAD:
            goes_on = step_head(c);
            break;
        case GATE_RUNNING:
            goes_on = gate_exchange_step(c);
            break;
        case GATE_LINGER:
            goes_on = step_linger(c);
            break;
        case GATE_WAITING:
            goes_on = false;
            if (c->watch.has_error) {
                gate_conn_close(c);
            }
            break;
        default:
            return;
        }
    }
    if (c->state == GATE_RUNNING) {
        c->deadline_ns = gate_exchange_deadline(c);
    }
    if (goes_on && c->state != GATE_CLOSED && c->state != GATE_WAITING) {
        c->is_again = true;
        TAILQ_INSERT_TAIL(&c->gate->again, c, turn);
    }
}

void gate_conn_expire(struct gate_conn *c)
{
    switch (c->state) {
    case GATE_HEAD:
        if (c->in.len > 0) {
            gate_conn_refuse(c, 408, "the request did not come in time");
            return;
        }
        break;
    case GATE_WAITING:
        gate_conn_refuse(c, 503, "too many requests at once");
        return;
    case GATE_RUNNING:
        if (!c->has_answer) {
            gate_conn_refuse(c, 408, "the request body did not come in time");
        } else {
            gate_conn_abort(c);
        }
        return;
    default:
        break;
    }
    gate_conn_close(c);
}

void gate_conn_new(struct http_gate *gate, int fd, const struct sockaddr *peer)
{
    struct gate_conn *c = trk_xcalloc(1, sizeof(*c));
    c->gate = gate;
    c->watch = (struct gate_watch){.fd = fd, .kind = GATE_CLIENT, .is_writable = true};
    const void *address = peer->sa_family == AF_INET6
                              ? (const void *)&((const struct sockaddr_in6 *)peer)->sin6_addr
                              : (const void *)&((const struct sockaddr_in *)peer)->sin_addr;
    (void)inet_ntop(peer->sa_family, address, c->peer, sizeof(c->peer));
    trk_buf_init(&c->in, GATE_IN_MAX);
    trk_buf_init(&c->head, TRK_H1_HEAD_MAX + GATE_READ_BYTES);
    TAILQ_INSERT_TAIL(&gate->all, c, all);
    gate->conn_count++;
    gate_conn_await(c);
    if (gate_watch_add(gate, &c->watch) < 0) {
        gate_conn_close(c);
    }
}
