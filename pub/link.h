/*
 * link.h - one exchange with lifecycle over plain HTTP/1.1, on a thread that may wait.
 *
 * Not libcurl: loaded for this alone it would quadruple the gateway's resident memory (2.6 to 11
 * MB). A connection is made for each exchange.
 *
 *     struct pub_link_call call = {.path = "/api/v1/gateway/stream", .on_data = on_data, …};
 *     if (pub_link_run(&link, &call, &status, err) < 0) …
 */
#ifndef PUB_LINK_H
#define PUB_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/err.h"

struct pub_link {
    const char *token;           /* borrowed */
    char host[256], port[8];     /* of LIFECYCLE_URL */
    char path[512], header[300]; /* without a trailing slash; "host:port" */
};
struct pub_link_call {
    const char *path;   /* behind the link's */
    const char *fields; /* whole lines of the head; or NULL */
    const char *body;   /* JSON, makes it a POST; or NULL */
    int64_t silence_ms; /* that long without a byte: TRK_TIMEOUT */
    /* The body of a 200, piece by piece; <0 ends the exchange with that error. Or NULL. */
    int (*on_data)(void *ctx, const char *bytes, size_t len, struct trk_err *err);
    /* The socket, which another thread may shut down until it is told -1. Or NULL. */
    void (*on_socket)(void *ctx, int fd);
    void *ctx;
};

/* TRK_INVALID for anything but http://host[:port][/path]. */
int pub_link_init(struct pub_link *ret, const char *url, const char *token,
                  struct trk_err *err) TRK_MUST_CHECK;
/* 0 when there was a whole answer, whatever its status; TRK_UNAVAILABLE, TRK_TIMEOUT,
 * TRK_BAD_GATEWAY when not. */
int pub_link_run(const struct pub_link *link, const struct pub_link_call *call, int *ret_status,
                 struct trk_err *err) TRK_MUST_CHECK;

#endif
