#include "pub/timer.h"

#include <stddef.h>

void pub_wheel_init(struct pub_wheel *wheel, int64_t now_ns)
{
    *wheel = (struct pub_wheel){.tick = now_ns >> PUB_TICK_SHIFT};
    for (int i = 0; i < PUB_WHEEL_SLOTS; i++) {
        wheel->slots[i].next = wheel->slots[i].prev = &wheel->slots[i];
    }
}

bool pub_timer_is_set(const struct pub_timer *timer)
{
    return timer->next != NULL;
}

void pub_timer_cancel(struct pub_timer *timer)
{
    if (timer->next != NULL) {
        timer->prev->next = timer->next;
        timer->next->prev = timer->prev;
        timer->next = timer->prev = NULL;
    }
}

static void link_before(struct pub_timer *head, struct pub_timer *timer)
{
    timer->next = head;
    timer->prev = head->prev;
    head->prev->next = timer;
    head->prev = timer;
}

void pub_timer_set(struct pub_wheel *wheel, struct pub_timer *timer, int64_t deadline_ns)
{
    /* Rounded up: never early. */
    int64_t tick = (deadline_ns >> PUB_TICK_SHIFT) + 1;
    if (tick <= wheel->tick) {
        tick = wheel->tick + 1;
    }
    if (timer->next != NULL && timer->tick == tick) {
        return;
    }
    pub_timer_cancel(timer);
    timer->tick = tick;
    unsigned slot = (unsigned)(tick & (PUB_WHEEL_SLOTS - 1));
    link_before(&wheel->slots[slot], timer);
    wheel->used[slot / 64] |= UINT64_C(1) << (slot % 64);
}

/* Moves the due timers of a slot to `due`. */
static void collect(struct pub_wheel *wheel, unsigned slot, int64_t tick, struct pub_timer *due)
{
    struct pub_timer *head = &wheel->slots[slot];
    for (struct pub_timer *t = head->next, *next; t != head; t = next) {
        next = t->next;
        if (t->tick <= tick) {
            pub_timer_cancel(t);
            link_before(due, t);
        }
    }
    if (head->next == head) {
        wheel->used[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    }
}

void pub_wheel_advance(struct pub_wheel *wheel, int64_t now_ns)
{
    int64_t now = now_ns >> PUB_TICK_SHIFT;
    if (now <= wheel->tick) {
        return;
    }
    struct pub_timer due = {.next = &due, .prev = &due};
    int64_t first = wheel->tick + 1;
    if (now - first >= PUB_WHEEL_SLOTS) {
        first = now - PUB_WHEEL_SLOTS + 1;
    }
    for (int64_t tick = first; tick <= now; tick++) {
        unsigned slot = (unsigned)(tick & (PUB_WHEEL_SLOTS - 1));
        if ((wheel->used[slot / 64] & UINT64_C(1) << (slot % 64)) != 0) {
            collect(wheel, slot, now, &due);
        }
    }
    wheel->tick = now;
    while (due.next != &due) {
        struct pub_timer *t = due.next;
        pub_timer_cancel(t);
        t->on_fire(t);
    }
}

int pub_wheel_wait_ms(struct pub_wheel *wheel, int64_t now_ns)
{
    for (int i = 1; i <= PUB_WHEEL_SLOTS; i++) {
        unsigned slot = (unsigned)((wheel->tick + i) & (PUB_WHEEL_SLOTS - 1));
        uint64_t word = wheel->used[slot / 64] >> (slot % 64);
        if (word == 0) {
            i += 63 - (int)(slot % 64);
            continue;
        }
        i += __builtin_ctzll(word);
        int64_t wait = ((wheel->tick + i) << PUB_TICK_SHIFT) - now_ns;
        return wait <= 0 ? 0 : (int)((wait + 999999) / 1000000);
    }
    return -1;
}
