#include "lifecycle/domain/subject.h"

#include <stdio.h>
#include <string.h>

#include "lifecycle/domain/permission.h"

static bool has_scope(const struct permission *p, const char *scope)
{
    return strcmp(p->scope, scope) == 0 || strcmp(p->scope, SCOPE_FULL_ACCESS) == 0;
}

static bool covers(const struct permission *p, const char *family, const char *version,
                   const char *endpoint)
{
    if (p->family_name != NULL && strcmp(p->family_name, family) != 0) {
        return false;
    }
    if (p->job_name != NULL) {
        /* On one job: its name and its version, both. Asked about the family: not enough. */
        if (version == NULL || strcmp(p->job_name, family) != 0 ||
            strcmp(p->job_version, version) != 0) {
            return false;
        }
    }
    return p->endpoint == NULL || (endpoint != NULL && strcmp(p->endpoint, endpoint) == 0);
}

bool subject_can(const struct subject *subject, const char *scope, const char *family,
                 const char *version, const char *endpoint)
{
    if (subject->type == TRK_SUBJECT_INTERNAL) {
        return trk_token_has_scope(&subject->claims, scope);
    }
    for (unsigned i = 0; i < subject->permission_count; i++) {
        const struct permission *p = &subject->permissions[i];
        if (has_scope(p, scope) && covers(p, family, version, endpoint)) {
            return true;
        }
    }
    return false;
}

bool subject_can_somewhere(const struct subject *subject, const char *scope)
{
    if (subject->type == TRK_SUBJECT_INTERNAL) {
        return trk_token_has_scope(&subject->claims, scope);
    }
    for (unsigned i = 0; i < subject->permission_count; i++) {
        const struct permission *p = &subject->permissions[i];
        if (has_scope(p, scope) && p->endpoint == NULL) {
            return true;
        }
    }
    return false;
}

bool subject_can_in_family(const struct subject *subject, const char *scope, const char *family)
{
    if (subject->type == TRK_SUBJECT_INTERNAL) {
        return trk_token_has_scope(&subject->claims, scope);
    }
    for (unsigned i = 0; i < subject->permission_count; i++) {
        const struct permission *p = &subject->permissions[i];
        if (has_scope(p, scope) && covers(p, family, p->job_version, NULL)) {
            return true;
        }
    }
    return false;
}

bool subject_can_everywhere(const struct subject *subject, const char *scope)
{
    if (subject->type == TRK_SUBJECT_INTERNAL) {
        return trk_token_has_scope(&subject->claims, scope);
    }
    for (unsigned i = 0; i < subject->permission_count; i++) {
        const struct permission *p = &subject->permissions[i];
        if (has_scope(p, scope) && p->family_name == NULL && p->job_name == NULL &&
            p->endpoint == NULL) {
            return true;
        }
    }
    return false;
}

int subject_describe(const struct subject *subject, char *out, unsigned size)
{
    static const char *const kinds[] = {
        [TRK_SUBJECT_USER] = "User",
        [TRK_SUBJECT_ESC] = "ESC",
        [TRK_SUBJECT_JOB_FAMILY] = "Job family",
        [TRK_SUBJECT_INTERNAL] = "Service",
    };
    return snprintf(out, size, "%s %s", kinds[subject->type], subject->name);
}
