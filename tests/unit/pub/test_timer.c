#include <check.h>
#include <stdlib.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "pub/timer.h"

#define TICK_NS (INT64_C(1) << PUB_TICK_SHIFT)

struct probe {
    struct pub_timer timer; /* first */
    int fired;
    int64_t at_tick;
    struct probe *cancels, *sets;
    int64_t sets_to_ns;
};
static struct pub_wheel wheel;
static int64_t now_ns;

static void on_fire(struct pub_timer *timer)
{
    struct probe *p = (struct probe *)timer;
    p->fired++;
    p->at_tick = wheel.tick;
    if (p->cancels != NULL) {
        pub_timer_cancel(&p->cancels->timer);
    }
    if (p->sets != NULL) {
        pub_timer_set(&wheel, &p->sets->timer, p->sets_to_ns);
    }
}

static void setup(void)
{
    now_ns = 123 * TRK_NS_PER_S;
    pub_wheel_init(&wheel, now_ns);
}

START_TEST(fires_once_and_never_early)
{
    struct probe p = {.timer = {.on_fire = on_fire}};
    int64_t deadline = now_ns + 100 * TRK_NS_PER_MS;
    pub_timer_set(&wheel, &p.timer, deadline);
    while (p.fired == 0) {
        ck_assert_int_lt(now_ns, deadline + 2 * TICK_NS);
        now_ns += TRK_NS_PER_MS;
        pub_wheel_advance(&wheel, now_ns);
    }
    ck_assert_int_ge(now_ns, deadline);
    ck_assert(!pub_timer_is_set(&p.timer));
    pub_wheel_advance(&wheel, now_ns + 100 * TRK_NS_PER_S);
    ck_assert_int_eq(p.fired, 1);
}
END_TEST

START_TEST(far_timer_waits_for_its_round)
{
    struct probe near = {.timer = {.on_fire = on_fire}};
    struct probe far = {.timer = {.on_fire = on_fire}};
    int64_t round_ns = PUB_WHEEL_SLOTS * TICK_NS;
    pub_timer_set(&wheel, &near.timer, now_ns + 5 * TICK_NS);
    pub_timer_set(&wheel, &far.timer, now_ns + 5 * TICK_NS + 3 * round_ns);
    for (int i = 0; i < 3 * PUB_WHEEL_SLOTS; i++) {
        now_ns += TICK_NS;
        pub_wheel_advance(&wheel, now_ns);
    }
    ck_assert_int_eq(near.fired, 1);
    ck_assert_int_eq(far.fired, 0);
    pub_wheel_advance(&wheel, now_ns + 10 * TICK_NS);
    ck_assert_int_eq(far.fired, 1);
}
END_TEST

START_TEST(long_pause_fires_everything_due)
{
    struct probe p[100] = {0};
    for (int i = 0; i < 100; i++) {
        p[i].timer.on_fire = on_fire;
        pub_timer_set(&wheel, &p[i].timer, now_ns + i * 37 * TRK_NS_PER_S);
    }
    pub_wheel_advance(&wheel, now_ns + 50 * 37 * TRK_NS_PER_S + TRK_NS_PER_S);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(p[i].fired, i <= 50);
    }
}
END_TEST

START_TEST(moved_and_cancelled)
{
    struct probe p = {.timer = {.on_fire = on_fire}};
    pub_timer_set(&wheel, &p.timer, now_ns + TRK_NS_PER_S);
    pub_timer_set(&wheel, &p.timer, now_ns + 3 * TRK_NS_PER_S);
    pub_wheel_advance(&wheel, now_ns + 2 * TRK_NS_PER_S);
    ck_assert_int_eq(p.fired, 0);
    pub_timer_cancel(&p.timer);
    pub_timer_cancel(&p.timer);
    pub_wheel_advance(&wheel, now_ns + 9 * TRK_NS_PER_S);
    ck_assert_int_eq(p.fired, 0);
}
END_TEST

START_TEST(callback_may_cancel_and_set)
{
    struct probe b = {.timer = {.on_fire = on_fire}};
    struct probe c = {.timer = {.on_fire = on_fire}};
    struct probe a = {.timer = {.on_fire = on_fire}, .cancels = &b, .sets = &c};
    a.sets_to_ns = now_ns; /* in the past: next tick, not now for ever */
    c.sets = &c;
    c.sets_to_ns = now_ns;
    pub_timer_set(&wheel, &a.timer, now_ns + TICK_NS);
    pub_timer_set(&wheel, &b.timer, now_ns + TICK_NS);
    pub_wheel_advance(&wheel, now_ns + 4 * TICK_NS);
    ck_assert_int_eq(a.fired, 1);
    ck_assert_int_eq(b.fired, 0);
    ck_assert_int_eq(c.fired, 0);
    pub_wheel_advance(&wheel, now_ns + 5 * TICK_NS);
    ck_assert_int_eq(c.fired, 1);
}
END_TEST

START_TEST(wait_ends_when_the_next_is_due)
{
    ck_assert_int_eq(pub_wheel_wait_ms(&wheel, now_ns), -1);
    for (int64_t ms = 1; ms < 16000; ms += 777) {
        struct probe p = {.timer = {.on_fire = on_fire}};
        int64_t start = now_ns;
        pub_timer_set(&wheel, &p.timer, start + ms * TRK_NS_PER_MS);
        while (p.fired == 0) {
            int wait = pub_wheel_wait_ms(&wheel, now_ns);
            ck_assert_int_ge(wait, 0);
            now_ns += (wait == 0 ? 1 : wait) * TRK_NS_PER_MS;
            pub_wheel_advance(&wheel, now_ns);
        }
        ck_assert_int_ge(now_ns, start + ms * TRK_NS_PER_MS);
        ck_assert_int_le(now_ns, start + ms * TRK_NS_PER_MS + 3 * TICK_NS);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("timer");
    TCase *tc = tcase_create("timer");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, fires_once_and_never_early);
    tcase_add_test(tc, far_timer_waits_for_its_round);
    tcase_add_test(tc, long_pause_fires_everything_due);
    tcase_add_test(tc, moved_and_cancelled);
    tcase_add_test(tc, callback_may_cancel_and_set);
    tcase_add_test(tc, wait_ends_when_the_next_is_due);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
