/*
 * semver.h - versions: SemVer 2.0.0 (strict grammar), ordering, wildcards. Any thread.
 *
 * Ordering is the original's where it differs from SemVer §11: numeric triple, then label; a label
 * sorts below none; labels compare by SemVer precedence. "Stable" means no label.
 */
#ifndef LIBTRACK_SEMVER_H
#define LIBTRACK_SEMVER_H

#include <stdbool.h>
#include <stdint.h>

#include "libtrack/base/err.h"

struct trk_semver {
    uint64_t major, minor, patch;
    char label[200]; /* pre-release, without '-'; "" when stable. Build metadata is dropped. */
};
int trk_semver_parse(const char *text, struct trk_semver *ret, struct trk_err *err) TRK_MUST_CHECK;
int trk_semver_compare(const struct trk_semver *a, const struct trk_semver *b); /* <0, 0, >0 */
bool trk_semver_is_stable(const struct trk_semver *v);
/* Is `text` a pattern: (\d+|x)(\.(\d+|x))* with at least one x? */
bool trk_semver_is_wildcard(const char *text);
/* Does the numeric triple match the pattern? Parts that the pattern leaves out match anything
 * ("1.x" takes 1.2.3); the label does not count: the caller decides about unstable versions. */
bool trk_semver_matches(const struct trk_semver *v, const char *pattern);

#endif
