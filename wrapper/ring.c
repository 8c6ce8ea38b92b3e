#include "wrapper/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HEAD_ROOM    (64u * 1024) /* a request head in front of a big body */
#define NUDGE_MAX_MS 64
#define NS_PER_MS    INT64_C(1000000)
#define SLOW_NS      1000000 /* handlers slower than this get a thread each at once */

/* What the other side may change at any time; its state orders it. */
#define get(field)        atomic_load_explicit((field), memory_order_relaxed)
#define put(field, value) atomic_store_explicit((field), (value), memory_order_relaxed)

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static long futex(_Atomic uint32_t *word, int op, uint32_t value)
{
    return syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static uint64_t window_size(uint64_t body_max)
{
    return (body_max + HEAD_ROOM + 4095) & ~UINT64_C(4095);
}

static uint64_t request_window(uint64_t body_max, int slot)
{
    return sizeof(struct ring_shared) + (uint64_t)slot * 2 * window_size(body_max);
}

static uint64_t result_window(uint64_t body_max, int slot)
{
    return request_window(body_max, slot) + window_size(body_max);
}

static int write_at(int fd, const char *bytes, size_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, bytes, len, (off_t)offset);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        bytes += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static int read_at(int fd, char *out, size_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t n = pread(fd, out, len, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EPROTO;
        }
        out += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* ---- front ---- */

int ring_front_init(struct ring *ring, uint64_t body_max)
{
    memset(ring, 0, sizeof *ring);
    ring->body_max = body_max;
    ring->memfd = memfd_create("racetrack-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ring->memfd < 0) {
        return -errno;
    }
    off_t size = (off_t)request_window(body_max, (int)RING_SLOTS);
    void *at = MAP_FAILED;
    /* Sealed, so that the worker cannot shrink it under the front (SIGBUS). */
    if (ftruncate(ring->memfd, size) < 0 ||
        fcntl(ring->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ||
        (at = mmap(NULL, sizeof(struct ring_shared), PROT_READ | PROT_WRITE, MAP_SHARED,
                   ring->memfd, 0)) == MAP_FAILED) {
        int code = -errno;
        (void)close(ring->memfd);
        ring->memfd = -1;
        return code;
    }
    ring->shared = at;
    ring->shared->magic = RING_MAGIC;
    ring->shared->slot_count = RING_SLOTS;
    ring->shared->body_max = body_max;
    for (uint32_t i = 0; i < RING_SLOTS; i++) {
        ring->free_slots[i] = (uint16_t)(RING_SLOTS - 1 - i);
    }
    ring->free_count = RING_SLOTS;
    return 0;
}

void ring_front_fini(struct ring *ring)
{
    if (ring->shared != NULL) {
        (void)munmap(ring->shared, sizeof *ring->shared);
        (void)close(ring->memfd);
        ring->shared = NULL;
        ring->memfd = -1;
    }
}

int ring_front_submit(struct ring *ring, enum ring_kind kind, uint32_t endpoint,
                      const struct ring_payload *payload)
{
    struct ring_shared *shared = ring->shared;
    uint32_t used = ring->sq_tail - atomic_load_explicit(&shared->sq_head, memory_order_acquire);
    if (used > RING_SQ) {
        return -EPROTO;
    }
    if (ring->free_count == 0 || used == RING_SQ) {
        return -EAGAIN;
    }
    if (payload->body_len > ring->body_max || payload->head_len > HEAD_ROOM) {
        return -E2BIG;
    }
    int number = ring->free_slots[ring->free_count - 1];
    struct ring_slot *slot = &shared->slots[number];
    bool big = payload->head_len + payload->body_len > RING_INLINE;
    if (!big) {
        if (payload->head_len > 0) {
            memcpy(slot->data, payload->head, payload->head_len);
        }
        if (payload->body_len > 0) {
            memcpy(slot->data + payload->head_len, payload->body, payload->body_len);
        }
    } else {
        uint64_t at = request_window(ring->body_max, number);
        ring->big[number] = true;
        int code = write_at(ring->memfd, payload->head, payload->head_len, at);
        if (code == 0) {
            code = write_at(ring->memfd, payload->body, payload->body_len, at + payload->head_len);
        }
        if (code < 0) {
            ring->free_count--;
            ring_front_release(ring, number); /* gives the pages back */
            return code;
        }
    }
    ring->free_count--;
    slot->kind = kind;
    slot->endpoint = endpoint;
    put(&slot->flags, big ? RING_BIG : 0);
    put(&slot->head_len, payload->head_len);
    put(&slot->body_len, payload->body_len);
    slot->started_ns = 0;
    atomic_store_explicit(&slot->state, RING_QUEUED, memory_order_release);
    shared->sq[ring->sq_tail % RING_SQ] = (uint16_t)number;
    ring->sq_tail++;
    atomic_store(&shared->sq_tail, ring->sq_tail);
    ring->submitted_since_wake++;
    return number;
}

static void kick(struct ring_shared *shared, uint32_t count)
{
    atomic_fetch_add(&shared->kick, 1);
    (void)futex(&shared->kick, FUTEX_WAKE, count);
}

void ring_front_flush(struct ring *ring)
{
    if (ring->submitted_since_wake == 0) {
        return;
    }
    struct ring_shared *shared = ring->shared;
    uint32_t count = ring->submitted_since_wake;
    ring->submitted_since_wake = 0;
    uint32_t spare = count;
    if (atomic_load(&shared->hot_waits) != 0) {
        (void)futex(&shared->sq_tail, FUTEX_WAKE, 1);
        spare--;
    }
    if (spare > 0 && atomic_load_explicit(&shared->average_ns, memory_order_relaxed) > SLOW_NS) {
        kick(shared, spare);
    }
}

int ring_front_nudge(struct ring *ring, int64_t now)
{
    uint32_t head = atomic_load(&ring->shared->sq_head);
    if (head == ring->sq_tail) {
        ring->seen_head_ns = 0;
        return 0;
    }
    if (head != ring->seen_head || ring->seen_head_ns == 0) {
        ring->seen_head = head;
        ring->seen_head_ns = now;
        ring->nudge_ms = 1;
    } else if (now - ring->seen_head_ns >= ring->nudge_ms * NS_PER_MS) {
        ring->seen_head_ns = now;
        ring->nudge_ms = ring->nudge_ms < NUDGE_MAX_MS ? ring->nudge_ms * 2 : NUDGE_MAX_MS;
        kick(ring->shared, 1);
        (void)futex(&ring->shared->sq_tail, FUTEX_WAKE, 1);
    }
    return ring->nudge_ms;
}

int ring_front_reap(struct ring *ring)
{
    struct ring_shared *shared = ring->shared;
    uint32_t waiting = atomic_load_explicit(&shared->cq_tail, memory_order_acquire) - ring->cq_head;
    if (waiting > RING_CQ) { /* nonsense: skip to what it says */
        ring->cq_head += waiting - RING_CQ;
        waiting = RING_CQ;
    }
    for (; waiting > 0; waiting--) {
        uint16_t number = shared->cq[ring->cq_head % RING_CQ];
        ring->cq_head++;
        if (number < RING_SLOTS &&
            atomic_load_explicit(&shared->slots[number].state, memory_order_acquire) == RING_DONE) {
            return number;
        }
    }
    return -1;
}

int ring_front_result(const struct ring *ring, int number, struct ring_result *ret)
{
    const struct ring_slot *slot = &ring->shared->slots[number];
    /* Read once: the worker may change them between the check and the use. An interim status
     * (1xx) would end the answer's head without its body. */
    uint32_t status = get(&slot->result_status);
    uint64_t len = get(&slot->result_len);
    bool big = (get(&slot->result_flags) & RING_BIG) != 0;
    if (status < 200 || status > 599 || len > ring->body_max || (!big && len > RING_INLINE)) {
        return -EPROTO;
    }
    ret->status = (int)status;
    ret->big = big;
    ret->len = len;
    ret->data = slot->data;
    ret->offset = big ? result_window(ring->body_max, number) : 0;
    memcpy(ret->type, slot->result_type, RING_TYPE_MAX);
    ret->type[RING_TYPE_MAX - 1] = '\0';
    for (const char *c = ret->type; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            return -EPROTO;
        }
    }
    return 0;
}

void ring_front_release(struct ring *ring, int number)
{
    struct ring_slot *slot = &ring->shared->slots[number];
    if (ring->big[number] || (get(&slot->result_flags) & RING_BIG) != 0) {
        ring->big[number] = false;
        put(&slot->result_flags, 0);
        (void)fallocate(ring->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)request_window(ring->body_max, number),
                        (off_t)(2 * window_size(ring->body_max)));
    }
    atomic_store_explicit(&slot->state, RING_FREE, memory_order_release);
    if (ring->free_count < RING_SLOTS) {
        ring->free_slots[ring->free_count++] = (uint16_t)number;
    }
}

bool ring_front_is_begun(const struct ring *ring, int number)
{
    return atomic_load(&ring->shared->slots[number].state) != RING_QUEUED;
}

bool ring_front_reclaim(struct ring *ring, int number, char **ret_bytes, size_t *ret_head_len,
                        size_t *ret_body_len)
{
    struct ring_slot *slot = &ring->shared->slots[number];
    uint32_t expected = RING_QUEUED;
    if (!atomic_compare_exchange_strong(&slot->state, &expected, RING_FREE)) {
        return false;
    }
    uint64_t head_len = get(&slot->head_len);
    uint64_t body_len = get(&slot->body_len);
    bool big = (get(&slot->flags) & RING_BIG) != 0;
    bool ok = head_len <= HEAD_ROOM && body_len <= ring->body_max &&
              (big || head_len + body_len <= RING_INLINE);
    if (ok && ret_bytes != NULL) {
        size_t len = (size_t)(head_len + body_len);
        char *bytes = malloc(len + 1);
        ok = bytes != NULL;
        if (ok && !big) {
            memcpy(bytes, slot->data, len);
        } else if (ok) {
            ok = read_at(ring->memfd, bytes, len, request_window(ring->body_max, number)) == 0;
        }
        if (ok) {
            bytes[len] = '\0';
            *ret_bytes = bytes;
            *ret_head_len = (size_t)head_len;
            *ret_body_len = (size_t)body_len;
        } else {
            free(bytes);
        }
    }
    if (ok) { /* else it stays out of use until the worker is gone */
        ring_front_release(ring, number);
    }
    return ok;
}

bool ring_front_sleep(struct ring *ring)
{
    atomic_store(&ring->shared->front_sleeps, 1);
    if (atomic_load(&ring->shared->cq_tail) != ring->cq_head) {
        atomic_store(&ring->shared->front_sleeps, 0);
        return false;
    }
    return true;
}

void ring_front_awake(struct ring *ring)
{
    atomic_store_explicit(&ring->shared->front_sleeps, 0, memory_order_relaxed);
}

/* ---- worker ---- */

int ring_worker_init(struct ring_worker *worker, int memfd, int event_fd)
{
    memset(worker, 0, sizeof *worker);
    void *at = mmap(NULL, sizeof(struct ring_shared), PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (at == MAP_FAILED) {
        return -errno;
    }
    worker->shared = at;
    worker->memfd = memfd;
    worker->event_fd = event_fd;
    if (worker->shared->magic != RING_MAGIC || worker->shared->slot_count != RING_SLOTS) {
        (void)munmap(at, sizeof(struct ring_shared));
        return -EPROTO;
    }
    return 0;
}

void ring_worker_fini(struct ring_worker *worker)
{
    (void)munmap(worker->shared, sizeof *worker->shared);
    (void)close(worker->memfd);
    worker->shared = NULL;
}

int ring_worker_take(struct ring_worker *worker)
{
    struct ring_shared *shared = worker->shared;
    uint32_t head = atomic_load_explicit(&shared->sq_head, memory_order_relaxed);
    while (head != atomic_load_explicit(&shared->sq_tail, memory_order_acquire)) {
        uint16_t number = shared->sq[head % RING_SQ];
        head++;
        struct ring_slot *slot = &shared->slots[number % RING_SLOTS];
        uint32_t expected = RING_QUEUED;
        /* Begun before it leaves the queue: a crash in between must not run it twice. */
        bool mine = atomic_compare_exchange_strong(&slot->state, &expected, RING_RUNNING);
        atomic_store(&shared->sq_head, head);
        if (mine) {
            slot->started_ns = now_ns();
            return number;
        }
    }
    return -1;
}

void ring_worker_wait_begin(struct ring_worker *worker, struct ring_wait *ret)
{
    struct ring_shared *shared = worker->shared;
    ring_worker_flush(worker);
    ret->hot = !worker->hot_taken;
    if (ret->hot) {
        worker->hot_taken = true;
        atomic_store(&shared->hot_waits, 1);
        ret->word = &shared->sq_tail;
        ret->expected = atomic_load(&shared->sq_head); /* sleeps only while the queue is empty */
    } else {
        atomic_fetch_add(&shared->spares, 1);
        ret->word = &shared->kick;
        ret->expected = atomic_load(&shared->kick);
    }
}

void ring_worker_wait(const struct ring_worker *worker, const struct ring_wait *wait)
{
    (void)worker;
    (void)futex(wait->word, FUTEX_WAIT, wait->expected);
}

void ring_worker_wait_end(struct ring_worker *worker, const struct ring_wait *wait)
{
    if (wait->hot) {
        atomic_store(&worker->shared->hot_waits, 0);
        worker->hot_taken = false;
    } else {
        atomic_fetch_sub(&worker->shared->spares, 1);
    }
}

int ring_worker_read(const struct ring_worker *worker, int number, uint64_t at, void *out,
                     size_t len)
{
    const struct ring_slot *slot = &worker->shared->slots[number];
    if ((get(&slot->flags) & RING_BIG) == 0) {
        if (at + len > RING_INLINE) {
            return -EPROTO;
        }
        memcpy(out, slot->data + at, len);
        return 0;
    }
    return read_at(worker->memfd, out, len, request_window(worker->shared->body_max, number) + at);
}

void ring_worker_flush(struct ring_worker *worker)
{
    if (worker->deferred == 0) {
        return;
    }
    worker->deferred = 0;
    if (atomic_exchange(&worker->shared->front_sleeps, 0) != 0) {
        uint64_t one = 1;
        (void)!write(worker->event_fd, &one, sizeof one);
    }
}

int ring_worker_complete(struct ring_worker *worker, int number, int status, const char *type,
                         const void *bytes, size_t len)
{
    struct ring_shared *shared = worker->shared;
    struct ring_slot *slot = &shared->slots[number];
    if (atomic_load_explicit(&slot->state, memory_order_relaxed) != RING_RUNNING) {
        return -EINVAL;
    }
    if (len > shared->body_max) {
        return -E2BIG;
    }
    bool big = len > RING_INLINE;
    if (big) {
        int code = write_at(worker->memfd, bytes, len, result_window(shared->body_max, number));
        if (code < 0) {
            return code;
        }
    } else if (len > 0) {
        memcpy(slot->data, bytes, len);
    }
    put(&slot->result_status, (uint32_t)status);
    put(&slot->result_flags, big ? RING_BIG : 0);
    put(&slot->result_len, len);
    slot->result_type[0] = '\0';
    if (type != NULL) {
        size_t type_len = strnlen(type, RING_TYPE_MAX - 1);
        memcpy(slot->result_type, type, type_len);
        slot->result_type[type_len] = '\0';
    }
    int64_t now = now_ns();
    int64_t ran = now - slot->started_ns;
    uint64_t average = atomic_load_explicit(&shared->average_ns, memory_order_relaxed);
    atomic_store_explicit(&shared->average_ns,
                          (uint64_t)(((int64_t)average * 7 + (ran > 0 ? ran : 0)) / 8),
                          memory_order_relaxed);
    atomic_store_explicit(&slot->state, RING_DONE, memory_order_release);
    uint32_t tail = atomic_load_explicit(&shared->cq_tail, memory_order_relaxed);
    shared->cq[tail % RING_CQ] = (uint16_t)number;
    atomic_store(&shared->cq_tail, tail + 1);
    if (worker->deferred++ == 0) {
        worker->deferred_ns = now;
    }
    /* Held back only while more is queued: then the front looks again within a millisecond. */
    bool more = atomic_load_explicit(&shared->sq_head, memory_order_relaxed) !=
                atomic_load_explicit(&shared->sq_tail, memory_order_relaxed);
    if (!more || worker->deferred >= RING_DEFER_COUNT ||
        now - worker->deferred_ns > RING_DEFER_NS || ran > RING_DEFER_NS) {
        ring_worker_flush(worker);
    }
    return 0;
}
