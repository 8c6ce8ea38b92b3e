#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/semver.h"
#include "libtrack/manifest/manifest.h"
#include "manifest_python.h"
#include "manifest_schema.h"

struct rules {
    const json_t *manifest;
    struct trk_faults *faults;
    struct trk_faults *warnings;
};

static struct trk_schema *whole_schema;
static struct trk_schema *python_schema;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_schemas(void)
{
    whole_schema = trk_schema_new(manifest_schema);
    python_schema = trk_schema_new(manifest_python);
}

/* An optional key whose value is null counts as missing: what the API shows is full of them. The
 * maps that people fill freely are left alone. */
static json_t *without_nulls(const json_t *manifest)
{
    static const char *const sections[] = {
        "git", "python", "golang", "docker", "resources", "wrapper_properties", "jobtype_extra"};
    json_t *clean = json_copy((json_t *)(uintptr_t)manifest);
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(clean, next, key, value)
    {
        if (json_is_null(value)) {
            json_object_del(clean, key);
        }
    }
    for (size_t i = 0; i < TRK_COUNT(sections); i++) {
        json_t *section = json_object_get(clean, sections[i]);
        if (!json_is_object(section)) {
            continue;
        }
        json_t *copy = json_copy(section);
        json_object_foreach_safe(copy, next, key, value)
        {
            if (json_is_null(value)) {
                json_object_del(copy, key);
            }
        }
        json_object_set_new(clean, sections[i], copy);
    }
    return clean;
}

/* ---- single keys ---- */

static void check_version(const struct rules *rules)
{
    const json_t *version = json_object_get(rules->manifest, "version");
    struct trk_semver parsed;
    struct trk_err err = {0};
    if (json_is_string(version) &&
        trk_semver_parse(json_string_value(version), &parsed, &err) < 0) {
        trk_faults_add(rules->faults, "version", "semver", "%s", err.text);
    }
}

/* A path inside the job's folder: relative, and no way up. */
static void check_path(const struct rules *rules, const char *section, const char *key)
{
    const json_t *value = json_object_get(json_object_get(rules->manifest, section), key);
    char path[64];
    (void)snprintf(path, sizeof(path), "%s.%s", section, key);
    if (!json_is_string(value)) {
        return;
    }
    trk_autofree char *copy = trk_xstrdup(json_string_value(value));
    bool is_bad = copy[0] == '/';
    char *rest = copy;
    for (const char *step; !is_bad && (step = strsep(&rest, "/")) != NULL;) {
        is_bad = strcmp(step, "..") == 0;
    }
    if (is_bad) {
        trk_faults_add(
            rules->faults, path, "path", "must be a relative path inside the %s, is \"%.80s\"",
            strcmp(section, "git") == 0 ? "repository" : "job's folder", json_string_value(value));
    }
}

static void check_paths(const struct rules *rules)
{
    check_path(rules, "git", "directory");
    check_path(rules, "python", "entrypoint_path");
    check_path(rules, "python", "requirements_path");
    check_path(rules, "jobtype_extra", "entrypoint_path");
    check_path(rules, "jobtype_extra", "requirements_path");
    check_path(rules, "jobtype_extra", "gomod");
    check_path(rules, "jobtype_extra", "dockerfile_path");
    check_path(rules, "golang", "gomod");
    check_path(rules, "docker", "dockerfile_path");
}

static void check_extends(const struct rules *rules)
{
    if (json_is_string(json_object_get(rules->manifest, "extends"))) {
        trk_faults_add(rules->faults, "extends", "extends",
                       "must be merged before it is sent: 'racetrack validate' prints the merged "
                       "manifest, 'racetrack deploy' sends it");
    }
}

/* ---- environment ---- */

static bool is_env_name(const char *name)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_.-0123456789";
    return name[0] != '\0' && (name[0] < '0' || name[0] > '9') &&
           strspn(name, letters) == strlen(name);
}

static bool is_reserved_env(const char *name)
{
    static const char *const names[] = {
        "JOB_NAME",          "JOB_VERSION",
        "JOB_MANIFEST_YAML", "JOB_DEPLOYMENT_TIMESTAMP",
        "PUB_URL",           "REQUEST_TRACING_HEADER",
        "AUTH_TOKEN",        "CALLER_NAME_HEADER",
        "JOB_CALL_SECRET",   "FATMAN_NAME",
        "FATMAN_VERSION",    "FATMAN_DEPLOYMENT_TIMESTAMP",
    };
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void check_env(const struct rules *rules, const char *section, bool is_runtime)
{
    json_t *env = json_object_get(rules->manifest, section);
    const char *name;
    json_t *value;
    json_object_foreach (env, name, value) {
        char path[256];
        (void)snprintf(path, sizeof(path), "%s.%s", section, name);
        if (!is_env_name(name)) {
            trk_faults_add(rules->faults, path, "env",
                           "is no name for an environment variable: use letters, digits and '_', "
                           "and begin with a letter");
        } else if (is_runtime && is_reserved_env(name)) {
            trk_faults_add(rules->faults, path, "env",
                           "is set by Racetrack itself: take another name");
        }
    }
}

/* ---- resources ---- */

#define MEMORY_LEAST_MILLI (INT64_C(4) * 1024 * 1024 * 1000)

/* Faults of one quantity; true and *ret_milli when it is there and right. */
static bool read_quantity(const struct rules *rules, const char *key, int64_t *ret_milli)
{
    const json_t *value = json_object_get(json_object_get(rules->manifest, "resources"), key);
    struct trk_err err = {0};
    char path[64];
    (void)snprintf(path, sizeof(path), "resources.%s", key);
    if (!json_is_string(value) && !json_is_number(value)) {
        return false; /* missing, or the schema said it */
    }
    trk_autofree char *number = json_is_number(value) ? trk_json_text(value) : NULL;
    const char *text = number != NULL ? number : json_string_value(value);
    bool is_memory = trk_str_has_prefix(key, "memory");
    if (trk_quantity_parse(text, ret_milli, &err) < 0) {
        trk_faults_add(rules->faults, path, "quantity", "%s", err.text);
        return false;
    }
    if (*ret_milli == 0) {
        trk_faults_add(rules->faults, path, "quantity", "must be more than 0");
        return false;
    }
    if (is_memory && *ret_milli < MEMORY_LEAST_MILLI) {
        bool has_unit = text[strspn(text, "0123456789.")] != '\0';
        trk_faults_add(rules->faults, path, "quantity",
                       "%.40s is less than 4Mi, too little for any job%s%.40s%s", text,
                       has_unit ? "" : ": did you mean ", has_unit ? "" : text,
                       has_unit ? "" : "Mi?");
        return false;
    }
    return true;
}

static void check_limits(const struct rules *rules, const char *min_key, const char *max_key)
{
    int64_t min = 0;
    int64_t max = 0;
    bool has_min = read_quantity(rules, min_key, &min);
    bool has_max = read_quantity(rules, max_key, &max);
    if (has_min && has_max && min > max) {
        char path[64];
        (void)snprintf(path, sizeof(path), "resources.%s", min_key);
        trk_faults_add(rules->faults, path, "quantity",
                       "is more than resources.%s: lower it, or raise the other", max_key);
    }
}

/* ---- job type ---- */

static bool has(const struct rules *rules, const char *key)
{
    return json_object_get(rules->manifest, key) != NULL;
}

static void check_job_type(const struct rules *rules)
{
    static const char *const old_sections[] = {"python", "golang", "wrapper_properties"};
    bool has_jobtype = has(rules, "jobtype");
    bool has_lang = has(rules, "lang");
    if (has_jobtype && has_lang) {
        trk_faults_add(rules->faults, "lang", "jobtype",
                       "is the old spelling of jobtype: keep jobtype, remove lang");
    } else if (!has_jobtype && !has_lang && !has(rules, "python")) {
        trk_faults_add(rules->faults, "jobtype", "required",
                       "is required: the language wrapper and its version, such as python3:latest");
    }
    for (size_t i = 0; i < TRK_COUNT(old_sections); i++) {
        if (has(rules, "jobtype_extra") && has(rules, old_sections[i])) {
            trk_faults_add(rules->faults, old_sections[i], "jobtype_extra",
                           "is the old spelling of jobtype_extra: move its keys there");
        }
    }
}

static bool is_python(const json_t *manifest)
{
    const char *jobtype = trk_json_string_or(manifest, "jobtype", NULL);
    const char *lang = trk_json_string_or(manifest, "lang", NULL);
    if (jobtype != NULL) {
        return trk_str_has_prefix(jobtype, "python3:");
    }
    if (lang != NULL) {
        return strcmp(lang, "python3") == 0 || trk_str_has_prefix(lang, "python3:");
    }
    return json_object_get(manifest, "python") != NULL;
}

/* Adds the faults of one section below its own path. */
static void check_section(const struct rules *rules, const struct trk_schema *schema,
                          const char *section)
{
    const json_t *value = json_object_get(rules->manifest, section);
    if (value != NULL && !json_is_object(value)) {
        return; /* the schema said it */
    }
    trk_autofree struct trk_faults *found = trk_xcalloc(1, sizeof(*found));
    json_auto_t *nothing = json_object();
    (void)trk_schema_check(schema, value != NULL ? value : nothing, found);
    for (size_t i = 0; i < found->count && i < TRK_FAULTS_MAX; i++) {
        char path[256];
        const struct trk_fault *fault = &found->list[i];
        (void)snprintf(path, sizeof(path), "%s%s%.200s", section, fault->path[0] != '\0' ? "." : "",
                       fault->path);
        trk_faults_add(rules->faults, path, fault->keyword, "%s", fault->text);
    }
}

static void check_python(const struct rules *rules)
{
    if (!is_python(rules->manifest)) {
        return;
    }
    if (!has(rules, "python")) {
        check_section(rules, python_schema, "jobtype_extra");
        return;
    }
    const json_t *python = json_object_get(rules->manifest, "python");
    if (json_is_object(python) && json_object_get(python, "entrypoint_path") == NULL) {
        trk_faults_add(rules->faults, "python.entrypoint_path", "required",
                       "is required: the Python file that holds the class, such as adder.py");
    }
}

/* ---- deprecated spellings ---- */

static void warn_deprecated(const struct rules *rules)
{
    static const struct {
        const char *key, *text;
    } old[] = {
        {"python", "is deprecated: move its keys to 'jobtype_extra'"},
        {"golang", "is deprecated: move its keys to 'jobtype_extra'"},
        {"docker", "is deprecated: move its keys to 'jobtype_extra'"},
        {"wrapper_properties", "is deprecated: move its keys to 'jobtype_extra'"},
    };
    const char *lang = trk_json_string_or(rules->manifest, "lang", NULL);
    if (lang != NULL) {
        trk_faults_add(rules->warnings, "lang", "deprecated",
                       "is deprecated: write 'jobtype: %.80s%s'", lang,
                       strchr(lang, ':') != NULL ? "" : ":latest");
    } else if (!has(rules, "jobtype") && has(rules, "python")) {
        trk_faults_add(rules->warnings, "jobtype", "deprecated",
                       "is missing: python3 is taken, because there is a python section; write "
                       "'jobtype: python3:latest'");
    }
    for (size_t i = 0; i < TRK_COUNT(old); i++) {
        if (has(rules, old[i].key)) {
            trk_faults_add(rules->warnings, old[i].key, "deprecated", "%s", old[i].text);
        }
    }
}

int trk_manifest_check(const json_t *manifest, struct trk_faults *faults,
                       struct trk_faults *warnings)
{
    (void)pthread_once(&once, make_schemas);
    size_t before = faults->count;
    if (!json_is_object(manifest)) {
        trk_faults_add(faults, "", "type",
                       "must hold 'key: value' lines: name, owner_email, git, …");
        return TRK_SCHEMA;
    }
    json_auto_t *clean = without_nulls(manifest);
    const struct rules rules = {.manifest = clean, .faults = faults, .warnings = warnings};
    (void)trk_schema_check(whole_schema, clean, faults);
    check_version(&rules);
    check_job_type(&rules);
    check_python(&rules);
    check_paths(&rules);
    check_extends(&rules);
    check_env(&rules, "build_env", false);
    check_env(&rules, "runtime_env", true);
    check_limits(&rules, "memory_min", "memory_max");
    check_limits(&rules, "cpu_min", "cpu_max");
    if (warnings != NULL) {
        warn_deprecated(&rules);
    }
    return faults->count > before ? TRK_SCHEMA : 0;
}
