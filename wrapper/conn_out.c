/* The sending half of a connection. */
#include "wrapper/front.h"

#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "libtrack/base/mem.h"

#define KEPT_SIZE (16 * 1024) /* of an empty buffer */

static void stop_talking(struct conn *conn)
{
    /* Bytes that were not read would make the kernel reset the connection, and the peer lose the
     * answer: wait until it closes. */
    if (conn->peer_closed) {
        conn_close(conn);
        return;
    }
    (void)shutdown(conn->fd, SHUT_WR);
    conn->is_lingering = true;
    conn->state = CONN_READING;
    trk_buf_reset(&conn->in);
    conn->active_ns = conn->front->now_ns;
}

void conn_answered(struct conn *conn)
{
    conn->has_continued = false;
    conn_give_room(conn);
    conn->begun_ns = conn->front->now_ns;
    conn->active_ns = conn->front->now_ns;
    conn->state = CONN_READING;
    if (!conn->keep_alive) {
        stop_talking(conn);
    }
}

static bool send_file(struct conn *conn)
{
    while (conn->file_at < conn->file_end) {
        off_t at = (off_t)conn->file_at;
        ssize_t n = sendfile(conn->fd, conn->file_fd, &at, conn->file_end - conn->file_at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return false;
        }
        if (n <= 0) { /* gone, or shorter than promised */
            conn_close(conn);
            return false;
        }
        conn->file_at = (uint64_t)at;
        conn->active_ns = conn->front->now_ns;
    }
    (void)close(conn->file_fd);
    conn->file_fd = -1;
    return true;
}

bool conn_flush(struct conn *conn)
{
    size_t sent = 0;
    while (sent < conn->out.len) {
        ssize_t n = send(conn->fd, conn->out.data + sent, conn->out.len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            if (errno != EAGAIN) {
                conn_close(conn);
                return false;
            }
            break;
        }
        sent += (size_t)n;
        conn->active_ns = conn->front->now_ns;
    }
    trk_buf_consume(&conn->out, sent);
    if (conn->out.len > 0) {
        return false;
    }
    if (conn->out.size > KEPT_SIZE) {
        size_t cap = conn->out.cap_bytes;
        trk_buf_fini(&conn->out);
        trk_buf_init(&conn->out, cap);
    }
    return conn->file_fd < 0 || send_file(conn);
}

static const char *date_line(struct front *front)
{
    int64_t now = trk_wall_s();
    if (now != front->date_s) {
        front->date_s = now;
        trk_format_utc(now, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", front->date,
                       sizeof(front->date));
    }
    return front->date;
}

/* The common head by hand: snprintf costs a microsecond. */
static char *put(char *at, const char *text)
{
    size_t len = strlen(text);
    memcpy(at, text, len);
    return at + len;
}

static char *put_number(char *at, uint64_t number)
{
    char digits[24];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (n > 0) {
        *at++ = digits[--n];
    }
    return at;
}

static size_t make_head(struct conn *conn, const struct reply *reply, char *head)
{
    char *at = put(head, "HTTP/1.1 ");
    at = put_number(at, (uint64_t)reply->status);
    *at++ = ' ';
    at = put(at, http_reason(reply->status));
    at = put(at, "\r\nContent-Type: ");
    at = put(at, reply->type != NULL ? reply->type : "application/json");
    at = put(at, "\r\nContent-Length: ");
    at = put_number(at, reply->len);
    at = put(at, "\r\n");
    at = put(at, date_line(conn->front));
    if (reply->headers != NULL) {
        at = put(at, reply->headers);
    }
    if (!conn->keep_alive) {
        at = put(at, "Connection: close\r\n");
    } else if (conn->is_http10) {
        at = put(at, "Connection: keep-alive\r\n");
    }
    return (size_t)(put(at, "\r\n") - head);
}

/* Room for a head: what make_head adds of its own is far below 1 KiB. */
static size_t head_room(const struct reply *reply)
{
    return 1024 + (reply->type != NULL ? strlen(reply->type) : 0) +
           (reply->headers != NULL ? strlen(reply->headers) : 0);
}

void conn_reply(struct conn *conn, const struct reply *reply)
{
    char fixed[4096];
    if (conn->state == CONN_CLOSED) {
        if (reply->file_fd >= 0) {
            (void)close(reply->file_fd);
        }
        return;
    }
    conn->keep_alive = conn->keep_alive && !reply->must_close && !conn->front->is_draining &&
                       !conn->peer_closed;
    /* A redirect repeats the target, which may have 16 KiB. */
    trk_autofree char *large = head_room(reply) > sizeof(fixed) ? trk_xmalloc(head_room(reply))
                                                                : NULL;
    char *head = large != NULL ? large : fixed;
    size_t head_len = make_head(conn, reply, head);
    bool has_body = !conn->is_head && reply->status != 304 && reply->status != 204;
    size_t body_len = has_body && reply->file_fd < 0 ? reply->len : 0;
    struct iovec parts[2] = {{head, head_len},
                             {.iov_base = (void *)(uintptr_t)reply->data, body_len}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = body_len > 0 ? 2 : 1};
    ssize_t n = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        if (reply->file_fd >= 0) {
            (void)close(reply->file_fd);
        }
        conn_close(conn);
        return;
    }
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent < head_len) {
        (void)trk_buf_add(&conn->out, head + sent, head_len - sent);
        sent = head_len;
    }
    if (sent - head_len < body_len) {
        (void)trk_buf_add(&conn->out, reply->data + (sent - head_len),
                          body_len - (sent - head_len));
    }
    if (reply->file_fd >= 0) {
        if (has_body) {
            conn->file_fd = reply->file_fd;
            conn->file_at = 0;
            conn->file_end = reply->len;
        } else {
            (void)close(reply->file_fd);
        }
    }
    conn->state = CONN_WRITING;
    if ((conn->out.len == 0 && conn->file_fd < 0) || conn_flush(conn)) {
        conn_answered(conn);
    }
}
