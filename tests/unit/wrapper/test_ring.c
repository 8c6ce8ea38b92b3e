#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libtrack/base/mem.h"
#include "wrapper/ring.h"

#define BODY_MAX (1 << 20)

static struct ring front;
static struct ring_worker worker;
static int event_fd;

static void setup(void)
{
    event_fd = eventfd(0, EFD_NONBLOCK);
    ck_assert_int_ge(event_fd, 0);
    ck_assert_int_eq(ring_front_init(&front, BODY_MAX), 0);
    ck_assert_int_eq(ring_worker_init(&worker, dup(front.memfd), event_fd), 0);
}

static void teardown(void)
{
    ring_worker_fini(&worker);
    ring_front_fini(&front);
    (void)close(event_fd);
}

static int submit(const char *head, const char *body, size_t body_len)
{
    const struct ring_payload payload = {head, strlen(head), body, body_len};
    return ring_front_submit(&front, RING_CALL, 7, &payload);
}

START_TEST(test_round_trip)
{
    int slot = submit("head", "body", 4);
    ck_assert_int_ge(slot, 0);
    ck_assert(!ring_front_is_begun(&front, slot));
    ck_assert_int_eq(ring_worker_take(&worker), slot);
    ck_assert(ring_front_is_begun(&front, slot));
    ck_assert_int_eq(ring_worker_take(&worker), -1);
    const struct ring_slot *s = &worker.shared->slots[slot];
    ck_assert_uint_eq(s->endpoint, 7);
    char bytes[9] = "";
    ck_assert_int_eq(ring_worker_read(&worker, slot, 0, bytes, 8), 0);
    ck_assert_str_eq(bytes, "headbody");
    ck_assert_int_eq(ring_front_reap(&front), -1);
    ck_assert_int_eq(ring_worker_complete(&worker, slot, 201, "text/x", "answer", 6), 0);
    ck_assert_int_eq(ring_front_reap(&front), slot);
    struct ring_result result;
    ck_assert_int_eq(ring_front_result(&front, slot, &result), 0);
    ck_assert_int_eq(result.status, 201);
    ck_assert_str_eq(result.type, "text/x");
    ck_assert_uint_eq(result.len, 6);
    ck_assert(memcmp(result.data, "answer", 6) == 0);
    ring_front_release(&front, slot);
    ck_assert_int_eq(ring_front_reap(&front), -1);
    /* Answering twice is refused. */
    ck_assert_int_eq(ring_worker_complete(&worker, slot, 200, NULL, "x", 1), -EINVAL);
}
END_TEST

static long blocks(void)
{
    struct stat st;
    ck_assert_int_eq(fstat(front.memfd, &st), 0);
    return (long)st.st_blocks;
}

START_TEST(test_big_payloads_and_their_memory)
{
    trk_autofree char *body = malloc(BODY_MAX + 1);
    trk_autofree char *copy = malloc(BODY_MAX + 1);
    for (size_t i = 0; i <= BODY_MAX; i++) {
        body[i] = (char)('a' + i % 23);
    }
    ck_assert_int_eq(submit("h", body, BODY_MAX + 1), -E2BIG);
    long before = blocks();
    static const size_t sizes[] = {RING_INLINE - 1, RING_INLINE, RING_INLINE + 1, BODY_MAX};
    for (size_t i = 0; i < TRK_COUNT(sizes); i++) {
        size_t size = sizes[i];
        int slot = submit("h", body, size);
        ck_assert_int_ge(slot, 0);
        ck_assert_int_eq(ring_worker_take(&worker), slot);
        ck_assert_int_eq(ring_worker_read(&worker, slot, 1, copy, size), 0);
        ck_assert(memcmp(copy, body, size) == 0);
        ck_assert_int_eq(ring_worker_complete(&worker, slot, 200, NULL, body, size), 0);
        ck_assert_int_eq(ring_front_reap(&front), slot);
        struct ring_result result;
        ck_assert_int_eq(ring_front_result(&front, slot, &result), 0);
        ck_assert_uint_eq(result.len, size);
        ck_assert(result.big == (size > RING_INLINE));
        if (result.big) {
            ck_assert_int_eq(pread(front.memfd, copy, size, (off_t)result.offset), (ssize_t)size);
        } else {
            memcpy(copy, result.data, size);
        }
        ck_assert(memcmp(copy, body, size) == 0);
        ring_front_release(&front, slot);
    }
    /* Pages of big payloads are given back; what stays are control pages and the one slot. */
    ck_assert_int_le(blocks() - before, 200);
    int slot = submit("h", body, 10);
    ck_assert_int_eq(ring_worker_take(&worker), slot);
    ck_assert_int_eq(ring_worker_complete(&worker, slot, 200, NULL, body, BODY_MAX + 1), -E2BIG);
}
END_TEST

START_TEST(test_reclaim)
{
    char *bytes = NULL;
    size_t head_len, body_len;
    int first = submit("head", "one", 3);
    int second = submit("head", "two", 3);
    ck_assert_int_eq(ring_worker_take(&worker), first);
    ck_assert(!ring_front_reclaim(&front, first, &bytes, &head_len, &body_len));
    ck_assert(ring_front_reclaim(&front, second, &bytes, &head_len, &body_len));
    ck_assert_str_eq(bytes, "headtwo");
    ck_assert_uint_eq(head_len, 4);
    ck_assert_uint_eq(body_len, 3);
    free(bytes);
    ck_assert_int_eq(ring_worker_take(&worker), -1);
    /* The slot is used again while its stale entry is still queued: taken once. */
    int third = submit("head", "three", 5);
    ck_assert(ring_front_reclaim(&front, third, NULL, NULL, NULL));
    int fourth = submit("head", "four", 4);
    ck_assert_int_eq(fourth, third);
    ck_assert_int_eq(ring_worker_take(&worker), fourth);
    ck_assert_int_eq(ring_worker_take(&worker), -1);
}
END_TEST

START_TEST(test_full)
{
    for (uint32_t i = 0; i < RING_SLOTS; i++) {
        ck_assert_int_ge(submit("h", "b", 1), 0);
    }
    ck_assert_int_eq(submit("h", "b", 1), -EAGAIN);
    int slot = ring_worker_take(&worker);
    ck_assert_int_eq(ring_worker_complete(&worker, slot, 200, NULL, "", 0), 0);
    ck_assert_int_eq(ring_front_reap(&front), slot);
    ring_front_release(&front, slot);
    ck_assert_int_eq(submit("h", "b", 1), slot);
    /* Reclaimed entries linger in the queue; it never overflows. */
    int left = 0;
    for (uint32_t i = 0; i < 2 * RING_SQ; i++) {
        (void)ring_front_reclaim(&front, slot, NULL, NULL, NULL);
        slot = submit("h", "b", 1);
        if (slot < 0) {
            ck_assert_int_eq(slot, -EAGAIN);
            left++;
            slot = 0;
        }
    }
    ck_assert_int_gt(left, 0);
}
END_TEST

START_TEST(test_a_broken_worker_is_not_believed)
{
    int slot = submit("h", "b", 1);
    struct ring_shared *shared = worker.shared;
    /* Completions that never were. */
    shared->cq[0] = 65535;
    shared->cq[1] = 5;
    shared->cq[2] = (uint16_t)slot;
    atomic_store(&shared->cq_tail, 3);
    ck_assert_int_eq(ring_front_reap(&front), -1);
    atomic_store(&shared->cq_tail, 0x80000000u);
    for (int i = 0; i < 2000; i++) {
        ck_assert_int_eq(ring_front_reap(&front), -1);
    }
    /* Results out of range. */
    struct ring_slot *s = &shared->slots[slot];
    struct ring_result result;
    const struct {
        uint32_t status, flags;
        uint64_t len;
        const char *type;
    } broken[] = {
        {9999, 0, 1, "a/b"},
        {0, 0, 1, "a/b"},
        {101, 0, 1, "a/b"}, /* no final answer */
        {200, 0, RING_INLINE + 1, "a/b"},
        {200, RING_BIG, BODY_MAX + 1, "a/b"},
        {200, 0, UINT64_MAX, "a/b"},
        {200, 0, 1, "a/b\r\nX-Injected: 1"},
    };
    for (size_t i = 0; i < TRK_COUNT(broken); i++) {
        s->result_status = broken[i].status;
        s->result_flags = broken[i].flags;
        s->result_len = broken[i].len;
        memcpy(s->result_type, broken[i].type, strlen(broken[i].type) + 1);
        ck_assert_msg(ring_front_result(&front, slot, &result) == -EPROTO, "case %zu", i);
    }
    memset(s->result_type, 'x', sizeof(s->result_type)); /* not terminated */
    s->result_status = 200;
    s->result_flags = 0;
    s->result_len = 1;
    ck_assert_int_eq(ring_front_result(&front, slot, &result), 0);
    ck_assert_uint_eq(strlen(result.type), RING_TYPE_MAX - 1);
    /* A request length that it made up is not read when the request is taken back. */
    char *bytes = NULL;
    size_t head_len, body_len;
    s->body_len = UINT64_MAX - 2;
    ck_assert(!ring_front_reclaim(&front, slot, &bytes, &head_len, &body_len));
    ck_assert_ptr_null(bytes);
    /* A head beyond the tail. */
    atomic_store(&shared->sq_head, front.sq_tail + 10);
    ck_assert_int_eq(submit("h", "b", 1), -EPROTO);
    /* It cannot shrink the memory under the front. */
    ck_assert_int_eq(ftruncate(worker.memfd, 0), -1);
    ck_assert_int_eq(errno, EPERM);
}
END_TEST

static void *serve(void *unused)
{
    (void)unused;
    for (;;) {
        int slot = ring_worker_take(&worker);
        if (slot < 0) {
            struct ring_wait wait;
            ring_worker_wait_begin(&worker, &wait);
            ring_worker_wait(&worker, &wait);
            ring_worker_wait_end(&worker, &wait);
            continue;
        }
        char body[16] = "";
        size_t len = (size_t)worker.shared->slots[slot].body_len;
        ck_assert_int_eq(ring_worker_read(&worker, slot, 0, body, len), 0);
        ck_assert_int_eq(ring_worker_complete(&worker, slot, 200, NULL, body, len), 0);
        if (strcmp(body, "end") == 0) {
            return NULL;
        }
    }
}

static int collect(void)
{
    int count = 0, slot;
    while ((slot = ring_front_reap(&front)) >= 0) {
        ring_front_release(&front, slot);
        count++;
    }
    return count;
}

/* Bursts of differing sizes; every sleep of either side must be ended by the other. */
START_TEST(test_no_wake_up_is_lost)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, serve, NULL), 0);
    for (int round = 0; round < 20000; round++) {
        int open = 1 + round % 37;
        for (int i = 0; i < open; i++) {
            bool is_last = round == 19999 && i == open - 1;
            ck_assert_int_ge(submit("", is_last ? "end" : "x", is_last ? 3 : 1), 0);
        }
        ring_front_flush(&front);
        while (open > 0) {
            int done = collect();
            open -= done;
            if (done > 0 || !ring_front_sleep(&front)) {
                continue;
            }
            /* As in the front's loop: while something is queued it looks again on its own. */
            struct pollfd event = {event_fd, POLLIN, 0};
            bool is_queued = atomic_load(&front.shared->sq_head) != front.sq_tail;
            int n = poll(&event, 1, is_queued ? 1 : 5000);
            ck_assert_msg(n > 0 || is_queued || front.cq_head != front.shared->cq_tail,
                          "no wake-up in round %d", round);
            ring_front_awake(&front);
            uint64_t count;
            (void)!read(event_fd, &count, sizeof(count));
        }
    }
    (void)pthread_join(thread, NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ring");
    TCase *tcase = tcase_create("ring");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_round_trip);
    tcase_add_test(tcase, test_big_payloads_and_their_memory);
    tcase_add_test(tcase, test_reclaim);
    tcase_add_test(tcase, test_full);
    tcase_add_test(tcase, test_a_broken_worker_is_not_believed);
    tcase_add_test(tcase, test_no_wake_up_is_lost);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
