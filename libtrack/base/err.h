/*
 * err.h - errors as values: a code, an HTTP status class and a text for a person.
 *
 * A fallible function returns 0 or a negative `enum trk_code` and takes `struct trk_err *err` as
 * its last parameter. The error lives on the caller's stack; making one never allocates. `err` may
 * be NULL when the caller wants the code only. Every function here may be called from any thread.
 *
 *     struct trk_err err = {0};
 *     if (load(path, &err) < 0) {
 *         return trk_err_wrap(&err, "starting %s", name);   // "starting x: <what load said>"
 *     }
 */
#ifndef LIBTRACK_ERR_H
#define LIBTRACK_ERR_H

#include <stddef.h>

#define TRK_MUST_CHECK        __attribute__((warn_unused_result))
#define TRK_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Negative so that a function can return it directly; see trk_code_info() for the mapping. */
enum trk_code {
    TRK_OK = 0,
    TRK_INVALID = -1,            /* 400: a value is wrong */
    TRK_UNAUTHENTICATED = -2,    /* 401: no token, or one that is not valid (any more) */
    TRK_FORBIDDEN = -3,          /* 403: known caller, missing permission */
    TRK_NOT_FOUND = -4,          /* 404 */
    TRK_METHOD = -5,             /* 405 */
    TRK_CONFLICT = -6,           /* 409 */
    TRK_TOO_LARGE = -7,          /* 413 */
    TRK_SCHEMA = -8,             /* 422: body or query does not match its schema */
    TRK_TOO_MANY = -9,           /* 429 */
    TRK_INTERNAL = -10,          /* 500: our bug */
    TRK_BAD_GATEWAY = -11,       /* 502: a peer answered nonsense or broke the connection */
    TRK_UNAVAILABLE = -12,       /* 503: a dependency is away; try again */
    TRK_TIMEOUT = -13,           /* 504 */
    TRK_NO_SPACE = -14,          /* 507: disk full */
    TRK_HEADERS_TOO_LARGE = -15, /* 431 */
    TRK_MEDIA_TYPE = -16,        /* 415 */
    TRK_GONE = -17,              /* 410 */
    TRK_CANCELLED = -18,         /* 499: the caller went away, or the service is shutting down */
};

#define TRK_ERR_TEXT_MAX 4096

struct trk_err {
    enum trk_code code;
    char text[TRK_ERR_TEXT_MAX]; /* always terminated; cut on a UTF-8 boundary with "…" */
};

/* What a code means to the outside. `type` is the `type` field of the error JSON (the original's
 * exception names where clients know them), `exit_code` what the CLI exits with (70: handled
 * error). */
struct trk_code_info {
    int http_status;
    int exit_code;
    const char *type;
};
const struct trk_code_info *trk_code_info(enum trk_code code);

/* The code for an HTTP status of a peer's answer (404 -> TRK_NOT_FOUND, other 5xx ->
 * TRK_BAD_GATEWAY). */
enum trk_code trk_code_from_http(int status);

/* Sets code and text; returns `code`. */
int trk_err_set(struct trk_err *err, enum trk_code code, const char *fmt, ...) TRK_PRINTF(3, 4);

/* Sets code by errno (ENOENT -> NOT_FOUND, ENOSPC/EDQUOT -> NO_SPACE, EACCES -> FORBIDDEN, EEXIST
 * -> CONFLICT, ETIMEDOUT -> TIMEOUT, ECONNREFUSED -> UNAVAILABLE, else INTERNAL); the text ends in
 * ": <strerror>". Returns the code. */
int trk_err_errno(struct trk_err *err, int errnum, const char *fmt, ...) TRK_PRINTF(3, 4);

/* Puts "<context>: " in front of the text, keeps the code; returns the code. */
int trk_err_wrap(struct trk_err *err, const char *fmt, ...) TRK_PRINTF(2, 3);

/* Appends to the text (for lists of faults, log tails). Returns the code. */
int trk_err_append(struct trk_err *err, const char *fmt, ...) TRK_PRINTF(2, 3);

/* A programming error: prints file, line and text, and aborts, in every build. */
_Noreturn void trk_die_at(const char *file, int line, const char *fmt, ...) TRK_PRINTF(3, 4);
#define trk_die(...) trk_die_at(__FILE__, __LINE__, __VA_ARGS__)
#define trk_assert(cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            trk_die_at(__FILE__, __LINE__, "assertion failed: %s", #cond);                         \
        }                                                                                          \
    } while (0)

#endif
