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
