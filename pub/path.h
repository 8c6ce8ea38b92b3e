/*
 * path.h - what a request target means, decided once.
 *
 * Routing and authorisation look at the decoded segments; the job gets the path as it was sent.
 * Refused as 400: broken escapes, control characters, backslashes and dot segments, plain or
 * encoded, also behind an encoded slash; an encoded slash in a job's name or version. No state, any
 * thread.
 */
#ifndef PUB_PATH_H
#define PUB_PATH_H

#include <stddef.h>

#include "libtrack/http/h1.h"

enum pub_route_kind {
    PUB_ROUTE_NONE,
    PUB_ROUTE_JOB,
    PUB_ROUTE_LIVE,
    PUB_ROUTE_READY,
    PUB_ROUTE_HEALTH,
    PUB_ROUTE_METRICS
};
struct pub_route {
    enum pub_route_kind kind;
    struct trk_h1_slice job, version; /* decoded; in `scratch` or the target */
    struct trk_h1_slice rest;         /* raw: from the '/' after the version, with the query */
    struct trk_h1_slice endpoint;     /* decoded path behind the version, "" or "/a/b": repeated and
                                         trailing slashes dropped */
};
/* Both "/x" and "/<prefix>/x" are routes. `scratch` takes decoded text and has room for len bytes.
 * 0, or -400 with *ret_fault. Slices are valid as long as target and scratch. */
int pub_path_route(struct pub_route *ret, struct trk_h1_slice target, const char *prefix,
                   char *scratch, const char **ret_fault);

#endif
