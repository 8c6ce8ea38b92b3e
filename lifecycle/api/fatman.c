/*
 * The fatman era's spelling, in this one place: a job was called a Fatman. Paths are rewritten to
 * today's before the route is looked up, the reply's keys back to what such a client reads. Scopes
 * are understood in both spellings everywhere (domain/permission.c).
 */
#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/status.h"

/* `*` is one segment, a `**` at the end is the rest. */
static const struct {
    const char *old, *today;
} paths[] = {
    {"/api/v1/fatman", "/api/v1/job"},
    {"/api/v1/fatman/*/**", "/api/v1/job/*/**"},
    {"/api/v1/fatman_family", "/api/v1/job_family"},
    {"/api/v1/fatman_graph", "/api/v1/job/graph"},
    {"/api/v1/auth/can-call-fatman/*/**", "/api/v1/auth/can-call-job/*/**"},
    {"/api/v1/auth/allowed/fatman/*/**", "/api/v1/auth/allowed/job/*/**"},
    {"/api/v1/auth/allowed/fatman_endpoint/*/**", "/api/v1/auth/allowed/job_endpoint/*/**"},
    {"/api/v1/auth/allow/esc/*/fatman/**", "/api/v1/auth/allow/esc/*/job/**"},
    {"/api/v1/auth/allow/fatman_family/*/fatman/**", "/api/v1/auth/allow/job_family/*/job/**"},
    {"/api/v1/auth/allow/fatman/*", "/api/v1/auth/allow/job/*"},
    {"/api/v1/audit/events/fatman/**", "/api/v1/audit/events/job/**"},
    {"/api/v1/audit/user_events/fatman/**", "/api/v1/audit/user_events/job/**"},
};
#define STARS_MAX 4

struct capture {
    const char *at;
    size_t len;
};

/* Does `path` have the form of `pattern`? What the stars stand for goes to `captures`. */
static bool matches(const char *path, const char *pattern, struct capture captures[STARS_MAX])
{
    size_t stars = 0;
    while (*pattern != '\0') {
        if (*pattern != '*') {
            if (*path++ != *pattern++) {
                return false;
            }
            continue;
        }
        bool rest = pattern[1] == '*';
        size_t len = rest ? strlen(path) : strcspn(path, "/");
        if (len == 0) {
            return false;
        }
        trk_assert(stars < STARS_MAX);
        captures[stars++] = (struct capture){path, len};
        path += len;
        pattern += rest ? 2 : 1;
    }
    return *path == '\0';
}

static const char *expand(void *mem, const char *pattern, const struct capture *captures)
{
    char *out = talloc_strdup(mem, "");
    while (*pattern != '\0') {
        if (*pattern == '*') {
            out = talloc_strndup_append_buffer(out, captures->at, captures->len);
            captures++;
            pattern += pattern[1] == '*' ? 2 : 1;
        } else {
            size_t len = strcspn(pattern, "*");
            out = talloc_strndup_append_buffer(out, pattern, len);
            pattern += len;
        }
    }
    return out;
}

const char *api_fatman_alias(struct trk_request *req, const char *path)
{
    for (size_t i = 0; i < TRK_COUNT(paths); i++) {
        struct capture captures[STARS_MAX];
        if (matches(path, paths[i].old, captures)) {
            return expand(trk_req_mem(req), paths[i].today, captures);
        }
    }
    return NULL;
}

/* -- replies -- */

static const struct {
    const char *today, *old;
} keys[] = {
    {"job", "fatman"},
    {"job_name", "fatman_name"},
    {"job_version", "fatman_version"},
};

static const char *old_key(const char *key)
{
    for (size_t i = 0; i < TRK_COUNT(keys); i++) {
        if (strcmp(keys[i].today, key) == 0) {
            return keys[i].old;
        }
    }
    return key;
}

/* A manifest as that era's clients read it: they refuse one that has any other key. */
static json_t *era_manifest(const json_t *manifest)
{
    static const char *const same[] = {"name",
                                       "owner_email",
                                       "git",
                                       "version",
                                       "extends",
                                       "golang",
                                       "docker",
                                       "image_type",
                                       "system_dependencies",
                                       "build_env",
                                       "runtime_env",
                                       "secret_build_env_file",
                                       "secret_runtime_env_file",
                                       "labels",
                                       "public_endpoints",
                                       "replicas",
                                       "resources"};
    static const struct {
        const char *section, *key;
    } moved[] = {{"python", "requirements_path"},
                 {"python", "entrypoint_path"},
                 {"python", "entrypoint_class"},
                 {"golang", "gomod"},
                 {"docker", "dockerfile_path"}};
    json_t *out = json_object();
    for (size_t i = 0; i < TRK_COUNT(same); i++) {
        json_t *value = json_object_get(manifest, same[i]);
        (void)json_object_set_new(out, same[i],
                                  value != NULL ? json_deep_copy(value) : json_null());
    }
    const char *type = trk_json_string_or(manifest, "jobtype", NULL);
    type = type != NULL ? type : trk_json_string_or(manifest, "lang", "python3");
    (void)json_object_set_new(out, "lang", json_stringn(type, strcspn(type, ":")));
    json_t *python = json_object_get(manifest, "python");
    (void)json_object_set_new(out, "python",
                              json_is_object(python) ? json_deep_copy(python) : json_null());
    const json_t *extra = json_object_get(manifest, "jobtype_extra");
    for (size_t i = 0; i < TRK_COUNT(moved); i++) {
        json_t *value = json_object_get(extra, moved[i].key);
        if (!json_is_string(value)) {
            continue;
        }
        if (!json_is_object(json_object_get(out, moved[i].section))) {
            (void)json_object_set_new(out, moved[i].section, json_object());
        }
        (void)json_object_set(json_object_get(out, moved[i].section), moved[i].key, value);
    }
    return out;
}

/* …/job/NAME/VERSION -> …/fatman/NAME/VERSION */
static json_t *era_url(const char *url)
{
    static const char today[] = "/job/";
    const char *end = url + strlen(url);
    for (int slashes = 0; end > url && slashes < 3;) {
        slashes += *--end == '/';
    }
    return strncmp(end, today, sizeof(today) - 1) == 0
               ? json_sprintf("%.*s/fatman/%s", (int)(end - url), url, end + sizeof(today) - 1)
               : json_string(url);
}

/* What belongs to users keeps its keys. */
static bool is_opaque(const char *key)
{
    return strcmp(key, "properties") == 0 || strcmp(key, "infrastructure_stats") == 0;
}

static json_t *renamed(json_t *value);

static json_t *renamed_object(json_t *value)
{
    json_t *out = json_object();
    const char *key;
    json_t *member;
    json_object_foreach (value, key, member) {
        if (strcmp(key, "status") == 0 && json_is_string(member) &&
            strcmp(json_string_value(member), JOB_STARTING) == 0) {
            (void)json_object_set_new(out, key, json_string("created"));
        } else if (strcmp(key, "manifest") == 0 && json_is_object(member)) {
            (void)json_object_set_new(out, key, era_manifest(member));
        } else if (strcmp(key, "pub_url") == 0 && json_is_string(member)) {
            (void)json_object_set_new(out, key, era_url(json_string_value(member)));
        } else if (is_opaque(key)) {
            (void)json_object_set(out, key, member);
        } else {
            (void)json_object_set_new(out, old_key(key), renamed(json_incref(member)));
        }
    }
    json_decref(value);
    return out;
}

static json_t *renamed(json_t *value)
{
    if (json_is_object(value)) {
        return renamed_object(value);
    }
    if (json_is_array(value)) {
        json_t *out = json_array();
        size_t i;
        json_t *member;
        json_array_foreach (value, i, member) {
            (void)json_array_append_new(out, renamed(json_incref(member)));
        }
        json_decref(value);
        return out;
    }
    return value;
}

json_t *api_fatman(json_t *value)
{
    return renamed(value);
}

json_t *api_fatman_reply(struct trk_request *req, json_t *value)
{
    (void)req;
    return api_fatman(value);
}
