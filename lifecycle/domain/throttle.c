#include "lifecycle/domain/throttle.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"

#define SLOTS 4096 /* in each of two rows: 64 KiB */

struct throttle {
    pthread_mutex_t lock;
    unsigned char hash_key[crypto_shorthash_KEYBYTES];
    int64_t interval_ns, capacity_ns;
    int64_t empty_at_ns[2][SLOTS];
};

struct throttle *throttle_new(int64_t failures, int64_t interval_ms)
{
    struct throttle *t = trk_xcalloc(1, sizeof(*t));
    (void)pthread_mutex_init(&t->lock, NULL);
    crypto_shorthash_keygen(t->hash_key);
    t->interval_ns = interval_ms * TRK_NS_PER_MS;
    t->capacity_ns = failures * t->interval_ns;
    return t;
}

void throttle_free(struct throttle *t)
{
    if (t != NULL) {
        (void)pthread_mutex_destroy(&t->lock);
        free(t);
    }
}

static void find(struct throttle *t, const char *key, int64_t *slots[2])
{
    unsigned char bytes[crypto_shorthash_BYTES];
    uint32_t at[2];
    _Static_assert(sizeof(at) == sizeof(bytes), "a place in each row");
    (void)crypto_shorthash(bytes, (const unsigned char *)key, strlen(key), t->hash_key);
    memcpy(at, bytes, sizeof(at));
    for (int row = 0; row < 2; row++) {
        slots[row] = &t->empty_at_ns[row][at[row] % SLOTS];
    }
}

int64_t throttle_wait_ms(struct throttle *t, const char *key, int64_t ease, int64_t now_ns)
{
    int64_t *slots[2];
    find(t, key, slots);
    (void)pthread_mutex_lock(&t->lock);
    int64_t empty_at_ns = *slots[0] < *slots[1] ? *slots[0] : *slots[1];
    (void)pthread_mutex_unlock(&t->lock);
    int64_t wait_ns = empty_at_ns + t->interval_ns / ease - t->capacity_ns - now_ns;
    return wait_ns > 0 ? wait_ns / TRK_NS_PER_MS + 1 : 0;
}

void throttle_note_failure(struct throttle *t, const char *key, int64_t ease, int64_t now_ns)
{
    int64_t *slots[2];
    find(t, key, slots);
    (void)pthread_mutex_lock(&t->lock);
    for (int row = 0; row < 2; row++) {
        int64_t from = *slots[row] > now_ns ? *slots[row] : now_ns;
        *slots[row] = from + t->interval_ns / ease;
    }
    (void)pthread_mutex_unlock(&t->lock);
}
