/*
 * worker.h - what one thread of pub has: loop, listener, targets, connections, scratch memory; and
 * what all of them share. Only `shared`'s atomics, pub_loop_post and the counters cross threads.
 */
#ifndef PUB_WORKER_H
#define PUB_WORKER_H

#include <stdatomic.h>

#include "libtrack/metrics/metrics.h"
#include "pub/access.h"
#include "pub/config.h"
#include "pub/feed.h"
#include "pub/loop.h"
#include "pub/stats.h"
#include "pub/target.h"

struct pub_client;
struct pub_worker;

#define PUB_BUFFER_SIZE  (64 * 1024)
#define PUB_SCRATCH_SIZE (64 * 1024)

struct pub_shared {
    const struct pub_config *config;
    char tracing_header[64], caller_header[64]; /* lower case */
    struct trk_metrics *metrics; /* of the process; calls are counted by each worker */
    atomic_int client_count;
    struct pub_readers readers;
    int access_fd; /* -1: no access log */
    struct pub_feed *feed;
    const struct pub_table *table; /* the feed's */
    size_t worker_count;
    struct pub_worker *workers;
};
struct pub_worker {
    struct pub_loop loop;
    struct pub_shared *shared;
    unsigned index;
    pthread_t thread;
    struct pub_listener {
        struct pub_watch watch;
        struct pub_worker *worker;
    } listeners[2]; /* of the loopback's other family, too */
    int reserve_fd; /* given up for a moment to refuse a connection when descriptors ran out */
    struct pub_timer accept_again;
    struct pub_hosts hosts;
    struct pub_stats stats;
    struct pub_targets targets;
    struct pub_access access;
    atomic_bool wants_news; /* somebody here waits for a change of the table */
    /* Clients. */
    struct pub_client *clients;
    bool is_draining;
    struct pub_timer drain;
    /* The last parsed request and whose it is; valid while its client's buffer keeps it. */
    struct trk_h1_request request;
    const struct pub_client *request_of;
    struct trk_h1_response response;
    char scratch[PUB_SCRATCH_SIZE];
    char decoded[TRK_H1_TARGET_MAX];
    char endpoint[TRK_H1_TARGET_MAX + 1];
    char cookie[TRK_H1_TARGET_MAX];
    /* Buffers of PUB_BUFFER_SIZE kept for reuse. */
    char *buffers[64];
    unsigned buffer_count;
};

/* A buffer of PUB_BUFFER_SIZE bytes. */
char *pub_buffer_get(struct pub_worker *w);
void pub_buffer_put(struct pub_worker *w, char *buffer);

#endif
