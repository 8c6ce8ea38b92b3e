/*
 * ring.h - the shared memory between the wrapper's front and one worker process.
 *
 * One sealed memfd: a control block, a submission ring and a completion ring of slot numbers, the
 * slots, and behind them a sparse area with two windows a slot for payloads that do not fit into
 * it (these are moved with pread/pwrite/sendfile and never mapped). The front owns the free slots;
 * a slot in flight is QUEUED, then RUNNING (the worker took it), then DONE. Who moves a slot out
 * of QUEUED is decided by compare-and-swap, so the front can take back what a dying or hanging
 * worker has not begun.
 *
 * Wake-ups: the worker's hot thread sleeps on sq_tail, its spare threads on `kick`; the front is
 * woken through an eventfd, and only while it says that it sleeps. A worker that has more to do
 * delays the wake-up (RING_DEFER_*), so that one serves many requests.
 *
 * The front calls ring_front_* from its one thread and trusts nothing it reads from the memory.
 * The worker calls ring_worker_* with its interpreter lock held: one caller at a time.
 */
#ifndef WRAPPER_RING_H
#define WRAPPER_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RING_MAGIC       0x52545231u
#define RING_SLOTS       512u
#define RING_SLOT_SIZE   8192u
#define RING_SLOT_HEAD   256u
#define RING_INLINE      (RING_SLOT_SIZE - RING_SLOT_HEAD)
#define RING_SQ          2048u /* stale entries of reclaimed slots may linger */
#define RING_CQ          1024u
#define RING_TYPE_MAX    128u
#define RING_DEFER_COUNT 16u
#define RING_DEFER_NS    200000

enum ring_slot_state { RING_FREE, RING_QUEUED, RING_RUNNING, RING_DONE };
enum ring_kind { RING_CALL, RING_METRICS };
enum ring_flags { RING_BIG = 1 };

struct ring_slot {
    _Atomic uint32_t state;
    uint32_t kind;
    uint32_t endpoint; /* index into what the worker announced */
    _Atomic uint32_t flags;
    _Atomic uint64_t head_len, body_len; /* contiguous: request head, then body */
    int64_t started_ns;
    _Atomic uint32_t result_status;
    _Atomic uint32_t result_flags;
    _Atomic uint64_t result_len;
    char result_type[RING_TYPE_MAX]; /* terminated; "" = application/json */
    char pad[RING_SLOT_HEAD - 56 - RING_TYPE_MAX];
    char data[RING_INLINE]; /* the request, later the result */
};
_Static_assert(sizeof(struct ring_slot) == RING_SLOT_SIZE, "slot size");

struct ring_shared {
    uint32_t magic, slot_count;
    uint64_t body_max;                     /* cap of a request body and of a result */
    _Alignas(64) _Atomic uint32_t sq_tail; /* front; futex of the hot thread */
    _Alignas(64) _Atomic uint32_t sq_head; /* worker */
    _Alignas(64) _Atomic uint32_t cq_tail; /* worker */
    _Alignas(64) _Atomic uint32_t front_sleeps;
    _Alignas(64) _Atomic uint32_t hot_waits; /* the worker's hot thread sleeps on sq_tail */
    _Atomic uint32_t spares;                 /* worker threads that sleep on kick */
    _Alignas(64) _Atomic uint32_t kick;
    _Alignas(64) _Atomic uint64_t average_ns; /* worker: moving average of a request's run time */
    _Alignas(64) uint16_t sq[RING_SQ];
    uint16_t cq[RING_CQ];
    _Alignas(4096) struct ring_slot slots[RING_SLOTS];
};

/* -- front -- */
struct ring {
    struct ring_shared *shared; /* NULL when closed */
    int memfd;
    uint64_t body_max;
    uint32_t sq_tail, cq_head; /* the front's own truth */
    uint32_t submitted_since_wake;
    uint32_t seen_head; /* for the progress check */
    int64_t seen_head_ns;
    int nudge_ms;
    uint16_t free_slots[RING_SLOTS]; /* a stack: few pages stay hot */
    uint32_t free_count;
    bool big[RING_SLOTS]; /* its windows hold pages to give back */
};
/* Makes the memory; -errno on failure. body_max caps request bodies and results. */
int ring_front_init(struct ring *ring, uint64_t body_max);
void ring_front_fini(struct ring *ring);
struct ring_payload {
    const char *head;
    size_t head_len;
    const char *body;
    size_t body_len;
};
/* Puts a request into a slot and returns its number, -EAGAIN when no slot is free, -EPROTO when
 * the worker broke the ring, or another -errno. The worker is woken by ring_front_flush. */
int ring_front_submit(struct ring *ring, enum ring_kind kind, uint32_t endpoint,
                      const struct ring_payload *payload);
/* Wakes the worker for what was submitted. Call once a loop turn. */
void ring_front_flush(struct ring *ring);
/* Has the worker not begun any queued request for a millisecond? Then wakes a spare thread. Returns
 * after how many milliseconds to look again, 0 when nothing is queued; it looks less often the
 * longer all threads are busy (their results wake the front anyway). */
int ring_front_nudge(struct ring *ring, int64_t now_ns);
/* Next finished slot or -1. */
int ring_front_reap(struct ring *ring);
struct ring_result {
    int status;
    char type[RING_TYPE_MAX]; /* "" = application/json */
    bool big;                 /* body is in memfd at `offset`, else at `data` */
    const char *data;         /* in the slot: valid until ring_front_release */
    uint64_t offset, len;
};
/* Copies out and checks the result of a reaped slot; -EPROTO for nonsense. */
int ring_front_result(const struct ring *ring, int slot, struct ring_result *ret);
/* Gives a slot back. */
void ring_front_release(struct ring *ring, int slot);
/* Is the request running (or done)? */
bool ring_front_is_begun(const struct ring *ring, int slot);
/* Takes a request back that nobody has begun: true and its bytes (malloc'd, caller frees) when it
 * worked; the slot is then free. `ret_bytes` may be NULL to drop it. */
bool ring_front_reclaim(struct ring *ring, int slot, char **ret_bytes, size_t *ret_head_len,
                        size_t *ret_body_len);
/* Says that the front is about to sleep; false when finished requests are waiting (do not sleep).
 */
bool ring_front_sleep(struct ring *ring);
void ring_front_awake(struct ring *ring);

/* -- worker -- */
struct ring_worker {
    struct ring_shared *shared;
    int memfd, event_fd;
    uint32_t deferred;
    int64_t deferred_ns;
    bool hot_taken; /* a thread is (about to be) the hot waiter */
};
/* Takes memfd; borrows event_fd. */
int ring_worker_init(struct ring_worker *worker, int memfd, int event_fd);
void ring_worker_fini(struct ring_worker *worker);
/* Next queued slot, now RUNNING, or -1. */
int ring_worker_take(struct ring_worker *worker);
/* Where to wait when nothing is queued. begin (lock held) -> wait (lock released) -> end (held). */
struct ring_wait {
    _Atomic uint32_t *word;
    uint32_t expected;
    bool hot;
};
void ring_worker_wait_begin(struct ring_worker *worker, struct ring_wait *ret);
void ring_worker_wait(const struct ring_worker *worker, const struct ring_wait *wait);
void ring_worker_wait_end(struct ring_worker *worker, const struct ring_wait *wait);
/* Reads `len` bytes at `at` of the request (head and body are contiguous); 0 or -errno. */
int ring_worker_read(const struct ring_worker *worker, int slot, uint64_t at, void *out,
                     size_t len);
/* Publishes the result; -E2BIG when it exceeds the cap, -errno. `type` NULL: JSON. */
int ring_worker_complete(struct ring_worker *worker, int slot, int status, const char *type,
                         const void *bytes, size_t len);
/* Wakes the front for results that were held back. */
void ring_worker_flush(struct ring_worker *worker);

#endif
