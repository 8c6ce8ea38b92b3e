#include "lifecycle/domain/version.h"

#include <string.h>

#include "libtrack/data/semver.h"
#include "lifecycle/domain/status.h"

bool version_is_alias(const char *wanted)
{
    return strcmp(wanted, "latest") == 0 || trk_semver_is_wildcard(wanted);
}

bool version_pick(const char *wanted, const struct version_candidate *list, size_t count,
                  size_t *ret_index)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].version, wanted) == 0) {
            *ret_index = i;
            return true;
        }
    }
    if (!version_is_alias(wanted)) {
        return false;
    }
    bool any = strcmp(wanted, "latest") == 0;
    bool found = false;
    struct trk_semver best;
    for (size_t i = 0; i < count; i++) {
        struct trk_semver v;
        if (!job_status_is_live(list[i].status) ||
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
