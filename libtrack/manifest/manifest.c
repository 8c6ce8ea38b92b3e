#include "libtrack/manifest/manifest.h"

#include <stdint.h>
#include <string.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/semver.h"
#include "version.h"

/* ---- job type ---- */

static const char *const job_types[] = {"python3"};

int trk_manifest_job_type(const json_t *manifest, const char **ret_name, const char **ret_version,
                          struct trk_err *err)
{
    const char *text = trk_json_string_or(manifest, "jobtype", NULL);
    if (text == NULL) {
        text = trk_json_string_or(manifest, "lang", NULL);
    }
    if (text == NULL && json_is_object(json_object_get(manifest, "python"))) {
        text = "python3";
    }
    if (text == NULL) {
        return trk_err_set(err, TRK_SCHEMA, "jobtype: is required, such as python3:latest");
    }
    size_t len = strcspn(text, ":");
    for (size_t i = 0; i < TRK_COUNT(job_types); i++) {
        if (strlen(job_types[i]) == len && memcmp(text, job_types[i], len) == 0) {
            *ret_name = job_types[i];
            *ret_version = text[len] == ':' ? text + len + 1 : "latest";
            return 0;
        }
    }
    return trk_err_set(err, TRK_INVALID,
                       "jobtype: the job type '%.*s' is not available here; available: %s",
                       (int)(len < 80 ? len : 80), text, job_types[0]);
}

int trk_manifest_python(const json_t *manifest, struct trk_python_spec *ret, struct trk_err *err)
{
    const char *name, *version;
    int rc = trk_manifest_job_type(manifest, &name, &version, err);
    if (rc < 0) {
        return rc;
    }
    if (strcmp(name, "python3") != 0) {
        return trk_err_set(err, TRK_INVALID, "the job type is '%s', not python3", name);
    }
    const json_t *extra = json_object_get(manifest, "jobtype_extra");
    const json_t *python = json_object_get(manifest, "python");
    const json_t *wrapper = json_object_get(manifest, "wrapper_properties");
    const json_t *main_section = json_is_object(extra) ? extra : python;
    const json_t *settings = json_is_object(extra) ? extra : wrapper;
    struct trk_python_spec spec = {
        .entrypoint_path = trk_json_string_or(main_section, "entrypoint_path", NULL),
        .entrypoint_class = trk_json_string_or(main_section, "entrypoint_class", NULL),
        .requirements_path = trk_json_string_or(main_section, "requirements_path", NULL),
        .home_page = trk_json_string_or(settings, "home_page", NULL),
        .max_concurrency = trk_json_int_or(settings, "max_concurrency", -1),
        .max_concurrency_queue = trk_json_int_or(settings, "max_concurrency_queue", -1),
        .request_timeout_s = trk_json_int_or(settings, "request_timeout_s", 0),
    };
    if (trk_str_is_empty(spec.entrypoint_path)) {
        return trk_err_set(err, TRK_SCHEMA,
                           "jobtype_extra.entrypoint_path: is required: the Python file that holds "
                           "the class, such as adder.py");
    }
    *ret = spec;
    return 0;
}

const char *trk_manifest_version(const json_t *manifest)
{
    const char *version = trk_json_string_or(manifest, "version", NULL);
    return version != NULL ? version : TRK_MANIFEST_VERSION;
}

/* `latest`, the installed version, or a pattern with '*' that it matches. */
static bool is_installed_version(const char *pattern)
{
    const char *star = strchr(pattern, '*');
    if (star == NULL) {
        return strcmp(pattern, "latest") == 0 || strcmp(pattern, TRK_VERSION) == 0;
    }
    size_t before = (size_t)(star - pattern);
    return strncmp(pattern, TRK_VERSION, before) == 0 && strlen(TRK_VERSION) >= before &&
           trk_str_has_suffix(TRK_VERSION + before, star + 1);
}

void trk_manifest_note_ignored(const json_t *manifest, struct trk_faults *notes)
{
    static const struct {
        const char *key, *text;
    } ignored[] = {
        {"debian_version", "has no effect: jobs run on this installation's own system"},
        {"debian_backports", "has no effect: jobs run on this installation's own system"},
        {"memray_profiler", "has no effect: there is no memory profiler in the job wrapper"},
    };
    const char *name, *version;
    if (trk_manifest_job_type(manifest, &name, &version, NULL) == 0 &&
        !is_installed_version(version)) {
        trk_faults_add(notes, "jobtype", "version",
                       "%s:%.60s is not installed; the job runs on %s:%s, write '%s:latest'", name,
                       version, name, TRK_VERSION, name);
    }
    const json_t *extra = json_object_get(manifest, "jobtype_extra");
    for (size_t i = 0; i < TRK_COUNT(ignored); i++) {
        json_t *value = json_object_get(extra, ignored[i].key);
        if (value != NULL && !json_is_null(value) && !json_is_false(value)) {
            char path[64];
            (void)snprintf(path, sizeof(path), "jobtype_extra.%s", ignored[i].key);
            trk_faults_add(notes, path, "ignored", "%s", ignored[i].text);
        }
    }
}

/* ---- what the API shows ---- */

static json_t *copied_or(const json_t *object, const char *key, json_t *otherwise)
{
    json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) {
        return otherwise;
    }
    json_decref(otherwise);
    return json_deep_copy(value);
}

json_t *trk_manifest_full(const json_t *manifest)
{
    static const struct {
        const char *key, *default_text;
    } keys[] = {
        {"name", NULL},
        {"owner_email", NULL},
        {"git", NULL},
        {"version", TRK_MANIFEST_VERSION},
        {"jobtype", NULL},
        {"lang", NULL},
        {"extends", NULL},
        {"image_type", "docker"},
        {"system_dependencies", NULL},
        {"python", NULL},
        {"golang", NULL},
        {"docker", NULL},
        {"build_env", NULL},
        {"runtime_env", NULL},
        {"secret_build_env_file", NULL},
        {"secret_runtime_env_file", NULL},
        {"labels", NULL},
        {"public_endpoints", NULL},
        {"replicas", NULL},
        {"resources", NULL},
        {"jobtype_extra", NULL},
        {"wrapper_properties", NULL},
        {"infrastructure_target", NULL},
    };
    json_t *full = json_object();
    for (size_t i = 0; i < TRK_COUNT(keys); i++) {
        json_object_set_new(
            full, keys[i].key,
            copied_or(manifest, keys[i].key, trk_json_string_or_null(keys[i].default_text)));
    }
    json_object_set_new(full, "replicas", copied_or(manifest, "replicas", json_integer(1)));
    json_t *network = json_object_get(manifest, "network");
    if (network != NULL) { /* clients of the original do not know it */
        json_object_set(full, "network", network);
    }
    json_t *git = json_object_get(full, "git");
    if (json_is_object(git)) {
        json_object_set_new(git, "branch", copied_or(git, "branch", json_null()));
        json_object_set_new(git, "directory", copied_or(git, "directory", json_string(".")));
    }
    return full;
}

/* ---- resource names ---- */

#define RESOURCE_NAME_MAX 63 /* a DNS label, RFC 1035 §2.3.4 */
#define DIGEST_CHARACTERS 16

static bool is_plain_name(const char *name)
{
    return name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}

static bool is_plain_version(const char *version)
{
    struct trk_semver v;
    return trk_semver_parse(version, &v, NULL) == 0 &&
           version[strspn(version, "0123456789.")] == '\0';
}

/* Plain names end in "-v-N-N-N" and say which job it is. All others get "-x" and a digest: a number
 * never begins with an x, so that the two kinds never meet. */
int trk_manifest_resource_name(const char *name, const char *version, struct trk_buf *buf)
{
    trk_autofree char *text = trk_xasprintf("job-%s-v-%s", name, version);
    size_t len = strlen(text);
    for (char *p = text; *p != '\0'; p++) {
        bool is_upper = *p >= 'A' && *p <= 'Z';
        bool is_kept = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');
        *p = is_upper ? (char)(*p - 'A' + 'a') : is_kept ? *p : '-';
    }
    if (is_plain_name(name) && is_plain_version(version) && len <= RESOURCE_NAME_MAX) {
        return trk_buf_add(buf, text, len);
    }
    trk_autofree char *identity = trk_xasprintf("%s\n%s", name, version);
    char digest[TRK_DIGEST_SIZE];
    trk_digest(identity, strlen(identity), digest);
    if (len > RESOURCE_NAME_MAX - DIGEST_CHARACTERS - 2) {
        len = RESOURCE_NAME_MAX - DIGEST_CHARACTERS - 2;
    }
    while (text[len - 1] == '-') {
        len--;
    }
    return trk_buf_addf(buf, "%.*s-x%.*s", (int)len, text, DIGEST_CHARACTERS,
                        digest + strlen("sha256:"));
}
