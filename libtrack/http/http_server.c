#include "libtrack/http/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/http_internal.h"

/* A connection's memory for its head and for reading: caps heads at about this. */
#define POOL_BYTES (64U * 1024)

static const double duration_bounds[] = {.005, .01, .025, .05, .075, .1,  .25,
                                         .5,   .75, 1,    2.5, 5,    7.5, 10};

static int fill_address(const char *addr, int port, struct sockaddr_storage *ret,
                        socklen_t *ret_len, struct trk_err *err)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (strcmp(addr, "localhost") == 0) {
        addr = "127.0.0.1";
    }
    if (inet_pton(AF_INET, addr, &v4.sin_addr) == 1) {
        memcpy(ret, &v4, sizeof(v4));
        *ret_len = sizeof(v4);
    } else if (inet_pton(AF_INET6, addr, &v6.sin6_addr) == 1) {
        memcpy(ret, &v6, sizeof(v6));
        *ret_len = sizeof(v6);
    } else {
        return trk_err_set(err, TRK_INVALID,
                           "cannot listen on '%s': expected an IP address such as 127.0.0.1 or "
                           "0.0.0.0",
                           addr);
    }
    return 0;
}

static int listen_fault(const struct trk_http_options *options, int errnum, struct trk_err *err)
{
    const char *addr = options->addr;
    int port = options->port;
    switch (errnum) {
    case EADDRINUSE:
        return trk_err_set(err, TRK_CONFLICT,
                           "port %d on %s is already in use: stop the process that listens there "
                           "(`ss -ltnp 'sport = :%d'` shows which) or choose another port%s%s",
                           port, addr, port, options->port_setting != NULL ? ": " : "",
                           options->port_setting != NULL ? options->port_setting : "");
    case EACCES:
        return trk_err_set(err, TRK_FORBIDDEN,
                           "no permission to listen on port %d of %s: choose a port above 1023",
                           port, addr);
    case EADDRNOTAVAIL:
        return trk_err_set(err, TRK_INVALID, "this machine has no address %s to listen on", addr);
    default:
        return trk_err_errno(err, errnum, "listening on %s port %d", addr, port);
    }
}

static int listen_on(const struct trk_http_options *options, int *ret_fd, int *ret_port,
                     struct trk_err *err)
{
    struct sockaddr_storage address = {0};
    socklen_t len = 0;
    if (fill_address(options->addr, options->port, &address, &len, err) < 0) {
        return err->code;
    }
    trk_autoclose int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 511) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        return listen_fault(options, errno, err);
    }
    in_port_t bound; /* at the same place in both families' addresses */
    memcpy(&bound, (const char *)&address + offsetof(struct sockaddr_in, sin_port), sizeof(bound));
    *ret_port = ntohs(bound);
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

static void daemon_log(void *cls, const char *fmt, va_list args)
    __attribute__((format(printf, 2, 0)));
static void daemon_log(void *cls, const char *fmt, va_list args)
{
    (void)cls;
    char text[512];
    if (trk_log_is_enabled(TRK_LOG_DEBUG)) {
        (void)vsnprintf(text, sizeof(text), fmt, args);
        text[strcspn(text, "\n")] = '\0';
        trk_log_debug("libmicrohttpd", "text", text, NULL);
    }
}

static struct MHD_Daemon *start_daemon(struct trk_http_server *server, int fd)
{
    const struct trk_http_options *options = &server->options;
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, http_on_request, server, MHD_OPTION_EXTERNAL_LOGGER, daemon_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_URI_LOG_CALLBACK, http_on_uri, server,
        MHD_OPTION_UNESCAPE_CALLBACK, http_keep_encoded, NULL, MHD_OPTION_NOTIFY_COMPLETED,
        http_on_completed, server, MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, server,
        MHD_OPTION_CONNECTION_LIMIT, options->connection_max, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        options->per_ip_max, MHD_OPTION_CONNECTION_TIMEOUT, options->timeout_s,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)HTTP_STACK_BYTES, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)POOL_BYTES, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
}

static void add_metrics(struct trk_http_server *server)
{
    struct trk_metrics *m = server->options.metrics;
    if (m == NULL) {
        return;
    }
    server->started = trk_metrics_counter(m, "commons_requests_started_total",
                                          "Requests whose head has arrived.", NULL);
    server->done = trk_metrics_counter(m, "commons_requests_done_total",
                                       "Requests that were answered or given up.", NULL);
    server->server_errors = trk_metrics_counter(m, "commons_internal_server_errors_total",
                                                "Answers with status 500.", NULL);
    server->duration = trk_metric_series(
        trk_metrics_histogram(m, "commons_request_duration", "Duration of requests in seconds.",
                              NULL, duration_bounds, TRK_COUNT(duration_bounds)),
        NULL);
}

static void server_free(struct trk_http_server *server)
{
    http_routes_free(server->routes);
    free(server->openapi);
    free(server->docs);
    free(server->docs_policy);
    (void)pthread_mutex_destroy(&server->lock);
    (void)pthread_cond_destroy(&server->idle);
    (void)pthread_cond_destroy(&server->watch);
    free(server);
}

static struct trk_http_server *server_new(const struct trk_http_options *options)
{
    struct trk_http_server *server = trk_xcalloc(1, sizeof(*server));
    server->options = *options;
    server->options.connection_max = options->connection_max > 0 ? options->connection_max : 512;
    server->options.timeout_s = options->timeout_s > 0 ? options->timeout_s : 60;
    if (options->tracing_header == NULL || options->tracing_header[0] == '\0') {
        server->options.tracing_header = "X-Request-Tracing-Id";
    }
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&server->lock, NULL);
    (void)pthread_cond_init(&server->idle, &attr);
    (void)pthread_cond_init(&server->watch, &attr);
    (void)pthread_condattr_destroy(&attr);
    server->routes = http_routes_new(options);
    return server;
}

int trk_http_server_start(const struct trk_http_options *options, struct trk_http_server **ret,
                          struct trk_err *err)
{
    trk_autoclose int fd = -1;
    int port = 0;
    if (listen_on(options, &fd, &port, err) < 0) {
        return trk_err_wrap(err, "%s", options->service);
    }
    /* A thread a connection would spread over 8 malloc arenas a core, each keeping its own peak. */
    (void)mallopt(M_ARENA_MAX, 2);
    (void)signal(SIGPIPE, SIG_IGN); /* sendfile() has no MSG_NOSIGNAL */
    struct trk_http_server *server = server_new(options);
    server->port = port;
    int rc = http_start_watchdog(server);
    if (rc != 0) {
        server_free(server);
        return trk_err_errno(err, rc, "starting a thread");
    }
    server->daemon = start_daemon(server, fd);
    if (server->daemon == NULL) {
        http_stop_watchdog(server);
        server_free(server);
        return trk_err_set(err, TRK_INTERNAL, "%s: the HTTP server did not start",
                           options->service);
    }
    (void)TRK_STEAL_FD(fd); /* libmicrohttpd closes it */
    add_metrics(server);
    *ret = server;
    return 0;
}

int trk_http_server_port(const struct trk_http_server *server)
{
    return server->port;
}

bool trk_http_server_is_stopping(const struct trk_http_server *server)
{
    return atomic_load(&server->stopping);
}

/* Waits until no request is under way; false when the time is over. */
static bool wait_idle(struct trk_http_server *server, int64_t ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + ms % 1000 * TRK_NS_PER_MS;
    until.tv_sec += ms / 1000 + ns / TRK_NS_PER_S;
    until.tv_nsec = ns % TRK_NS_PER_S;
    (void)pthread_mutex_lock(&server->lock);
    int rc = 0;
    while (rc == 0 && atomic_load(&server->active) > 0) {
        rc = pthread_cond_timedwait(&server->idle, &server->lock, &until);
    }
    (void)pthread_mutex_unlock(&server->lock);
    return atomic_load(&server->active) == 0;
}

bool trk_http_server_stop(struct trk_http_server *server, int64_t grace_ms)
{
    if (server == NULL) {
        return true;
    }
    atomic_store(&server->stopping, true);
    MHD_socket listener = MHD_quiesce_daemon(server->daemon);
    if (listener != MHD_INVALID_SOCKET) {
        (void)close(listener);
    }
    if (!wait_idle(server, grace_ms)) {
        /* Blocked senders and readers wake up, handlers see trk_req_is_disconnected(). */
        (void)pthread_mutex_lock(&server->lock);
        for (struct http_conn *conn = server->conns; conn != NULL; conn = conn->next) {
            (void)shutdown(conn->fd, SHUT_RDWR);
        }
        (void)pthread_mutex_unlock(&server->lock);
        if (!wait_idle(server, 1000)) {
            trk_log_warn("requests are still running at the end: left behind", NULL);
            return false; /* their threads use the server until the process ends */
        }
    }
    MHD_stop_daemon(server->daemon);
    http_stop_watchdog(server);
    server_free(server);
    return true;
}
