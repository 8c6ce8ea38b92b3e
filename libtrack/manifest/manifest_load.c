#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"

/* The fault list is on the heap: it is too large for some stacks. */
static int checked(const json_t *manifest, const json_t *lines, const char *name,
                   struct trk_faults *warnings, struct trk_err *err)
{
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    int rc = trk_manifest_check(manifest, faults, warnings);
    if (warnings != NULL) {
        trk_faults_set_lines(warnings, lines);
    }
    if (rc == 0) {
        return 0;
    }
    trk_faults_set_lines(faults, lines);
    trk_autofree char *what = trk_xasprintf("%s is not valid", name);
    return trk_faults_to_err(faults, TRK_SCHEMA, what, err);
}

int trk_manifest_parse(const char *yaml, size_t len, const char *file_name, json_t **ret,
                       struct trk_err *err)
{
    json_auto_t *manifest = NULL;
    json_auto_t *lines = NULL;
    int rc = trk_yaml_parse_lines(yaml, len, file_name, &manifest, &lines, err);
    if (rc == 0) {
        rc = checked(manifest, lines, file_name, NULL, err);
    }
    if (rc == 0) {
        *ret = TRK_STEAL(manifest);
    }
    return rc;
}

/* ---- files ---- */

static int find_file(const char *path, char **ret, struct trk_err *err)
{
    static const char *const names[] = {"job.yaml", "fatman.yaml"};
    struct stat st;
    if (stat(path, &st) < 0) {
        return trk_err_errno(err, errno, "%s", path);
    }
    if (!S_ISDIR(st.st_mode)) {
        *ret = trk_xstrdup(path);
        return 0;
    }
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        trk_autofree char *file = trk_xasprintf("%s%s%s", path,
                                                trk_str_has_suffix(path, "/") ? "" : "/", names[i]);
        if (trk_path_exists(file)) {
            *ret = TRK_STEAL(file);
            return 0;
        }
    }
    return trk_err_set(err, TRK_NOT_FOUND,
                       "there is no job.yaml in %s: give the folder that holds it, or the file "
                       "itself",
                       path);
}

static int read_object(const char *path, json_t **ret, json_t **ret_lines, struct trk_err *err)
{
    trk_autofree char *text = NULL;
    size_t len;
    json_auto_t *value = NULL;
    json_auto_t *lines = NULL;
    int rc = trk_file_read(path, TRK_YAML_BYTES_MAX, &text, &len, err);
    if (rc == 0) {
        rc = trk_yaml_parse_lines(text, len, path, &value, &lines, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (!json_is_object(value)) {
        return trk_err_set(err, TRK_INVALID,
                           "%s: must hold 'key: value' lines: name, owner_email, git, …", path);
    }
    *ret = TRK_STEAL(value);
    *ret_lines = TRK_STEAL(lines);
    return 0;
}

/* ---- extends ---- */

/* Objects merge, everything else is replaced. */
static void overlay(json_t *base, json_t *above)
{
    const char *key;
    json_t *value;
    json_object_foreach (above, key, value) {
        json_t *below = json_object_get(base, key);
        if (json_is_object(below) && json_is_object(value)) {
            overlay(below, value);
        } else {
            json_object_set(base, key, value);
        }
    }
}

static int check_base_path(const char *file, const json_t *extends, struct trk_err *err)
{
    const char *relative = json_string_value(extends);
    if (trk_str_is_empty(relative) || relative[0] == '/') {
        return trk_err_set(err, TRK_INVALID,
                           "%s: extends: must be the path of a manifest, relative to this file",
                           file);
    }
    return 0;
}

/* Replaces *manifest by its base overlaid with it. */
static int apply_extends(const char *file, json_t **manifest, struct trk_err *err)
{
    const json_t *extends = json_object_get(*manifest, "extends");
    if (extends == NULL || json_is_null(extends)) {
        return 0;
    }
    int rc = check_base_path(file, extends, err);
    if (rc < 0) {
        return rc;
    }
    const char *slash = strrchr(file, '/');
    trk_autofree char *base_path = trk_xasprintf(
        "%.*s%s", slash != NULL ? (int)(slash + 1 - file) : 0, file, json_string_value(extends));
    json_auto_t *base = NULL;
    json_auto_t *base_lines = NULL;
    rc = read_object(base_path, &base, &base_lines, err);
    if (rc < 0) {
        return trk_err_wrap(err, "%s: extends", file);
    }
    const json_t *further = json_object_get(base, "extends");
    if (further != NULL && !json_is_null(further)) {
        return trk_err_set(err, TRK_INVALID,
                           "%s: extends: %s extends another manifest itself, one level is allowed",
                           file, base_path);
    }
    overlay(base, *manifest);
    json_object_set_new(base, "extends", json_null());
    json_decref(*manifest);
    *manifest = TRK_STEAL(base);
    return 0;
}

/* ---- extra vars ---- */

static int set_extra_var(json_t *manifest, const char *assignment, struct trk_err *err)
{
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || equals == assignment) {
        return trk_err_set(err, TRK_INVALID, "extra variable '%.80s': write key=value", assignment);
    }
    trk_autofree char *path = trk_xstrndup(assignment, (size_t)(equals - assignment));
    json_auto_t *value = NULL;
    if (trk_yaml_parse(equals + 1, strlen(equals + 1), path, &value, err) < 0) {
        return trk_err_wrap(err, "extra variable");
    }
    json_t *parent = manifest;
    char *rest = path;
    char *key = strsep(&rest, ".");
    for (; rest != NULL; key = strsep(&rest, ".")) {
        parent = json_object_get(parent, key);
        if (!json_is_object(parent)) {
            return trk_err_set(err, TRK_INVALID,
                               "extra variable '%.80s': the manifest has no section '%.80s'",
                               assignment, key);
        }
    }
    if (key[0] == '\0' || json_object_set(parent, key, value) < 0) {
        return trk_err_set(err, TRK_INVALID, "extra variable '%.80s': write key=value", assignment);
    }
    return 0;
}

int trk_manifest_load(const char *path, const char *const *extra_vars, json_t **ret,
                      char **ret_path, struct trk_faults *warnings, struct trk_err *err)
{
    trk_autofree char *file = NULL;
    json_auto_t *manifest = NULL;
    json_auto_t *lines = NULL;
    int rc = find_file(path, &file, err);
    if (rc == 0) {
        rc = read_object(file, &manifest, &lines, err);
    }
    if (rc == 0) {
        rc = apply_extends(file, &manifest, err);
    }
    for (const char *const *var = extra_vars; rc == 0 && var != NULL && *var != NULL; var++) {
        rc = set_extra_var(manifest, *var, err);
    }
    if (rc == 0) {
        rc = checked(manifest, lines, file, warnings, err);
    }
    if (rc < 0) {
        return rc;
    }
    *ret = TRK_STEAL(manifest);
    if (ret_path != NULL) {
        *ret_path = TRK_STEAL(file);
    }
    return 0;
}
