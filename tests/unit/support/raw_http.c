#include "raw_http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"

#define BYTES_MAX (256 << 20)

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int raw_dial(int port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        trk_die("dialling port %d: %s", port, strerror(errno));
    }
    return fd;
}

bool raw_send(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void look_at(struct raw_answer *answer)
{
    answer->body = answer->bytes + answer->len;
    for (char *at = answer->bytes; (at = strstr(at, "HTTP/1.1 ")) != NULL; at++) {
        if (!isdigit((unsigned char)at[9])) {
            continue; /* in a text */
        }
        answer->answers++;
        char *end = strstr(at, "\r\n\r\n");
        if (answer->status == 0 || answer->status == 100) {
            answer->status = (int)strtol(at + 9, NULL, 10);
            answer->body = end == NULL ? answer->bytes + answer->len : end + 4;
        }
    }
}

/* Is a head there, with as many bytes behind it as it says? */
static bool is_whole(const char *bytes)
{
    const char *end = strstr(bytes, "\r\n\r\n");
    const char *length = strcasestr(bytes, "\r\nContent-Length:");
    return end != NULL && length != NULL && length < end &&
           strlen(end + 4) >= strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
}

static struct raw_answer read_until(int fd, int quiet_ms, bool one)
{
    struct raw_answer answer = {0};
    struct trk_buf buf;
    int64_t begun = trk_now_ns();
    int64_t end = begun + RAW_DEADLINE_MS * TRK_NS_PER_MS;
    trk_buf_init(&buf, BYTES_MAX);
    while (!answer.is_closed && trk_now_ns() < end && !(one && is_whole(buf.data))) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, quiet_ms) <= 0) {
            break;
        }
        char *room = trk_buf_reserve(&buf, 65536);
        ssize_t n = recv(fd, room, 65536, 0);
        if (n > 0) {
            trk_buf_commit(&buf, (size_t)n);
        } else {
            answer.is_closed = true;
        }
    }
    answer.seconds = (double)(trk_now_ns() - begun) / TRK_NS_PER_S;
    answer.bytes = trk_buf_steal(&buf, &answer.len);
    look_at(&answer);
    return answer;
}

struct raw_answer raw_read(int fd, int quiet_ms)
{
    return read_until(fd, quiet_ms, false);
}

struct raw_answer raw_read_one(int fd)
{
    return read_until(fd, RAW_DEADLINE_MS, true);
}

struct raw_answer raw_exchange(int port, const void *bytes, size_t len)
{
    int fd = raw_dial(port);
    (void)raw_send(fd, bytes, len);
    struct raw_answer answer = raw_read(fd, RAW_DEADLINE_MS);
    (void)close(fd);
    return answer;
}

struct raw_answer raw_exchange_text(int port, const char *text)
{
    return raw_exchange(port, text, strlen(text));
}

void raw_answer_fini(struct raw_answer *answer)
{
    free(answer->bytes);
    *answer = (struct raw_answer){0};
}

const char *raw_header(const struct raw_answer *answer, const char *name)
{
    static _Thread_local char value[1024];
    size_t len = strlen(name);
    value[0] = '\0';
    for (const char *at = answer->bytes; at < answer->body; at += strcspn(at, "\n") + 1) {
        if (strncasecmp(at, name, len) == 0 && at[len] == ':') {
            at += len + 1 + strspn(at + len + 1, " ");
            size_t n = strcspn(at, "\r\n");
            n = n < sizeof(value) - 1 ? n : sizeof(value) - 1;
            memcpy(value, at, n);
            value[n] = '\0';
            break;
        }
    }
    return value;
}

/* -- the peer -- */

struct raw_peer {
    struct raw_peer_options options;
    int listener, port;
    pthread_t thread;
    pthread_mutex_t lock;
    struct trk_buf request; /* under lock, like: */
    char *copy;
    atomic_size_t connections;
    int stop_pipe[2];
};

static bool wait_readable(const struct raw_peer *peer, int fd)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN},
                          {.fd = peer->stop_pipe[0], .events = POLLIN}};
    return poll(p, 2, -1) > 0 && p[1].revents == 0;
}

/* One request with its body by Content-Length; false when the connection ends. */
static bool read_request(struct raw_peer *peer, int fd)
{
    struct trk_buf in;
    trk_buf_init(&in, BYTES_MAX);
    bool is_complete = false;
    bool goes_on = true;
    bool is_continued = false;
    while (!is_complete && goes_on) {
        char *room = trk_buf_reserve(&in, 65536);
        ssize_t n = wait_readable(peer, fd) ? recv(fd, room, 65536, 0) : 0;
        goes_on = n > 0;
        trk_buf_commit(&in, n > 0 ? (size_t)n : 0);
        const char *end = strstr(in.data, "\r\n\r\n");
        const char *length = strcasestr(in.data, "\r\nContent-Length:");
        if (end != NULL) {
            size_t body = length != NULL && length < end ? strtoul(length + 17, NULL, 10) : 0;
            if (!is_continued && strcasestr(in.data, "100-continue") != NULL) {
                is_continued = raw_send(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25);
            }
            is_complete = in.len >= (size_t)(end + 4 - in.data) + body;
        }
    }
    (void)pthread_mutex_lock(&peer->lock);
    if (in.len > 0) {
        trk_buf_reset(&peer->request);
        (void)trk_buf_add(&peer->request, in.data, in.len);
    }
    (void)pthread_mutex_unlock(&peer->lock);
    trk_buf_fini(&in);
    return is_complete;
}

static void send_pieces(const struct raw_peer *peer, int fd)
{
    size_t piece = peer->options.piece > 0 ? peer->options.piece : peer->options.len;
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    for (size_t at = 0; at < peer->options.len; at += piece) {
        size_t left = peer->options.len - at;
        if (!raw_send(fd, peer->options.bytes + at, left < piece ? left : piece)) {
            return;
        }
    }
}

static void *peer_main(void *arg)
{
    struct raw_peer *peer = arg;
    while (wait_readable(peer, peer->listener)) {
        int fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        atomic_fetch_add(&peer->connections, 1);
        while (read_request(peer, fd)) {
            send_pieces(peer, fd);
            if (peer->options.holds) {
                (void)wait_readable(peer, fd);
            }
            if (!peer->options.is_persistent) {
                break;
            }
        }
        (void)close(fd);
    }
    return NULL;
}

struct raw_peer *raw_peer_start(const struct raw_peer_options *options)
{
    struct raw_peer *peer = trk_xcalloc(1, sizeof(*peer));
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof(address);
    peer->options = *options;
    peer->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    trk_buf_init(&peer->request, BYTES_MAX);
    (void)pthread_mutex_init(&peer->lock, NULL);
    if (peer->listener < 0 ||
        bind(peer->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(peer->listener, 16) < 0 ||
        getsockname(peer->listener, (struct sockaddr *)&address, &len) < 0 ||
        pipe(peer->stop_pipe) < 0 || pthread_create(&peer->thread, NULL, peer_main, peer) != 0) {
        trk_die("starting a peer: %s", strerror(errno));
    }
    peer->port = ntohs(address.sin_port);
    return peer;
}

int raw_peer_port(const struct raw_peer *peer)
{
    return peer->port;
}

const char *raw_peer_request(struct raw_peer *peer)
{
    (void)pthread_mutex_lock(&peer->lock);
    free(peer->copy);
    peer->copy = trk_xstrdup(peer->request.data);
    (void)pthread_mutex_unlock(&peer->lock);
    return peer->copy;
}

size_t raw_peer_connections(struct raw_peer *peer)
{
    return atomic_load(&peer->connections);
}

void raw_peer_stop(struct raw_peer *peer)
{
    (void)close(peer->stop_pipe[1]);
    (void)pthread_join(peer->thread, NULL);
    (void)close(peer->stop_pipe[0]);
    (void)close(peer->listener);
    (void)pthread_mutex_destroy(&peer->lock);
    trk_buf_fini(&peer->request);
    free(peer->copy);
    free(peer);
}
