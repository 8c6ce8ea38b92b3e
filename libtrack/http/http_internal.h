/*
 * http_internal.h - what the files of the HTTP server share: http_server.c (start, stop),
 * http_listen.c, gate.c (connections), http_serve.c (a request's way), http_route.c (table),
 * http_request.c (head checks, getters), http_body.c, http_reply.c, http_pages.c, openapi.c,
 * docs_page.c. Nobody else includes it.
 */
#ifndef LIBTRACK_HTTP_INTERNAL_H
#define LIBTRACK_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "libtrack/base/clock.h"
#include "libtrack/data/schema.h"
#include "libtrack/http/gate.h"
#include "libtrack/http/http_server.h"

#define HTTP_PARAMS_MAX   16
#define HTTP_SEGMENTS_MAX 64
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HTTP_STACK_BYTES (4U * 1024 * 1024)
#else
#define HTTP_STACK_BYTES (512U * 1024) /* of address space; only what is touched costs memory */
#endif
/* A rejected request's body up to this size is read and dropped so that the connection can go on.
 */
#define HTTP_DRAIN_BYTES (64 * 1024)
/* All bodies in memory; requests up to HTTP_DRAIN_BYTES do not mind. */
#define HTTP_BODIES_MAX (64UL << 20)
/* The memory of larger bodies and answers is given back to the system. */
#define HTTP_LARGE_BYTES (1024 * 1024)
/* Slower senders and readers than this (beyond options.timeout_s) are cut off. */
#define HTTP_RATE_MIN_BYTES_PER_S (16 * 1024)

/* -- routes (http_route.c) -- */
struct http_query {
    char *name, *type, *otherwise, *help; /* type: string, int, bool; otherwise: "" when none */
};
struct http_route {
    const struct trk_route *decl;
    const char *tag;
    char *params[HTTP_PARAMS_MAX]; /* names in path order */
    size_t param_count;
    bool has_rest; /* the last parameter takes the remaining segments */
    struct http_query *query;
    size_t query_count;
    struct trk_schema *schema; /* of the body; NULL when it is not checked */
    size_t body_max_bytes;
};
struct http_routes;
/* Compiles the tables; aborts on a fault in them (they are ours). */
struct http_routes *http_routes_new(const struct trk_http_options *options);
void http_routes_free(struct http_routes *routes);
struct http_match {
    const struct http_route *route; /* NULL: no such path, or (allow not empty) no such method */
    char *values[HTTP_PARAMS_MAX];  /* decoded, on mem */
    char *path;                     /* decoded, on mem; set also when there is no route */
    char allow[64];                 /* "GET, HEAD, POST" when only the method is missing */
};
/* Finds the route of a raw (still encoded) path. `mem` is a talloc context. TRK_INVALID for a path
 * that no route may see: broken escapes, dot segments, an encoded '/' in a parameter. */
int http_routes_find(const struct http_routes *routes, void *mem, const char *method,
                     const char *raw_path, struct http_match *ret,
                     struct trk_err *err) TRK_MUST_CHECK;
/* Parses "name:type=default:help;…". Aborts on a fault. Returns owned. */
struct http_query *http_query_parse(const char *text, size_t *ret_count);
void http_query_free(struct http_query *query, size_t count);

/* -- the server (http_server.c, http_listen.c) -- */
struct trk_http_server {
    struct trk_http_options options;
    struct http_routes *routes;
    struct MHD_Daemon *daemon;
    struct http_gate *gate;
    int port;
    pthread_mutex_t lock; /* guards the page texts */
    pthread_cond_t idle;  /* no request is left while stopping */
    atomic_size_t active; /* requests between their head and the end of their answer */
    atomic_bool stopping;
    atomic_size_t bodies_bytes; /* of requests in memory */
    atomic_bool wants_trim;     /* something large was freed */
    char *openapi, *docs;       /* made on first use */
    char *docs_policy;          /* Content-Security-Policy of docs */
    struct trk_metric *started, *done, *server_errors;
    struct trk_series *duration;
};

/* Wakes trk_http_server_stop(). */
void http_server_on_idle(struct trk_http_server *server);
/* Listens on the options' address, for a loopback address in both families (where the machine has
 * them) with one port number. fds: non-blocking, owned. */
int http_listen(const struct trk_http_options *options, int fds[2], size_t *ret_count,
                int *ret_port, struct trk_err *err) TRK_MUST_CHECK;

/* -- callbacks of libmicrohttpd that make up a request (http_serve.c) -- */
void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd);
size_t http_keep_encoded(void *cls, struct MHD_Connection *mhd, char *s);
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *bytes,
                                size_t *len, void **con_cls);
void http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                       enum MHD_RequestTerminationCode code);

/* -- a request -- */
struct http_header {
    struct http_header *next;
    char *name, *value;
};
struct trk_request {
    struct trk_http_server *server;
    struct MHD_Connection *mhd;
    struct http_pair *pair;
    char *target; /* raw, with the query */
    bool begun;
    int64_t begun_ns;
    const char *method;
    char *path; /* decoded, without mount prefix; set by routing */
    char tracing_id[128];
    struct http_match match;
    bool is_alias;
    struct http_header *query; /* decoded, in order */
    void *subject;
    void *user;
    void (*user_fini)(void *user);
    /* body */
    uint64_t body_seen;
    bool discard; /* the answer is made; what still comes is dropped */
    bool must_close, is_large;
    struct trk_buf body;
    size_t body_held; /* counted in server->bodies_bytes */
    json_t *json;
    /* answer */
    struct http_header *reply_headers;
    struct MHD_Response *response;
    bool is_short; /* fits into the pair */
    int status;
};

/* -- head (http_request.c) -- */
void http_set_tracing_id(struct trk_request *req);
int http_parse_query(struct trk_request *req, struct trk_err *err) TRK_MUST_CHECK;
/* Typed query parameters of the route; replies 422 itself (and returns TRK_SCHEMA). */
int http_check_query(struct trk_request *req, struct trk_err *err) TRK_MUST_CHECK;
/* Declared length of the body: -1 chunked, 0 none. */
int64_t http_body_length(struct trk_request *req);

/* -- body (http_body.c) -- */
int http_body_check(struct trk_request *req, struct trk_err *err) TRK_MUST_CHECK;
int http_body_add(struct trk_request *req, const char *bytes, size_t len,
                  struct trk_err *err) TRK_MUST_CHECK;
/* Frees what is in memory, and its share of the budget. */
void http_body_drop(struct trk_request *req);
/* All of it has come: JSON, schema. */
int http_body_end(struct trk_request *req, struct trk_err *err) TRK_MUST_CHECK;

/* -- answer (http_reply.c) -- */
/* Makes the answer for an error (replacing any made before); logs a 5xx. */
void http_reply_err(struct trk_request *req, const struct trk_err *err);
/* Makes the 422 answer; details: array, taken. Returns TRK_SCHEMA, with `err` set. */
int http_reply_faults(struct trk_request *req, json_t *details, struct trk_err *err);
/* One entry of a 422's detail. loc is taken. */
json_t *http_fault(const char *type, json_t *loc, const char *msg, const json_t *input);
/* 307 to `location` (a path of this server). */
int http_reply_redirect(struct trk_request *req, const char *location);
/* Hands the answer to libmicrohttpd. */
enum MHD_Result http_reply_queue(struct trk_request *req);
/* Writes the answer that was made straight to the socket: in the middle of a body libmicrohttpd
 * takes none. The connection must be given up then. */
void http_reply_raw(struct trk_request *req, const struct trk_err *err);

/* -- built-in pages (docs_page.c) -- */
int http_get_openapi(struct trk_request *req, struct trk_err *err);
int http_get_docs(struct trk_request *req, struct trk_err *err);
/* The HTML page for an OpenAPI document. Returns owned; *ret_policy owned. */
char *http_docs_page(const json_t *openapi, char **ret_policy);

#endif
