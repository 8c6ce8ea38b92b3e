/*
 * stats.h - counters of calls, kept by each thread for itself and summed when /metrics is read.
 *
 * The owner thread adds with plain relaxed stores, so that counting costs no locked instruction;
 * other threads only read. The lists of jobs are guarded by a lock that the hot path never takes: a
 * target carries the pointer to its job's counters.
 */
#ifndef PUB_STATS_H
#define PUB_STATS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/buf.h"

typedef _Atomic uint64_t pub_count;

enum pub_counter {
    PUB_ERRORS,
    PUB_CONNECTION_BROKEN,
    PUB_CONNECTION_REFUSED,
    PUB_CANCELED,
    PUB_DEADLINE,
    PUB_REQUEST_ERRORS,
    PUB_LIFECYCLE_CALLS,
    PUB_LIFECYCLE_ERRORS,
    PUB_CACHE_RETRIEVED,
    PUB_CACHE_RECOVERED,
    PUB_AUTH_SUCCESSFUL,
    PUB_AUTH_FAILED,
    PUB_HEALTH_REQUESTS,
    PUB_PANIC_ERRORS,
    PUB_RETRIES,
    PUB_REJECTED,
    PUB_BAD_REQUESTS,
    PUB_CONNECTIONS_ACCEPTED,
    PUB_EVENTS_RECEIVED,
    PUB_STREAM_BREAKS,
    PUB_REPORTS,
    PUB_OVERALL_TIME_NS,
    PUB_LIFECYCLE_TIME_NS,
    PUB_COUNTERS
};
#define PUB_HISTOGRAM_BUCKETS 21 /* 1 ms, doubling; and one more for +Inf */
#define PUB_CODE_MIN          100
#define PUB_CODE_MAX          599

struct pub_job_stats {
    struct pub_job_stats *next;
    struct pub_stats *owner;
    unsigned refs;
    bool is_gone; /* job removed: goes with its last user */
    char *job, *version;
    pub_count requests, started, done, time_ns;
    pub_count histogram[PUB_HISTOGRAM_BUCKETS + 1];
    pub_count codes[PUB_CODE_MAX - PUB_CODE_MIN + 1];
};
struct pub_stats {
    pthread_mutex_t lock;
    struct pub_job_stats *jobs;
    unsigned job_count;
    pub_count counters[PUB_COUNTERS];
};
/* Facts that are not counters. */
struct pub_gauges {
    int connections;
    bool is_stream_open;
    double age_s; /* of the table; NaN: lifecycle was never heard of */
    size_t jobs, tokens, grants;
};

static inline void pub_add(pub_count *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void pub_stat(struct pub_stats *stats, enum pub_counter counter)
{
    pub_add(&stats->counters[counter], 1);
}

void pub_stats_init(struct pub_stats *stats);
void pub_stats_fini(struct pub_stats *stats);
/* Counters of a job, one more use. Past 4096 jobs those of {overflow}. Owner thread. */
struct pub_job_stats *pub_job_stats_get(struct pub_stats *stats, const char *job,
                                        const char *version);
void pub_job_stats_unref(struct pub_job_stats *job);
/* The job was removed: its series go when nobody uses them. Owner thread. */
void pub_job_stats_forget(struct pub_stats *stats, const char *job, const char *version);
void pub_job_stats_done(struct pub_job_stats *job, int status, int64_t duration_ns);
/* Prometheus text of all threads' counters. Any thread. */
void pub_stats_render(struct pub_stats *const *all, size_t count, const struct pub_gauges *gauges,
                      struct trk_buf *buf);

#endif
