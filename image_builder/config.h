/*
 * config.h - image_builder's configuration: one struct, one table (config.c). Read-only after
 * start.
 */
#ifndef IMAGE_BUILDER_CONFIG_H
#define IMAGE_BUILDER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "libtrack/config/config.h"

struct builder_config {
    char *log_level;
    bool log_structured;
    char *state_dir;            /* $RACETRACK_STATE */
    char *profile;              /* "dev" or "" */
    char *lifecycle_public_key; /* as configured: use trk_profile_public_key() */
    char *http_addr;
    int64_t http_port;
    int64_t http_connections_max;
    char *lifecycle_url, *lifecycle_auth_token;
    char *docker_registry, *docker_registry_namespace;
    char *docker_tag;

    char *build_logs_dir; /* "": <state>/images/logs */
    int64_t build_log_max_bytes;
    int64_t builds_max; /* at once */
    int64_t build_timeout_s;
    int64_t git_timeout_s;
    int64_t source_max_bytes; /* unpacked */
    char *build_sandbox;      /* on | off */
    char *build_user;         /* of builds, when we are root */
    char *build_network;      /* none | index | public | host */
    char *build_network_hosts;
    int64_t build_memory_max_bytes, build_cpu_max_milli, build_pids_max;
    int64_t build_disk_max_bytes, build_files_max;
    bool git_local_remotes;
    bool clean_up_workspaces;
    bool verify_manifest_consistency;
    int64_t unused_retention_s;
    int64_t build_logs_max;
    int64_t build_cache_retention_hours; /* 0: kept for ever */
    int64_t build_cache_prune_interval_m;

    char *cache_base_images, *plugins_dir; /* accepted from the original's files */
};
extern const struct trk_config_table builder_config_table;

#endif
