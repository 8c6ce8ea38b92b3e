#include "lifecycle/infra/process/launcher/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BURST_S = 8, /* of the rate may come at once */
    CHUNK = 16384,
    PAUSE_MS = 50, /* between two looks at an output that waits */
    NOTICE_S = 60,
    STATUS_LOST = 125
};

/* What the epoll's events point to; any other pointer is a relay's. */
static char on_signal, on_output, on_listener;

/* The output's bucket. */
static struct {
    int64_t tokens, filled_ms, noticed_ms;
    bool is_waiting, is_over, is_inside_line;
} out;

void keeper_hold_signals(void)
{
    sigset_t set;
    (void)sigfillset(&set);
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
}

void keeper_release_signals(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
}

static int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void watch(int epoll_fd, int fd, void *tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void put(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(1, bytes, len);
        if (n < 0 && errno != EINTR) {
            return; /* the disk is full: the job goes on without its log */
        }
        bytes += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

static void fill(const struct keeper *k)
{
    int64_t now = now_ms(), most = k->log_rate * BURST_S;
    out.tokens += (now - out.filled_ms) * k->log_rate / 1000;
    out.tokens = out.tokens > most ? most : out.tokens;
    out.filled_ms = now;
}

static void notice(const struct keeper *k)
{
    int64_t now = now_ms();
    if (out.noticed_ms != 0 && now - out.noticed_ms < NOTICE_S * 1000) {
        return;
    }
    out.noticed_ms = now;
    char text[160];
    int len = snprintf(text, sizeof(text),
                       "%s[racetrack] the job's output exceeds %lld bytes a second: it is slowed "
                       "down to that\n",
                       out.is_inside_line ? "\n" : "", k->log_rate);
    put(text, (size_t)len);
    out.is_inside_line = false;
}

/* One piece; false: nothing is there now. */
static bool take_output(const struct keeper *k, size_t most)
{
    char bytes[CHUNK];
    ssize_t n = read(k->output, bytes, most < CHUNK ? most : CHUNK);
    out.is_over = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (n <= 0) {
        return false;
    }
    put(bytes, (size_t)n);
    out.tokens -= n;
    out.is_inside_line = bytes[n - 1] != '\n';
    return true;
}

static void on_output_ready(const struct keeper *k, int epoll_fd)
{
    if (k->log_rate > 0) {
        fill(k);
        if (out.tokens <= 0) {
            notice(k);
            out.is_waiting = epoll_ctl(epoll_fd, EPOLL_CTL_DEL, k->output, NULL) == 0;
            return;
        }
    }
    (void)take_output(k, k->log_rate > 0 && out.tokens < CHUNK ? (size_t)out.tokens : CHUNK);
    if (out.is_over) {
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, k->output, NULL);
    }
}

/* At most what a pipe holds: others may hold its other end. */
static _Noreturn void end(const struct keeper *k, int status)
{
    for (int left = 64; left > 0 && take_output(k, CHUNK); left--) {
    }
    _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static void on_signals(const struct keeper *k, int signal_fd)
{
    struct signalfd_siginfo info;
    while (read(signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        int status;
        if (info.ssi_signo != SIGCHLD) {
            (void)kill(k->program, (int)info.ssi_signo);
        }
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
            if (pid == k->program) {
                end(k, status);
            }
            static const char text[] = "[racetrack] the way out of the job's network has ended\n";
            put(text, sizeof(text) - 1);
            _exit(STATUS_LOST); /* to be started again with all it needs */
        }
    }
}

_Noreturn void keeper_run(struct keeper *k)
{
    sigset_t set;
    (void)sigfillset(&set);
    int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (signal_fd < 0 || epoll_fd < 0) {
        dprintf(2, "job_launch: no descriptors for the job's keeper\n");
        _exit(STATUS_LOST);
    }
    (void)fcntl(k->output, F_SETFL, O_NONBLOCK);
    out.filled_ms = now_ms();
    out.tokens = k->log_rate * BURST_S;
    watch(epoll_fd, signal_fd, &on_signal);
    watch(epoll_fd, k->output, &on_output);
    for (bool is_listening = false;;) {
        bool has_room = relay_tidy() && k->listener >= 0;
        if (has_room && !is_listening) {
            watch(epoll_fd, k->listener, &on_listener);
        } else if (!has_room && is_listening) {
            (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, k->listener, NULL);
        }
        is_listening = has_room;
        struct epoll_event events[RELAY_EVENTS];
        int n = epoll_wait(epoll_fd, events, RELAY_EVENTS, out.is_waiting ? PAUSE_MS : -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &on_signal) {
                on_signals(k, signal_fd);
            } else if (events[i].data.ptr == &on_output) {
                on_output_ready(k, epoll_fd);
            } else if (events[i].data.ptr == &on_listener) {
                relay_accept(epoll_fd, k);
            } else {
                relay_on_event(epoll_fd, events[i].data.ptr, events[i].events);
            }
        }
        if (out.is_waiting) {
            fill(k);
            out.is_waiting = out.tokens <= 0;
            if (!out.is_waiting) {
                watch(epoll_fd, k->output, &on_output);
            }
        }
    }
}
