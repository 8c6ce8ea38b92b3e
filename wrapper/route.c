#include "wrapper/route.h"

#include <string.h>

#include "libtrack/base/str.h"

static int decode(const char *s, size_t len, char *out)
{
    if (len >= ROUTE_PATH_MAX) {
        return 414;
    }
    ptrdiff_t n = trk_url_unescape(s, len, out);
    if (n < 0 || memchr(out, '\0', (size_t)n) != NULL) {
        return 400;
    }
    out[n] = '\0';
    return 0;
}

/* Length of "/pub/job/{x}/{y}" or "/pub/fatman/{x}/{y}" in front of the path, 0 without. */
static size_t mount_length(const char *path, size_t len)
{
    static const char *const prefixes[] = {"/pub/job/", "/pub/fatman/"};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        size_t at = strlen(prefixes[i]);
        if (len <= at || memcmp(path, prefixes[i], at) != 0) {
            continue;
        }
        const char *slash = memchr(path + at, '/', len - at);
        if (slash == NULL || slash == path + at) {
            return 0;
        }
        size_t version = (size_t)(slash - path) + 1;
        slash = memchr(path + version, '/', len - version);
        size_t end = slash != NULL ? (size_t)(slash - path) : len;
        return end > version ? end : 0;
    }
    return 0;
}

static enum route_kind kind_of(const char *path)
{
    static const struct {
        const char *path;
        enum route_kind kind;
    } fixed[] = {
        {"/", ROUTE_HOME},
        {"/live", ROUTE_LIVE},
        {"/ready", ROUTE_READY},
        {"/health", ROUTE_HEALTH},
        {"/metrics", ROUTE_METRICS},
        {"/docs", ROUTE_DOCS},
        {"/docs/", ROUTE_DOCS},
        {"/openapi.json", ROUTE_OPENAPI},
        {"/metrics/", ROUTE_METRICS},
        {"/api/v1/parameters", ROUTE_PARAMETERS},
    };
    if (strncmp(path, "/api/v1/perform", 16) == 0) {
        return ROUTE_API;
    }
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        if (strcmp(path, fixed[i].path) == 0) {
            return fixed[i].kind;
        }
    }
    return strncmp(path, "/api/v1/", 8) == 0 ? ROUTE_API : ROUTE_UNKNOWN;
}

int route_resolve(const char *target, size_t len, struct route *ret)
{
    const char *query = memchr(target, '?', len);
    size_t path_len = query != NULL ? (size_t)(query - target) : len;
    ret->query = query != NULL ? query : target + len;
    ret->query_len = len - path_len;
    ret->base = target;
    ret->base_len = mount_length(target, path_len);
    ret->path[0] = '\0';
    if (path_len == 0 || target[0] != '/') {
        return 400;
    }
    if (ret->base_len == path_len) {
        ret->kind = ROUTE_ADD_SLASH;
        return 0;
    }
    int status = decode(target + ret->base_len, path_len - ret->base_len, ret->path);
    if (status != 0) {
        return status;
    }
    ret->kind = kind_of(ret->path);
    if (ret->kind == ROUTE_API) {
        memmove(ret->path, ret->path + 7, strlen(ret->path + 7) + 1);
    }
    return 0;
}

bool route_is_fatman(const struct route *route)
{
    static const char mount[] = "/pub/fatman/";
    return route->base_len > sizeof(mount) && memcmp(route->base, mount, sizeof(mount) - 1) == 0;
}

bool route_names(const struct route *route, const char *job_name)
{
    if (route->base_len == 0) {
        return true;
    }
    /* "/pub/job/{name}/{version}": what mount_length found */
    size_t at = strlen("/pub/");
    at += strcspn(route->base + at, "/") + 1;
    const char *name = route->base + at;
    size_t len = strcspn(name, "/");
    char decoded[ROUTE_PATH_MAX];
    return decode(name, len, decoded) == 0 && strcmp(decoded, job_name) == 0;
}
