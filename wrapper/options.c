#include "wrapper/options.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"
#include "version.h"

#define DEFAULT_PORT       7000
#define DEFAULT_TIMEOUT_S  7200
#define DEFAULT_BODY_BYTES (64 << 20)
#define NS_PER_S           INT64_C(1000000000)

static const char help_text[] =
    "usage: job_wrapper run PATH [CLASS] [options]\n"
    "\n"
    "Serves the class of a Python file as a Racetrack job.\n"
    "PATH is the file, CLASS the class in it (not needed when it is the only one).\n"
    "\n"
    "  --port N             port to listen on, 0 for a free one (default 7000)\n"
    "  --addr A             address to listen on (default 127.0.0.1; 0.0.0.0 when JOB_NAME is "
    "set)\n"
    "  --listen-fd N        take this bound socket instead\n"
    "  --packages DIR       folder of installed packages (pip install --target)\n"
    "  --manifest-path F    job manifest (default: $JOB_MANIFEST_YAML, ./job.yaml, ./fatman.yaml)\n"
    "  --own-tmp            /tmp and /dev/shm are this job's alone: emptied before its process is "
    "replaced\n"
    "  --help, --version\n"
    "\n"
    "Environment: JOB_NAME JOB_VERSION JOB_MANIFEST_YAML JOB_DEPLOYMENT_TIMESTAMP PUB_URL "
    "AUTH_TOKEN\n"
    "REQUEST_TRACING_HEADER CALLER_NAME_HEADER LOG_LEVEL LOG_STRUCTURED, and RACETRACK_PYTHON\n"
    "(interpreter, default /usr/bin/python3), RACETRACK_WRAPPER_LIB (the wrapper's Python side),\n"
    "RACETRACK_WRAPPER_THREADS (64), RACETRACK_WRAPPER_BODY_MAX (bytes of a request or result,\n"
    "67108864), RACETRACK_WRAPPER_REQUEST_TIMEOUT (seconds, instead of the manifest's).\n";

static char *env_dup(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return trk_xstrdup(!trk_str_is_empty(value) ? value : otherwise);
}

/* Out of what the worker inherits, and out of what /proc shows. */
static char *take_secret(const char *name)
{
    char *value = getenv(name);
    if (trk_str_is_empty(value)) {
        return NULL;
    }
    char *copy = trk_xstrdup(value);
    explicit_bzero(value, strlen(value));
    (void)unsetenv(name);
    return copy;
}

static int parse_int_option(const char *name, const char *text, int64_t min, int64_t max,
                            int64_t *ret, struct trk_err *err)
{
    if (trk_parse_int64(text, min, max, ret, err) < 0) {
        return trk_err_wrap(err, "%s", name);
    }
    return 0;
}

/* The environment carries the manifest with its newlines written as "\n". */
static char *unescape_newlines(const char *text)
{
    char *out = trk_xmalloc(strlen(text) + 1);
    char *o = out;
    for (const char *p = text; *p != '\0'; p++) {
        if (p[0] == '\\' && p[1] == 'n') {
            *o++ = '\n';
            p++;
        } else {
            *o++ = *p;
        }
    }
    *o = '\0';
    return out;
}

/* A value of the job type's section, in any era's spelling. */
static const json_t *extra(const json_t *manifest, const char *key)
{
    static const char *const sections[] = {"jobtype_extra", "wrapper_properties", "python"};
    for (size_t i = 0; i < TRK_COUNT(sections); i++) {
        const json_t *value = json_object_get(json_object_get(manifest, sections[i]), key);
        if (value != NULL && !json_is_null(value)) {
            return value;
        }
    }
    return NULL;
}

static int extra_int(const json_t *manifest, const char *key, int64_t max, int64_t *ret,
                     struct trk_err *err)
{
    const json_t *value = extra(manifest, key);
    if (value == NULL) {
        return 0;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > max) {
        return trk_err_set(err, TRK_INVALID,
                           "manifest: jobtype_extra.%s must be a number from 0 to %lld", key,
                           (long long)max);
    }
    *ret = json_integer_value(value);
    return 0;
}

static int apply_manifest(struct wrapper_options *o, const json_t *manifest, struct trk_err *err)
{
    int64_t timeout_s = 0;
    if (extra_int(manifest, "max_concurrency", 1000000, &o->max_concurrency, err) < 0 ||
        extra_int(manifest, "max_concurrency_queue", 1000000, &o->max_concurrency_queue, err) < 0 ||
        extra_int(manifest, "request_timeout_s", 10000000, &timeout_s, err) < 0) {
        return (int)err->code;
    }
    if (timeout_s > 0) {
        o->request_timeout_ns = timeout_s * NS_PER_S;
    }
    const json_t *home = extra(manifest, "home_page");
    if (home != NULL) {
        const char *text = json_string_value(home);
        if (trk_str_is_empty(text) || strpbrk(text, "\r\n \\") != NULL) {
            return trk_err_set(err, TRK_INVALID,
                               "manifest: jobtype_extra.home_page must be a path");
        }
        free(o->home_page);
        text += strspn(text, "/");
        o->home_page = trk_xasprintf("/%s", text);
    }
    const char *name = json_string_value(json_object_get(manifest, "name"));
    const char *version = trk_manifest_version(manifest);
    if (name != NULL && *o->job_name == '\0') {
        free(o->job_name);
        o->job_name = trk_xstrdup(name);
    }
    if (*o->job_version == '\0') {
        free(o->job_version);
        o->job_version = trk_xstrdup(version);
    }
    return 0;
}

static int read_manifest(struct wrapper_options *o, const char *path, struct trk_err *err)
{
    trk_autofree char *text = NULL;
    size_t len = 0;
    const char *env = getenv("JOB_MANIFEST_YAML");
    const char *name = path;
    if (path == NULL && !trk_str_is_empty(env)) {
        name = "JOB_MANIFEST_YAML";
        text = unescape_newlines(env);
        len = strlen(text);
    } else {
        if (path == NULL) {
            name = trk_path_exists("job.yaml") ? "job.yaml" : "fatman.yaml";
            if (!trk_path_exists(name)) {
                return 0;
            }
        }
        if (trk_file_read(name, TRK_YAML_BYTES_MAX, &text, &len, err) < 0) {
            return (int)err->code;
        }
    }
    json_auto_t *manifest = NULL;
    if (trk_yaml_parse(text, len, name, &manifest, err) < 0) {
        return (int)err->code;
    }
    if (!json_is_object(manifest)) {
        return trk_err_set(err, TRK_INVALID, "%s: a manifest is a mapping of keys and values",
                           name);
    }
    return apply_manifest(o, manifest, err);
}

static int find_lib_dir(struct wrapper_options *o, struct trk_err *err)
{
    const char *env = getenv("RACETRACK_WRAPPER_LIB");
    if (!trk_str_is_empty(env)) {
        o->lib_dir = trk_xstrdup(env);
    } else {
        char exe[4096];
        ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
        if (n <= 0) {
            return trk_err_set(err, TRK_INTERNAL,
                               "cannot find this executable's folder (is /proc mounted?); set "
                               "RACETRACK_WRAPPER_LIB");
        }
        exe[n] = '\0';
        for (int i = 0; i < 2; i++) {
            char *slash = strrchr(exe, '/');
            if (slash != NULL) {
                *slash = '\0';
            }
        }
        o->lib_dir = trk_xasprintf("%s/lib/racetrack_job", exe);
    }
    trk_autofree char *start = trk_xasprintf("%s/start.py", o->lib_dir);
    if (!trk_path_exists(start)) {
        return trk_err_set(err, TRK_NOT_FOUND,
                           "%s is missing: install the wrapper's Python side beside bin/ or set "
                           "RACETRACK_WRAPPER_LIB",
                           start);
    }
    return 0;
}

static int read_environment(struct wrapper_options *o, struct trk_err *err)
{
    o->job_name = env_dup("JOB_NAME", "");
    o->is_deployed = o->job_name[0] != '\0';
    o->job_version = env_dup("JOB_VERSION", "");
    o->git_version = env_dup("GIT_VERSION", "dev");
    o->deployed_by = env_dup("DEPLOYED_BY_RACETRACK_VERSION", "");
    o->job_type_version = env_dup("JOB_TYPE_VERSION", "");
    o->call_secret = take_secret("JOB_CALL_SECRET");
    o->home_page = trk_xstrdup("/docs");
    o->python = env_dup("RACETRACK_PYTHON", "/usr/bin/python3");
    o->python_is_default = strcmp(o->python, "/usr/bin/python3") == 0;
    o->request_timeout_ns = DEFAULT_TIMEOUT_S * NS_PER_S;
    o->max_concurrency_queue = -1;
    int64_t body_max = DEFAULT_BODY_BYTES;
    const char *text = getenv("RACETRACK_WRAPPER_BODY_MAX");
    if (!trk_str_is_empty(text) && parse_int_option("RACETRACK_WRAPPER_BODY_MAX", text, 1024,
                                                    INT64_C(1) << 32, &body_max, err) < 0) {
        return (int)err->code;
    }
    o->body_max_bytes = (uint64_t)body_max;
    text = getenv("JOB_DEPLOYMENT_TIMESTAMP");
    if (trk_str_is_empty(text)) {
        text = getenv("FATMAN_DEPLOYMENT_TIMESTAMP");
    }
    if (!trk_str_is_empty(text) && parse_int_option("JOB_DEPLOYMENT_TIMESTAMP", text, 0, INT64_MAX,
                                                    &o->deployment_timestamp, err) < 0) {
        return (int)err->code;
    }
    return 0;
}

/* Overrides what the manifest says. */
static int read_timeout_override(struct wrapper_options *o, struct trk_err *err)
{
    const char *text = getenv("RACETRACK_WRAPPER_REQUEST_TIMEOUT");
    if (trk_str_is_empty(text)) {
        return 0;
    }
    char *end = NULL;
    double seconds = strtod(text, &end);
    if (*end != '\0' || !(seconds >= 0.05 && seconds <= 1e7)) {
        return trk_err_set(err, TRK_INVALID,
                           "RACETRACK_WRAPPER_REQUEST_TIMEOUT must be seconds from 0.05 to 1e7");
    }
    o->request_timeout_ns = (int64_t)(seconds * (double)NS_PER_S);
    return 0;
}

static int read_positional(struct wrapper_options *o, int count, char **args, struct trk_err *err)
{
    if (count < 2 || strcmp(args[0], "run") != 0) {
        return trk_err_set(err, TRK_INVALID, "usage: job_wrapper run PATH [CLASS]; see --help");
    }
    if (count > 3) {
        return trk_err_set(err, TRK_INVALID, "unexpected argument %s; see --help", args[3]);
    }
    o->entrypoint_path = trk_xstrdup(args[1]);
    o->entrypoint_class = count == 3 && *args[2] != '\0' ? trk_xstrdup(args[2]) : NULL;
    return 0;
}

enum {
    OPT_PORT = 256,
    OPT_ADDR,
    OPT_FD,
    OPT_PACKAGES,
    OPT_MANIFEST,
    OPT_OWN_TMP,
    OPT_HOSTNAME,
    OPT_HELP,
    OPT_VERSION
};
static const struct option long_options[] = {
    {"port", required_argument, NULL, OPT_PORT},
    {"addr", required_argument, NULL, OPT_ADDR},
    {"listen-fd", required_argument, NULL, OPT_FD},
    {"packages", required_argument, NULL, OPT_PACKAGES},
    {"manifest-path", required_argument, NULL, OPT_MANIFEST},
    {"own-tmp", no_argument, NULL, OPT_OWN_TMP},
    {"entrypoint_hostname", required_argument, NULL,
     OPT_HOSTNAME}, /* fatman era; unused there too */
    {"entrypoint-hostname", required_argument, NULL, OPT_HOSTNAME},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static int read_flags(struct wrapper_options *o, int argc, char **argv, const char **ret_manifest,
                      struct trk_err *err)
{
    int64_t number = DEFAULT_PORT;
    int option;
    o->port = DEFAULT_PORT;
    o->listen_fd = -1;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        switch (option) {
        case OPT_PORT:
            if (parse_int_option("--port", optarg, 0, 65535, &number, err) < 0) {
                return (int)err->code;
            }
            o->port = (int)number;
            break;
        case OPT_FD:
            if (parse_int_option("--listen-fd", optarg, 0, 1 << 20, &number, err) < 0) {
                return (int)err->code;
            }
            o->listen_fd = (int)number;
            break;
        case OPT_ADDR:
            free(o->addr);
            o->addr = trk_xstrdup(optarg);
            break;
        case OPT_PACKAGES:
            free(o->packages);
            o->packages = trk_xstrdup(optarg);
            break;
        case OPT_MANIFEST:
            *ret_manifest = optarg;
            break;
        case OPT_OWN_TMP:
            o->has_own_tmp = true;
            break;
        case OPT_HOSTNAME:
            break;
        case 'h':
        case OPT_HELP:
            (void)fputs(help_text, stdout);
            return 1;
        case OPT_VERSION:
            printf("job_wrapper %s (%s)\n", TRK_VERSION, TRK_GIT_VERSION);
            return 1;
        case ':':
            return trk_err_set(err, TRK_INVALID, "%s needs a value; see --help", argv[optind - 1]);
        default:
            return trk_err_set(err, TRK_INVALID, "unknown option %s; see --help", argv[optind - 1]);
        }
    }
    return 0;
}

int wrapper_options_read(int argc, char **argv, struct wrapper_options *ret, struct trk_err *err)
{
    memset(ret, 0, sizeof(*ret));
    const char *manifest = NULL;
    int code = read_flags(ret, argc, argv, &manifest, err);
    if (code != 0) {
        return code;
    }
    if (read_positional(ret, argc - optind, argv + optind, err) < 0 ||
        read_environment(ret, err) < 0 || read_manifest(ret, manifest, err) < 0 ||
        read_timeout_override(ret, err) < 0 || find_lib_dir(ret, err) < 0) {
        return (int)err->code;
    }
    if (ret->addr == NULL) {
        /* Deployed jobs are reached from outside; on a developer's machine nobody else should. */
        ret->addr = trk_xstrdup(trk_str_is_empty(getenv("JOB_NAME")) ? "127.0.0.1" : "0.0.0.0");
    }
    return 0;
}
