#include "pub/map.h"

#include <stdlib.h>

#include "libtrack/base/mem.h"

#define SLOTS_MIN 16

static char gone; /* stands where an entry was: a search goes on behind it */
#define GONE ((void *)&gone)

static struct pub_slots *new_slots(size_t size)
{
    struct pub_slots *s = trk_xcalloc(1, sizeof(*s) + size * sizeof(s->at[0]));
    s->mask = size - 1;
    return s;
}

void pub_map_init(struct pub_map *map, uint64_t (*hash)(const void *ctx, const void *entry),
                  bool (*is)(const void *entry, const void *key), const void *ctx)
{
    *map = (struct pub_map){.hash = hash, .is = is, .ctx = ctx};
    atomic_init(&map->slots, new_slots(SLOTS_MIN));
}

void pub_map_fini(struct pub_map *map)
{
    free(atomic_load(&map->slots));
    atomic_store(&map->slots, NULL);
}

/* The place of the key, or of the end of its search. */
static size_t find_place(const struct pub_map *map, const struct pub_slots *s, uint64_t hash,
                         const void *key, void **ret_entry)
{
    size_t i = (size_t)hash & s->mask;
    for (;; i = (i + 1) & s->mask) {
        void *entry = atomic_load_explicit(&s->at[i], memory_order_acquire);
        if (entry == NULL || (entry != GONE && map->is(entry, key))) {
            *ret_entry = entry;
            return i;
        }
    }
}

void *pub_map_find(const struct pub_map *map, uint64_t hash, const void *key)
{
    void *entry;
    (void)find_place(map, atomic_load_explicit(&map->slots, memory_order_acquire), hash, key,
                     &entry);
    return entry;
}

void pub_map_fetch_place(const struct pub_map *map, uint64_t hash)
{
    const struct pub_slots *s = atomic_load_explicit(&map->slots, memory_order_acquire);
    __builtin_prefetch(&s->at[(size_t)hash & s->mask]);
}

void pub_map_fetch_entry(const struct pub_map *map, uint64_t hash)
{
    const struct pub_slots *s = atomic_load_explicit(&map->slots, memory_order_acquire);
    const char *entry = atomic_load_explicit(&s->at[(size_t)hash & s->mask], memory_order_acquire);
    __builtin_prefetch(entry);
    __builtin_prefetch(entry + 64);
}

/* A new array with room, without the gone ones. */
static void rebuild(struct pub_map *map, struct pub_readers *readers)
{
    struct pub_slots *old = atomic_load_explicit(&map->slots, memory_order_relaxed);
    size_t size = SLOTS_MIN;
    while (size < (map->count + 1) * 3) {
        size *= 2;
    }
    struct pub_slots *s = new_slots(size);
    for (size_t i = 0; i <= old->mask; i++) {
        void *entry = atomic_load_explicit(&old->at[i], memory_order_relaxed);
        if (entry == NULL || entry == GONE) {
            continue;
        }
        size_t at = (size_t)map->hash(map->ctx, entry) & s->mask;
        while (atomic_load_explicit(&s->at[at], memory_order_relaxed) != NULL) {
            at = (at + 1) & s->mask;
        }
        atomic_store_explicit(&s->at[at], entry, memory_order_relaxed);
    }
    map->filled = map->count;
    atomic_store_explicit(&map->slots, s, memory_order_release);
    pub_retire(readers, old, free);
}

void *pub_map_put(struct pub_map *map, struct pub_readers *readers, uint64_t hash, const void *key,
                  void *entry)
{
    struct pub_slots *s = atomic_load_explicit(&map->slots, memory_order_relaxed);
    void *old;
    size_t at = find_place(map, s, hash, key, &old);
    if (old != NULL) {
        atomic_store_explicit(&s->at[at], entry, memory_order_release);
        return old;
    }
    if ((map->filled + 1) * 2 > s->mask + 1) {
        rebuild(map, readers);
        s = atomic_load_explicit(&map->slots, memory_order_relaxed);
        at = find_place(map, s, hash, key, &old);
    }
    map->count++;
    map->filled++;
    atomic_store_explicit(&s->at[at], entry, memory_order_release);
    return NULL;
}

void *pub_map_remove(struct pub_map *map, uint64_t hash, const void *key)
{
    struct pub_slots *s = atomic_load_explicit(&map->slots, memory_order_relaxed);
    void *old;
    size_t at = find_place(map, s, hash, key, &old);
    if (old != NULL) {
        atomic_store_explicit(&s->at[at], GONE, memory_order_release);
        map->count--;
    }
    return old;
}

void *pub_map_next(const struct pub_map *map, size_t *cursor)
{
    const struct pub_slots *s = atomic_load_explicit(&map->slots, memory_order_relaxed);
    while (*cursor <= s->mask) {
        void *entry = atomic_load_explicit(&s->at[(*cursor)++], memory_order_relaxed);
        if (entry != NULL && entry != GONE) {
            return entry;
        }
    }
    return NULL;
}
