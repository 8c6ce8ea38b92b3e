#include "pub/link.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/h1.h"

#define CONNECT_MS  3000
#define PIECE_BYTES 16384

int pub_link_init(struct pub_link *ret, const char *url, const char *token, struct trk_err *err)
{
    static const char scheme[] = "http://";
    *ret = (struct pub_link){.token = token, .port = "80"};
    bool is_http = strncmp(url, scheme, sizeof(scheme) - 1) == 0 &&
                   strpbrk(url, "@?# \t\r\n") == NULL;
    const char *host = is_http ? url + sizeof(scheme) - 1 : "";
    const char *path = host + strcspn(host, "/");
    size_t path_len = strlen(path);
    while (path_len > 0 && path[path_len - 1] == '/') {
        path_len--;
    }
    bool is_bracketed = host[0] == '[';
    host += is_bracketed;
    size_t host_len = strcspn(host, is_bracketed ? "]" : ":/");
    const char *port = host + host_len + (is_bracketed && host[host_len] == ']');
    size_t port_len = *port == ':' ? strcspn(port + 1, "/") : 0;
    if (host_len == 0 || host_len >= sizeof(ret->host) || path_len >= sizeof(ret->path) ||
        port_len >= 6 || (port_len > 0 && strspn(port + 1, "0123456789") < port_len) ||
        (port_len == 0 && *port != '/' && *port != '\0') ||
        (is_bracketed && host[host_len] != ']')) {
        return trk_err_set(err, TRK_INVALID, "LIFECYCLE_URL '%s': must be http://host:port/path",
                           url);
    }
    memcpy(ret->host, host, host_len);
    memcpy(ret->path, path, path_len);
    if (port_len > 0) {
        memcpy(ret->port, port + 1, port_len);
        ret->port[port_len] = '\0';
    }
    (void)snprintf(ret->header, sizeof(ret->header), is_bracketed ? "[%s]:%s" : "%s:%s", ret->host,
                   ret->port);
    return 0;
}

static int failed(const struct pub_link *link, int errnum, struct trk_err *err)
{
    if (errnum == EAGAIN || errnum == EINPROGRESS) {
        return trk_err_set(err, TRK_TIMEOUT, "%s did not answer in time", link->header);
    }
    return trk_err_set(err, TRK_UNAVAILABLE, "%s: %s", link->header, strerror(errnum));
}

/* 0 or -errno. */
static int try_address(const struct addrinfo *where, int *ret_fd)
{
    trk_autoclose int fd = socket(where->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    int error = 0;
    if (connect(fd, where->ai_addr, where->ai_addrlen) < 0) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        socklen_t len = sizeof(error);
        if (errno != EINPROGRESS || poll(&ready, 1, CONNECT_MS) != 1) {
            return -errno;
        }
        (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    }
    int flags = fcntl(fd, F_GETFL);
    if (error != 0 || flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
        return error != 0 ? -error : -errno;
    }
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

static int open_link(const struct pub_link *link, int64_t silence_ms, int *ret_fd,
                     struct trk_err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int n = getaddrinfo(link->host, link->port, &hints, &found);
    if (n != 0) {
        return trk_err_set(err, TRK_UNAVAILABLE, "%s: %s", link->header, gai_strerror(n));
    }
    n = -ECONNREFUSED;
    for (const struct addrinfo *at = found; at != NULL && n < 0; at = at->ai_next) {
        n = try_address(at, ret_fd);
    }
    freeaddrinfo(found);
    if (n < 0) {
        return failed(link, -n, err);
    }
    struct timeval wait = {.tv_sec = silence_ms / 1000, .tv_usec = silence_ms % 1000 * 1000};
    (void)setsockopt(*ret_fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    (void)setsockopt(*ret_fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    return 0;
}

static int send_request(const struct pub_link *link, const struct pub_link_call *call, int fd,
                        struct trk_err *err)
{
    struct trk_buf buf;
    trk_buf_init(&buf, (size_t)64 << 20);
    (void)trk_buf_addf(&buf,
                       "%s %s%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nX-Racetrack-Auth: "
                       "%s\r\n%s",
                       call->body != NULL ? "POST" : "GET", link->path, call->path, link->header,
                       link->token, call->fields != NULL ? call->fields : "");
    if (call->body != NULL) {
        (void)trk_buf_addf(&buf, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                           strlen(call->body));
    }
    (void)trk_buf_addf(&buf, "\r\n%s", call->body != NULL ? call->body : "");
    int code = buf.failed ? trk_err_set(err, TRK_TOO_LARGE, "the request is too large") : 0;
    for (size_t at = 0; code == 0 && at < buf.len;) {
        ssize_t n = send(fd, buf.data + at, buf.len - at, MSG_NOSIGNAL);
        code = n < 0 && errno != EINTR ? failed(link, errno, err) : 0;
        at += n > 0 ? (size_t)n : 0;
    }
    sodium_memzero(buf.data, buf.len); /* the token */
    trk_buf_fini(&buf);
    return code;
}

/* An answer as it comes in. */
struct incoming {
    const struct pub_link_call *call;
    struct trk_buf head;
    struct trk_h1_response response;
    struct trk_h1_chunked chunked;
    uint64_t left;
    bool has_head, is_whole;
};

/* 0 or <0. */
static int take_body(struct incoming *in, const char *bytes, size_t len, struct trk_err *err)
{
    int code = 0;
    while (code == 0 && len > 0 && !in->is_whole) {
        struct trk_h1_slice piece = {bytes, len};
        size_t used = len;
        if (in->response.body == TRK_H1_CHUNKED) {
            int n = trk_h1_chunked_next(&in->chunked, bytes, len, &used, &piece);
            if (n < 0) {
                return trk_err_set(err, TRK_BAD_GATEWAY, "lifecycle's chunks are malformed");
            }
            in->is_whole = n > 0;
        } else if (in->response.body == TRK_H1_LENGTH) {
            piece.len = used = len < in->left ? len : (size_t)in->left;
            in->left -= used;
            in->is_whole = in->left == 0;
        }
        if (piece.len > 0 && in->call->on_data != NULL && in->response.status == 200) {
            code = in->call->on_data(in->call->ctx, piece.at, piece.len, err);
        }
        bytes += used;
        len -= used;
    }
    return code;
}

static int take(struct incoming *in, const char *bytes, size_t len, struct trk_err *err)
{
    if (in->has_head) {
        return take_body(in, bytes, len, err);
    }
    (void)trk_buf_add(&in->head, bytes, len);
    int n = in->head.failed ? -1
                            : trk_h1_parse_response(&in->response, in->head.data, in->head.len);
    while (n > 0 && in->response.status < 200) {
        trk_buf_consume(&in->head, (size_t)n);
        n = trk_h1_parse_response(&in->response, in->head.data, in->head.len);
    }
    if (n <= 0) {
        return n == 0 ? 0 : trk_err_set(err, TRK_BAD_GATEWAY, "lifecycle's answer is not HTTP");
    }
    in->has_head = true;
    in->left = in->response.content_length;
    in->is_whole = in->response.body == TRK_H1_NO_BODY;
    trk_h1_chunked_init(&in->chunked);
    return take_body(in, in->head.data + n, in->head.len - (size_t)n, err);
}

static int receive(const struct pub_link *link, struct incoming *in, int fd, struct trk_err *err)
{
    char bytes[PIECE_BYTES];
    int code = 0;
    while (code == 0 && !in->is_whole) {
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
        if (n > 0) {
            code = take(in, bytes, (size_t)n, err);
        } else if (n == 0) {
            in->is_whole = in->has_head && in->response.body == TRK_H1_UNTIL_CLOSE;
            return in->is_whole ? 0 : trk_err_set(err, TRK_BAD_GATEWAY, "lifecycle broke off");
        } else if (errno != EINTR) {
            return failed(link, errno, err);
        }
    }
    return code;
}

int pub_link_run(const struct pub_link *link, const struct pub_link_call *call, int *ret_status,
                 struct trk_err *err)
{
    trk_autoclose int fd = -1;
    if (open_link(link, call->silence_ms, &fd, err) < 0) {
        return err->code;
    }
    if (call->on_socket != NULL) {
        call->on_socket(call->ctx, fd);
    }
    struct incoming *in = trk_xcalloc(1, sizeof(*in));
    in->call = call;
    trk_buf_init(&in->head, TRK_H1_HEAD_MAX + PIECE_BYTES);
    int code = send_request(link, call, fd, err);
    code = code == 0 ? receive(link, in, fd, err) : code;
    if (call->on_socket != NULL) {
        call->on_socket(call->ctx, -1);
    }
    if (code == 0) {
        *ret_status = in->response.status;
    }
    trk_buf_fini(&in->head);
    free(in);
    return code;
}
