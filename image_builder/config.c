#include "image_builder/config.h"

#include "libtrack/base/mem.h"

#define CONFIG_STRUCT struct builder_config
#include "libtrack/config/config_table.h"

static const struct trk_config_entry entries[] = {
    STRING("log_level", log_level, "info", "LOG_LEVEL", "debug, info, warn or error"),
    BOOL("log_structured", log_structured, "false", "LOG_STRUCTURED",
         "log JSON, one object a line, instead of text"),
    STRING("state_dir", state_dir, ".racetrack", "RACETRACK_STATE",
           "folder of what must outlive a restart; the image store is images/ in it"),
    STRING("profile", profile, "", "RACETRACK_PROFILE",
           "dev: the public development key; empty: LIFECYCLE_PUBLIC_KEY is required"),
    STRING("lifecycle_public_key", lifecycle_public_key, "", "LIFECYCLE_PUBLIC_KEY",
           "checks lifecycle's tokens: what 'lifecycle public-key' prints"),
    STRING("http_addr", http_addr, "127.0.0.1", "IMAGE_BUILDER_ADDR", "address to listen on"),
    INT("http_port", http_port, "7201", NULL, "IMAGE_BUILDER_PORT", 0, 65535,
        "port of the API and of the registry; 0 takes a free one"),
    INT("http_connections_max", http_connections_max, "256", NULL, NULL, 8, 10000,
        "requests served at once; more wait"),
    STRING("lifecycle_url", lifecycle_url, "http://127.0.0.1:7202/lifecycle", "LIFECYCLE_URL",
           "where phases of builds are reported to"),
    SECRET("lifecycle_auth_token", lifecycle_auth_token, "LIFECYCLE_AUTH_TOKEN",
           "internal token for lifecycle; without it phases are not reported"),
    STRING("docker_registry", docker_registry, "127.0.0.1:7201", "DOCKER_REGISTRY",
           "first part of image names: where this registry is reached"),
    STRING("docker_registry_namespace", docker_registry_namespace, "racetrack",
           "DOCKER_REGISTRY_NAMESPACE", "second part of image names"),
    STRING("docker_tag", docker_tag, "", "DOCKER_TAG", "tag of the release, shown by /health"),
    STRING("build_logs_dir", build_logs_dir, "", "BUILD_LOGS_DIR",
           "folder of the builds' logs; empty: images/logs in the state folder"),
    INT("build_log_max_bytes", build_log_max_bytes, "1048576", "bytes", NULL, 4096, 67108864,
        "longer logs lose their middle"),
    INT("builds_max", builds_max, "4", NULL, "BUILDS_MAX", 1, 64,
        "builds at once; further ones wait"),
    INT("build_timeout_s", build_timeout_s, "1800", "s", "BUILD_TIMEOUT_S", 1, 86400,
        "time limit of installing a job's requirements"),
    INT("git_timeout_s", git_timeout_s, "300", "s", "GIT_TIMEOUT_S", 1, 86400,
        "time limit of each git command"),
    INT("source_max_bytes", source_max_bytes, "2147483648", "bytes", NULL, 1, INT64_MAX / 4,
        "size of a job's unpacked source; a single file may have half of it"),
    STRING("build_sandbox", build_sandbox, "on", "BUILD_SANDBOX",
           "on: code of builds runs in bubblewrap, and where that does not work builds with "
           "requirements are refused; off: it runs as the service's own user, without limits, with "
           "the service's network"),
    STRING("build_user", build_user, "nobody", "BUILD_USER",
           "name or number of who runs builds when image_builder is root; never root"),
    STRING("build_network", build_network, "index", "BUILD_NETWORK",
           "what builds reach: none, index (package indexes of the service's pip settings, "
           "build_network_hosts, and public addresses of hosts that the job itself names), public "
           "(any public address) or host (all that this machine reaches)"),
    STRING("build_network_hosts", build_network_hosts, "", "BUILD_NETWORK_HOSTS",
           "further hosts that builds reach, also private ones: host, host:port, *.domain, with "
           "blanks between"),
    INT("build_memory_max_bytes", build_memory_max_bytes, "4294967296", "bytes",
        "BUILD_MEMORY_MAX_BYTES", 67108864, INT64_MAX / 4,
        "memory of a build; where control groups are not writable, of each of its processes"),
    INT("build_cpu_max_milli", build_cpu_max_milli, "2000", "1/1000 CPU", "BUILD_CPU_MAX_MILLI", 10,
        1000000, "CPU time a build gets, where control groups are writable"),
    INT("build_pids_max", build_pids_max, "512", NULL, "BUILD_PIDS_MAX", 16, 1000000,
        "processes and threads of a build"),
    INT("build_disk_max_bytes", build_disk_max_bytes, "21474836480", "bytes",
        "BUILD_DISK_MAX_BYTES", 1048576, INT64_MAX / 4,
        "what a build may have on disk at once, with its job family's pip cache"),
    INT("build_files_max", build_files_max, "1000000", NULL, NULL, 100, 100000000,
        "files and folders a build may have at once, with its job family's pip cache"),
    BOOL("git_local_remotes", git_local_remotes, "false", "GIT_LOCAL_REMOTES",
         "git remotes on loopback and link-local addresses are allowed"),
    BOOL("clean_up_workspaces", clean_up_workspaces, "true", NULL,
         "remove a build's folder when it has ended (all are removed at start)"),
    BOOL("verify_manifest_consistency", verify_manifest_consistency, "true", NULL,
         "warn when the repository's own manifest differs from the submitted one"),
    INT("unused_retention_s", unused_retention_s, "3600", "s", NULL, 1, 31536000,
        "images and sources that no job and no deployment uses, and blobs of broken-off pushes, "
        "are "
        "removed after so long; longer than the longest push takes"),
    INT("build_logs_max", build_logs_max, "2000", NULL, NULL, 1, 10000000,
        "logs of builds that are kept as files"),
    INT("build_cache_retention_hours", build_cache_retention_hours, "720", "h", NULL, 0, 1000000,
        "installed requirements, and pip's caches of job families, that no build used for so long "
        "are dropped; 0: never"),
    INT("build_cache_prune_interval_m", build_cache_prune_interval_m, "60", "min", NULL, 1, 100000,
        "how often unused blobs are looked for"),
    OLD_STRING("cache_base_images", cache_base_images),
    OLD_STRING("plugins_dir", plugins_dir),
};

const struct trk_config_table builder_config_table = {
    .service = "image_builder",
    .summary = "builds jobs' images and serves them as a registry; `image_builder build [FOLDER]` "
               "builds the image of one job's folder without a service",
    .entries = entries,
    .count = TRK_COUNT(entries),
};
