/*
 * route.h - from a request target to what is asked for. Pure; any thread.
 *
 * The job is mounted at "/", "/pub/job/{any}/{any}" and "/pub/fatman/{any}/{any}"; the rest of the
 * path is decoded once (RFC 3986 §2.1) and then only compared, never decoded again.
 */
#ifndef WRAPPER_ROUTE_H
#define WRAPPER_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#define ROUTE_PATH_MAX 2048

enum route_kind {
    ROUTE_HOME,      /* base + "/": redirect to the home page */
    ROUTE_ADD_SLASH, /* a mount without its slash */
    ROUTE_LIVE,
    ROUTE_READY,
    ROUTE_HEALTH,
    ROUTE_METRICS,
    ROUTE_DOCS,
    ROUTE_OPENAPI,
    ROUTE_PARAMETERS,
    ROUTE_API, /* path is what follows /api/v1, from its slash */
    ROUTE_UNKNOWN,
};
struct route {
    enum route_kind kind;
    const char *base; /* borrows from the target: the mount, "" or "/pub/job/a/1" */
    size_t base_len;
    const char *query; /* borrows: with its '?', or empty */
    size_t query_len;
    char path[ROUTE_PATH_MAX]; /* decoded rest, terminated */
};
/* 0, or the status to refuse with (400, 414). */
int route_resolve(const char *target, size_t len, struct route *ret);
/* Is it asked under the mount of that era? */
bool route_is_fatman(const struct route *route);
/* Does the mount name this job, or none at all? */
bool route_names(const struct route *route, const char *job_name);

#endif
