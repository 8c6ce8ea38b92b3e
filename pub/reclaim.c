#include "pub/reclaim.h"

#include <stdlib.h>
#include <string.h>

#include "libtrack/base/err.h"
#include "libtrack/base/mem.h"

void pub_readers_init(struct pub_readers *r, size_t count)
{
    trk_assert(count <= PUB_READERS_MAX);
    memset(r, 0, sizeof(*r));
    atomic_init(&r->epoch, 1);
    r->count = count;
    for (size_t i = 0; i < count; i++) {
        atomic_init(&r->readers[i].seen, UINT64_MAX);
    }
}

void pub_readers_fini(struct pub_readers *r)
{
    for (size_t i = r->first; i < r->end; i++) {
        r->retired[i].release(r->retired[i].memory);
    }
    free(r->retired);
    r->retired = NULL;
    r->first = r->end = r->size = 0;
}

void pub_retire(struct pub_readers *r, void *memory, void (*release)(void *memory))
{
    if (r->end == r->size && r->first > r->size / 2) {
        memmove(r->retired, r->retired + r->first, (r->end - r->first) * sizeof(r->retired[0]));
        r->end -= r->first;
        r->first = 0;
    } else if (r->end == r->size) {
        r->size = r->size == 0 ? 64 : r->size * 2;
        r->retired = trk_xrealloc(r->retired, r->size * sizeof(r->retired[0]));
    }
    r->retired[r->end++] = (struct pub_retired){
        memory, release, atomic_load_explicit(&r->epoch, memory_order_relaxed)};
}

size_t pub_reclaim(struct pub_readers *r)
{
    if (r->first == r->end) {
        return 0;
    }
    (void)atomic_fetch_add(&r->epoch, 1); /* a full barrier behind what was unpublished */
    uint64_t oldest = UINT64_MAX;
    for (size_t i = 0; i < r->count; i++) {
        uint64_t seen = atomic_load(&r->readers[i].seen);
        oldest = seen < oldest ? seen : oldest;
    }
    while (r->first < r->end && r->retired[r->first].epoch < oldest) {
        struct pub_retired *old = &r->retired[r->first++];
        old->release(old->memory);
    }
    if (r->first == r->end) {
        r->first = r->end = 0;
        if (r->size > 4096) { /* a large change passed */
            free(r->retired);
            r->retired = NULL;
            r->size = 0;
        }
    }
    return r->end - r->first;
}
