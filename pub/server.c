#include "pub/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "pub/client.h"
#include "pub/listen.h"

#define ACCEPT_BATCH    64
#define ACCEPT_PAUSE_MS 50
#define DRAIN_MS        4500

struct pub_server {
    struct pub_shared shared;
    int port;
};

/* -- accepting -- */

static void peer_text(const struct sockaddr_storage *addr, char out[INET6_ADDRSTRLEN])
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;
    out[0] = '\0';
    if (addr->ss_family == AF_INET) {
        (void)inet_ntop(AF_INET, &v4->sin_addr, out, INET6_ADDRSTRLEN);
    } else if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        (void)inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], out, INET6_ADDRSTRLEN);
    } else {
        (void)inet_ntop(AF_INET6, &v6->sin6_addr, out, INET6_ADDRSTRLEN);
    }
}

static void reject(struct pub_worker *w, int fd)
{
    static const char body[] = "{\"error\":\"Overloaded: too many connections, retry later\"}\n";
    char answer[512];
    int len = snprintf(answer, sizeof(answer),
                       "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
                       sizeof(body) - 1, body);
    char drop[4096];
    (void)recv(fd, drop, sizeof(drop), MSG_DONTWAIT);
    (void)send(fd, answer, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)close(fd);
    pub_stat(&w->stats, PUB_REJECTED);
}

/* No descriptor is left: gives up the reserve to take one connection and refuse it, then pauses. */
static void out_of_descriptors(struct pub_worker *w, int listener_fd)
{
    if (w->reserve_fd >= 0) {
        (void)close(w->reserve_fd);
        int fd = accept4(listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            reject(w, fd);
        }
        w->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    pub_timer_set(&w->loop.wheel, &w->accept_again,
                  w->loop.now_ns + ACCEPT_PAUSE_MS * TRK_NS_PER_MS);
}

static void on_listener(struct pub_watch *watch, uint32_t events)
{
    struct pub_worker *w = PUB_CONTAINER(watch, struct pub_listener, watch)->worker;
    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct sockaddr_storage addr;
        socklen_t len = sizeof(addr);
        int fd = accept4(watch->fd, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                out_of_descriptors(w, watch->fd);
            } else if (errno == ECONNABORTED || errno == EINTR) {
                continue;
            }
            return;
        }
        if (atomic_load_explicit(&w->shared->client_count, memory_order_relaxed) >=
            w->shared->config->connection_max) {
            reject(w, fd);
            continue;
        }
        int one = 1;
        char peer[INET6_ADDRSTRLEN];
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        peer_text(&addr, peer);
        pub_client_new(w, fd, peer);
    }
    /* Others wait their turn behind the connections that are open. */
    pub_timer_set(&w->loop.wheel, &w->accept_again, w->loop.now_ns);
}

static void on_accept_again(struct pub_timer *timer)
{
    struct pub_worker *w = PUB_CONTAINER(timer, struct pub_worker, accept_again);
    for (size_t i = 0; i < TRK_COUNT(w->listeners); i++) {
        if (w->listeners[i].watch.fd >= 0) {
            on_listener(&w->listeners[i].watch, 0);
        }
    }
}

/* -- the end -- */

static void end_all(struct pub_timer *timer)
{
    struct pub_worker *w = PUB_CONTAINER(timer, struct pub_worker, drain);
    while (w->clients != NULL) {
        pub_client_close(w->clients);
    }
    w->loop.is_over = true;
}

static void close_listeners(struct pub_worker *w)
{
    for (size_t i = 0; i < TRK_COUNT(w->listeners); i++) {
        pub_loop_close(&w->listeners[i].watch);
    }
}

static void begin_drain(struct pub_message *message, void *ctx)
{
    (void)message;
    struct pub_worker *w = ctx;
    w->is_draining = true;
    close_listeners(w);
    for (struct pub_client *c = w->clients, *next; c != NULL; c = next) {
        next = c->next;
        if (c->state == PUB_CLIENT_HEAD && c->in.len == 0) {
            pub_client_close(c);
        }
    }
    if (w->clients == NULL) {
        w->loop.is_over = true;
        return;
    }
    pub_timer_set(&w->loop.wheel, &w->drain, w->loop.now_ns + DRAIN_MS * TRK_NS_PER_MS);
}

/* -- threads -- */

static void *run_worker(void *arg)
{
    struct pub_worker *w = arg;
    pub_loop_run(&w->loop);
    return NULL;
}

static int init_worker(struct pub_worker *w, struct pub_shared *shared, unsigned index,
                       struct trk_err *err)
{
    const struct pub_config *config = shared->config;
    w->shared = shared;
    w->index = index;
    w->reserve_fd = -1;
    for (size_t i = 0; i < TRK_COUNT(w->listeners); i++) {
        w->listeners[i] = (struct pub_listener){{.fd = -1, .on_event = on_listener}, w};
    }
    w->accept_again.on_fire = on_accept_again;
    w->drain.on_fire = end_all;
    pub_stats_init(&w->stats);
    pub_hosts_init(&w->hosts, &w->loop, (unsigned)config->upstream_idle_max,
                   config->upstream_idle_timeout_ms * TRK_NS_PER_MS);
    if (pub_loop_init(&w->loop, w, err) < 0) {
        return err->code;
    }
    w->loop.readers = &shared->readers;
    w->loop.reader = index;
    pub_access_init(&w->access, &w->loop, shared->access_fd);
    pub_targets_init(&w->targets, &w->hosts, &w->stats);
    w->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return 0;
}

static void fini_worker(struct pub_worker *w)
{
    close_listeners(w);
    while (w->clients != NULL) {
        pub_client_close(w->clients);
    }
    if (w->loop.ctx != NULL) {
        pub_loop_flush(&w->loop);
    }
    pub_access_fini(&w->access);
    pub_targets_fini(&w->targets);
    pub_hosts_fini(&w->hosts);
    pub_stats_fini(&w->stats);
    while (w->buffer_count > 0) {
        free(w->buffers[--w->buffer_count]);
    }
    if (w->loop.ctx != NULL) {
        pub_loop_fini(&w->loop);
    }
    if (w->reserve_fd >= 0) {
        (void)close(w->reserve_fd);
    }
}

static size_t thread_count(const struct pub_config *config)
{
    cpu_set_t set;
    if (config->threads > 0) {
        return (size_t)config->threads;
    }
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > 256 ? 256 : (size_t)n;
}

static int lower_header(char out[64], const char *name, const char *env, struct trk_err *err)
{
    size_t len = strlen(name);
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    for (size_t i = 0; i < len && i < 63; i++) {
        out[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i]);
    }
    out[len < 63 ? len : 63] = '\0';
    if (len == 0 || len > 63 || strspn(out, allowed) != len) {
        return trk_err_set(err, TRK_INVALID, "%s: '%s' is not a header name", env, name);
    }
    return 0;
}

/* -- news of the table, told to the threads -- */

static void run_news(struct pub_message *message, void *ctx)
{
    (void)message;
    pub_call_news(ctx);
}

static void on_change(void *ctx)
{
    struct pub_shared *shared = ctx;
    for (size_t i = 0; i < shared->worker_count; i++) {
        struct pub_worker *w = &shared->workers[i];
        if (atomic_exchange(&w->wants_news, false)) {
            struct pub_message *message = trk_xcalloc(1, sizeof(*message));
            message->run = run_news;
            pub_loop_post(&w->loop, message);
        }
    }
}

struct gone {
    struct pub_message message;
    uint32_t slot;
    uint64_t serial;
    char *version, job[]; /* both in `job` */
};

static void run_gone(struct pub_message *message, void *ctx)
{
    const struct gone *gone = (const struct gone *)message;
    struct pub_worker *w = ctx;
    pub_target_forget(&w->targets, gone->slot, gone->serial);
    pub_job_stats_forget(&w->stats, gone->job, gone->version);
}

static void on_gone(void *ctx, const struct pub_job *job)
{
    struct pub_shared *shared = ctx;
    size_t name_size = strlen(job->family->text) + 1;
    size_t version_size = strlen(job->version) + 1;
    for (size_t i = 0; i < shared->worker_count; i++) {
        struct gone *gone = trk_xcalloc(1, sizeof(*gone) + name_size + version_size);
        gone->message.run = run_gone;
        gone->slot = job->slot;
        gone->serial = job->serial;
        gone->version = gone->job + name_size;
        memcpy(gone->job, job->family->text, name_size);
        memcpy(gone->version, job->version, version_size);
        pub_loop_post(&shared->workers[i].loop, &gone->message);
    }
}

static int init_feed(struct pub_shared *shared, const char *token, struct trk_err *err)
{
    const struct pub_config *config = shared->config;
    const struct pub_feed_options options = {.lifecycle_url = config->lifecycle_url,
                                             .token = token,
                                             .folder = config->state,
                                             .readers = &shared->readers,
                                             .on_gone = on_gone,
                                             .on_change = on_change,
                                             .ctx = shared};
    if (pub_feed_new(&options, &shared->feed, err) < 0) {
        return err->code;
    }
    shared->table = pub_feed_table(shared->feed);
    return 0;
}

static int init_shared(struct pub_shared *shared, const struct pub_config *config,
                       const char *internal_token, struct trk_err *err)
{
    shared->config = config;
    shared->access_fd = -1;
    if (strcmp(config->forward_protocol, "http") != 0) {
        return trk_err_set(err, TRK_INVALID,
                           "FORWARD_TO_PROTOCOL: '%s' is not supported, only http",
                           config->forward_protocol);
    }
    if (lower_header(shared->tracing_header, config->tracing_header, "REQUEST_TRACING_HEADER",
                     err) < 0 ||
        lower_header(shared->caller_header, config->caller_header, "CALLER_NAME_HEADER", err) < 0) {
        return err->code;
    }
    if (pub_access_open(config->access_log, &shared->access_fd, err) < 0) {
        return err->code;
    }
    shared->metrics = trk_metrics_new();
    size_t count = thread_count(config);
    shared->workers = trk_xcalloc(count, sizeof(shared->workers[0]));
    pub_readers_init(&shared->readers, count);
    for (size_t i = 0; i < count; i++) {
        shared->worker_count = i + 1; /* what is to be undone when this one fails */
        if (init_worker(&shared->workers[i], shared, (unsigned)i, err) < 0) {
            return err->code;
        }
    }
    return init_feed(shared, internal_token, err);
}

static int listen_all(struct pub_server *server, struct trk_err *err)
{
    struct pub_shared *shared = &server->shared;
    server->port = (int)shared->config->port;
    for (size_t i = 0; i < shared->worker_count; i++) {
        struct pub_worker *w = &shared->workers[i];
        int fds[TRK_COUNT(w->listeners)];
        if (pub_listen(shared->config->addr, &server->port, i > 0, shared->worker_count > 1, fds,
                       err) < 0) {
            return err->code;
        }
        for (size_t k = 0; k < TRK_COUNT(w->listeners); k++) {
            w->listeners[k].watch.fd = fds[k];
            int n = fds[k] >= 0 ? pub_loop_add(&w->loop, &w->listeners[k].watch, EPOLLIN | EPOLLET)
                                : 0;
            if (n < 0) {
                return trk_err_errno(err, -n, "watching the listener");
            }
        }
    }
    return 0;
}

static void free_server(struct pub_server *server)
{
    if (server->shared.feed != NULL) {
        pub_feed_stop(server->shared.feed);
    }
    for (size_t i = 0; i < server->shared.worker_count; i++) {
        fini_worker(&server->shared.workers[i]);
    }
    if (server->shared.access_fd >= 0) {
        (void)close(server->shared.access_fd);
    }
    pub_feed_free(server->shared.feed);
    free(server->shared.workers);
    trk_metrics_free(server->shared.metrics);
    free(server);
}

int pub_server_start(const struct pub_config *config, const char *internal_token,
                     struct pub_server **ret, struct trk_err *err)
{
    if (sodium_init() < 0) {
        return trk_err_set(err, TRK_INTERNAL, "libsodium cannot be initialised");
    }
    struct pub_server *server = trk_xcalloc(1, sizeof(*server));
    struct pub_shared *shared = &server->shared;
    if (init_shared(shared, config, internal_token, err) < 0 || listen_all(server, err) < 0) {
        free_server(server);
        return err->code;
    }
    if (pub_feed_start(shared->feed, err) < 0) {
        free_server(server);
        return err->code;
    }
    for (size_t i = 0; i < shared->worker_count; i++) {
        int n = pthread_create(&shared->workers[i].thread, NULL, run_worker, &shared->workers[i]);
        if (n != 0) {
            trk_die("starting a thread: %s", strerror(n));
        }
    }
    *ret = server;
    return 0;
}

int pub_server_port(const struct pub_server *server)
{
    return server->port;
}

void pub_server_stop(struct pub_server *server)
{
    struct pub_shared *shared = &server->shared;
    for (size_t i = 0; i < shared->worker_count; i++) {
        struct pub_message *message = trk_xcalloc(1, sizeof(*message));
        message->run = begin_drain;
        pub_loop_post(&shared->workers[i].loop, message);
    }
    for (size_t i = 0; i < shared->worker_count; i++) {
        (void)pthread_join(shared->workers[i].thread, NULL);
    }
    free_server(server);
}
