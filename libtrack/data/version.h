/*
 * version.h - which job a version text means: an exact version, `latest`, or a wildcard (1.x); and
 * which of a job's paths need no permission. Pure rules that lifecycle and the gateway share; any
 * thread.
 *
 *     if (trk_version_pick("1.x", list, count, &i)) use(list[i].version);
 */
#ifndef LIBTRACK_VERSION_H
#define LIBTRACK_VERSION_H

#include <stdbool.h>
#include <stddef.h>

struct trk_version_candidate {
    const char *version;
    const char *status; /* of the job */
};

/* Does it stand for a version that depends on what is deployed? */
bool trk_version_is_alias(const char *wanted);
/* May `latest` and wildcards point at a job of this status? (running, error, lost) */
bool trk_version_is_live(const char *status);
/* Which of `list` is meant: the exact text whatever its status; else the highest stable (without a
 * label) and live one that matches. False: none. */
bool trk_version_pick(const char *wanted, const struct trk_version_candidate *list, size_t count,
                      size_t *ret_index);

/* /health, /live, /ready: callable by anybody on every job (one slash at the end is ignored). */
bool trk_endpoint_is_always_public(const char *path);
/* Is `path` the public endpoint `prefix` or below it? /echo opens /echo and /echo/x, not /echoes.
 */
bool trk_endpoint_is_below(const char *path, const char *prefix);

#endif
