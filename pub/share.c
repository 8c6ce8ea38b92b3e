#include "pub/share.h"

#include <string.h>

#include "libtrack/base/mem.h"

/* A decision as bytes: job, version, status, caller (when there is one) and the hosts, terminated
 * one behind the other. */
struct copy {
    struct pub_message message;
    struct pub_tag tag;
    uint64_t epoch;
    int64_t fetched_ns, ends_ns;
    bool any_path, has_caller;
    size_t host_count;
    char text[];
};

uint64_t pub_share_epoch(const struct pub_worker *w)
{
    return atomic_load(&w->shared->epoch);
}

static const char *next_text(const char **at)
{
    const char *text = *at;
    *at += strlen(text) + 1;
    return text;
}

static void adopt(struct pub_message *message, void *ctx)
{
    const struct copy *copy = (const struct copy *)message;
    struct pub_worker *w = ctx;
    if (copy->epoch != pub_share_epoch(w)) {
        return;
    }
    const struct pub_decision *known = pub_cache_find(&w->cache, &copy->tag);
    if (known != NULL && known->fetched_ns >= copy->fetched_ns) {
        return;
    }
    const char *at = copy->text;
    const char *job = next_text(&at);
    const char *version = next_text(&at);
    const char *status = next_text(&at);
    const char *caller = copy->has_caller ? next_text(&at) : NULL;
    struct pub_decision *d = pub_decision_new(job, version, status, caller, copy->host_count);
    for (size_t i = 0; i < copy->host_count; i++) {
        d->hosts[i] = pub_host_get(&w->hosts, next_text(&at));
        trk_assert(d->hosts[i] != NULL); /* it was one on the other thread */
    }
    d->stats = pub_job_stats_get(&w->stats, d->job, d->version);
    d->tag = copy->tag;
    d->any_path = copy->any_path;
    d->fetched_ns = copy->fetched_ns;
    d->ends_ns = copy->ends_ns;
    pub_cache_add(&w->cache, d);
    pub_decision_unref(d);
}

static char *put(char *out, const char *text)
{
    size_t size = strlen(text) + 1;
    memcpy(out, text, size);
    return out + size;
}

static struct copy *copy_of(const struct pub_decision *d, uint64_t epoch)
{
    size_t size = strlen(d->job) + strlen(d->version) + strlen(d->status) + 3;
    size += d->caller != NULL ? strlen(d->caller) + 1 : 0;
    for (size_t i = 0; i < d->host_count; i++) {
        size += strlen(d->hosts[i]->name) + 1;
    }
    struct copy *copy = trk_xcalloc(1, sizeof(*copy) + size);
    copy->message.run = adopt;
    copy->tag = d->tag;
    copy->epoch = epoch;
    copy->fetched_ns = d->fetched_ns;
    copy->ends_ns = d->ends_ns;
    copy->any_path = d->any_path;
    copy->has_caller = d->caller != NULL;
    copy->host_count = d->host_count;
    char *out = put(put(put(copy->text, d->job), d->version), d->status);
    out = d->caller != NULL ? put(out, d->caller) : out;
    for (size_t i = 0; i < d->host_count; i++) {
        out = put(out, d->hosts[i]->name);
    }
    return copy;
}

void pub_share_decision(struct pub_worker *w, const struct pub_decision *d, uint64_t epoch)
{
    struct pub_shared *shared = w->shared;
    for (size_t i = 0; i < shared->worker_count; i++) {
        if (&shared->workers[i] != w) {
            pub_loop_post(&shared->workers[i].loop, &copy_of(d, epoch)->message);
        }
    }
}
