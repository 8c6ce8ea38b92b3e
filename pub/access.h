/*
 * access.h - the access log: one line a request, gathered by each thread and appended to one file.
 *
 *   2026-11-24T12:00:00.123Z PEER METHOD PATH STATUS MILLISECONDS TRACING_ID CALLER
 *
 * The path is without its query; what was no request has '-' for both. The caller is a JSON string
 * or null. A line is in the file within a second. The file is opened for appending: rotate it by
 * copying and truncating. Worker's thread only, but for pub_access_open.
 */
#ifndef PUB_ACCESS_H
#define PUB_ACCESS_H

#include <stdint.h>

#include "libtrack/base/err.h"
#include "pub/loop.h"
#include "pub/text.h"

#define PUB_ACCESS_BUFFER 32768

struct pub_access {
    struct pub_loop *loop;
    int fd; /* -1: no log is kept */
    struct pub_timer timer;
    int64_t second; /* whose text `date` is */
    char date[24];
    char *buffer; /* PUB_ACCESS_BUFFER */
    size_t len;
};
struct pub_access_line {
    const char *peer, *tracing_id;
    struct trk_h1_slice request; /* "METHOD target", or empty */
    int status;
    int64_t duration_ns;
    const char *caller; /* or NULL */
};

/* "": none, *ret_fd is -1. The file is made with mode 0640. *ret_fd owned. */
int pub_access_open(const char *path, int *ret_fd, struct trk_err *err) TRK_MUST_CHECK;
/* Borrows both. */
void pub_access_init(struct pub_access *a, struct pub_loop *loop, int fd);
/* Writes what is left. */
void pub_access_fini(struct pub_access *a);
void pub_access_note(struct pub_access *a, const struct pub_access_line *line);

#endif
