#include "image_builder/service.h"

#include <stdlib.h>

#include "image_builder/api/uploads.h"
#include "image_builder/build/queue.h"
#include "image_builder/build/reporter.h"
#include "image_builder/housekeeping.h"
#include "image_builder/store/depot.h"
#include "image_builder/store/store.h"
#include "libtrack/auth/jwt.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/config/profile.h"
#include "libtrack/data/json.h"
#include "version.h"

#define STORE_WAIT_MS   6000 /* for one that is ending: it has 5 s for that */
#define BUILDS_END_MS   2500
#define REQUESTS_END_MS 1000

struct service {
    struct image_builder ib;
    struct trk_http_server *server;
    struct trk_route_table tables[BUILDER_TABLES];
};

static void add_metrics(struct image_builder *ib)
{
    static const char job[] = "job_name,job_version";
    static const char phase[] = "job_name,job_version,phase";
    struct trk_metrics *m = ib->metrics = trk_metrics_new();
    ib->m = (struct builder_metrics){
        .images_built = trk_metrics_counter(m, "images_built_total", "Images built.", NULL),
        .building_errors = trk_metrics_counter(m, "images_buidling_errors_total",
                                               "Builds that failed.", NULL),
        .images_pushed = trk_metrics_counter(m, "images_pushed_total",
                                             "Manifests stored, by builds and by clients.", NULL),
        .pushed_duration = trk_metrics_counter(m, "images_pushed_duration_seconds_total",
                                               "Time spent on storing built images.", NULL),
        .requests = trk_metrics_counter(m, "image_building_requests_total", "Builds asked for.",
                                        job),
        .done_requests = trk_metrics_counter(m, "image_building_done_requests_total",
                                             "Builds that have ended.", job),
        .request_duration = trk_metrics_counter(m, "image_building_request_duration_seconds_total",
                                                "Time spent on builds.", job),
        .phase_duration = trk_metrics_counter(m, "image_building_phase_duration_total",
                                              "Seconds spent in each phase of builds.", phase),
        .phase_done = trk_metrics_counter(m, "image_building_phase_done_total",
                                          "Phases of builds that have ended.", phase),
        .active_tasks = trk_metrics_gauge(m, "active_building_tasks", "Builds under way.", NULL),
    };
}

/* The token for lifecycle: configured, or the public one of the dev profile. */
static int make_reporter(struct image_builder *ib, struct trk_err *err)
{
    trk_autofree char *token = NULL;
    int rc = trk_profile_internal_token(ib->config->profile, ib->config->lifecycle_auth_token,
                                        "image-builder", &token, err);
    if (rc == 0) {
        ib->reporter = reporter_new(ib->config->lifecycle_url, token);
    }
    return rc;
}

static int make_folders(struct image_builder *ib, int64_t wait_ms, struct trk_err *err)
{
    trk_autofree char *images = trk_xasprintf("%s/images", ib->config->state_dir);
    trk_autofree char *sources = trk_xasprintf("%s/sources", ib->config->state_dir);
    int rc = store_open(images, wait_ms, &ib->store, err);
    rc = rc == 0 ? trk_mkdir_p(sources, 0700, err) : rc;
    rc = rc == 0 ? store_open(sources, wait_ms, &ib->sources, err) : rc;
    if (rc < 0) {
        return rc;
    }
    ib->depot = depot_new(ib->store, ib->sources);
    ib->pip_cache_dir = trk_xasprintf("%s/cache/pip", images);
    ib->workspaces_dir = trk_xasprintf("%s/workspaces", images);
    ib->logs_dir = ib->config->build_logs_dir[0] != '\0' ? trk_xstrdup(ib->config->build_logs_dir)
                                                         : trk_xasprintf("%s/logs", images);
    if (trk_rm_rf(ib->workspaces_dir, err) < 0 || /* left by a process that was killed */
        trk_mkdir_p(ib->workspaces_dir, 0700, err) < 0) {
        return err->code;
    }
    return trk_mkdir_p(ib->logs_dir, 0750, err);
}

static int listen_on(struct service *service, struct trk_err *err)
{
    static const struct trk_route_table *const all[BUILDER_TABLES] = {
        &builder_health_table, &builder_build_table, &builder_source_table,
        &builder_registry_table};
    for (size_t i = 0; i < BUILDER_TABLES; i++) {
        service->tables[i] = *all[i];
    }
    const struct builder_config *config = service->ib.config;
    const struct trk_http_options options = {
        .service = "image-builder",
        .title = "Racetrack image builder",
        .version = TRK_VERSION,
        .addr = config->http_addr,
        .port = (int)config->http_port,
        .port_setting = "IMAGE_BUILDER_PORT",
        .tables = service->tables,
        .table_count = BUILDER_TABLES,
        .request_max = (unsigned)config->http_connections_max,
        .ctx = &service->ib,
        .authorize = builder_authorize,
        .error_reply = builder_error_reply,
        .metrics = service->ib.metrics,
    };
    return trk_http_server_start(&options, &service->server, err);
}

int service_open(const struct builder_config *config, int64_t wait_ms, struct service **ret,
                 struct trk_err *err)
{
    struct service *service = trk_xcalloc(1, sizeof(*service));
    struct image_builder *ib = &service->ib;
    ib->config = config;
    int rc = make_folders(ib, wait_ms, err);
    if (rc < 0) {
        service_stop(service);
        return rc;
    }
    add_metrics(ib);
    *ret = service;
    return 0;
}

int service_start(const struct builder_config *config, struct service **ret, struct trk_err *err)
{
    const char *public_key = trk_profile_public_key(config->profile, config->lifecycle_public_key);
    struct service *service;
    int rc = trk_profile_check_public_key(config->profile, config->http_addr, public_key, err);
    rc = rc == 0 ? service_open(config, STORE_WAIT_MS, &service, err) : rc;
    if (rc < 0) {
        return rc;
    }
    struct image_builder *ib = &service->ib;
    ib->public_key = public_key;
    rc = make_reporter(ib, err);
    if (rc == 0) {
        ib->uploads = uploads_new(ib->store);
        ib->builds = build_queue_new(ib, (unsigned)config->builds_max);
        ib->housekeeping = housekeeping_start(ib);
        rc = listen_on(service, err);
    }
    if (rc < 0) {
        service_stop(service);
        return rc;
    }
    *ret = service;
    return 0;
}

int service_port(const struct service *service)
{
    return trk_http_server_port(service->server);
}

struct image_builder *service_builder(struct service *service)
{
    return &service->ib;
}

void service_stop(struct service *service)
{
    struct image_builder *ib = &service->ib;
    bool is_idle = ib->builds == NULL || build_queue_stop(ib->builds, BUILDS_END_MS);
    trk_http_server_stop(service->server, REQUESTS_END_MS);
    housekeeping_stop(ib->housekeeping);
    if (!is_idle) {
        return; /* a thread still uses all this; the process ends anyway */
    }
    build_queue_free(ib->builds);
    reporter_free(ib->reporter);
    uploads_free(ib->uploads);
    if (ib->metrics != NULL) {
        trk_metrics_free(ib->metrics);
    }
    depot_free(ib->depot);
    store_close(ib->store);
    store_close(ib->sources);
    free(ib->logs_dir);
    free(ib->workspaces_dir);
    free(ib->pip_cache_dir);
    free(service);
}
