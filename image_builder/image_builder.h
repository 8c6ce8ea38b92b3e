/*
 * image_builder.h - what the parts of the service share: made by main, read-only afterwards, but
 * for what the parts guard themselves.
 */
#ifndef IMAGE_BUILDER_IMAGE_BUILDER_H
#define IMAGE_BUILDER_IMAGE_BUILDER_H

#include <jansson.h>

#include "image_builder/config.h"
#include "libtrack/http/http_server.h"
#include "libtrack/metrics/metrics.h"

struct build_queue;
struct depot;
struct housekeeping;
struct reporter;
struct store;
struct uploads;

struct builder_metrics {
    struct trk_metric *images_built, *building_errors, *images_pushed, *pushed_duration;
    struct trk_metric *requests, *done_requests, *request_duration; /* {job_name,job_version} */
    struct trk_metric *phase_duration, *phase_done;                 /* {…,phase} */
    struct trk_metric *active_tasks;
};

struct image_builder {
    const struct builder_config *config;
    const char *public_key; /* lifecycle's */
    char *logs_dir, *workspaces_dir, *pip_cache_dir;
    struct store *store;   /* images: whoever has the sources can make them again */
    struct store *sources; /* what was uploaded to be built, by content */
    struct depot *depot;   /* what builds know of both */
    struct uploads *uploads;
    struct build_queue *builds;
    struct reporter *reporter;
    struct housekeeping *housekeeping;
    struct trk_metrics *metrics;
    struct builder_metrics m;
};

/* The route tables, for the server and for the docs. */
#define BUILDER_TABLES 4
extern const struct trk_route_table builder_health_table, builder_build_table, builder_source_table,
    builder_registry_table;

/* authorize() of the server: internal tokens only, in X-Racetrack-Auth, Authorization: Bearer, or
 * as the password of Authorization: Basic. */
int builder_authorize(struct trk_request *req, const char *access, struct trk_err *err);
/* error_reply() of the server: /v2 answers errors in the form of the distribution-spec. */
json_t *builder_error_reply(struct trk_request *req, int status, const struct trk_err *err,
                            json_t *body);

#endif
