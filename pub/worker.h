/*
 * worker.h - what one thread of pub has: loop, listener, cache, connections, scratch memory; and
 * what all of them share. Only `shared`'s atomics, pub_loop_post and the counters cross threads.
 */
#ifndef PUB_WORKER_H
#define PUB_WORKER_H

#include <stdatomic.h>

#include "libtrack/metrics/metrics.h"
#include "pub/config.h"
#include "pub/decision.h"
#include "pub/loop.h"
#include "pub/stats.h"
#include "pub/upstream.h"

struct pub_ask;
struct pub_client;
struct pub_worker;

#define PUB_BUFFER_SIZE  (64 * 1024)
#define PUB_SCRATCH_SIZE (64 * 1024)
#define PUB_ASK_BUCKETS  256

struct pub_shared {
    const struct pub_config *config;
    struct pub_url lifecycle;
    const char *internal_token;                 /* "" when there is none */
    char tracing_header[64], caller_header[64]; /* lower case */
    unsigned char tag_key[PUB_TAG_KEY_SIZE];
    struct trk_metrics *metrics; /* of the process; calls are counted by each worker */
    atomic_int client_count;
    atomic_bool is_stream_open;
    _Atomic uint64_t epoch; /* raised by every event before the threads are told, see share.h */
    size_t worker_count;
    struct pub_worker *workers;
};
struct pub_worker {
    struct pub_loop loop;
    struct pub_shared *shared;
    unsigned index;
    pthread_t thread;
    struct pub_watch listener;
    int reserve_fd; /* given up for a moment to refuse a connection when descriptors ran out */
    struct pub_timer accept_again;
    struct pub_cache cache;
    struct pub_hosts hosts;
    struct pub_stats stats;
    /* Questions to lifecycle, see ask.h. */
    struct pub_host *lifecycle_host;
    struct pub_ask *asks[PUB_ASK_BUCKETS];
    struct pub_ask *ask_queue, *ask_queue_last;
    unsigned asks_running, asks_waiting;
    int64_t lifecycle_down_until_ns;
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
    char cookie[TRK_H1_TARGET_MAX];
    /* Buffers of PUB_BUFFER_SIZE kept for reuse. */
    char *buffers[64];
    unsigned buffer_count;
};

/* A buffer of PUB_BUFFER_SIZE bytes. */
char *pub_buffer_get(struct pub_worker *w);
void pub_buffer_put(struct pub_worker *w, char *buffer);

#endif
