/*
 * version.h - which job a version text means: an exact version, `latest`, or a wildcard (1.x).
 */
#ifndef LIFECYCLE_DOMAIN_VERSION_H
#define LIFECYCLE_DOMAIN_VERSION_H

#include <stdbool.h>
#include <stddef.h>

struct version_candidate {
    const char *version;
    const char *status; /* domain/status.h */
};

/* Does it stand for a version that depends on what is deployed? */
bool version_is_alias(const char *wanted);
/* Which of `list` is meant: the exact text whatever its status; else the highest stable (without a
 * label) and live one that matches. False: none. */
bool version_pick(const char *wanted, const struct version_candidate *list, size_t count,
                  size_t *ret_index);

#endif
