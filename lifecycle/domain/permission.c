#include "lifecycle/domain/permission.h"

#include <string.h>

#include "libtrack/base/mem.h"

static const struct {
    const char *name, *fatman;
} scopes[] = {
    {SCOPE_READ_JOB, "read_fatman"}, {SCOPE_DEPLOY_JOB, "deploy_fatman"},
    {SCOPE_DEPLOY_NEW_FAMILY, NULL}, {SCOPE_DELETE_JOB, "delete_fatman"},
    {SCOPE_CALL_JOB, "call_fatman"}, {SCOPE_CALL_ADMIN_API, NULL},
    {SCOPE_FULL_ACCESS, NULL},
};

const char *scope_canonical(const char *name)
{
    for (size_t i = 0; i < TRK_COUNT(scopes); i++) {
        if (strcmp(scopes[i].name, name) == 0 ||
            (scopes[i].fatman != NULL && strcmp(scopes[i].fatman, name) == 0)) {
            return scopes[i].name;
        }
    }
    return NULL;
}

static size_t length_without_slash(const char *path)
{
    size_t len = strlen(path);
    return len > 1 && path[len - 1] == '/' ? len - 1 : len;
}

bool path_is_always_public(const char *path)
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

bool path_is_below(const char *path, const char *prefix)
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
