/*
 * http_client.h - HTTP requests over libcurl, with every limit explicit.
 *
 * http and https only, no redirects followed, TLS verified, no proxies from the environment unless
 * asked, caps on the answer's size, explicit timeouts. A client keeps its connections; use one a
 * thread (or guard it). libcurl is initialised on first use: a program that sends nothing pays
 * nothing.
 *
 *     struct trk_http_client *c = trk_http_client_new();
 *     struct trk_http_call call = {.method = "GET", .url = url, .timeout_ms = 3000};
 *     struct trk_http_answer a;
 *     if (trk_http_call(c, &call, &a, err) < 0) ...        // could not be reached
 *     if (a.status != 200) return trk_http_answer_err(&a, err);   // peer's {"error"} text, its
 * status as code trk_http_answer_fini(&a);
 */
#ifndef LIBTRACK_HTTP_CLIENT_H
#define LIBTRACK_HTTP_CLIENT_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/err.h"

struct trk_http_client;

struct trk_http_call {
    const char *method; /* NULL: GET */
    const char *url;
    const char *const *headers; /* NULL-terminated "Name: value"; or NULL */
    const char *auth_token;     /* sent as X-Racetrack-Auth; or NULL */
    const json_t *json;         /* body as JSON; borrows; or NULL */
    const void *body;           /* raw body; or NULL */
    size_t body_len;
    const char *content_type; /* of `body`; NULL: application/octet-stream */
    int body_fd;              /* with body_fd_size > 0: body read from here; borrows */
    int64_t body_fd_size;
    int64_t connect_timeout_ms; /* 0: 3000 */
    int64_t timeout_ms;         /* whole call; 0: 30000; -1: none (with on_data only) */
    int64_t idle_timeout_ms;    /* no byte for so long: TRK_TIMEOUT; 0: none */
    size_t answer_max_bytes;    /* 0: 16 MiB; more is TRK_TOO_LARGE */
    const char *unix_socket;    /* or NULL */
    const char *ca_file;        /* or NULL: the system's */
    /* Streams the body instead of keeping it; return <0 to stop (the call then returns that code).
     * `status` is known. */
    int (*on_data)(void *ctx, int status, const char *bytes, size_t len, struct trk_err *err);
    void *ctx;
    const atomic_bool *cancel; /* asked about once a second; TRK_CANCELLED */
};
struct trk_http_answer {
    int status;
    char *body; /* owned by the answer, terminated; "" when streamed */
    size_t body_len;
    char content_type[128];
    char *headers; /* owned: "name: value\n" lines, names lower-case */
};

struct trk_http_client *trk_http_client_new(void);
void trk_http_client_free(struct trk_http_client *client);
/* Any HTTP status is success here; failure means no (whole) answer: TRK_UNAVAILABLE (refused, no
 * such host: text says which and what to check), TRK_TIMEOUT, TRK_BAD_GATEWAY (garbage),
 * TRK_TOO_LARGE. */
int trk_http_call(struct trk_http_client *client, const struct trk_http_call *call,
                  struct trk_http_answer *ret, struct trk_err *err) TRK_MUST_CHECK;
void trk_http_answer_fini(struct trk_http_answer *answer);
/* Value of a header (lower-case name) into out; false when missing. */
bool trk_http_answer_header(const struct trk_http_answer *answer, const char *name, char *out,
                            size_t size);
/* Body as JSON; TRK_BAD_GATEWAY when it is not. *ret owned. */
int trk_http_answer_json(const struct trk_http_answer *answer, json_t **ret,
                         struct trk_err *err) TRK_MUST_CHECK;
/* Turns a non-2xx answer into an error: the peer's {"error"} or {"detail"}, else the reason phrase
 * and the first bytes. Returns the code. */
int trk_http_answer_err(const struct trk_http_answer *answer, struct trk_err *err);

/* Server-sent events parser (WHATWG HTML §9.2.6) to feed from on_data. */
struct trk_sse;
struct trk_sse *trk_sse_new(int (*on_event)(void *ctx, const char *event, const char *id,
                                            const char *data, struct trk_err *err),
                            void *ctx);
int trk_sse_feed(struct trk_sse *sse, const char *bytes, size_t len,
                 struct trk_err *err) TRK_MUST_CHECK;
void trk_sse_free(struct trk_sse *sse);

#endif
