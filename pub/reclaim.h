/*
 * reclaim.h - memory that readers without locks may still look at.
 *
 * One writer replaces what it published and retires the old piece; it is freed once every reader
 * has been outside since (quiescent states: a reader is one event loop, outside while it sleeps
 * and anew with every turn). Readers pay one barrier a turn and nothing for a look.
 *
 *     reader: pub_reader_enter(r, i); look at what is published; pub_reader_leave(r, i);
 *     writer: publish the new piece; pub_retire(r, old, free); pub_reclaim(r);
 */
#ifndef PUB_RECLAIM_H
#define PUB_RECLAIM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PUB_READERS_MAX 256

struct pub_reader {
    _Alignas(64) _Atomic uint64_t seen; /* UINT64_MAX: outside */
};
struct pub_retired {
    void *memory;
    void (*release)(void *memory);
    uint64_t epoch;
};
struct pub_readers {
    _Atomic uint64_t epoch;
    size_t count;
    struct pub_reader readers[PUB_READERS_MAX];
    struct pub_retired *retired; /* the writer's; oldest first from `first` on */
    size_t first, end, size;
};

void pub_readers_init(struct pub_readers *r, size_t count);
/* Frees all that was retired; no reader is inside any more. */
void pub_readers_fini(struct pub_readers *r);

static inline void pub_reader_enter(struct pub_readers *r, size_t index)
{
    uint64_t epoch = atomic_load_explicit(&r->epoch, memory_order_acquire);
    /* A full barrier: the writer sees it before anything is read. */
    (void)atomic_exchange(&r->readers[index].seen, epoch);
}
static inline void pub_reader_leave(struct pub_readers *r, size_t index)
{
    atomic_store_explicit(&r->readers[index].seen, UINT64_MAX, memory_order_release);
}

/* Writer. Takes memory that nobody finds any more; `release` frees it. */
void pub_retire(struct pub_readers *r, void *memory, void (*release)(void *memory));
/* Writer. Frees what nobody can hold; call it again after a while when pieces are left: returns
 * how many. */
size_t pub_reclaim(struct pub_readers *r);

#endif
