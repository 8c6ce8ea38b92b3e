#include "libtrack/base/mem.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "version.h"

/* "Try again": why is what the caller needs to know, and these texts are written for callers. */
static json_t *show_reason(struct trk_request *req, int status, const struct trk_err *err,
                           json_t *body)
{
    (void)req;
    if (status == 503 || status == 507) {
        (void)json_object_set_new(body, "error", json_string(err->text));
    }
    return body;
}

static const struct dto *const dtos[] = {
    &api_health_dto,          &api_info_dto,       &api_job_dto,
    &api_family_dto,          &api_endpoint_dto,   &api_logs_dto,
    &api_endpoint_change_dto, &api_deployment_dto, &api_deployment_id_dto,
    &api_user_token_dto,      &api_new_token_dto,  &api_credentials_dto,
    &api_passwords_dto,       &api_esc_dto,        &api_new_esc_dto,
    &api_esc_token_dto,       &api_esc_auth_dto,   &api_new_esc_token_dto,
    &api_token_dto,           &api_permission_dto, &api_decision_dto,
    &api_audit_event_dto,
};
static char *schemas; /* made once, kept */

/* Filled once: tables of other files are no constant expressions. */
static struct trk_route_table tables[15];

void api_options(struct lifecycle *lc, struct trk_http_options *ret)
{
    static const char *const prefixes[] = {"/lifecycle", NULL};
    const struct trk_route_table *const all[] = {
        &api_probe_routes,    &api_info_routes,  &api_deploy_routes,  &api_job_routes,
        &api_endpoint_routes, &api_log_routes,   &api_family_routes,  &api_gateway_routes,
        &api_auth_routes,     &api_grant_routes, &api_esc_routes,     &api_user_routes,
        &api_event_routes,    &api_audit_routes, &api_session_routes,
    };
    _Static_assert(TRK_COUNT(all) == TRK_COUNT(tables), "every table is served");
    for (size_t i = 0; i < TRK_COUNT(all); i++) {
        tables[i] = *all[i];
    }
    if (schemas == NULL) {
        schemas = dto_schemas(dtos, TRK_COUNT(dtos));
    }
    *ret = (struct trk_http_options){
        .service = "lifecycle",
        .title = "Racetrack lifecycle",
        .version = TRK_VERSION,
        .addr = lc->config->http_addr,
        .port = (int)lc->config->http_port,
        .port_setting = "LIFECYCLE_PORT",
        .prefixes = prefixes,
        .tables = tables,
        .table_count = TRK_COUNT(tables),
        .component_schemas = schemas,
        .request_max = (unsigned)lc->config->http_connections_max,
        .ctx = lc,
        .authorize = api_authorize,
        .alias = api_fatman_alias,
        .alias_reply = api_fatman_reply,
        .error_reply = show_reason,
        .metrics = lc->metrics,
    };
}

/* -- metrics read at scrape time -- */

static struct trk_pg_stats stats_of(void *ctx)
{
    const struct lifecycle *lc = ctx;
    struct trk_pg_stats stats;
    trk_pg_pool_stats(lc->pool, &stats);
    return stats;
}

static double read_connected(void *ctx)
{
    const struct lifecycle *lc = ctx;
    return trk_pg_pool_is_up(lc->pool);
}

static double read_size(void *ctx)
{
    return stats_of(ctx).size;
}

static double read_available(void *ctx)
{
    struct trk_pg_stats stats = stats_of(ctx);
    return stats.size - stats.in_use;
}

static double read_waiting(void *ctx)
{
    return stats_of(ctx).waiting;
}

static double read_opened(void *ctx)
{
    return (double)stats_of(ctx).opened;
}

static double read_failed(void *ctx)
{
    return (double)stats_of(ctx).failed;
}

static double read_closed(void *ctx)
{
    return (double)stats_of(ctx).closed;
}

static double read_queries(void *ctx)
{
    return (double)stats_of(ctx).queries;
}

static double read_stream_connected(void *ctx)
{
    const struct lifecycle *lc = ctx;
    uint64_t connected, disconnected;
    event_hub_count(lc->events, &connected, &disconnected);
    return (double)connected;
}

static double read_stream_disconnected(void *ctx)
{
    const struct lifecycle *lc = ctx;
    uint64_t connected, disconnected;
    event_hub_count(lc->events, &connected, &disconnected);
    return (double)disconnected;
}

static double read_threads(void *ctx)
{
    (void)ctx;
    trk_autofclose FILE *f = fopen("/proc/self/stat", "re");
    long threads = 0;
    /* Field 20; the name in field 2 is ours and has no spaces. */
    if (f == NULL ||
        fscanf(f, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld",
               &threads) != 1) {
        return 0;
    }
    return (double)threads;
}

void api_metrics_register(struct lifecycle *lc)
{
    static const struct {
        const char *name, *help;
        double (*read)(void *ctx);
    } gauges[] = {
        {"lifecycle_database_connected", "Does the database answer?", read_connected},
        {"lifecycle_database_pool_size", "Connections to the database at most.", read_size},
        {"lifecycle_database_pool_available", "Connections that may still be taken.",
         read_available},
        {"lifecycle_database_requests_waiting", "Threads that wait for a connection.",
         read_waiting},
        {"lifecycle_database_connection_opened_total", "Connections opened.", read_opened},
        {"lifecycle_database_connection_failed_total", "Connections that could not be opened.",
         read_failed},
        {"lifecycle_database_connection_closed_total", "Connections closed.", read_closed},
        {"lifecycle_database_queries_executed_total", "Statements sent.", read_queries},
        {"lifecycle_event_stream_client_connected", "Event streams opened.", read_stream_connected},
        {"lifecycle_event_stream_client_disconnected", "Event streams that have ended.",
         read_stream_disconnected},
        {"lifecycle_active_threads_count", "Threads of this process.", read_threads},
    };
    for (size_t i = 0; i < TRK_COUNT(gauges); i++) {
        trk_metrics_gauge_fn(lc->metrics, gauges[i].name, gauges[i].help, gauges[i].read, lc);
    }
}
