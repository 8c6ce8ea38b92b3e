#include "wrapper/front.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define READ_SIZE      (16 * 1024)
#define CHUNKS_EXTRA   (128 * 1024)
#define LINGER_NS      (2 * TRK_NS_PER_S)
#define ACCEPTS_A_TURN 64

static void conn_read(struct conn *conn);

/* ---- room for large requests: their sum is bounded, not only each ---- */

static bool take_room(struct conn *conn, size_t size)
{
    struct front *front = conn->front;
    if (size <= FRONT_BIG_REQUEST || size <= conn->room) {
        return true;
    }
    uint64_t more = size - conn->room;
    if (front->big_room + more > FRONT_BIG_ROOM * front->options.body_max_bytes + TRK_H1_HEAD_MAX) {
        return false;
    }
    front->big_room += more;
    conn->room = size;
    return true;
}

void conn_give_room(struct conn *conn)
{
    conn->front->big_room -= conn->room;
    conn->room = 0;
}

/* ---- life ---- */

static void close_oldest_idle(struct front *front)
{
    struct conn *oldest = NULL;
    for (struct conn *c = front->conns; c != NULL; c = c->next) {
        if (c->state == CONN_READING && c->in.len == 0 &&
            (oldest == NULL || c->active_ns < oldest->active_ns)) {
            oldest = c;
        }
    }
    if (oldest != NULL) {
        conn_close(oldest);
    }
}

static void add_conn(struct front *front, int fd)
{
    if (front->conn_count >= FRONT_CONN_MAX) {
        close_oldest_idle(front);
    }
    if (front->conn_count >= FRONT_CONN_MAX) {
        static const char busy[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                                   "Connection: close\r\n\r\n";
        (void)send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)close(fd);
        return;
    }
    struct conn *conn = trk_xcalloc(1, sizeof(*conn));
    conn->source.kind = SOURCE_CONN;
    conn->front = front;
    conn->fd = fd;
    conn->file_fd = -1;
    conn->endpoint = -1;
    conn->active_ns = front->now_ns;
    trk_buf_init(&conn->in, TRK_H1_HEAD_MAX + front->options.body_max_bytes + CHUNKS_EXTRA);
    trk_buf_init(&conn->out, front->options.body_max_bytes + CHUNKS_EXTRA);
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = conn};
    if (epoll_ctl(front->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        (void)close(fd);
        free(conn);
        return;
    }
    conn->next = front->conns;
    if (front->conns != NULL) {
        front->conns->prev = conn;
    }
    front->conns = conn;
    if (front->conn_count++ == 0) {
        front->next_sweep_ns = front->now_ns + TRK_NS_PER_S;
    }
}

void conn_accept(struct front *front)
{
    for (int i = 0; i < ACCEPTS_A_TURN || front->is_draining; i++) {
        int fd = accept4(front->listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            add_conn(front, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) {
            continue;
        }
        if (errno == EMFILE || errno == ENFILE) {
            close_oldest_idle(front); /* its descriptor serves the next turn */
        }
        return;
    }
}

void conn_close(struct conn *conn)
{
    struct front *front = conn->front;
    if (conn->state == CONN_CLOSED) {
        return;
    }
    if (conn->call != NULL) {
        metrics_call_done(front, conn->endpoint, 499, conn->begun_ns, front->now_ns);
        call_abandon(front, TRK_STEAL(conn->call));
    }
    conn->state = CONN_CLOSED;
    conn_give_room(conn);
    (void)close(conn->fd);
    if (conn->file_fd >= 0) {
        (void)close(conn->file_fd);
    }
    *(conn->prev != NULL ? &conn->prev->next : &front->conns) = conn->next;
    if (conn->next != NULL) {
        conn->next->prev = conn->prev;
    }
    front->conn_count--;
    conn->prev = NULL;
    conn->next = front->closed_conns;
    front->closed_conns = conn;
}

void conns_free_closed(struct front *front)
{
    while (front->closed_conns != NULL) {
        struct conn *conn = front->closed_conns;
        front->closed_conns = conn->next;
        trk_buf_fini(&conn->in);
        trk_buf_fini(&conn->out);
        free(conn);
    }
}

void conns_check_timeouts(struct front *front, int64_t now)
{
    struct conn *next;
    for (struct conn *conn = front->conns; conn != NULL; conn = next) {
        next = conn->next;
        int64_t quiet = now - conn->active_ns;
        bool is_idle = conn->state == CONN_READING && conn->in.len == 0 && !conn->is_lingering;
        if (conn->is_lingering ? quiet > LINGER_NS
            : is_idle          ? quiet > FRONT_IDLE_NS ||
                            (front->is_draining && now - front->drain_ns > FRONT_LINGER_NS)
            : conn->state == CONN_READING || conn->state == CONN_WRITING ? quiet > FRONT_STALL_NS
                                                                         : false) {
            conn_close(conn);
        } else if (conn->state == CONN_READING && !is_idle && !conn->is_lingering &&
                   conn->need == 0 && !conn->is_chunked && now - conn->begun_ns > FRONT_STALL_NS) {
            conn_reply_error(conn, 408, "RequestTimeout", "the request's head did not arrive");
        }
    }
}

/* ---- in ---- */

static void refuse(struct conn *conn, int status, const char *text)
{
    conn->keep_alive = false;
    conn->is_head = false;
    conn_reply_error(conn, status,
                     status == 413   ? "TooLarge"
                     : status == 503 ? "TooManyLargeRequests"
                                     : "BadRequest",
                     text);
}

static void refuse_too_large(struct conn *conn, uint64_t limit)
{
    char text[128];
    (void)snprintf(text, sizeof(text), "the request's body is larger than the limit of %s",
                   trk_size_text(limit).text);
    refuse(conn, 413, text);
}

static const char no_room[] = "too many large requests at once, try again in a moment";

static void send_continue(struct conn *conn, const struct trk_h1_request *request)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (request->expect_continue && !conn->has_continued) {
        conn->has_continued = true;
        (void)send(conn->fd, line, sizeof(line) - 1, MSG_NOSIGNAL);
    }
}

static void dispatch(struct conn *conn, const struct exchange *exchange)
{
    const struct trk_h1_request *request = exchange->request;
    conn->keep_alive = request->keep_alive;
    conn->is_http10 = request->minor == 0;
    conn->is_head = request->method.len == 4 && memcmp(request->method.at, "HEAD", 4) == 0;
    handle_request(conn, exchange);
}

/* Looks at one request at `bytes`: how many bytes it took, 0 when more are needed (or the body is
 * chunked and has to be decoded in `in`) or the connection is done for. */
static size_t parse_one(struct conn *conn, const char *bytes, size_t len)
{
    struct trk_h1_request request;
    uint64_t body_max = conn->front->options.body_max_bytes;
    int head_len = trk_h1_parse_request(&request, bytes, len);
    if (head_len < 0) {
        refuse(conn, -head_len, trk_h1_fault());
        return 0;
    }
    if (head_len == 0) {
        conn->need = 0;
        return 0;
    }
    if (request.body == TRK_H1_CHUNKED) {
        conn->is_chunked = true;
        trk_h1_chunked_init(&conn->chunked);
        conn->head_len = conn->body_end = conn->raw_at = (size_t)head_len;
        send_continue(conn, &request);
        return 0;
    }
    uint64_t body_len = request.body == TRK_H1_LENGTH ? request.content_length : 0;
    if (body_len > body_max) {
        refuse_too_large(conn, body_max);
        return 0;
    }
    size_t total = (size_t)head_len + (size_t)body_len;
    if (len < total) {
        if (!take_room(conn, total)) {
            refuse(conn, 503, no_room);
            return 0;
        }
        conn->need = total;
        send_continue(conn, &request);
        return 0;
    }
    conn->need = 0;
    const struct exchange exchange = {&request, bytes, (size_t)head_len, bytes + head_len,
                                      (size_t)body_len};
    dispatch(conn, &exchange);
    return total;
}

static size_t parse_all(struct conn *conn, const char *bytes, size_t len)
{
    size_t used = 0;
    while (conn->state == CONN_READING && !conn->is_lingering && !conn->is_chunked && used < len) {
        size_t n = parse_one(conn, bytes + used, len - used);
        if (n == 0) {
            break;
        }
        used += n;
    }
    return used;
}

/* Goes on decoding a chunked body in place; true when the request was handled. */
static bool decode_chunks(struct conn *conn)
{
    struct trk_buf *in = &conn->in;
    int code = 0;
    while (code == 0 && conn->raw_at < in->len) {
        size_t used = 0;
        struct trk_h1_slice data = {NULL, 0};
        code = trk_h1_chunked_next(&conn->chunked, in->data + conn->raw_at, in->len - conn->raw_at,
                                   &used, &data);
        if (code < 0) {
            refuse(conn, 400, trk_h1_fault());
            return false;
        }
        if (data.len > 0) {
            memmove(in->data + conn->body_end, data.at, data.len);
            conn->body_end += data.len;
        }
        conn->raw_at += used;
        if (conn->body_end - conn->head_len > conn->front->options.body_max_bytes) {
            refuse_too_large(conn, conn->front->options.body_max_bytes);
            return false;
        }
    }
    /* By powers of two, as the buffer grows. */
    size_t rounded = FRONT_BIG_REQUEST;
    while (rounded < conn->body_end) {
        rounded *= 2;
    }
    if (!take_room(conn, rounded)) {
        refuse(conn, 503, no_room);
        return false;
    }
    if (code == 0) { /* drop the framing that was read */
        in->len = conn->raw_at = conn->body_end;
        return false;
    }
    struct trk_h1_request request;
    size_t body_len = conn->body_end - conn->head_len;
    conn->is_chunked = false;
    if (trk_h1_parse_request(&request, in->data, conn->head_len) <= 0) {
        trk_die("a request head changed while its body was read");
    }
    const struct exchange exchange = {&request, in->data, conn->head_len, in->data + conn->head_len,
                                      body_len};
    dispatch(conn, &exchange);
    if (conn->state != CONN_CLOSED && !conn->is_lingering) {
        trk_buf_consume(in, conn->raw_at);
    }
    return true;
}

/* Handles what is in `in`. */
static void consume(struct conn *conn)
{
    while (conn->state == CONN_READING && !conn->is_lingering && conn->in.len > 0 &&
           conn->in.len >= conn->need) {
        if (conn->is_chunked) {
            if (!decode_chunks(conn)) {
                return;
            }
            continue;
        }
        size_t used = parse_all(conn, conn->in.data, conn->in.len);
        if (conn->state == CONN_CLOSED || conn->is_lingering) {
            return;
        }
        trk_buf_consume(&conn->in, used);
        if (used == 0 && !conn->is_chunked) {
            break;
        }
    }
    if (conn->in.len == 0 && conn->in.size > READ_SIZE) {
        size_t cap = conn->in.cap_bytes;
        trk_buf_fini(&conn->in);
        trk_buf_init(&conn->in, cap);
    }
}

static bool receive(struct conn *conn, char *room, size_t size, size_t *ret_len)
{
    ssize_t n;
    do {
        n = recv(conn->fd, room, size, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        /* Edge-triggered: a short read has emptied the socket, unless its end is there too. */
        conn->can_read = (size_t)n == size || conn->peer_closed;
        conn->active_ns = conn->front->now_ns;
        *ret_len = (size_t)n;
        return true;
    }
    conn->can_read = false;
    if (n == 0 || errno != EAGAIN) {
        conn_close(conn);
    }
    return false;
}

static void conn_read(struct conn *conn)
{
    char *scratch = conn->front->scratch;
    size_t len;
    while (conn->state == CONN_READING && conn->can_read) {
        if (conn->is_lingering) {
            (void)receive(conn, scratch, FRONT_SCRATCH, &len);
            continue;
        }
        if (conn->in.len == 0) {
            if (!receive(conn, scratch, FRONT_SCRATCH, &len)) {
                return;
            }
            conn->begun_ns = conn->front->now_ns;
            size_t used = parse_all(conn, scratch, len);
            if (conn->state == CONN_CLOSED || conn->is_lingering || used == len) {
                continue;
            }
            (void)trk_buf_add(&conn->in, scratch + used, len - used);
            if (conn->is_chunked) {
                consume(conn);
            }
            continue;
        }
        size_t want = conn->need > conn->in.len ? conn->need - conn->in.len : READ_SIZE;
        char *room = trk_buf_reserve(&conn->in, want);
        if (room == NULL) {
            refuse(conn, 413, "the request is larger than the limit");
            continue;
        }
        if (!receive(conn, room, want, &len)) {
            return;
        }
        trk_buf_commit(&conn->in, len);
        consume(conn);
    }
}

void conn_resume(struct conn *conn)
{
    if (conn->state == CONN_READING) {
        consume(conn);
        conn_read(conn);
    }
}

void conn_on_event(struct conn *conn, uint32_t events)
{
    if (conn->state == CONN_CLOSED) {
        return;
    }
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        conn_close(conn);
        return;
    }
    if ((events & EPOLLRDHUP) != 0) {
        conn->peer_closed = true;
        /* Nobody waits any more for what has not begun (a caller that gave up). */
        if (conn->call != NULL && call_drop_if_not_begun(conn->front, conn->call)) {
            conn->call = NULL;
            metrics_call_done(conn->front, conn->endpoint, 499, conn->begun_ns,
                              conn->front->now_ns);
            conn_close(conn);
            return;
        }
    }
    if ((events & (EPOLLIN | EPOLLRDHUP)) != 0) {
        conn->can_read = true;
    }
    if ((events & EPOLLOUT) != 0 && conn->state == CONN_WRITING && conn_flush(conn)) {
        conn_answered(conn);
        conn_resume(conn);
    } else if (conn->state == CONN_READING) {
        conn_read(conn);
    }
}
