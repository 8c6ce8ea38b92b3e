#include "pub/decision.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "pub/stats.h"
#include "pub/upstream.h"

_Static_assert(sizeof(struct pub_tag) == crypto_shorthash_siphashx24_BYTES, "tag");
_Static_assert(PUB_TAG_KEY_SIZE == crypto_shorthash_siphashx24_KEYBYTES, "key");

/* Job, version and token have no NUL: the separator keeps them apart. */
void pub_tag_make(struct pub_tag *ret, const unsigned char key[PUB_TAG_KEY_SIZE],
                  struct trk_h1_slice job, struct trk_h1_slice version, struct trk_h1_slice token)
{
    char text[3 * TRK_H1_TARGET_MAX];
    size_t len = job.len + version.len + token.len + 2;
    trk_assert(len <= sizeof(text));
    memcpy(text, job.at, job.len);
    text[job.len] = '\0';
    memcpy(text + job.len + 1, version.at, version.len);
    text[job.len + 1 + version.len] = '\0';
    if (token.len > 0) {
        memcpy(text + job.len + version.len + 2, token.at, token.len);
    }
    (void)crypto_shorthash_siphashx24((unsigned char *)ret, (unsigned char *)text, len, key);
}

void pub_tag_add_path(struct pub_tag *ret, const unsigned char key[PUB_TAG_KEY_SIZE],
                      const struct pub_tag *tag, struct trk_h1_slice path)
{
    char text[sizeof(*tag) + TRK_H1_TARGET_MAX];
    trk_assert(path.len <= TRK_H1_TARGET_MAX);
    memcpy(text, tag, sizeof(*tag));
    memcpy(text + sizeof(*tag), path.at, path.len);
    (void)crypto_shorthash_siphashx24((unsigned char *)ret, (unsigned char *)text,
                                      sizeof(*tag) + path.len, key);
}

struct pub_decision *pub_decision_new(const char *job, const char *version, const char *status,
                                      const char *caller, size_t host_count)
{
    struct pub_decision *d = trk_xcalloc(1, sizeof(*d) + host_count * sizeof(struct pub_host *));
    d->refs = 1;
    d->job = trk_xstrdup(job);
    d->version = trk_xstrdup(version);
    d->status = trk_xstrdup(status);
    d->caller = caller != NULL ? trk_xstrdup(caller) : NULL;
    for (char *p = d->caller; p != NULL && *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7F) {
            *p = '?';
        }
    }
    d->host_count = host_count;
    return d;
}

struct pub_decision *pub_decision_ref(struct pub_decision *d)
{
    d->refs++;
    return d;
}

void pub_decision_unref(struct pub_decision *d)
{
    if (d == NULL || --d->refs > 0) {
        return;
    }
    for (size_t i = 0; i < d->host_count; i++) {
        pub_host_unref(d->hosts[i]);
    }
    pub_job_stats_unref(d->stats);
    free(d->job);
    free(d->version);
    free(d->status);
    free(d->caller);
    free(d);
}

void pub_cache_init(struct pub_cache *cache, size_t max)
{
    size_t size = 64;
    while (size < max) {
        size *= 2;
    }
    *cache = (struct pub_cache){.mask = size - 1, .max = max};
    cache->buckets = trk_xcalloc(size, sizeof(cache->buckets[0]));
}

void pub_cache_fini(struct pub_cache *cache)
{
    pub_cache_remove_all(cache);
    free(cache->buckets);
}

static void unlink_age(struct pub_cache *cache, struct pub_decision *d)
{
    *(d->newer != NULL ? &d->newer->older : &cache->newest) = d->older;
    *(d->older != NULL ? &d->older->newer : &cache->oldest) = d->newer;
}

static void link_newest(struct pub_cache *cache, struct pub_decision *d)
{
    d->newer = NULL;
    d->older = cache->newest;
    *(d->older != NULL ? &d->older->newer : &cache->oldest) = d;
    cache->newest = d;
}

struct pub_decision *pub_cache_find(struct pub_cache *cache, const struct pub_tag *tag)
{
    struct pub_decision *d = cache->buckets[tag->a & cache->mask];
    while (d != NULL && (d->tag.a != tag->a || d->tag.b != tag->b)) {
        d = d->next_in_bucket;
    }
    if (d != NULL && d != cache->newest) {
        unlink_age(cache, d);
        link_newest(cache, d);
    }
    return d;
}

void pub_cache_add(struct pub_cache *cache, struct pub_decision *d)
{
    struct pub_decision *old = pub_cache_find(cache, &d->tag);
    if (old != NULL) {
        pub_cache_remove(cache, old);
    } else if (cache->count >= cache->max) {
        pub_cache_remove(cache, cache->oldest);
    }
    struct pub_decision **bucket = &cache->buckets[d->tag.a & cache->mask];
    d->next_in_bucket = *bucket;
    *bucket = pub_decision_ref(d);
    link_newest(cache, d);
    d->is_cached = true;
    cache->count++;
}

void pub_cache_remove(struct pub_cache *cache, struct pub_decision *d)
{
    if (!d->is_cached) {
        return;
    }
    struct pub_decision **p = &cache->buckets[d->tag.a & cache->mask];
    while (*p != d) {
        p = &(*p)->next_in_bucket;
    }
    *p = d->next_in_bucket;
    unlink_age(cache, d);
    d->is_cached = false;
    cache->count--;
    pub_decision_unref(d);
}

void pub_cache_remove_job(struct pub_cache *cache, const char *job)
{
    for (struct pub_decision *d = cache->newest, *older; d != NULL; d = older) {
        older = d->older;
        if (strcmp(d->job, job) == 0) {
            pub_cache_remove(cache, d);
        }
    }
}

void pub_cache_remove_all(struct pub_cache *cache)
{
    while (cache->newest != NULL) {
        pub_cache_remove(cache, cache->newest);
    }
}
