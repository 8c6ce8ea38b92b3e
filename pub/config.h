/*
 * config.h - pub's settings (libtrack/config/config.h has the rules) and what is derived from them
 * once at the start. Read-only afterwards.
 */
#ifndef PUB_CONFIG_H
#define PUB_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/config/config.h"

struct pub_config {
    char *addr, *service_name, *state, *profile, *log_level;
    char *lifecycle_url, *lifecycle_auth_token;
    char *tracing_header, *caller_header;
    char *forward_protocol, *access_log;
    int64_t port, threads;
    bool auth_required, auth_debug, forward_caller_token, log_structured;
    int64_t unused; /* of settings that do nothing any more */
    int64_t max_staleness_s;
    int64_t connection_max;
    int64_t header_timeout_ms, keepalive_timeout_ms, idle_timeout_ms, tunnel_timeout_ms;
    int64_t connect_timeout_ms, response_timeout_ms;
    int64_t upstream_idle_max, upstream_idle_timeout_ms;
};
extern const struct trk_config_table pub_config_table;

#endif
