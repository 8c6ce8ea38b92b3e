#include "libtrack/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <talloc.h>
#include <unistd.h>

#include "libtrack/http_internal.h"
#include "libtrack/json.h"
#include "libtrack/log.h"
#include "libtrack/mem.h"
#include "libtrack/str.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES (4U * 1024 * 1024)
#else
#define STACK_BYTES (512U * 1024) /* of address space; only what is touched costs memory */
#endif
#define POOL_BYTES                                                                                 \
    (64U * 1024) /* a connection's head and read buffer: caps heads at about that                  \
                  */
#define LINGER_NS (10 * TRK_NS_PER_S)

static const double duration_bounds[] = {.005, .01, .025, .05, .075, .1,  .25,
                                         .5,   .75, 1,    2.5, 5,    7.5, 10};

/* -- connections -- */

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

static int64_t idle_deadline(const struct trk_http_server *server)
{
    return trk_now_ns() + server->options.timeout_s * TRK_NS_PER_S;
}

static void open_conn(struct trk_http_server *server, struct MHD_Connection *mhd, void **socket_ctx)
{
    struct http_conn *conn = trk_xcalloc(1, sizeof(*conn));
    conn->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    set_peer(conn, MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
    atomic_store(&conn->deadline_ns, idle_deadline(server));
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

static void on_connection(void *cls, struct MHD_Connection *mhd, void **socket_ctx,
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
static void linger(const struct trk_http_server *server, const struct http_conn *conn)
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

/* -- a request's way -- */

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct trk_request *req = talloc_zero(NULL, struct trk_request);
    if (req == NULL) {
        trk_die("out of memory");
    }
    req->server = cls;
    req->mhd = mhd;
    req->conn = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    req->target = talloc_strdup(req, uri);
    trk_buf_init(&req->body, 1);
    return req;
}

/* As it came: segments and queries are decoded one by one by our own code. */
static size_t keep_encoded(void *cls, struct MHD_Connection *mhd, char *s)
{
    (void)cls;
    (void)mhd;
    return strlen(s);
}

static int find_route(struct trk_request *req, const char *path, struct trk_err *err)
{
    const struct trk_http_options *options = &req->server->options;
    if (http_routes_find(req->server->routes, req, req->method, path, &req->match, err) < 0) {
        return err->code;
    }
    if (req->match.route != NULL || req->match.allow[0] != '\0' || options->alias == NULL) {
        return 0;
    }
    const char *other = options->alias(req, path);
    if (other == NULL) {
        return 0;
    }
    req->is_alias = true;
    return http_routes_find(req->server->routes, req, req->method, other, &req->match, err);
}

/* The target's path without scheme and authority (absolute-form, RFC 9112 §3.2.2) and query. */
static const char *raw_path_of(struct trk_request *req)
{
    const char *at = req->target;
    if (strncasecmp(at, "http://", 7) == 0 || strncasecmp(at, "https://", 8) == 0) {
        at = strstr(at, "://") + 3;
        at += strcspn(at, "/?");
    }
    size_t len = strcspn(at, "?#");
    return len == 0 ? "/" : talloc_strndup(req, at, len);
}

static int redirect(struct trk_request *req, const char *mount, const char *path)
{
    const char *query = strchr(req->target, '?');
    return http_reply_redirect(
        req, talloc_asprintf(req, "%s%s%s", mount, path, query == NULL ? "" : query));
}

/* Does the path exist with or without its trailing slash? Then the client is sent there. */
static int try_other_slash(struct trk_request *req, const char *mount, const char *path,
                           struct trk_err *err)
{
    size_t len = strlen(path);
    const char *other = path[len - 1] == '/' ? talloc_strndup(req, path, len - 1)
                                             : talloc_asprintf(req, "%s/", path);
    if (other[0] != '/' || (mount[0] == '\0' && other[1] == '/')) {
        return 0; /* "//host" in a Location would lead elsewhere */
    }
    if (find_route(req, other, err) < 0) {
        return err->code;
    }
    bool is_there = req->match.route != NULL || req->match.allow[0] != '\0';
    req->match = (struct http_match){0};
    req->is_alias = false;
    if (!is_there) {
        return 0;
    }
    return redirect(req, mount, other);
}

/* Which mount the path lies under ("" for the root); *path moves behind it. */
static const char *strip_mount(const struct trk_request *req, const char **path)
{
    const char *const *prefix = req->server->options.prefixes;
    for (; prefix != NULL && *prefix != NULL; prefix++) {
        size_t len = strlen(*prefix);
        if (strncmp(*path, *prefix, len) == 0 && ((*path)[len] == '/' || (*path)[len] == '\0')) {
            *path += len;
            return *prefix;
        }
    }
    return "";
}

/* Sets the route, or makes the answer (redirect), or fails with 400, 404 or 405. */
static int route(struct trk_request *req, struct trk_err *err)
{
    const char *path = raw_path_of(req);
    const char *mount = strip_mount(req, &path);
    if (*path == '\0') {
        return redirect(req, mount, "/");
    }
    if (find_route(req, path, err) < 0) {
        return err->code;
    }
    if (req->match.route == NULL && req->match.allow[0] == '\0') {
        req->path = req->match.path;
        if (try_other_slash(req, mount, path, err) < 0) {
            return err->code;
        }
    } else {
        req->path = req->match.path;
    }
    if (req->match.route != NULL || req->response != NULL) {
        return 0;
    }
    if (req->match.allow[0] != '\0') {
        (void)trk_reply_header(req, "Allow", req->match.allow);
        return trk_err_set(err, TRK_METHOD, "%s does not take %s, but %s", req->path, req->method,
                           req->match.allow);
    }
    return trk_err_set(err, TRK_NOT_FOUND, "there is no %.200s here", req->path);
}

/* Everything that is decided before the body is read. */
static int check_request(struct trk_request *req, struct trk_err *err)
{
    if (route(req, err) < 0 || req->response != NULL) {
        return err->code;
    }
    if (http_parse_query(req, err) < 0) {
        return err->code;
    }
    const char *access = req->match.route->decl->access;
    if (strcmp(access, "public") != 0 && req->server->options.authorize(req, access, err) < 0) {
        return err->code;
    }
    if (req->response != NULL) {
        return 0; /* authorize() answered itself */
    }
    if (http_check_query(req, err) < 0) {
        return err->code;
    }
    return http_body_check(req, err);
}

/* The answer is made before the body has come: a small body is read and dropped, which keeps the
 * connection; with a large one the connection ends. */
static enum MHD_Result answer_early(struct trk_request *req)
{
    int64_t length = req->must_close ? -1 : http_body_length(req);
    if (length == 0 ||
        (length > 0 && length <= HTTP_DRAIN_BYTES && trk_req_header(req, "Expect") == NULL)) {
        req->discard = true;
        return MHD_YES;
    }
    req->must_close = true;
    req->linger = true;
    return http_reply_queue(req);
}

static enum MHD_Result begin(struct trk_request *req, const char *method, const char *version)
{
    struct trk_http_server *server = req->server;
    struct trk_err err = {0};
    req->begun = true;
    req->begun_ns = trk_now_ns();
    req->method = talloc_strdup(req, method);
    req->path = talloc_strndup(req, req->target, strcspn(req->target, "?"));
    atomic_store(&req->conn->deadline_ns, idle_deadline(server)); /* now for the body */
    atomic_fetch_add(&server->active, 1);
    if (server->started != NULL) {
        trk_metric_inc(server->started);
    }
    int rc = http_check_head(req, version, &err);
    req->must_close = rc < 0;
    http_set_tracing_id(req);
    trk_log_set_tracing_id(req->tracing_id);
    if (rc == 0) {
        rc = check_request(req, &err);
    }
    if (rc < 0 && (rc != TRK_SCHEMA || req->response == NULL)) {
        http_reply_err(req, &err);
    }
    return req->response != NULL ? answer_early(req) : MHD_YES;
}

static enum MHD_Result take_body(struct trk_request *req, const char *bytes, size_t *len)
{
    struct trk_err err = {0};
    req->body_seen += *len;
    int64_t slow_s = (int64_t)(req->body_seen / HTTP_RATE_MIN_BYTES_PER_S);
    atomic_store(&req->conn->deadline_ns,
                 req->begun_ns + (req->server->options.timeout_s + slow_s) * TRK_NS_PER_S);
    size_t piece = *len;
    *len = 0;
    if (req->discard || http_body_add(req, bytes, piece, &err) == 0) {
        return MHD_YES;
    }
    int64_t length = http_body_length(req);
    if (length > 0 && (uint64_t)length - req->body_seen <= HTTP_DRAIN_BYTES) {
        http_reply_err(req, &err);
        req->discard = true;
        return MHD_YES;
    }
    http_reply_raw(req, &err);
    return MHD_NO;
}

static enum MHD_Result finish(struct trk_request *req)
{
    if (req->discard) {
        return http_reply_queue(req);
    }
    struct trk_err err = {0};
    /* The handler may take its time: neither the watchdog nor libmicrohttpd, which looks at the
     * time of the last byte, may cut the connection before the answer is out. */
    atomic_store(&req->conn->deadline_ns, 0);
    (void)MHD_set_connection_option(req->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 0U);
    int rc = http_body_end(req, &err);
    if (rc < 0 && req->response == NULL) {
        http_reply_err(req, &err);
    } else if (rc == 0) {
        rc = req->match.route->decl->handler(req, &err);
        if (rc < 0) {
            http_reply_err(req, &err);
        }
    }
    (void)MHD_set_connection_option(req->mhd, MHD_CONNECTION_OPTION_TIMEOUT,
                                    req->server->options.timeout_s);
    return http_reply_queue(req);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *bytes,
                                  size_t *len, void **con_cls)
{
    (void)cls;
    (void)mhd;
    (void)url;
    struct trk_request *req = *con_cls;
    if (!req->begun) {
        return begin(req, method, version);
    }
    return *len > 0 ? take_body(req, bytes, len) : finish(req);
}

static void log_access(const struct trk_request *req, int64_t duration_ns)
{
    const struct http_route *route_of = req->match.route;
    bool quiet = route_of != NULL && (route_of->decl->flags & TRK_ROUTE_QUIET) != 0;
    if (quiet || !trk_log_is_enabled(TRK_LOG_INFO)) {
        return;
    }
    char status[16];
    char duration[32];
    (void)snprintf(status, sizeof(status), "%d", req->status != 0 ? req->status : 499);
    (void)snprintf(duration, sizeof(duration), "%.3f", (double)duration_ns / TRK_NS_PER_MS);
    trk_log_info("request", "method", req->method, "path", req->path, "status", status,
                 "duration_ms", duration, "peer", req->conn->peer, NULL);
}

static void end_request(struct trk_request *req)
{
    struct trk_http_server *server = req->server;
    int64_t duration_ns = trk_now_ns() - req->begun_ns;
    if (server->done != NULL) {
        trk_metric_inc(server->done);
        trk_series_observe(server->duration, (double)duration_ns / TRK_NS_PER_S);
    }
    log_access(req, duration_ns);
    if (req->linger) {
        linger(server, req->conn);
    }
    if (atomic_fetch_sub(&server->active, 1) == 1 && atomic_load(&server->stopping)) {
        (void)pthread_mutex_lock(&server->lock);
        (void)pthread_cond_broadcast(&server->idle);
        (void)pthread_mutex_unlock(&server->lock);
    }
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)mhd;
    (void)code;
    struct trk_request *req = *con_cls;
    if (req == NULL) {
        return;
    }
    *con_cls = NULL;
    struct http_conn *conn = req->conn;
    struct trk_http_server *server = req->server;
    trk_req_set_user(req, NULL, NULL);
    if (req->response != NULL) {
        MHD_destroy_response(req->response); /* made, but the client left before it was queued */
    }
    if (req->begun) {
        end_request(req);
    }
    trk_log_set_tracing_id(NULL);
    json_decref(req->json);
    trk_buf_fini(&req->body);
    talloc_free(req);
    atomic_store(&conn->deadline_ns, idle_deadline(server)); /* for the next head */
}

/* -- start and stop -- */

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

static int listen_fault(const char *addr, int port, int errnum, struct trk_err *err)
{
    switch (errnum) {
    case EADDRINUSE:
        return trk_err_set(err, TRK_CONFLICT,
                           "port %d on %s is already in use: stop the process that listens there "
                           "(`ss -ltnp 'sport = :%d'` shows which) or configure another port",
                           port, addr, port);
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

static int listen_on(const char *addr, int port, int *ret_fd, int *ret_port, struct trk_err *err)
{
    struct sockaddr_storage address = {0};
    socklen_t len = 0;
    if (fill_address(addr, port, &address, &len, err) < 0) {
        return err->code;
    }
    trk_autoclose int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 511) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        return listen_fault(addr, port, errno, err);
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
        flags, 0, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, daemon_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_URI_LOG_CALLBACK, on_uri, server,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_encoded, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_CONNECTION_LIMIT,
        options->connection_max, MHD_OPTION_PER_IP_CONNECTION_LIMIT, options->per_ip_max,
        MHD_OPTION_CONNECTION_TIMEOUT, options->timeout_s, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)STACK_BYTES, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
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

static int start_watchdog(struct trk_http_server *server)
{
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    int rc = pthread_create(&server->watchdog, &attr, watchdog_main, server);
    (void)pthread_attr_destroy(&attr);
    return rc;
}

static void stop_watchdog(struct trk_http_server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    server->watchdog_ends = true;
    (void)pthread_cond_signal(&server->watch);
    (void)pthread_mutex_unlock(&server->lock);
    (void)pthread_join(server->watchdog, NULL);
}

int trk_http_server_start(const struct trk_http_options *options, struct trk_http_server **ret,
                          struct trk_err *err)
{
    trk_autoclose int fd = -1;
    int port = 0;
    if (listen_on(options->addr, options->port, &fd, &port, err) < 0) {
        return trk_err_wrap(err, "%s", options->service);
    }
    /* A thread a connection would spread over 8 malloc arenas a core, each keeping its own peak. */
    (void)mallopt(M_ARENA_MAX, 2);
    (void)signal(SIGPIPE, SIG_IGN); /* sendfile() has no MSG_NOSIGNAL */
    struct trk_http_server *server = server_new(options);
    server->port = port;
    int rc = start_watchdog(server);
    if (rc != 0) {
        server_free(server);
        return trk_err_errno(err, rc, "starting a thread");
    }
    server->daemon = start_daemon(server, fd);
    if (server->daemon == NULL) {
        stop_watchdog(server);
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

void trk_http_server_stop(struct trk_http_server *server, int64_t grace_ms)
{
    if (server == NULL) {
        return;
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
            return; /* their threads use the server until the process ends */
        }
    }
    MHD_stop_daemon(server->daemon);
    stop_watchdog(server);
    server_free(server);
}
