#include "pub/target.h"

#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"

void pub_targets_init(struct pub_targets *set, struct pub_hosts *hosts, struct pub_stats *stats)
{
    *set = (struct pub_targets){.hosts = hosts, .stats = stats};
}

void pub_targets_fini(struct pub_targets *set)
{
    for (size_t i = 0; i < set->size; i++) {
        pub_target_unref(set->at[i]);
    }
    free(set->at);
    set->at = NULL;
    set->size = 0;
}

static const char *put(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    const char *start = memcpy(*at, text, size);
    *at += size;
    return start;
}

static void add_hosts(struct pub_targets *set, struct pub_target *target, const struct pub_job *job)
{
    const char *address = job->replicas;
    target->hosts = trk_xcalloc((size_t)job->replica_count + 1, sizeof(struct pub_host *));
    for (size_t i = 0; i < job->replica_count; i++, address += strlen(address) + 1) {
        struct pub_host *host = pub_host_get(set->hosts, address);
        if (host != NULL) {
            target->hosts[target->host_count++] = host;
        }
    }
}

static struct pub_target *target_new(struct pub_targets *set, const struct pub_job *job)
{
    size_t size = strlen(job->family->text) + strlen(job->version) + strlen(job->status) + 3 +
                  (job->secret != NULL ? strlen(job->secret) + 1 : 0);
    struct pub_target *target = trk_xcalloc(1, sizeof(*target) + size);
    char *at = target->text;
    target->refs = 1;
    target->serial = job->serial;
    target->job = put(&at, job->family->text);
    target->version = put(&at, job->version);
    target->status = put(&at, job->status);
    target->secret = job->secret != NULL ? put(&at, job->secret) : NULL;
    target->stats = pub_job_stats_get(set->stats, target->job, target->version);
    add_hosts(set, target, job);
    return target;
}

static void make_room(struct pub_targets *set, uint32_t slot)
{
    if (slot < set->size) {
        return;
    }
    size_t size = set->size == 0 ? 64 : set->size;
    while (size <= slot) {
        size *= 2;
    }
    set->at = trk_xrealloc(set->at, size * sizeof(set->at[0]));
    memset(set->at + set->size, 0, (size - set->size) * sizeof(set->at[0]));
    set->size = size;
}

struct pub_target *pub_target_get(struct pub_targets *set, const struct pub_job *job)
{
    make_room(set, job->slot);
    struct pub_target **place = &set->at[job->slot];
    if (*place == NULL || (*place)->serial != job->serial) {
        struct pub_target *fresh = target_new(set, job);
        pub_target_unref(*place);
        *place = fresh;
    }
    (*place)->refs++;
    return *place;
}

void pub_target_unref(struct pub_target *target)
{
    if (target == NULL || --target->refs > 0) {
        return;
    }
    for (size_t i = 0; i < target->host_count; i++) {
        pub_host_unref(target->hosts[i]);
    }
    pub_job_stats_unref(target->stats);
    free(target->hosts);
    free(target);
}

void pub_target_forget(struct pub_targets *set, uint32_t slot, uint64_t serial)
{
    if (slot < set->size && set->at[slot] != NULL && set->at[slot]->serial <= serial) {
        pub_target_unref(TRK_STEAL(set->at[slot]));
    }
}

struct pub_host *pub_target_host(struct pub_target *target, int64_t now_ns)
{
    if (target->host_count == 1) {
        return target->hosts[0];
    }
    struct pub_host *best = NULL;
    unsigned first = target->next_host++;
    for (size_t i = 0; i < target->host_count; i++) {
        struct pub_host *h = target->hosts[(first + i) % target->host_count];
        bool is_better = best == NULL;
        if (!is_better && (h->failed_until_ns > now_ns) != (best->failed_until_ns > now_ns)) {
            is_better = best->failed_until_ns > now_ns;
        } else if (!is_better) {
            is_better = h->active < best->active;
        }
        if (is_better) {
            best = h;
        }
    }
    return best;
}
