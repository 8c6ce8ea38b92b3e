#include "libtrack/http/http_server.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/http_internal.h"

/* A connection's memory: the head (the gate passes on 32 KiB at most), reading, the answer's head.
 * libmicrohttpd clears all of it for each request. */
#define POOL_BYTES (40U * 1024)

static const double duration_bounds[] = {.005, .01, .025, .05, .075, .1,  .25,
                                         .5,   .75, 1,    2.5, 5,    7.5, 10};

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

static struct MHD_Daemon *start_daemon(struct trk_http_server *server)
{
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_ITC | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, http_on_request, server, MHD_OPTION_EXTERNAL_LOGGER, daemon_log, NULL,
        MHD_OPTION_URI_LOG_CALLBACK, http_on_uri, server, MHD_OPTION_UNESCAPE_CALLBACK,
        http_keep_encoded, NULL, MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, server,
        MHD_OPTION_NOTIFY_CONNECTION, http_gate_on_connection, NULL, MHD_OPTION_CONNECTION_LIMIT,
        2 * server->options.request_max + 64, /* the gate's limit; old ones may still end */
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
    free(server);
}

static struct trk_http_server *server_new(const struct trk_http_options *options)
{
    struct trk_http_server *server = trk_xcalloc(1, sizeof(*server));
    server->options = *options;
    server->options.request_max = options->request_max > 0 ? options->request_max : 512;
    server->options.timeout_s = options->timeout_s > 0 ? options->timeout_s : 60;
    if (options->tracing_header == NULL || options->tracing_header[0] == '\0') {
        server->options.tracing_header = "X-Request-Tracing-Id";
    }
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&server->lock, NULL);
    (void)pthread_cond_init(&server->idle, &attr);
    (void)pthread_condattr_destroy(&attr);
    server->routes = http_routes_new(options);
    return server;
}

int trk_http_server_start(const struct trk_http_options *options, struct trk_http_server **ret,
                          struct trk_err *err)
{
    int fds[2], port = 0;
    size_t fd_count = 0;
    if (http_listen(options, fds, &fd_count, &port, err) < 0) {
        return trk_err_wrap(err, "%s", options->service);
    }
    /* A thread a connection would spread over 8 malloc arenas a core, each keeping its own peak. */
    (void)mallopt(M_ARENA_MAX, 2);
    /* Said explicitly it does not grow with what was freed once. */
    (void)mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    (void)signal(SIGPIPE, SIG_IGN); /* sendfile() has no MSG_NOSIGNAL */
    struct trk_http_server *server = server_new(options);
    server->port = port;
    add_metrics(server);
    server->daemon = start_daemon(server);
    if (server->daemon == NULL) {
        (void)trk_err_set(err, TRK_INTERNAL, "%s: the HTTP server did not start", options->service);
        for (size_t i = 0; i < fd_count; i++) {
            (void)close(fds[i]);
        }
    } else if (http_gate_start(server, fds, fd_count, &server->gate, err) < 0) {
        MHD_stop_daemon(server->daemon);
    } else {
        *ret = server;
        return 0;
    }
    server_free(server);
    return err->code;
}

int trk_http_server_port(const struct trk_http_server *server)
{
    return server->port;
}

bool trk_http_server_is_stopping(const struct trk_http_server *server)
{
    return atomic_load(&server->stopping);
}

static bool is_idle(struct trk_http_server *server)
{
    return atomic_load(&server->active) == 0 && http_gate_busy(server->gate) == 0;
}

void http_server_on_idle(struct trk_http_server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    (void)pthread_cond_broadcast(&server->idle);
    (void)pthread_mutex_unlock(&server->lock);
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
    while (rc == 0 && !is_idle(server)) {
        rc = pthread_cond_timedwait(&server->idle, &server->lock, &until);
    }
    (void)pthread_mutex_unlock(&server->lock);
    return is_idle(server);
}

bool trk_http_server_stop(struct trk_http_server *server, int64_t grace_ms)
{
    if (server == NULL) {
        return true;
    }
    atomic_store(&server->stopping, true);
    http_gate_drain(server->gate);
    if (!wait_idle(server, grace_ms)) {
        http_gate_cut(server->gate);
        if (!wait_idle(server, 1000)) {
            trk_log_warn("requests are still running at the end: left behind", NULL);
            return false; /* their threads use the server until the process ends */
        }
    }
    http_gate_free(server->gate);
    MHD_stop_daemon(server->daemon);
    server_free(server);
    return true;
}
