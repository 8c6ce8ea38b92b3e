#include "pub/loop.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "libtrack/base/clock.h"

#define BATCH 128

static void free_graves(struct pub_loop *loop)
{
    struct pub_grave *g = loop->graves;
    loop->graves = NULL;
    while (g != NULL) {
        struct pub_grave *next = g->next;
        free(g->memory);
        g = next;
    }
}

static void run_messages(struct pub_loop *loop)
{
    (void)pthread_mutex_lock(&loop->inbox_lock);
    struct pub_message *m = loop->inbox;
    loop->inbox = loop->inbox_last = NULL;
    (void)pthread_mutex_unlock(&loop->inbox_lock);
    while (m != NULL) {
        struct pub_message *next = m->next;
        m->run(m, loop->ctx);
        free(m);
        m = next;
    }
}

static void on_wake(struct pub_watch *watch, uint32_t events)
{
    (void)events;
    uint64_t count;
    (void)!read(watch->fd, &count, sizeof(count));
    run_messages(PUB_CONTAINER(watch, struct pub_loop, wake));
}

int pub_loop_init(struct pub_loop *loop, void *ctx, struct trk_err *err)
{
    *loop = (struct pub_loop){.epoll_fd = -1, .wake = {.fd = -1, .on_event = on_wake}, .ctx = ctx};
    loop->now_ns = trk_now_ns();
    pub_wheel_init(&loop->wheel, loop->now_ns);
    (void)pthread_mutex_init(&loop->inbox_lock, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->epoll_fd < 0 || loop->wake.fd < 0 || pub_loop_add(loop, &loop->wake, EPOLLIN) < 0) {
        return trk_err_errno(err, errno, "making an event loop");
    }
    return 0;
}

void pub_loop_flush(struct pub_loop *loop)
{
    run_messages(loop);
}

void pub_loop_fini(struct pub_loop *loop)
{
    free_graves(loop);
    pub_loop_close(&loop->wake);
    if (loop->epoll_fd >= 0) {
        (void)close(loop->epoll_fd);
    }
}

int pub_loop_add(struct pub_loop *loop, struct pub_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) < 0 ? -errno : 0;
}

void pub_loop_change(struct pub_loop *loop, struct pub_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event);
}

void pub_loop_release(struct pub_loop *loop, struct pub_watch *watch)
{
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->fd = -1;
}

void pub_loop_close(struct pub_watch *watch)
{
    if (watch->fd >= 0) {
        (void)close(watch->fd);
        watch->fd = -1;
    }
}

void pub_loop_bury(struct pub_loop *loop, struct pub_grave *grave, void *memory)
{
    grave->memory = memory;
    grave->next = loop->graves;
    loop->graves = grave;
}

void pub_loop_post(struct pub_loop *loop, struct pub_message *message)
{
    message->next = NULL;
    (void)pthread_mutex_lock(&loop->inbox_lock);
    if (loop->inbox_last != NULL) {
        loop->inbox_last->next = message;
    } else {
        loop->inbox = message;
    }
    loop->inbox_last = message;
    (void)pthread_mutex_unlock(&loop->inbox_lock);
    uint64_t one = 1;
    (void)!write(loop->wake.fd, &one, sizeof(one));
}

static void run_events(struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        struct pub_watch *watch = events[i].data.ptr;
        if (watch->is_first && watch->fd >= 0) {
            watch->on_event(watch, events[i].events);
            events[i].events = 0;
        }
    }
    for (int i = 0; i < count; i++) {
        struct pub_watch *watch = events[i].data.ptr;
        if (events[i].events != 0 && watch->fd >= 0) {
            watch->on_event(watch, events[i].events);
        }
    }
}

void pub_loop_run(struct pub_loop *loop)
{
    struct epoll_event events[BATCH];
    while (!loop->is_over) {
        int wait = pub_wheel_wait_ms(&loop->wheel, trk_now_ns());
        int n = epoll_wait(loop->epoll_fd, events, BATCH, wait);
        if (n < 0 && errno != EINTR) {
            trk_die("epoll_wait: %s", strerror(errno));
        }
        loop->now_ns = trk_now_ns();
        if (loop->readers != NULL) {
            pub_reader_enter(loop->readers, loop->reader);
        }
        loop->has_all_events = n < BATCH;
        run_events(events, n);
        pub_wheel_advance(&loop->wheel, loop->now_ns);
        if (loop->readers != NULL) {
            pub_reader_leave(loop->readers, loop->reader);
        }
        free_graves(loop);
    }
    free_graves(loop);
}
