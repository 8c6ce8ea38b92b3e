/*
 * decision.h - what lifecycle said about one caller and one job, and the cache of it.
 *
 * One cache a thread, without locks; other threads send messages. Keyed by a 128-bit keyed hash
 * (SipHash, key drawn at the start) of job, version, token and, for decisions that hold for one
 * path only, the path: tokens are never kept. Bounded; the least recently used goes. A decision is
 * counted by its users, so that it may leave the cache during a call.
 *
 *     struct pub_decision *d = pub_cache_find(cache, &tag);
 *     if (d != NULL) use(pub_decision_ref(d));
 */
#ifndef PUB_DECISION_H
#define PUB_DECISION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/http/h1.h"

struct pub_host;
struct pub_job_stats;

#define PUB_TAG_KEY_SIZE 16
struct pub_tag {
    uint64_t a, b;
};
struct pub_decision {
    struct pub_decision *next_in_bucket, *newer, *older;
    struct pub_tag tag;
    unsigned refs;
    bool is_cached, any_path;
    int64_t fetched_ns;
    int64_t ends_ns;              /* the caller's token expires then; 0: it does not */
    char *job, *version, *status; /* resolved; owned */
    char *caller;                 /* owned, or NULL */
    struct pub_job_stats *stats;
    unsigned next_host; /* round robin */
    size_t host_count;
    struct pub_host *hosts[]; /* replicas, each counted */
};
struct pub_cache {
    struct pub_decision **buckets;
    size_t mask, count, max;
    struct pub_decision *newest, *oldest;
};

/* Any thread. */
void pub_tag_make(struct pub_tag *ret, const unsigned char key[PUB_TAG_KEY_SIZE],
                  struct trk_h1_slice job, struct trk_h1_slice version, struct trk_h1_slice token);
void pub_tag_add_path(struct pub_tag *ret, const unsigned char key[PUB_TAG_KEY_SIZE],
                      const struct pub_tag *tag, struct trk_h1_slice path);

/* One use; job, version, status and caller are copied (caller may be NULL; bytes that cannot stand
 * in a header become '?'). The hosts are the caller's to fill. Returns owned. */
struct pub_decision *pub_decision_new(const char *job, const char *version, const char *status,
                                      const char *caller, size_t host_count);
struct pub_decision *pub_decision_ref(struct pub_decision *d);
void pub_decision_unref(struct pub_decision *d);

void pub_cache_init(struct pub_cache *cache, size_t max);
void pub_cache_fini(struct pub_cache *cache);
/* Borrows: valid until the cache changes, ref to keep. */
struct pub_decision *pub_cache_find(struct pub_cache *cache, const struct pub_tag *tag);
/* Refs it; replaces one with the same tag. */
void pub_cache_add(struct pub_cache *cache, struct pub_decision *d);
void pub_cache_remove(struct pub_cache *cache, struct pub_decision *d);
void pub_cache_remove_job(struct pub_cache *cache, const char *job);
void pub_cache_remove_all(struct pub_cache *cache);

#endif
