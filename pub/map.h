/*
 * map.h - hash table of pointers that one thread changes and all threads read without locks.
 *
 * Open addressing, at most half full. An entry is replaced by one store, and the array as a whole
 * when it grows; what readers may still look at goes through reclaim.h. Entries belong to the
 * caller.
 */
#ifndef PUB_MAP_H
#define PUB_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pub/reclaim.h"

struct pub_slots {
    size_t mask;
    _Atomic(void *) at[];
};
struct pub_map {
    _Atomic(struct pub_slots *) slots;
    size_t count;  /* entries */
    size_t filled; /* and places that had one */
    uint64_t (*hash)(const void *map_ctx, const void *entry);
    bool (*is)(const void *entry, const void *key);
    const void *ctx;
};

void pub_map_init(struct pub_map *map, uint64_t (*hash)(const void *ctx, const void *entry),
                  bool (*is)(const void *entry, const void *key), const void *ctx);
void pub_map_fini(struct pub_map *map);
/* Any thread (inside, see reclaim.h). `hash` is the key's. NULL: none. */
void *pub_map_find(const struct pub_map *map, uint64_t hash, const void *key);
/* Any thread. The same key is looked for soon: fetches its place, then what stands there (when the
 * place is there by then), while the caller does something else. */
void pub_map_fetch_place(const struct pub_map *map, uint64_t hash);
void pub_map_fetch_entry(const struct pub_map *map, uint64_t hash);
/* Writer. Puts the entry in the place of the one with the same key, which is returned, or NULL. */
void *pub_map_put(struct pub_map *map, struct pub_readers *readers, uint64_t hash, const void *key,
                  void *entry);
/* Writer. Takes it out; NULL: there is none. */
void *pub_map_remove(struct pub_map *map, uint64_t hash, const void *key);
/* Writer. Entries one by one: *cursor begins at 0; NULL at the end. The entry may be removed
 * meanwhile; nothing may be put. */
void *pub_map_next(const struct pub_map *map, size_t *cursor);

#endif
