/*
 * loop.h - one thread's event loop: edge-triggered epoll, timers, messages from other threads.
 *
 * Descriptors are registered once for both directions; owners remember what is readable and
 * writable. An owner that goes away during a turn hands its memory to pub_loop_bury: events of the
 * same turn may still point at it (its watch has fd -1 then and is skipped). Only pub_loop_post may
 * be called from another thread.
 */
#ifndef PUB_LOOP_H
#define PUB_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "libtrack/base/err.h"
#include "pub/reclaim.h"
#include "pub/timer.h"

#define PUB_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

struct pub_watch {
    int fd;        /* -1: closed */
    bool is_first; /* its events of a turn come before those of others */
    void (*on_event)(struct pub_watch *watch, uint32_t events);
};
struct pub_grave {
    struct pub_grave *next;
    void *memory;
};
/* Heap memory that the loop frees after `run`. */
struct pub_message {
    struct pub_message *next;
    void (*run)(struct pub_message *message, void *ctx);
};
struct pub_loop {
    int64_t now_ns; /* of this turn */
    struct pub_wheel wheel;
    int epoll_fd;
    struct pub_watch wake;
    struct pub_grave *graves;
    pthread_mutex_t inbox_lock;
    struct pub_message *inbox, *inbox_last;
    void *ctx;                   /* for messages */
    struct pub_readers *readers; /* the loop is inside during a turn; NULL: of none */
    size_t reader;
    bool is_over;
    bool has_all_events; /* this turn has what had happened when it began, not a part of it */
};

int pub_loop_init(struct pub_loop *loop, void *ctx, struct trk_err *err) TRK_MUST_CHECK;
/* Runs the messages that came after the last turn. */
void pub_loop_flush(struct pub_loop *loop);
/* Frees what was buried. */
void pub_loop_fini(struct pub_loop *loop);
/* 0 or -errno; the watch must live until pub_loop_close. */
int pub_loop_add(struct pub_loop *loop, struct pub_watch *watch, uint32_t events);
/* Other events from now on. */
void pub_loop_change(struct pub_loop *loop, struct pub_watch *watch, uint32_t events);
/* Ends the registration; the descriptor is another's to close. */
void pub_loop_release(struct pub_loop *loop, struct pub_watch *watch);
/* Closes the descriptor, which also ends its registration. */
void pub_loop_close(struct pub_watch *watch);
/* free(memory) after this turn; `grave` lies inside of it. */
void pub_loop_bury(struct pub_loop *loop, struct pub_grave *grave, void *memory);
/* Any thread. Takes the message (malloc'd, first member of its struct). */
void pub_loop_post(struct pub_loop *loop, struct pub_message *message);
/* Turns until is_over. */
void pub_loop_run(struct pub_loop *loop);

#define PUB_CONTAINER(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

#endif
