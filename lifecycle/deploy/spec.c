#include "lifecycle/deploy/spec.h"

#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/schema.h"
#include "libtrack/manifest/manifest.h"
#include "lifecycle/domain/call_secret.h"
#include "version.h"

static const char *const reserved[] = {
    "JOB_NAME",
    "JOB_VERSION",
    "JOB_MANIFEST_YAML",
    "JOB_DEPLOYMENT_TIMESTAMP",
    "JOB_CALL_SECRET",
    "FATMAN_NAME",
    "FATMAN_VERSION",
    "FATMAN_DEPLOYMENT_TIMESTAMP",
    "PUB_URL",
    "AUTH_TOKEN",
    "REQUEST_TRACING_HEADER",
    "CALLER_NAME_HEADER",
    "JOB_TYPE_VERSION",
    "GIT_VERSION",
    "DEPLOYED_BY_RACETRACK_VERSION",
    "RACETRACK_GENERATION",
};

void spec_job(const json_t *manifest, const char **ret_name, const char **ret_version)
{
    *ret_name = trk_json_string_or(manifest, "name", "");
    *ret_version = trk_manifest_version(manifest);
}

const char *spec_job_type(void *mem, const json_t *manifest)
{
    const char *name, *version;
    if (trk_manifest_job_type(manifest, &name, &version, NULL) < 0) {
        return ""; /* a manifest from before the rules of today */
    }
    return talloc_asprintf(mem, "%s:%s", name, version);
}

/* -- resources -- */

struct resources {
    int64_t memory_min, memory_max; /* bytes */
    int64_t cpu_min, cpu_max;       /* thousandths */
};

/* A quantity of the manifest, or the configured default; in thousandths. */
static int64_t quantity(const json_t *resources, const char *key, const char *otherwise,
                        bool *ret_is_set, struct trk_faults *faults)
{
    json_t *value = json_object_get(resources, key);
    char number[32];
    const char *text = json_string_value(value);
    if (json_is_integer(value)) {
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        text = number;
    } else if (json_is_real(value)) {
        snprintf(number, sizeof(number), "%.3f", json_real_value(value));
        text = number;
    }
    *ret_is_set = text != NULL;
    int64_t milli = 0;
    struct trk_err err = {0};
    if (trk_quantity_parse(text != NULL ? text : otherwise, &milli, &err) < 0) {
        char path[64];
        snprintf(path, sizeof(path), "resources.%s", key);
        trk_faults_add(faults, path, "quantity", "%s", err.text);
    } else if (text != NULL && milli <= 0) {
        char path[64];
        snprintf(path, sizeof(path), "resources.%s", key);
        trk_faults_add(faults, path, "minimum", "must be more than zero, is %s", text);
    }
    return milli;
}

static void find_resources(const struct lifecycle_config *config, const json_t *manifest,
                           struct resources *ret, struct trk_faults *faults)
{
    const json_t *r = json_object_get(manifest, "resources");
    bool has_min, has_max;
    int64_t min = quantity(r, "memory_min", config->default_job_memory_min, &has_min, faults);
    int64_t max = quantity(r, "memory_max", config->default_job_memory_max, &has_max, faults);
    int64_t limit = 0;
    if (!has_max && max < min) {
        max = min;
    }
    if (!has_min && min > max) {
        min = max;
    }
    if (min > max) {
        trk_faults_add(faults, "resources.memory_min", "maximum",
                       "must not be more than memory_max");
    }
    if (trk_quantity_parse(config->max_job_memory_limit, &limit, NULL) == 0 && max > limit) {
        trk_faults_add(faults, "resources.memory_max", "maximum",
                       "must not be more than %s, the limit of this installation "
                       "(max_job_memory_limit)",
                       config->max_job_memory_limit);
    }
    ret->memory_min = (min < max / 4 ? max / 4 : min) / 1000;
    ret->memory_max = max / 1000;
    ret->cpu_min = quantity(r, "cpu_min", config->default_job_cpu_min, &has_min, faults);
    ret->cpu_max = quantity(r, "cpu_max", config->default_job_cpu_max, &has_max, faults);
    if (!has_max && ret->cpu_max < ret->cpu_min) {
        ret->cpu_max = ret->cpu_min;
    }
    if (!has_min && ret->cpu_min > ret->cpu_max) {
        ret->cpu_min = ret->cpu_max;
    }
    if (ret->cpu_min > ret->cpu_max) {
        trk_faults_add(faults, "resources.cpu_min", "maximum", "must not be more than cpu_max");
    }
}

/* What the manifest asks for within the operator's bound, or the operator's default. */
static const char *find_network(const struct lifecycle_config *config, const json_t *manifest,
                                struct trk_faults *faults)
{
    const char *asked = trk_json_string_or(manifest, "network", config->default_job_network);
    if (strcmp(asked, "outside") == 0 && strcmp(config->max_job_network, "none") == 0) {
        if (json_object_get(manifest, "network") == NULL) {
            return "none";
        }
        trk_faults_add(faults, "network", "maximum",
                       "must be none: the operator of this installation lets no job out "
                       "(max_job_network)");
    }
    return asked;
}

/* -- environment -- */

static void check_names(const json_t *env, const char *where, bool is_runtime,
                        struct trk_faults *faults)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)env, key, value) {
        char path[256];
        snprintf(path, sizeof(path), "%s.%.200s", where, key);
        if (key[0] == '\0' || strchr(key, '=') != NULL) {
            trk_faults_add(faults, path, "name", "is no name of an environment variable");
        }
        if (!json_is_string(value)) {
            trk_faults_add(faults, path, "type", "must be a string");
        }
        for (size_t i = 0; is_runtime && i < TRK_COUNT(reserved); i++) {
            if (strcmp(key, reserved[i]) == 0) {
                trk_faults_add(faults, path, "reserved", "is set by Racetrack itself");
            }
        }
    }
}

int spec_check(const struct lifecycle_config *config, const json_t *manifest, const json_t *secrets,
               struct trk_err *err)
{
    struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    struct resources resources;
    find_resources(config, manifest, &resources, faults);
    (void)find_network(config, manifest, faults);
    check_names(json_object_get(manifest, "build_env"), "build_env", false, faults);
    check_names(json_object_get(manifest, "runtime_env"), "runtime_env", true, faults);
    check_names(json_object_get(secrets, "secret_build_env"), "secret build variables", false,
                faults);
    check_names(json_object_get(secrets, "secret_runtime_env"), "secret runtime variables", true,
                faults);
    int rc = faults->count > 0 ? trk_faults_to_err(faults, TRK_SCHEMA, "manifest", err) : 0;
    free(faults);
    return rc;
}

static json_t *text_value(const char *text)
{
    return json_string(text != NULL ? text : "");
}

/* The manifest on one line: newlines as \n, as the original hands it over. */
static json_t *one_line(const char *text)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 1 << 20);
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '\n') {
            (void)trk_buf_adds(&buf, "\\n");
        } else {
            (void)trk_buf_addc(&buf, *p);
        }
    }
    json_t *value = json_string(buf.data);
    trk_buf_fini(&buf);
    return value;
}

/* All variables in one object: Racetrack's, the build's (empty at run time), the user's. */
static json_t *make_env(const struct lifecycle_config *config, void *mem,
                        const struct spec_input *input)
{
    const char *name, *version, *key;
    json_t *value, *env = json_object();
    json_t *const build[] = {json_object_get(input->manifest, "build_env"),
                             json_object_get(input->secrets, "secret_build_env")};
    json_t *const runtime[] = {json_object_get(input->manifest, "runtime_env"),
                               json_object_get(input->secrets, "secret_runtime_env")};
    for (size_t i = 0; i < TRK_COUNT(build); i++) {
        json_object_foreach (build[i], key, value) {
            (void)json_object_set_new(env, key, json_string(""));
        }
    }
    for (size_t i = 0; i < TRK_COUNT(runtime); i++) {
        if (runtime[i] != NULL) {
            (void)json_object_update(env, runtime[i]);
        }
    }
    spec_job(input->manifest, &name, &version);
    (void)json_object_set_new(env, "JOB_NAME", text_value(name));
    (void)json_object_set_new(env, "JOB_VERSION", text_value(version));
    (void)json_object_set_new(env, "FATMAN_NAME", text_value(name)); /* jobs of that era read it */
    (void)json_object_set_new(env, "FATMAN_VERSION", text_value(version));
    (void)json_object_set_new(env, "JOB_MANIFEST_YAML", one_line(input->manifest_yaml));
    (void)json_object_set_new(env, "PUB_URL", text_value(config->internal_pub_url));
    (void)json_object_set_new(env, "AUTH_TOKEN", text_value(input->family_token));
    (void)json_object_set_new(env, "REQUEST_TRACING_HEADER",
                              text_value(config->request_tracing_header));
    (void)json_object_set_new(env, "CALLER_NAME_HEADER", text_value(config->caller_name_header));
    (void)json_object_set_new(env, "JOB_TYPE_VERSION",
                              text_value(spec_job_type(mem, input->manifest)));
    (void)json_object_set_new(env, "DEPLOYED_BY_RACETRACK_VERSION", text_value(TRK_VERSION));
    return env;
}

/* Those that are secret, or those that are not. */
static const char *const *env_list(void *mem, json_t *env, const json_t *secrets, bool is_secret)
{
    const char **list = talloc_zero_array(mem, const char *, (unsigned)json_object_size(env) + 1);
    const json_t *users = json_object_get(secrets, "secret_runtime_env");
    const char *key;
    json_t *value;
    size_t count = 0;
    json_object_foreach (env, key, value) {
        bool is_one = strcmp(key, "AUTH_TOKEN") == 0 || strcmp(key, "JOB_CALL_SECRET") == 0 ||
                      json_object_get(users, key) != NULL;
        if (is_one == is_secret) {
            list[count++] = talloc_asprintf(list, "%s=%s", key, json_string_value(value));
        }
    }
    return list;
}

/* Sorted JSON of everything the workload depends on. */
static void digest_of(const struct spec_input *input, const json_t *env,
                      const struct resources *resources, const char *network, int64_t replicas,
                      char ret[TRK_DIGEST_SIZE])
{
    json_auto_t *all = json_pack(
        "{s:s, s:O, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "image", input->image_digest, "env", env,
        "network", network, "manifest", input->manifest_yaml, "memory_min",
        (json_int_t)resources->memory_min, "memory_max", (json_int_t)resources->memory_max,
        "cpu_min", (json_int_t)resources->cpu_min, "cpu_max", (json_int_t)resources->cpu_max,
        "replicas", (json_int_t)replicas);
    char *text = json_dumps(all, JSON_SORT_KEYS | JSON_COMPACT);
    if (text == NULL) {
        trk_die("the specification of a job cannot be written as JSON");
    }
    trk_digest(text, strlen(text), ret);
    explicit_bzero(text, strlen(text));
    free(text);
}

int spec_make(const struct lifecycle_config *config, void *mem, const struct spec_input *input,
              struct infra_generation_spec *ret, char ret_digest[TRK_DIGEST_SIZE],
              struct trk_err *err)
{
    struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    struct resources resources;
    find_resources(config, input->manifest, &resources, faults);
    const char *network = find_network(config, input->manifest, faults);
    int rc = faults->count > 0 ? trk_faults_to_err(faults, TRK_SCHEMA, "manifest", err) : 0;
    free(faults);
    if (rc < 0) {
        return rc;
    }
    int64_t replicas = trk_json_int_or(input->manifest, "replicas", 1);
    json_auto_t *env = make_env(config, mem, input);
    digest_of(input, env, &resources, network, replicas, ret_digest);
    char timestamp[32];
    snprintf(timestamp, sizeof(timestamp), "%lld", (long long)input->deployment_timestamp);
    (void)json_object_set_new(env, "JOB_DEPLOYMENT_TIMESTAMP", json_string(timestamp));
    (void)json_object_set_new(env, "FATMAN_DEPLOYMENT_TIMESTAMP", json_string(timestamp));
    char secret[CALL_SECRET_SIZE];
    call_secret_make(lifecycle_secret_key(config), input->generation_id, secret);
    (void)json_object_set_new(env, "JOB_CALL_SECRET", json_string(secret));
    *ret = (struct infra_generation_spec){
        .generation_id = input->generation_id,
        .image_name = input->image_name,
        .image_digest = input->image_digest,
        .manifest_yaml = input->manifest_yaml,
        .env = env_list(mem, env, input->secrets, false),
        .secret_env = env_list(mem, env, input->secrets, true),
        .deployment_timestamp = input->deployment_timestamp,
        .memory_min_bytes = resources.memory_min,
        .cpu_min_milli = resources.cpu_min,
        .memory_max_bytes = resources.memory_max,
        .cpu_max_milli = resources.cpu_max,
        .network = network,
        .replicas = replicas,
    };
    spec_job(input->manifest, &ret->job_name, &ret->job_version);
    return 0;
}
