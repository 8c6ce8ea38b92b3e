/*
 * The fatman era's spelling, in this one place: a job was called a Fatman. Paths are rewritten to
 * today's before the route is looked up, the reply's keys back to what such a client reads. Scopes
 * are understood in both spellings everywhere (domain/permission.c).
 */
#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
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

/* What belongs to users keeps its keys. */
static bool is_opaque(const char *key)
{
    return strcmp(key, "manifest") == 0 || strcmp(key, "properties") == 0 ||
           strcmp(key, "infrastructure_stats") == 0;
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

json_t *api_fatman_reply(struct trk_request *req, json_t *value)
{
    (void)req;
    return renamed(value);
}
