/*
 * config.h - lifecycle's configuration: one struct, one table (config.c). Read-only after start.
 */
#ifndef LIFECYCLE_CONFIG_H
#define LIFECYCLE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "libtrack/config/config.h"

struct lifecycle_config {
    char *log_level;
    bool log_structured;
    char *state_dir; /* $RACETRACK_STATE */
    char *profile;   /* "dev" or "" */
    char *auth_key;  /* as configured: use lifecycle_auth_key() */
    char *secret_key;
    char *http_addr;
    int64_t http_port;
    int64_t http_connections_max;

    char *image_builder_url;
    char *internal_pub_url, *external_pub_url, *external_lifecycle_url, *external_grafana_url;
    char *docker_registry, *docker_registry_namespace;
    char *docker_tag;

    char *postgres_host, *postgres_user, *postgres_password, *postgres_db, *postgres_schema;
    char *postgres_sslmode;
    int64_t postgres_port;
    int64_t database_connection_pool;
    int64_t database_statement_timeout_ms;

    bool auth_required, auth_debug;
    bool enforce_secure_cookie;
    int64_t session_lifetime_s;
    int64_t login_failures_max, login_failure_wait_s;

    /* deployments and jobs */
    char *job_wrapper;      /* "": beside this executable */
    char *process_sandbox;  /* on | off */
    char *process_job_user; /* name or number */
    int64_t process_pids_max, process_files_max;
    char *process_tmp_max, *process_disk_max, *process_log_rate; /* quantities of bytes */
    char *infrastructure_target; /* default target; "": the only one */
    bool allow_job_overwrite;
    int64_t deploy_workers;
    int64_t deploy_spool_max_bytes;
    int64_t build_timeout_s;
    int64_t image_builder_wait_s;
    int64_t timeout_until_job_alive; /* s */
    int64_t timeout_until_job_ready; /* s */
    int64_t drain_delay_ms;
    int64_t drain_grace_ms;
    char *max_job_memory_limit;
    char *default_job_memory_min, *default_job_memory_max;
    char *default_job_cpu_min, *default_job_cpu_max;
    char *default_job_network, *max_job_network; /* none | outside */
    bool reconciliation_loop;
    int64_t supervisor_interval_ms;
    int64_t health_probe_interval_s;
    int64_t event_retention_s;
    int64_t retention_interval_s;
    int64_t deployments_kept_per_job, build_logs_kept_per_job;
    int64_t deployment_retention_days, audit_retention_days, status_event_retention_days;
    char *request_tracing_header, *caller_name_header;

    /* accepted from the original's files */
    bool database_log_queries, open_telemetry_enabled;
    char *plugins_dir, *open_telemetry_endpoint, *deployer;
    int64_t job_watcher_interval, database_status_refresh_interval, async_job_call_lifetime;
    int64_t http_worker_thread_pool;
};

extern const struct trk_config_table lifecycle_config_table;

/* Never "" once the table's check has passed. */
const char *lifecycle_auth_key(const struct lifecycle_config *config);
const char *lifecycle_secret_key(const struct lifecycle_config *config);

#endif
