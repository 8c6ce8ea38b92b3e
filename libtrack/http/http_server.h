/*
 * http_server.h - HTTP server over libmicrohttpd with a declared route table.
 *
 * Thread per request + poll: handlers may block. Before a request reaches libmicrohttpd the gate
 * (gate.h) has read its head strictly; what two parsers could read in two ways (both length
 * headers, several lengths, a Transfer-Encoding other than chunked, two Hosts, bare LF, NUL, folded
 * lines; RFC 9112) is answered with 400, 408, 414, 431, 501 or 505 and the end of the connection.
 * What is not in the table is refused (404, 405 with Allow); a trailing slash too many or missing
 * answers 307 to the path that exists; paths with broken escapes, dot segments or an encoded '/' in
 * a parameter get 400. The order is: route, authorize(), query (422), length (413), content type
 * (415; JSON routes take application/json or none), body, schema (422 with
 * `{"error","type","detail":[{type,loc,msg,input}…]}`), handler.
 * Bodies are read whole up to the route's cap unless the route streams; one that was rejected early
 * is dropped when it is small, else the connection closes after the answer.
 *
 * Errors of a handler become `{"error": text, "type": …}`; with a 5xx the text is only its
 * outermost context (what stands before the first ": "; nothing for TRK_INTERNAL) and a
 * `tracing_id`; the whole text is logged once. The tracing id (options.tracing_header, checked,
 * else a new UUID) is echoed and put on the thread's log lines. One access log line a request.
 * No CORS headers are sent.
 *
 * Limits: requests at once (more wait, at most timeout_s, then 503); connections, as many as there
 * are descriptors, cost memory only; a head must come within 15 s and 32 KiB; a body or answer that
 * moves slower than 16 KiB/s beyond timeout_s is cut off. A handler may take any time.
 *
 * Bodies in memory have 64 MiB in all; beyond, a large one is answered 503. Routes that are public
 * take bodies up to 64 KiB when they do not say otherwise.
 *
 * Starting a server ignores SIGPIPE in the process, limits malloc to two arenas and has it give
 * large blocks back at once.
 *
 * A handler runs on the connection's thread with a `struct trk_request` that is valid until it
 * returns. Memory hung on request->mem (talloc) goes with it.
 *
 *     static int get_job(struct trk_request *req, struct trk_err *err)
 *     {
 *         const char *name = trk_req_param(req, "name");
 *         ...
 *         return trk_reply_json(req, 200, job);    // takes job
 *     }
 *     static const struct trk_route routes[] = {
 *         {.method = "GET", .path = "/api/v1/job/{name}/{version}", .access = "scope:read_job",
 *          .response_schema = "{\"$ref\":\"#/components/schemas/Job\"}", .handler = get_job,
 *          .help = "One job by name and version; version may be `latest` or a wildcard."},
 *     };
 */
#ifndef LIBTRACK_HTTP_SERVER_H
#define LIBTRACK_HTTP_SERVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"
#include "libtrack/metrics/metrics.h"

struct trk_http_server;
struct trk_request;

typedef int (*trk_handler)(struct trk_request *req, struct trk_err *err);

enum trk_route_flags {
    TRK_ROUTE_RAW_BODY = 1, /* body of any content type, whole, unparsed */
    /* body goes to on_body piece by piece; handler runs at its end. With a request_schema the body
     * is what on_body kept of it (trk_req_keep_body). */
    TRK_ROUTE_STREAM_BODY = 2,
    TRK_ROUTE_HIDDEN = 4, /* not in OpenAPI (aliases, static pages) */
    TRK_ROUTE_QUIET = 8,  /* not in the access log (probes, metrics) */
    TRK_ROUTE_DEPRECATED = 16,
};
struct trk_route {
    const char *method; /* "GET"; HEAD is answered for each GET */
    /* "/api/v1/x/{name}": a parameter is one segment, not empty; a last "{rest:path}" takes all
     * remaining ones (may be empty). Literal segments come before parameters. */
    const char *path;
    const char *access; /* rule text, understood by options.authorize; "public" asks nobody */
    const char *request_schema;  /* JSON Schema text or NULL (no body) */
    const char *response_schema; /* JSON Schema text or NULL (null/empty) */
    /* Documented query parameters "tail:int=20:lines from the end;force:bool=false:…", types int,
     * bool, string; NULL for none. A value of the wrong type is 422, unknown names are ignored. */
    const char *query;
    trk_handler handler;
    const char *help; /* one line */
    unsigned flags;
    size_t body_max_bytes; /* 0: options.body_max_bytes; 64 KiB of a public route */
    /* With STREAM_BODY: a piece of the body; a failure answers at once and ends the upload. */
    int (*on_body)(struct trk_request *req, const void *bytes, size_t len, struct trk_err *err);
};
struct trk_route_table {
    const char *tag; /* OpenAPI tag: "jobs" */
    const struct trk_route *routes;
    size_t count;
};

/* What the pointers lead to must stay until the server has stopped. */
struct trk_http_options {
    const char *service;         /* "lifecycle": in /live and the logs */
    const char *title, *version; /* OpenAPI */
    const char *addr;            /* "127.0.0.1" or "::1" stands for both; IPv6 allowed */
    int port;                    /* 0: a free one, see trk_http_server_port */
    const char *port_setting;    /* what sets it, for the error when it is taken; may be NULL */
    const char *const
        *prefixes; /* NULL-terminated mounts besides "/": {"/lifecycle", NULL}; may be NULL */
    const struct trk_route_table *tables;
    size_t table_count;
    const char *component_schemas; /* JSON object text name -> schema for $ref, or NULL */
    size_t body_max_bytes;         /* default cap; 0: 1 MiB */
    unsigned request_max;          /* served at once; 0: 512 */
    unsigned timeout_s;            /* idle and slow-body limit; 0: 60 */
    void *ctx;                     /* trk_req_ctx() */
    /* Called before the body is read for every route whose access is not "public". Sets the subject
     * with trk_req_set_subject. May set answer headers (WWW-Authenticate) and may answer itself
     * (return 0 after a trk_reply_…): the handler does not run then. */
    int (*authorize)(struct trk_request *req, const char *access, struct trk_err *err);
    /* Compatibility spellings: may return another path for an unmatched one (talloc'd on the
     * request) or NULL; trk_req_is_alias(req) is then true. */
    const char *(*alias)(struct trk_request *req, const char *path);
    /* Last touch on a JSON reply of an aliased request (renaming keys); returns the value to send,
     * takes `value`. */
    json_t *(*alias_reply)(struct trk_request *req, json_t *value);
    /* For aliased requests: before the schema check; takes and returns the body. May be NULL. */
    json_t *(*alias_body)(struct trk_request *req, json_t *body);
    /* Shapes error bodies (a registry's are its own): gets and takes the usual body, returns the
     * one to send. May be NULL. */
    json_t *(*error_reply)(struct trk_request *req, int status, const struct trk_err *err,
                           json_t *body);
    struct trk_metrics *metrics; /* the commons_request… metrics go here; borrows; may be NULL */
    const char *tracing_header;  /* NULL: X-Request-Tracing-Id */
};
/* Listens and starts serving. TRK_CONFLICT when the port is taken ("port 7202 on 127.0.0.1 is
 * already in use …"). */
int trk_http_server_start(const struct trk_http_options *options, struct trk_http_server **ret,
                          struct trk_err *err) TRK_MUST_CHECK;
int trk_http_server_port(const struct trk_http_server *server);
/* Stops accepting, waits for requests up to grace_ms, then cuts their connections (so that
 * trk_req_is_disconnected() and blocked writers tell) and waits one more second. Frees; NULL is
 * fine. False when handlers still ran then: they were left behind, so end the process without
 * freeing what they use (or call it again). */
bool trk_http_server_stop(struct trk_http_server *server, int64_t grace_ms);
/* Has stop begun? Streams ask. */
bool trk_http_server_is_stopping(const struct trk_http_server *server);
/* Handlers for the routes that every service has: GET /live `{"service","live":true}`, GET /ready
 * `{"service","ready":true}`, GET /metrics (options.metrics as text). */
int trk_http_live_handler(struct trk_request *req, struct trk_err *err);
int trk_http_ready_handler(struct trk_request *req, struct trk_err *err);
int trk_http_metrics_handler(struct trk_request *req, struct trk_err *err);
/* OpenAPI 3.1 document of the tables. Returns owned. Served at /openapi.json; /docs (and / for
 * services) is a page made of it. */
json_t *trk_http_openapi(const struct trk_http_options *options);

/* -- request: all results borrow, valid until the handler returns -- */
void *trk_req_ctx(const struct trk_request *req);
void *trk_req_mem(struct trk_request *req); /* talloc context */
const char *trk_req_method(const struct trk_request *req);
const char *
trk_req_path(const struct trk_request *req); /* as matched, without mount prefix, decoded */
const char *
trk_req_param(struct trk_request *req,
              const char *name); /* decoded path parameter; never NULL for a declared one */
const char *trk_req_query(struct trk_request *req, const char *name); /* decoded, or NULL */
int64_t trk_req_query_int(struct trk_request *req, const char *name, int64_t otherwise);
bool trk_req_query_bool(struct trk_request *req, const char *name, bool otherwise);
const char *trk_req_header(struct trk_request *req, const char *name); /* any case, or NULL */
const char *trk_req_cookie(struct trk_request *req, const char *name); /* URL-decoded, or NULL */
const char *trk_req_tracing_id(const struct trk_request *req);
const char *trk_req_peer(const struct trk_request *req);   /* "127.0.0.1" */
const json_t *trk_req_json(const struct trk_request *req); /* parsed body, or NULL */
const void *trk_req_body(const struct trk_request *req,
                         size_t *ret_len); /* of RAW_BODY routes; of JSON ones it is gone */
/* Was it asked for under another spelling (options.alias)? */
bool trk_req_is_alias(const struct trk_request *req);
bool trk_req_is_disconnected(const struct trk_request *req);
struct trk_http_server *trk_req_server(const struct trk_request *req);
const struct trk_route *trk_req_route(const struct trk_request *req);
/* The service's own notion of the caller; talloc'd on trk_req_mem by convention. */
void trk_req_set_subject(struct trk_request *req, void *subject);
void *trk_req_subject(const struct trk_request *req);
/* From on_body: adds to the body that is parsed and checked at its end. */
int trk_req_keep_body(struct trk_request *req, const void *bytes, size_t len,
                      struct trk_err *err) TRK_MUST_CHECK;
/* State of a streaming upload. */
void trk_req_set_user(struct trk_request *req, void *user, void (*fini)(void *user));
void *trk_req_user(const struct trk_request *req);

/* -- reply: at most one a request; all return 0 so that a handler can end with `return trk_reply_…`
 * -- */
int trk_reply_header(struct trk_request *req, const char *name,
                     const char *value); /* before the reply; copies */
int trk_reply_json(struct trk_request *req, int status,
                   json_t *value);           /* takes value; NULL, from a failed json_pack(): 500 */
int trk_reply_null(struct trk_request *req); /* 200 `null` */
int trk_reply_empty(struct trk_request *req, int status);
int trk_reply_text(struct trk_request *req, int status, const char *content_type,
                   const char *text); /* copies */
int trk_reply_bytes(struct trk_request *req, int status, const char *content_type, void *bytes,
                    size_t len); /* takes malloc'd */
int trk_reply_fd(struct trk_request *req, int status, const char *content_type, int fd,
                 uint64_t offset, uint64_t size); /* takes fd */
/* next fills up to size bytes: >0 bytes, 0 end, <0 broken (connection closed). It may block up to
 * ~15 s at a time. fini(user) always runs. */
int trk_reply_stream(struct trk_request *req, int status, const char *content_type,
                     ssize_t (*next)(void *user, char *bytes, size_t size), void *user,
                     void (*fini)(void *user));
/* Appends the JSON text of some elements, or none, each behind a ','. 1: there may be more, 0:
 * there are no more; or fails. */
typedef int (*trk_list_next)(void *user, struct trk_buf *out, struct trk_err *err);
/* A JSON array that need not be in memory: sent as it is made when it is longer than 64 KiB. `next`
 * is called at once until then, so that a failure up to there is the handler's; later, after the
 * handler has returned (request memory is still there), it is logged and the connection cut.
 * alias_reply is not asked. fini(user) always runs. */
int trk_reply_list(struct trk_request *req, int status, trk_list_next next, void *user,
                   void (*fini)(void *user), struct trk_err *err);

#endif
