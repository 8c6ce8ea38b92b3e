/* Connections of the HTTP server: their list, the watchdog that cuts slow ones, lingering. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "libtrack/base/mem.h"
#include "libtrack/http/http_internal.h"

#define LINGER_NS (10 * TRK_NS_PER_S)

static void set_peer(struct http_conn *conn, const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, addr, sizeof(v4));
        (void)inet_ntop(AF_INET, &v4.sin_addr, conn->peer, sizeof(conn->peer));
    } else if (addr->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, addr, sizeof(v6));
        (void)inet_ntop(AF_INET6, &v6.sin6_addr, conn->peer, sizeof(conn->peer));
    }
}

int64_t http_idle_deadline(const struct trk_http_server *server)
{
    return trk_now_ns() + server->options.timeout_s * TRK_NS_PER_S;
}

static void open_conn(struct trk_http_server *server, struct MHD_Connection *mhd, void **socket_ctx)
{
    struct http_conn *conn = trk_xcalloc(1, sizeof(*conn));
    conn->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    set_peer(conn, MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
    atomic_store(&conn->deadline_ns, http_idle_deadline(server));
    (void)pthread_mutex_lock(&server->lock);
    conn->next = server->conns;
    conn->at = &server->conns;
    if (conn->next != NULL) {
        conn->next->at = &conn->next;
    } else {
        (void)pthread_cond_signal(&server->watch);
    }
    server->conns = conn;
    (void)pthread_mutex_unlock(&server->lock);
    *socket_ctx = conn;
}

static void close_conn(struct trk_http_server *server, struct http_conn *conn)
{
    (void)pthread_mutex_lock(&server->lock);
    *conn->at = conn->next;
    if (conn->next != NULL) {
        conn->next->at = conn->at;
    }
    (void)pthread_mutex_unlock(&server->lock);
    free(conn);
}

void http_on_connection(void *cls, struct MHD_Connection *mhd, void **socket_ctx,
                        enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        open_conn(cls, mhd, socket_ctx);
    } else if (*socket_ctx != NULL) {
        close_conn(cls, *socket_ctx);
        *socket_ctx = NULL;
    }
}

/* Cuts connections whose head, body or answer takes too long: libmicrohttpd's own timeout starts
 * anew with each byte. Sleeps while there are none. */
static void *watchdog_main(void *arg)
{
    struct trk_http_server *server = arg;
    (void)pthread_mutex_lock(&server->lock);
    while (!server->watchdog_ends) {
        if (server->conns == NULL) {
            (void)pthread_cond_wait(&server->watch, &server->lock);
            continue;
        }
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
        (void)pthread_cond_timedwait(&server->watch, &server->lock, &until);
        int64_t now = trk_now_ns();
        for (struct http_conn *conn = server->conns; conn != NULL; conn = conn->next) {
            int64_t deadline = atomic_load(&conn->deadline_ns);
            if (deadline != 0 && now > deadline) {
                (void)shutdown(conn->fd, SHUT_RDWR);
            }
        }
    }
    (void)pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* Reads what a rejected client still sends: closing a socket with unread bytes resets it, and the
 * client would lose the answer. */
void http_linger(const struct trk_http_server *server, const struct http_conn *conn)
{
    char dropped[4096];
    int64_t end = trk_now_ns() + LINGER_NS;
    (void)shutdown(conn->fd, SHUT_WR);
    while (trk_now_ns() < end && !atomic_load(&server->stopping)) {
        struct pollfd p = {.fd = conn->fd, .events = POLLIN};
        if (poll(&p, 1, 1000) <= 0 || recv(conn->fd, dropped, sizeof(dropped), MSG_DONTWAIT) <= 0) {
            return;
        }
    }
}

int http_start_watchdog(struct trk_http_server *server)
{
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, HTTP_STACK_BYTES);
    int rc = pthread_create(&server->watchdog, &attr, watchdog_main, server);
    (void)pthread_attr_destroy(&attr);
    return rc;
}

void http_stop_watchdog(struct trk_http_server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    server->watchdog_ends = true;
    (void)pthread_cond_signal(&server->watch);
    (void)pthread_mutex_unlock(&server->lock);
    (void)pthread_join(server->watchdog, NULL);
}
