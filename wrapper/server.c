#include "wrapper/front.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"

#define EVENTS_MAX 128
#define SWEEP_NS   TRK_NS_PER_S
#define BACKLOG    1024

static int bind_address(const struct wrapper_options *o, int *ret_fd, struct trk_err *err)
{
    char port[8];
    (void)snprintf(port, sizeof(port), "%d", o->port);
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *info = NULL;
    int code = getaddrinfo(o->addr, port, &hints, &info);
    if (code != 0) {
        return trk_err_set(err, TRK_INVALID, "--addr %s: %s", o->addr, gai_strerror(code));
    }
    trk_autoclose int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    int failed = fd < 0 ? errno : 0;
    if (failed == 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
                        bind(fd, info->ai_addr, info->ai_addrlen) < 0)) {
        failed = errno;
    }
    freeaddrinfo(info);
    if (failed == EADDRINUSE) {
        return trk_err_set(err, TRK_CONFLICT,
                           "port %d on %s is already in use; choose another with --port (0: a free "
                           "one)",
                           o->port, o->addr);
    }
    if (failed != 0) {
        return trk_err_errno(err, failed, "listening on %s:%d", o->addr, o->port);
    }
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

static int open_listener(struct front *front, struct trk_err *err)
{
    const struct wrapper_options *o = &front->options;
    int fd = o->listen_fd;
    if (fd < 0 && bind_address(o, &fd, err) < 0) {
        return (int)err->code;
    }
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    if (listen(fd, BACKLOG) < 0 || getsockname(fd, (struct sockaddr *)&addr, &len) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        return trk_err_errno(err, errno, "listening on %s",
                             o->listen_fd >= 0 ? "--listen-fd" : o->addr);
    }
    /* Asked of the socket: one that was handed over is bound to what its maker chose. */
    if (getnameinfo((struct sockaddr *)&addr, len, front->host, sizeof(front->host), NULL, 0,
                    NI_NUMERICHOST) != 0) {
        (void)snprintf(front->host, sizeof(front->host), "%s", o->addr);
    }
    front->port = ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                                   : ((struct sockaddr_in *)&addr)->sin_port);
    front->listener_fd = fd;
    return 0;
}

static void watch(struct front *front, int fd, struct source *source, enum source_kind kind)
{
    source->kind = kind;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
    if (epoll_ctl(front->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        trk_die("epoll_ctl: %s", strerror(errno));
    }
}

static int open_events(struct front *front, struct trk_err *err)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    front->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    front->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    front->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (front->epoll_fd < 0 || front->event_fd < 0 || front->signal_fd < 0) {
        return trk_err_errno(err, errno, "making event descriptors");
    }
    watch(front, front->listener_fd, &front->listener, SOURCE_LISTENER);
    watch(front, front->event_fd, &front->event, SOURCE_EVENT);
    watch(front, front->signal_fd, &front->signal, SOURCE_SIGNAL);
    return 0;
}

/* Connections need descriptors; what the worker inherits stays what the user set. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < FRONT_CONN_MAX + 64 &&
        limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max < FRONT_CONN_MAX + 64 ? limit.rlim_max
                                                              : FRONT_CONN_MAX + 64;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void begin_drain(struct front *front)
{
    if (front->is_draining) { /* asked twice: now */
        front->is_ended = true;
        return;
    }
    trk_log_info("ending: finishing the requests that run", NULL);
    front->is_draining = true;
    front->drain_ns = trk_now_ns();
    front->next_sweep_ns = 0;
    conn_accept(front); /* who has connected gets an answer */
    (void)epoll_ctl(front->epoll_fd, EPOLL_CTL_DEL, front->listener_fd, NULL);
    /* Even when whoever passed the socket holds it open: new callers are refused at once. */
    (void)shutdown(front->listener_fd, SHUT_RDWR);
    (void)close(front->listener_fd);
    front->listener_fd = -1;
}

static void on_signal(struct front *front)
{
    struct signalfd_siginfo info;
    while (read(front->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            workers_reap(front);
        } else {
            begin_drain(front);
        }
    }
}

static void on_event(struct front *front, struct source *source, uint32_t events)
{
    switch (source->kind) {
    case SOURCE_CONN:
        conn_on_event((struct conn *)source, events);
        break;
    case SOURCE_EVENT: {
        uint64_t count;
        (void)!read(front->event_fd, &count, sizeof(count)); /* results are collected each turn */
        break;
    }
    case SOURCE_LISTENER:
        conn_accept(front);
        break;
    case SOURCE_SIGNAL:
        on_signal(front);
        break;
    case SOURCE_CONTROL:
        worker_on_control((struct worker *)source);
        break;
    }
}

static bool needs_ticks(const struct front *front)
{
    return front->in_ring > 0 || front->restart_ns != 0 || front->scrape_ns != 0 ||
           (front->workers != NULL && front->workers->next != NULL);
}

static int64_t tick_period(const struct front *front)
{
    if (front->restart_ns != 0 || front->scrape_ns != 0 ||
        (front->workers != NULL && front->workers->next != NULL)) {
        return 10 * TRK_NS_PER_MS;
    }
    int64_t period = front->options.request_timeout_ns / 10;
    return period < 10 * TRK_NS_PER_MS ? 10 * TRK_NS_PER_MS
           : period > TRK_NS_PER_S     ? TRK_NS_PER_S
                                       : period;
}

static void tick(struct front *front, int64_t now)
{
    if (needs_ticks(front) && now >= front->next_tick_ns) {
        calls_check_timeouts(front, now);
        scrape_check_timeout(front, now);
        workers_tick(front, now);
        front->next_tick_ns = now + tick_period(front);
    }
    if (front->conn_count > 0 && now >= front->next_sweep_ns) {
        conns_check_timeouts(front, now);
        front->next_sweep_ns = now + (front->is_draining ? 20 * TRK_NS_PER_MS : SWEEP_NS);
    }
}

static int wait_ms(struct front *front, int nudge_ms, int64_t now)
{
    int64_t until = nudge_ms > 0 ? now + nudge_ms * TRK_NS_PER_MS : INT64_MAX;
    if (needs_ticks(front) && front->next_tick_ns < until) {
        until = front->next_tick_ns;
    }
    if (front->conn_count > 0 && front->next_sweep_ns < until) {
        until = front->next_sweep_ns;
    }
    if (until == INT64_MAX) {
        return -1;
    }
    return until <= now ? 0 : (int)((until - now + TRK_NS_PER_MS - 1) / TRK_NS_PER_MS);
}

/* Announces sleep to every worker; false when one has results already. */
static bool may_sleep(struct front *front)
{
    bool may = true;
    for (struct worker *w = front->workers; w != NULL; w = w->next) {
        may = (w->state == WORKER_DEAD || ring_front_sleep(&w->ring)) && may;
    }
    return may;
}

static void turn(struct front *front)
{
    struct epoll_event events[EVENTS_MAX];
    int nudge_ms = 0;
    int64_t now = trk_now_ns();
    for (struct worker *w = front->workers; w != NULL; w = w->next) {
        if (w->state == WORKER_READY || w->state == WORKER_RETIRED) {
            ring_front_flush(&w->ring);
            int again_ms = ring_front_nudge(&w->ring, now);
            nudge_ms = again_ms > 0 && (nudge_ms == 0 || again_ms < nudge_ms) ? again_ms : nudge_ms;
        }
    }
    int timeout = may_sleep(front) ? wait_ms(front, nudge_ms, now) : 0;
    int n = epoll_wait(front->epoll_fd, events, EVENTS_MAX, timeout);
    front->now_ns = trk_now_ns();
    for (struct worker *w = front->workers; w != NULL; w = w->next) {
        if (w->state != WORKER_DEAD) {
            ring_front_awake(&w->ring);
        }
    }
    for (int i = 0; i < n; i++) {
        on_event(front, events[i].data.ptr, events[i].events);
    }
    for (struct worker *w = front->workers; w != NULL; w = w->next) {
        if (w->state != WORKER_DEAD) {
            calls_reap(front, w);
        }
    }
    tick(front, front->now_ns);
    conns_free_closed(front);
    workers_free_dead(front);
}

int front_run(struct front *front, struct trk_err *err)
{
    raise_descriptor_limit();
    if (open_listener(front, err) < 0 || open_events(front, err) < 0) {
        return (int)err->code;
    }
    front->now_ns = trk_now_ns();
    metrics_init(front);
    trk_autofree char *at = trk_xasprintf("%s:%d", front->host, front->port);
    trk_log_info("listening", "addr", at, "job", front->options.job_name, "entrypoint",
                 front->options.entrypoint_path, NULL);
    workers_start(front);
    while (!front->is_ended && !(front->is_draining && front->conn_count == 0)) {
        turn(front);
    }
    workers_end_all(front);
    trk_log_info("ended", NULL);
    return 0;
}
