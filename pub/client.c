#include "pub/client.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"

#define LINGER_MS        2000
#define LINGER_MAX_BYTES (1024 * 1024)
#define RECV_MAX         (PUB_BUFFER_SIZE - 2)
#define JOINED_MAX       4096

char *pub_buffer_get(struct pub_worker *w)
{
    return w->buffer_count > 0 ? w->buffers[--w->buffer_count] : trk_xmalloc(PUB_BUFFER_SIZE);
}

void pub_buffer_put(struct pub_worker *w, char *buffer)
{
    if (buffer != NULL && w->buffer_count < TRK_COUNT(w->buffers)) {
        w->buffers[w->buffer_count++] = buffer;
    } else {
        free(buffer);
    }
}

/* -- sending -- */

void pub_block_reset(struct pub_block *block)
{
    free(block->bytes);
    *block = (struct pub_block){0};
}

void pub_block_add(struct pub_block *block, const char *bytes, size_t len)
{
    if (len == 0) {
        return;
    }
    size_t left = block->len - block->at;
    char *joined = trk_xmalloc(left + len);
    if (left > 0) {
        memcpy(joined, block->bytes + block->at, left);
    }
    memcpy(joined + left, bytes, len);
    free(block->bytes);
    *block = (struct pub_block){.bytes = joined, .len = left + len};
}

int pub_send_two(int fd, struct pub_block *block, const char *a, size_t a_len, const char *b,
                 size_t b_len, size_t *b_sent, bool *ret_is_full)
{
    ssize_t n;
    if (block->bytes != NULL) { /* behind what still waits */
        pub_block_add(block, a, a_len);
        *ret_is_full = true;
        return 0;
    }
    char joined[JOINED_MAX];
    if (b_len == 0) {
        n = send(fd, a, a_len, MSG_NOSIGNAL);
    } else if (a_len + b_len <= sizeof(joined)) { /* cheaper than two pieces */
        memcpy(joined, a, a_len);
        memcpy(joined + a_len, b, b_len);
        n = send(fd, joined, a_len + b_len, MSG_NOSIGNAL);
    } else {
        struct iovec parts[2] = {{(void *)(uintptr_t)a, a_len}, {(void *)(uintptr_t)b, b_len}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    }
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return -errno;
    }
    size_t sent = n > 0 ? (size_t)n : 0;
    *ret_is_full = sent < a_len + b_len;
    if (sent < a_len) {
        pub_block_add(block, a + sent, a_len - sent);
    } else {
        *b_sent += sent - a_len;
    }
    return 0;
}

int pub_send_block(int fd, struct pub_block *block, bool *ret_is_full)
{
    *ret_is_full = false;
    if (block->bytes == NULL) {
        return 0;
    }
    ssize_t n = send(fd, block->bytes + block->at, block->len - block->at, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return -errno;
    }
    block->at += n > 0 ? (size_t)n : 0;
    if (block->at == block->len) {
        pub_block_reset(block);
    } else {
        *ret_is_full = true;
    }
    return 0;
}

/* -- life -- */

void pub_client_arm(struct pub_client *c, int64_t timeout_ms)
{
    pub_timer_set(&c->worker->loop.wheel, &c->timer,
                  c->worker->loop.now_ns + timeout_ms * TRK_NS_PER_MS);
}

static void release_buffers(struct pub_client *c)
{
    pub_buffer_put(c->worker, TRK_STEAL(c->in.bytes));
    pub_buffer_put(c->worker, TRK_STEAL(c->out.bytes));
    pub_block_reset(&c->to_client);
    pub_block_reset(&c->to_job);
}

void pub_client_close(struct pub_client *c)
{
    if (c->state == PUB_CLIENT_CLOSED) {
        return;
    }
    struct pub_worker *w = c->worker;
    c->state = PUB_CLIENT_CLOSED;
    pub_timer_cancel(&c->timer);
    pub_call_end(c, c->status, false);
    pub_loop_close(&c->watch);
    release_buffers(c);
    if (w->request_of == c) {
        w->request_of = NULL;
    }
    *(c->prev != NULL ? &c->prev->next : &w->clients) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    (void)atomic_fetch_sub_explicit(&w->shared->client_count, 1, memory_order_relaxed);
    pub_loop_bury(&w->loop, &c->grave, c);
    if (w->is_draining && w->clients == NULL) {
        w->loop.is_over = true;
    }
}

void pub_client_abort(struct pub_client *c)
{
    struct linger at_once = {.l_onoff = 1};
    (void)setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    pub_client_close(c);
}

void pub_client_next(struct pub_client *c)
{
    bool has_more = c->in.is_done && c->in.len > c->in.checked;
    pub_buffer_put(c->worker, TRK_STEAL(c->out.bytes));
    if (!c->in.is_done || !c->keep_alive) {
        c->state = PUB_CLIENT_LINGER;
        c->in.len = 0;
        (void)shutdown(c->watch.fd, SHUT_WR);
        pub_client_arm(c, LINGER_MS);
        return;
    }
    c->state = PUB_CLIENT_HEAD;
    c->line.len = 0;
    c->parsed_len = 0;
    c->is_head_timed = false;
    if (c->worker->request_of == c) {
        c->worker->request_of = NULL;
    }
    if (has_more) {
        memmove(c->in.bytes, c->in.bytes + c->in.checked, c->in.len - c->in.checked);
        c->in.len -= c->in.checked;
        return;
    }
    c->in.len = 0;
    if (c->worker->is_draining) {
        pub_client_close(c);
        return;
    }
    pub_client_arm(c, c->worker->shared->config->keepalive_timeout_ms);
}

bool pub_client_is_gone(struct pub_client *c)
{
    if (c->has_error) {
        return true;
    }
    if (!c->has_fin || !c->in.is_done || !c->keep_alive) {
        /* A client that announced its last request may close its half and wait. */
        return false;
    }
    /* Requests behind this one say the same. */
    if (c->in.len == c->in.checked && c->in.len < RECV_MAX) {
        ssize_t n = recv(c->watch.fd, c->in.bytes + c->in.len, RECV_MAX - c->in.len, 0);
        if (n > 0) {
            c->in.len += (size_t)n;
        } else if (n == 0 || errno != EAGAIN) {
            return true;
        }
    }
    return false;
}

/* -- heads -- */

static bool parse_head(struct pub_client *c)
{
    struct pub_worker *w = c->worker;
    const char *fresh = c->in.bytes + c->parsed_len;
    bool is_hopeless = c->parsed_len > 4096 && c->in.len < TRK_H1_HEAD_MAX &&
                       memchr(fresh, '\n', c->in.len - c->parsed_len) == NULL;
    c->parsed_len = c->in.len;
    if (is_hopeless) {
        return false;
    }
    w->request_of = NULL;
    c->line.len = 0;
    int n = trk_h1_parse_request(&w->request, c->in.bytes, c->in.len);
    if (n == 0) {
        return false;
    }
    if (n > 0) {
        w->request_of = c;
        pub_call_dispatch(c, (size_t)n);
        return true;
    }
    c->keep_alive = false;
    c->is_head = false;
    c->in.is_done = false;
    c->minor = 1;
    pub_stat(&w->stats, PUB_BAD_REQUESTS);
    pub_head_tracing_id(c, (struct trk_h1_slice){"", 0});
    pub_reply_error(c, -n, "Bad request: ", trk_h1_fault());
    return true;
}

/* true: something changed. */
static bool read_head(struct pub_client *c)
{
    struct pub_worker *w = c->worker;
    if (c->in.len > c->parsed_len) {
        if (parse_head(c)) {
            return true;
        }
        if (!c->is_head_timed) {
            c->is_head_timed = true;
            pub_client_arm(c, w->shared->config->header_timeout_ms);
        }
    }
    if (!c->is_readable) {
        if (c->in.len == 0) {
            pub_buffer_put(w, TRK_STEAL(c->in.bytes));
        }
        return false;
    }
    if (c->in.bytes == NULL) {
        c->in.bytes = pub_buffer_get(w);
    }
    ssize_t n = recv(c->watch.fd, c->in.bytes + c->in.len, RECV_MAX - c->in.len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        c->is_readable = false;
        return c->in.len == 0; /* once more to give the buffer back */
    }
    if (n <= 0) {
        pub_client_close(c);
        return false;
    }
    if ((size_t)n < RECV_MAX - c->in.len && !c->has_fin) {
        c->is_readable = false;
    }
    c->in.len += (size_t)n;
    return true;
}

static bool linger(struct pub_client *c)
{
    char *bytes = c->worker->scratch;
    while (c->is_readable) {
        ssize_t n = recv(c->watch.fd, bytes, PUB_SCRATCH_SIZE, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            c->is_readable = false;
            return false;
        }
        if (n > 0) {
            c->in.len += (size_t)n;
        }
        if (n <= 0 || c->in.len > LINGER_MAX_BYTES) {
            pub_client_close(c);
            return false;
        }
    }
    return false;
}

/* Waiting for news or for a connection: only the client's going away matters. */
static bool wait_on(struct pub_client *c)
{
    if ((c->has_fin || c->has_error) && pub_client_is_gone(c)) {
        pub_call_cancel(c);
    }
    return false;
}

void pub_client_run(struct pub_client *c)
{
    bool more = true;
    while (more) {
        switch (c->state) {
        case PUB_CLIENT_HEAD:
            more = read_head(c);
            break;
        case PUB_CLIENT_WAIT:
        case PUB_CLIENT_CONNECT:
            more = wait_on(c);
            break;
        case PUB_CLIENT_EXCHANGE:
            more = pub_exchange_step(c);
            break;
        case PUB_CLIENT_TUNNEL:
            more = pub_tunnel_step(c);
            break;
        case PUB_CLIENT_REPLY:
            more = pub_reply_step(c);
            break;
        case PUB_CLIENT_LINGER:
            more = linger(c);
            break;
        case PUB_CLIENT_CLOSED:
            return;
        }
    }
}

static void on_event(struct pub_watch *watch, uint32_t events)
{
    struct pub_client *c = PUB_CONTAINER(watch, struct pub_client, watch);
    c->is_readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    c->is_writable |= (events & EPOLLOUT) != 0;
    c->has_fin |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    c->has_error |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    pub_client_run(c);
}

static void on_timer(struct pub_timer *timer)
{
    struct pub_client *c = PUB_CONTAINER(timer, struct pub_client, timer);
    switch (c->state) {
    case PUB_CLIENT_HEAD:
        if (c->in.len == 0) {
            pub_client_close(c);
            return;
        }
        c->keep_alive = false;
        c->is_head = false;
        c->in.is_done = false;
        c->minor = 1;
        pub_stat(&c->worker->stats, PUB_BAD_REQUESTS);
        pub_head_tracing_id(c, (struct trk_h1_slice){"", 0});
        pub_reply_error(c, 408, "Bad request: ", "the request head did not come in time");
        break;
    case PUB_CLIENT_WAIT:
    case PUB_CLIENT_CONNECT:
        pub_call_timeout(c);
        break;
    case PUB_CLIENT_EXCHANGE:
        pub_exchange_timeout(c);
        break;
    case PUB_CLIENT_TUNNEL:
        pub_call_end(c, 101, false);
        pub_client_close(c);
        return;
    default:
        pub_client_close(c);
        return;
    }
    pub_client_run(c);
}

void pub_client_new(struct pub_worker *w, int fd, const char *peer)
{
    struct pub_client *c = trk_xcalloc(1, sizeof(*c));
    c->watch.fd = fd;
    c->watch.on_event = on_event;
    c->timer.on_fire = on_timer;
    c->worker = w;
    c->is_writable = true;
    c->is_head_timed = true;
    (void)memccpy(c->peer, peer, '\0', sizeof(c->peer) - 1);
    c->next = w->clients;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    w->clients = c;
    (void)atomic_fetch_add_explicit(&w->shared->client_count, 1, memory_order_relaxed);
    pub_stat(&w->stats, PUB_CONNECTIONS_ACCEPTED);
    pub_client_arm(c, w->shared->config->header_timeout_ms);
    if (pub_loop_add(&w->loop, &c->watch, PUB_EVENTS) < 0) {
        pub_client_close(c);
    }
}
