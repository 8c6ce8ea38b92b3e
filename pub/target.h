/*
 * target.h - a job as one thread calls it: its hosts, its counters, and copies of the texts that a
 * call needs after the turn in which the table was read. Worker's thread only.
 *
 * Kept by the job's slot, so that equal calls find it at once; made anew when the job's state is
 * another (serial). Counted by the calls that use it.
 */
#ifndef PUB_TARGET_H
#define PUB_TARGET_H

#include "pub/stats.h"
#include "pub/table.h"
#include "pub/upstream.h"

struct pub_target {
    unsigned refs;
    uint64_t serial; /* of the state of the job */
    struct pub_job_stats *stats;
    const char *job, *version, *status; /* in `text` */
    const char *secret;                 /* likewise; NULL: none */
    unsigned next_host;                 /* round robin */
    size_t host_count;
    struct pub_host **hosts; /* replicas with a usable address, each counted */
    char text[];
};
struct pub_targets {
    struct pub_hosts *hosts;
    struct pub_stats *stats;
    struct pub_target **at; /* by slot */
    size_t size;
};

/* Borrows both. */
void pub_targets_init(struct pub_targets *set, struct pub_hosts *hosts, struct pub_stats *stats);
void pub_targets_fini(struct pub_targets *set);
/* Counted for the caller. */
struct pub_target *pub_target_get(struct pub_targets *set, const struct pub_job *job);
void pub_target_unref(struct pub_target *target); /* NULL too */
/* The job is gone: forgets that state of it. */
void pub_target_forget(struct pub_targets *set, uint32_t slot, uint64_t serial);
/* The host with the fewest calls among those that did not fail lately, in turn. */
struct pub_host *pub_target_host(struct pub_target *target, int64_t now_ns);

#endif
