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

struct health {
    const char *service, *git_version, *docker_tag;
    bool is_live, is_connected, auth_required;
};
static const struct dto_field health_fields[] = {
    {"service", DTO_TEXT, DTO_AT(struct health, service)},
    {"live", DTO_BOOLEAN, DTO_AT(struct health, is_live)},
    {"database_connected", DTO_BOOLEAN, DTO_AT(struct health, is_connected)},
    {"git_version", DTO_TEXT, DTO_AT(struct health, git_version)},
    {"docker_tag", DTO_TEXT, DTO_AT(struct health, docker_tag)},
    {"auth_required", DTO_BOOLEAN, DTO_AT(struct health, auth_required)},
};
const struct dto api_health_dto = DTO("Health", struct health, health_fields);

static int get_health(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    struct lifecycle *lc = api_lifecycle(req);
    const struct health health = {.service = "lifecycle",
                                  .git_version = TRK_GIT_VERSION,
                                  .docker_tag = lc->config->docker_tag,
                                  .is_live = true,
                                  .is_connected = trk_pg_pool_is_up(lc->pool),
                                  .auth_required = lc->config->auth_required};
    return trk_reply_json(req, health.is_connected ? 200 : 500,
                          dto_json(&api_health_dto, &health, lc));
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
