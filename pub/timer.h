/*
 * timer.h - hashed timer wheel: set, move and cancel in constant time.
 *
 * One wheel a loop, used by its thread only. Ticks of 2^25 ns (34 ms); a timer never fires early
 * and at most one tick late. Timers are embedded in their owners (zeroed = not set).
 *
 *     pub_timer_set(&loop->wheel, &client->timer, loop->now_ns + 10 * TRK_NS_PER_S);
 */
#ifndef PUB_TIMER_H
#define PUB_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#define PUB_WHEEL_SLOTS 512
#define PUB_TICK_SHIFT  25

struct pub_timer {
    struct pub_timer *next, *prev; /* NULL: not set */
    int64_t tick;
    void (*on_fire)(struct pub_timer *timer);
};
struct pub_wheel {
    struct pub_timer slots[PUB_WHEEL_SLOTS]; /* list heads */
    uint64_t used[PUB_WHEEL_SLOTS / 64];     /* slots that may hold timers */
    int64_t tick;                            /* all up to this one have fired */
};

void pub_wheel_init(struct pub_wheel *wheel, int64_t now_ns);
void pub_timer_set(struct pub_wheel *wheel, struct pub_timer *timer, int64_t deadline_ns);
void pub_timer_cancel(struct pub_timer *timer);
bool pub_timer_is_set(const struct pub_timer *timer);
/* Fires what is due. A callback may set and cancel any timer. */
void pub_wheel_advance(struct pub_wheel *wheel, int64_t now_ns);
/* How long epoll_wait may sleep: -1 without timers. */
int pub_wheel_wait_ms(struct pub_wheel *wheel, int64_t now_ns);

#endif
