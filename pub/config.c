#include "pub/config.h"

#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define FIELD(name) offsetof(struct pub_config, name)
#define DAY_MS      (INT64_C(24) * 3600 * 1000)

static const struct trk_config_entry entries[] = {
    {"addr", TRK_CONFIG_STRING, FIELD(addr), "127.0.0.1", NULL, "PUB_ADDR", 0, 0, 0,
     "address to listen on, IPv4 or IPv6"},
    {"port", TRK_CONFIG_INT, FIELD(port), "7205", NULL, "PUB_PORT", 0, 65535, 0,
     "port to listen on; 0 takes a free one"},
    {"threads", TRK_CONFIG_INT, FIELD(threads), "0", NULL, "PUB_THREADS", 0, 256, 0,
     "event loops; 0: one for each CPU"},
    {"service_name", TRK_CONFIG_STRING, FIELD(service_name), "pub", NULL, "SERVICE_NAME", 0, 0, 0,
     "first path segment under which everything is served besides the root"},
    {"state", TRK_CONFIG_STRING, FIELD(state), "", NULL, "RACETRACK_STATE", 0, 0, 0,
     "state folder; when set, the bound port is written to run/pub.port in it, and pub/told keeps "
     "what lifecycle told"},
    {"profile", TRK_CONFIG_STRING, FIELD(profile), "", NULL, "RACETRACK_PROFILE", 0, 0, 0,
     "dev: public development tokens"},
    {"log_level", TRK_CONFIG_STRING, FIELD(log_level), "info", NULL, "LOG_LEVEL", 0, 0, 0,
     "debug, info, warn or error"},
    {"log_structured", TRK_CONFIG_BOOL, FIELD(log_structured), "false", NULL, "LOG_STRUCTURED", 0,
     0, 0, "one JSON object a line instead of text"},
    {"access_log", TRK_CONFIG_STRING, FIELD(access_log), "", NULL, "PUB_ACCESS_LOG", 0, 0, 0,
     "file to append a line a request to: time, peer, method, path, status, ms, tracing id, "
     "caller; "
     "rotate it by copying and truncating"},
    {"lifecycle_url", TRK_CONFIG_STRING, FIELD(lifecycle_url), "http://127.0.0.1:7202/lifecycle",
     NULL, "LIFECYCLE_URL", 0, 0, 0, "lifecycle's API, http://host:port/path"},
    {"lifecycle_auth_token", TRK_CONFIG_STRING, FIELD(lifecycle_auth_token), "", NULL,
     "LIFECYCLE_AUTH_TOKEN", 0, 0, TRK_CONFIG_SECRET,
     "internal token for lifecycle's gateway stream"},
    {"request_tracing_header", TRK_CONFIG_STRING, FIELD(tracing_header), "X-Request-Tracing-Id",
     NULL, "REQUEST_TRACING_HEADER", 0, 0, 0, "header that carries the tracing id"},
    {"caller_name_header", TRK_CONFIG_STRING, FIELD(caller_header), "X-Caller-Name", NULL,
     "CALLER_NAME_HEADER", 0, 0, 0, "header that tells a job who calls"},
    {"forward_to_protocol", TRK_CONFIG_STRING, FIELD(forward_protocol), "http", NULL,
     "FORWARD_TO_PROTOCOL", 0, 0, 0, "protocol of jobs; only http"},
    {"forward_caller_token", TRK_CONFIG_BOOL, FIELD(forward_caller_token), "false", NULL,
     "FORWARD_CALLER_TOKEN", 0, 0, 0,
     "hand the caller's token (headers, cookie) to the job; a job that has it can act as its "
     "caller"},
    {"auth_required", TRK_CONFIG_BOOL, FIELD(auth_required), "true", NULL, "AUTH_REQUIRED", 0, 0, 0,
     "reported by /health; calls are always authorised"},
    {"auth_debug", TRK_CONFIG_BOOL, FIELD(auth_debug), "false", NULL, "AUTH_DEBUG", 0, 0, 0,
     "say in a 401 why a token was refused"},
    {"cache_ttl_min", TRK_CONFIG_INT, FIELD(unused), "0", "s", "LIFECYCLE_CACHE_TTL_MIN", 0, 86400,
     TRK_CONFIG_DEPRECATED, "decisions are made from what lifecycle told, not cached"},
    {"cache_ttl_max", TRK_CONFIG_INT, FIELD(unused), "0", "s", "LIFECYCLE_CACHE_TTL_MAX", 0, 86400,
     TRK_CONFIG_DEPRECATED, "decisions are made from what lifecycle told, not cached"},
    {"max_staleness", TRK_CONFIG_INT, FIELD(max_staleness_s), "0", "s", "PUB_MAX_STALENESS_S", 0,
     31536000, 0,
     "calls are answered 503 when lifecycle was not heard of for so long; 0: never; below 10 is "
     "taken as 10, because it speaks every five seconds"},
    {"connection_max", TRK_CONFIG_INT, FIELD(connection_max), "10000", NULL, "PUB_CONNECTION_MAX",
     1, 1000000, 0, "client connections; above, new ones are answered 503"},
    {"header_timeout", TRK_CONFIG_INT, FIELD(header_timeout_ms), "10000", "ms",
     "PUB_HEADER_TIMEOUT_MS", 50, DAY_MS, 0, "time for a whole request head"},
    {"keepalive_timeout", TRK_CONFIG_INT, FIELD(keepalive_timeout_ms), "75000", "ms",
     "PUB_KEEPALIVE_TIMEOUT_MS", 50, DAY_MS, 0, "idle time of a client connection"},
    {"idle_timeout", TRK_CONFIG_INT, FIELD(idle_timeout_ms), "60000", "ms", "PUB_IDLE_TIMEOUT_MS",
     50, DAY_MS, 0, "time without progress of a client that sends a body or takes an answer"},
    {"tunnel_timeout", TRK_CONFIG_INT, FIELD(tunnel_timeout_ms), "3600000", "ms",
     "PUB_TUNNEL_TIMEOUT_MS", 50, DAY_MS, 0, "silence after which a WebSocket is closed"},
    {"connect_timeout", TRK_CONFIG_INT, FIELD(connect_timeout_ms), "5000", "ms",
     "PUB_CONNECT_TIMEOUT_MS", 50, DAY_MS, 0, "time to connect to a job"},
    {"response_timeout", TRK_CONFIG_INT, FIELD(response_timeout_ms), "7200000", "ms",
     "PUB_RESPONSE_TIMEOUT_MS", 50, DAY_MS, 0, "time a job may stay silent before it is given up"},
    {"upstream_idle_max", TRK_CONFIG_INT, FIELD(upstream_idle_max), "256", NULL,
     "PUB_UPSTREAM_IDLE_MAX", 0, 65536, 0,
     "idle connections kept to each replica of a job by each thread"},
    {"upstream_idle_timeout", TRK_CONFIG_INT, FIELD(upstream_idle_timeout_ms), "30000", "ms",
     "PUB_UPSTREAM_IDLE_TIMEOUT_MS", 50, DAY_MS, 0, "age at which an idle connection is closed"},
};

const struct trk_config_table pub_config_table = {
    .service = "pub",
    .summary = "gateway that authorises and forwards calls to jobs",
    .entries = entries,
    .count = TRK_COUNT(entries),
};
