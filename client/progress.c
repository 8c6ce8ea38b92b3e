#include "client/progress.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "client/cli.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"

#define TICK_MS 100

struct progress {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t ticker;
    bool is_live; /* the ticker runs */
    bool ends;
    unsigned ticks;
    int64_t start_ns, phase_ns;
    char phase[256];
};

/* For the signal handler: set before it is installed. */
static char interrupt_message[1024];
static size_t interrupt_message_len;

static void on_interrupt(int sig)
{
    (void)sig;
    ssize_t ignored = write(STDERR_FILENO, interrupt_message, interrupt_message_len);
    (void)ignored;
    _exit(CLI_INTERRUPTED);
}

static void set_interrupt(const char *text)
{
    int n = snprintf(interrupt_message, sizeof(interrupt_message), "%s\n%s\n",
                     cli_has_color(STDERR_FILENO) ? "\r\033[K" : "", text);
    interrupt_message_len = (size_t)n < sizeof(interrupt_message) ? (size_t)n
                                                                  : sizeof(interrupt_message) - 1;
    struct sigaction action = {.sa_handler = on_interrupt};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
}

static void clear_line(const struct progress *p)
{
    if (p->is_live) {
        (void)fputs("\r\033[K", stderr);
    }
}

static void draw(struct progress *p)
{
    static const char *const frames[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
    if (p->is_live && p->phase[0] != '\0') {
        (void)fprintf(stderr, "\r\033[K%s %s %.1f s", frames[p->ticks % TRK_COUNT(frames)],
                      p->phase, (double)(trk_now_ns() - p->phase_ns) / TRK_NS_PER_S);
        (void)fflush(stderr);
    }
}

static void *tick(void *arg)
{
    struct progress *p = arg;
    (void)pthread_mutex_lock(&p->lock);
    while (!p->ends) {
        p->ticks++;
        draw(p);
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_MS * TRK_NS_PER_MS;
        if (until.tv_nsec >= TRK_NS_PER_S) {
            until.tv_nsec -= TRK_NS_PER_S;
            until.tv_sec++;
        }
        (void)pthread_cond_timedwait(&p->wake, &p->lock, &until);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct progress *progress_start(const char *interrupt_text)
{
    struct progress *p = trk_xcalloc(1, sizeof(*p));
    p->start_ns = p->phase_ns = trk_now_ns();
    (void)pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    set_interrupt(interrupt_text);
    p->is_live = cli_has_color(STDERR_FILENO);
    if (p->is_live && pthread_create(&p->ticker, NULL, tick, p) != 0) {
        p->is_live = false;
    }
    return p;
}

double progress_elapsed_s(const struct progress *p)
{
    return (double)(trk_now_ns() - p->start_ns) / TRK_NS_PER_S;
}

void progress_phase(struct progress *p, const char *phase)
{
    (void)pthread_mutex_lock(&p->lock);
    if (strcmp(p->phase, phase) != 0) {
        clear_line(p);
        (void)printf("%7.1f s  %s\n", progress_elapsed_s(p), phase);
        (void)fflush(stdout);
        (void)snprintf(p->phase, sizeof(p->phase), "%s", phase);
        p->phase_ns = trk_now_ns();
        draw(p);
    }
    (void)pthread_mutex_unlock(&p->lock);
}

void progress_note(struct progress *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)pthread_mutex_lock(&p->lock);
    clear_line(p);
    (void)fflush(stdout);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    (void)pthread_mutex_unlock(&p->lock);
    va_end(args);
}

void progress_stop(struct progress *p)
{
    if (p == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&p->lock);
    p->ends = true;
    (void)pthread_cond_signal(&p->wake);
    (void)pthread_mutex_unlock(&p->lock);
    if (p->is_live) {
        (void)pthread_join(p->ticker, NULL);
        clear_line(p);
        (void)fflush(stderr);
    }
    (void)signal(SIGINT, SIG_DFL);
    (void)pthread_cond_destroy(&p->wake);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}
