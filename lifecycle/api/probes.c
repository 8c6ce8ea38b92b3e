#include "libtrack/base/mem.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "version.h"

/* Probes ask nothing of the database: a frozen one must not freeze them. */

static int get_ready(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    struct lifecycle *lc = api_lifecycle(req);
    bool ready = atomic_load(&lc->is_started) && trk_pg_pool_is_up(lc->pool);
    return trk_reply_json(req, ready ? 200 : 503,
                          json_pack("{s:s,s:b}", "service", "lifecycle", "ready", (int)ready));
}

static int get_health(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    struct lifecycle *lc = api_lifecycle(req);
    bool up = trk_pg_pool_is_up(lc->pool);
    json_t *health = json_pack("{s:s,s:b,s:b,s:s,s:s,s:b}", "service", "lifecycle", "live", 1,
                               "database_connected", (int)up, "git_version", TRK_GIT_VERSION,
                               "docker_tag", lc->config->docker_tag, "auth_required",
                               (int)lc->config->auth_required);
    return trk_reply_json(req, up ? 200 : 500, health);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/live",
     .access = "public",
     .flags = TRK_ROUTE_QUIET,
     .handler = trk_http_live_handler,
     .help = "Is the process up? Does not depend on the database."},
    {.method = "GET",
     .path = "/ready",
     .access = "public",
     .flags = TRK_ROUTE_QUIET,
     .handler = get_ready,
     .help = "Can it do its work now? 503 while the database is away or being migrated."},
    {.method = "GET",
     .path = "/health",
     .access = "public",
     .flags = TRK_ROUTE_QUIET,
     .response_schema = API_REF("Health"),
     .handler = get_health,
     .help = "Status of the service and its database; 500 when the database is away."},
    {.method = "GET",
     .path = "/metrics",
     .access = "public",
     .flags = TRK_ROUTE_QUIET,
     .handler = trk_http_metrics_handler,
     .help = "Prometheus metrics."},
};
API_TABLE(api_probe_routes, "health", routes);
