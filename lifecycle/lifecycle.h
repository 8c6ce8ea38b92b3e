/*
 * lifecycle.h - what the parts of lifecycle share: configuration, pool, targets, metrics. Made in
 * main.c; what is there before `is_started` is set is read-only afterwards (the pointed-to objects
 * guard themselves).
 */
#ifndef LIFECYCLE_LIFECYCLE_H
#define LIFECYCLE_LIFECYCLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "libtrack/metrics/metrics.h"
#include "libtrack/pg/pg.h"
#include "lifecycle/infra/registry.h"

struct deploy_queue;
struct supervisor;
struct event_hub;
struct throttle;

struct lifecycle {
    const struct lifecycle_config *config; /* lifecycle/config.h */
    const char *auth_key, *secret_key;     /* signing tokens, sealing secrets */
    struct trk_pg_pool *pool;
    struct trk_pg_options pg_options; /* for dedicated connections (LISTEN, leader) */
    struct trk_metrics *metrics;
    struct infra_registry targets; /* that this process reaches */
    struct deploy_queue *deploy;   /* deploy/ */
    struct supervisor *supervisor;
    struct event_hub *events;   /* api/events.c */
    struct throttle *logins;    /* domain/throttle.h: wrong passwords */
    const char *internal_token; /* what lifecycle shows image_builder; secret */
    char instance_id[40];       /* lease owner */
    atomic_bool is_started;     /* migrated, and the queue works: until then the API answers 503 */
};

#endif
