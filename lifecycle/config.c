#include "lifecycle/config.h"

#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/config/profile.h"

#define CONFIG_STRUCT struct lifecycle_config
#include "libtrack/config/config_table.h"

static const struct trk_config_entry entries[] = {
    STRING("log_level", log_level, "info", "LOG_LEVEL", "debug, info, warn or error"),
    BOOL("log_structured", log_structured, "false", "LOG_STRUCTURED",
         "log JSON, one object a line, instead of text"),
    STRING("state_dir", state_dir, ".racetrack", "RACETRACK_STATE",
           "folder of what must outlive a restart: jobs, port files, the first password"),
    STRING("profile", profile, "", "RACETRACK_PROFILE",
           "dev: the public development keys, user admin/admin; empty: real keys are required"),
    SECRET("auth_key", auth_key, "AUTH_KEY",
           "signs all tokens; 32 bytes at least; lifecycle alone has it"),
    SECRET("secret_key", secret_key, "SECRET_KEY",
           "seals the secrets of jobs in the database; 32 bytes at least"),
    STRING("http_addr", http_addr, "127.0.0.1", "LIFECYCLE_ADDR", "address to listen on"),
    INT("http_port", http_port, "7202", NULL, "LIFECYCLE_PORT", 0, 65535,
        "port of the API; 0 takes a free one"),
    INT("http_connections_max", http_connections_max, "512", NULL, NULL, 8, 10000,
        "requests served at once; more wait"),

    STRING("image_builder_url", image_builder_url, "http://127.0.0.1:7201", "IMAGE_BUILDER_URL",
           "where image_builder is"),
    STRING("internal_pub_url", internal_pub_url, "http://127.0.0.1:7205/pub", "INTERNAL_PUB_URL",
           "where jobs find the gateway"),
    STRING("external_pub_url", external_pub_url, "http://127.0.0.1:7205/pub", "EXTERNAL_PUB_URL",
           "where callers find the gateway; shown as pub_url of jobs"),
    STRING("external_lifecycle_url", external_lifecycle_url, "http://127.0.0.1:7202/lifecycle",
           "EXTERNAL_LIFECYCLE_URL", "where users find this API"),
    STRING("external_grafana_url", external_grafana_url, "", "EXTERNAL_GRAFANA_URL",
           "where users find Grafana; empty: nowhere"),
    STRING("docker_registry", docker_registry, "127.0.0.1:7201", "DOCKER_REGISTRY",
           "image store: host and port in the names of images"),
    STRING("docker_registry_namespace", docker_registry_namespace, "racetrack",
           "DOCKER_REGISTRY_NAMESPACE", "first segment of the repositories of images"),
    STRING("docker_tag", docker_tag, "", "DOCKER_TAG", "shown in /health and /info"),

    STRING("postgres_host", postgres_host, "127.0.0.1", "POSTGRES_HOST",
           "Postgres: host name, or the folder of its unix socket"),
    INT("postgres_port", postgres_port, "7232", NULL, "POSTGRES_PORT", 1, 65535, "Postgres: port"),
    STRING("postgres_user", postgres_user, "racetrack", "POSTGRES_USER", "Postgres: role"),
    SECRET("postgres_password", postgres_password, "POSTGRES_PASSWORD", "Postgres: password"),
    STRING("postgres_db", postgres_db, "racetrack", "POSTGRES_DB", "Postgres: database"),
    STRING("postgres_schema", postgres_schema, "racetrack", "POSTGRES_SCHEMA",
           "Postgres: schema of our tables, made at the first start"),
    STRING("postgres_sslmode", postgres_sslmode, "prefer", "POSTGRES_SSLMODE",
           "Postgres: disable, prefer, require, verify-ca or verify-full"),
    INT("database_connection_pool", database_connection_pool, "20", NULL, NULL, 4, 500,
        "connections to Postgres at most"),
    INT("database_statement_timeout_ms", database_statement_timeout_ms, "30000", "ms", NULL, 100,
        3600000, "longest time of one statement"),

    BOOL("auth_required", auth_required, "true", "AUTH_REQUIRED",
         "only shown in /info and /health: every call is checked"),
    BOOL("auth_debug", auth_debug, "false", "AUTH_DEBUG",
         "tell callers of jobs which permission they miss"),
    BOOL("enforce_secure_cookie", enforce_secure_cookie, "false", "ENFORCE_SECURE_COOKIE",
         "mark the login cookie Secure (HTTPS only)"),

    INT("session_lifetime_s", session_lifetime_s, "2678400", "s", "SESSION_LIFETIME_S", 60,
        315360000,
        "how long a login with a password lasts; other tokens end when they are revoked"),
    INT("login_failures_max", login_failures_max, "10", NULL, "LOGIN_FAILURES_MAX", 1, 1000000,
        "wrong passwords for one name (ten times as many from one address) before it has to wait"),
    INT("login_failure_wait_s", login_failure_wait_s, "10", "s", "LOGIN_FAILURE_WAIT_S", 1, 86400,
        "then one more login is allowed each so many seconds"),

    STRING("job_wrapper", job_wrapper, "", "JOB_WRAPPER",
           "path of job_wrapper; empty: beside this executable"),
    STRING(
        "process_sandbox", process_sandbox, "on", "PROCESS_SANDBOX",
        "on: jobs of target process run in bubblewrap, in a network of their own, and are refused "
        "where that does not work; off: they run without it, reach all that this host does, and "
        "only memory, CPU and processes are limited"),
    STRING("process_job_user", process_job_user, "nobody", "PROCESS_JOB_USER",
           "user (name or number) whom jobs of target process run as when lifecycle is root"),
    INT("process_pids_max", process_pids_max, "512", NULL, "PROCESS_PIDS_MAX", 32, 1000000,
        "processes and threads of a job of target process"),
    INT("process_files_max", process_files_max, "8192", NULL, "PROCESS_FILES_MAX", 64, 1000000,
        "files that a process of such a job may have open"),
    QUANTITY(
        "process_tmp_max", process_tmp_max, "256Mi",
        "size of such a job's /tmp, and of its /dev/shm; they are memory of the job, and half of "
        "its memory_max at most"),
    QUANTITY("process_disk_max", process_disk_max, "2Gi",
             "what such a job may add to its project folder; when it is more the job is started "
             "anew, with the folder as it was deployed"),
    QUANTITY("process_log_rate", process_log_rate, "1Mi",
             "bytes of output a second of such a job; it waits when it says more for long"),
    STRING("infrastructure_target", infrastructure_target, "", NULL,
           "where jobs run when their manifest does not say; empty: the only target there is"),
    BOOL("allow_job_overwrite", allow_job_overwrite, "false", NULL,
         "deploying over an existing version needs no --force"),
    INT("deploy_workers", deploy_workers, "4", NULL, NULL, 1, 64,
        "deployments that this process works on at once"),
    INT("deploy_spool_max_bytes", deploy_spool_max_bytes, "4294967296", "bytes", NULL, 1048576,
        INT64_MAX / 4,
        "build contexts that are being uploaded at once, on the state folder's disk; more is "
        "answered 503"),
    INT("build_timeout_s", build_timeout_s, "3600", "s", NULL, 1, 86400,
        "longest build of an image"),
    INT("image_builder_wait_s", image_builder_wait_s, "600", "s", NULL, 0, 86400,
        "how long a deployment waits for image_builder or its image store when they are away"),
    INT("timeout_until_job_alive", timeout_until_job_alive, "900", "s", NULL, 1, 86400,
        "longest wait for a new job's server to answer"),
    INT("timeout_until_job_ready", timeout_until_job_ready, "600", "s", NULL, 1, 86400,
        "longest wait for a new job to be initialised"),
    INT("drain_delay_ms", drain_delay_ms, "2000", "ms", NULL, 0, 600000,
        "how long a replaced generation goes on taking calls that are on their way"),
    INT("drain_grace_ms", drain_grace_ms, "30000", "ms", NULL, 0, 86400000,
        "how long a job that ends may finish its calls before it is killed"),
    QUANTITY("max_job_memory_limit", max_job_memory_limit, "8Gi", "most a manifest may ask for"),
    QUANTITY("default_job_memory_min", default_job_memory_min, "256Mi", "memory_min when unset"),
    QUANTITY("default_job_memory_max", default_job_memory_max, "1Gi", "memory_max when unset"),
    QUANTITY("default_job_cpu_min", default_job_cpu_min, "10m", "cpu_min when unset"),
    QUANTITY("default_job_cpu_max", default_job_cpu_max, "1000m", "cpu_max when unset"),
    STRING("default_job_network", default_job_network, "none", "DEFAULT_JOB_NETWORK",
           "network of jobs whose manifest does not say: none (they reach the gateway only) or "
           "outside (and all that is not this host)"),
    STRING("max_job_network", max_job_network, "outside", "MAX_JOB_NETWORK",
           "most a manifest may ask for: none or outside"),
    BOOL("reconciliation_loop", reconciliation_loop, "true", NULL,
         "bring jobs back whose workload is gone"),
    INT("supervisor_interval_ms", supervisor_interval_ms, "2000", "ms", NULL, 50, 3600000,
        "time between two looks at the workloads"),
    INT("health_probe_interval_s", health_probe_interval_s, "10", "s", "HEALTH_PROBE_INTERVAL_S", 1,
        3600, "time between two looks at a running job's /ready; three failures make it an error"),
    INT("event_retention_s", event_retention_s, "86400", "s", NULL, 60, 31536000,
        "how long events are kept for readers of the stream that come back"),
    INT("retention_interval_s", retention_interval_s, "600", "s", NULL, 1, 86400,
        "time between two rounds that remove what is past its retention"),
    INT("deployments_kept_per_job", deployments_kept_per_job, "20", NULL, NULL, 1, 100000,
        "deployments of a job's version that are remembered after they have ended"),
    INT("build_logs_kept_per_job", build_logs_kept_per_job, "5", NULL, NULL, 1, 100000,
        "of those, how many keep the log of their build"),
    INT("deployment_retention_days", deployment_retention_days, "90", "days", NULL, 0, 36500,
        "how long deployments of jobs that are gone are remembered; 0: for ever"),
    INT("audit_retention_days", audit_retention_days, "365", "days", NULL, 0, 36500,
        "how long the audit log goes back; 0: for ever"),
    INT("status_event_retention_days", status_event_retention_days, "90", "days", NULL, 0, 36500,
        "how long changes of jobs' status are remembered; 0: for ever"),
    STRING("request_tracing_header", request_tracing_header, "X-Request-Tracing-Id",
           "REQUEST_TRACING_HEADER", "header of the tracing id, handed to jobs"),
    STRING("caller_name_header", caller_name_header, "X-Caller-Name", "CALLER_NAME_HEADER",
           "header of the caller's name, handed to jobs"),

    OLD_STRING("plugins_dir", plugins_dir),
    OLD_STRING("deployer", deployer),
    OLD_BOOL("open_telemetry_enabled", open_telemetry_enabled),
    OLD_STRING("open_telemetry_endpoint", open_telemetry_endpoint),
    OLD_INT("job_watcher_interval", job_watcher_interval, "3"),
    OLD_INT("database_status_refresh_interval", database_status_refresh_interval, "60"),
    OLD_BOOL("database_log_queries", database_log_queries),
    OLD_INT("async_job_call_lifetime", async_job_call_lifetime, "14400"),
    OLD_INT("http_worker_thread_pool", http_worker_thread_pool, "60"),
};

static int check_word(const char *name, const char *value, const char *one, const char *other,
                      struct trk_err *err)
{
    return strcmp(value, one) == 0 || strcmp(value, other) == 0
               ? 0
               : trk_err_set(err, TRK_INVALID, "%s is '%s': it must be %s or %s", name, value, one,
                             other);
}

static int check(const void *config, struct trk_err *err)
{
    const struct lifecycle_config *c = config;
    struct trk_err second = {0};
    if (check_word("process_sandbox", c->process_sandbox, "on", "off", err) < 0 ||
        check_word("default_job_network", c->default_job_network, "none", "outside", err) < 0 ||
        check_word("max_job_network", c->max_job_network, "none", "outside", err) < 0) {
        return err->code;
    }
    int code = trk_profile_check(c->profile, c->http_addr, lifecycle_auth_key(c), err);
    int code2 = trk_profile_check_secret(c->profile, c->http_addr, lifecycle_secret_key(c),
                                         &second);
    if (code2 < 0 && (code == 0 || strcmp(err->text, second.text) != 0)) {
        code = code < 0 ? trk_err_append(err, "\n%s", second.text)
                        : trk_err_set(err, second.code, "%s", second.text);
    }
    return code;
}

const struct trk_config_table lifecycle_config_table = {
    .service = "lifecycle",
    .summary = "the API of Racetrack: registry of jobs, deployments, users and permissions",
    .entries = entries,
    .count = TRK_COUNT(entries),
    .check = check,
};

const char *lifecycle_auth_key(const struct lifecycle_config *config)
{
    return trk_profile_auth_key(config->profile, config->auth_key);
}

const char *lifecycle_secret_key(const struct lifecycle_config *config)
{
    return trk_profile_secret_key(config->profile, config->secret_key);
}
