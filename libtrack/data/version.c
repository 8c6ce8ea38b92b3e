#include "libtrack/data/version.h"

#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/semver.h"

bool trk_version_is_alias(const char *wanted)
{
    return strcmp(wanted, "latest") == 0 || trk_semver_is_wildcard(wanted);
}

bool trk_version_is_live(const char *status)
{
    return strcmp(status, "running") == 0 || strcmp(status, "error") == 0 ||
           strcmp(status, "lost") == 0;
}

bool trk_version_pick(const char *wanted, const struct trk_version_candidate *list, size_t count,
                      size_t *ret_index)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].version, wanted) == 0) {
            *ret_index = i;
            return true;
        }
    }
    if (!trk_version_is_alias(wanted)) {
        return false;
    }
    bool any = strcmp(wanted, "latest") == 0;
    bool found = false;
    struct trk_semver best;
    for (size_t i = 0; i < count; i++) {
        struct trk_semver v;
        if (!trk_version_is_live(list[i].status) ||
            trk_semver_parse(list[i].version, &v, NULL) < 0 || !trk_semver_is_stable(&v) ||
            !(any || trk_semver_matches(&v, wanted))) {
            continue;
        }
        if (!found || trk_semver_compare(&v, &best) > 0) {
            best = v;
            *ret_index = i;
            found = true;
        }
    }
    return found;
}

static size_t length_without_slash(const char *path)
{
    size_t len = strlen(path);
    return len > 1 && path[len - 1] == '/' ? len - 1 : len;
}

bool trk_endpoint_is_always_public(const char *path)
{
    static const char *const paths[] = {"/health", "/live", "/ready"};
    size_t len = length_without_slash(path);
    for (size_t i = 0; i < TRK_COUNT(paths); i++) {
        if (strlen(paths[i]) == len && memcmp(paths[i], path, len) == 0) {
            return true;
        }
    }
    return false;
}

bool trk_endpoint_is_below(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    while (len > 0 && prefix[len - 1] == '/') {
        len--;
    }
    if (len == 0) {
        return prefix[0] == '/'; /* "/" opens the whole job; an empty text opens nothing */
    }
    return strncmp(path, prefix, len) == 0 && (path[len] == '\0' || path[len] == '/');
}
