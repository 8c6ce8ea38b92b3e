/* A small service that the tests of the HTTP server start; every handler counts its calls. */
#ifndef TESTS_UNIT_LIBTRACK_HTTP_SERVICE_H
#define TESTS_UNIT_LIBTRACK_HTTP_SERVICE_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <talloc.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_server.h"
#include "tests/unit/support/raw_http.h"

struct service {
    struct trk_metrics *metrics;
    struct trk_http_server *server;
    int port;
    atomic_int calls;         /* of any handler */
    atomic_int bodies;        /* bytes that on_body was given */
    atomic_int uploads_ended; /* fini of a streaming upload's state */
    atomic_int streams_ended;
    atomic_bool release; /* lets handler `hold` go on */
    atomic_bool is_holding;
};

static int count_call(struct trk_request *req)
{
    struct service *service = trk_req_ctx(req);
    return atomic_fetch_add(&service->calls, 1);
}

static int get_hello(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)count_call(req);
    const char *caller = trk_req_subject(req);
    const char *cookie = trk_req_cookie(req, "session");
    return trk_reply_json(
        req, 200,
        json_pack("{s:s?, s:I, s:b, s:s, s:s?, s:s?, s:s, s:s, s:s}", "name",
                  trk_req_param(req, "name"), "n", (json_int_t)trk_req_query_int(req, "n", 7),
                  "flag", trk_req_query_bool(req, "flag", false), "text",
                  trk_req_query(req, "text") != NULL ? trk_req_query(req, "text") : "", "caller",
                  caller, "cookie", cookie, "method", trk_req_method(req), "path",
                  trk_req_path(req), "peer", trk_req_peer(req)));
}

static int post_echo(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)count_call(req);
    return trk_reply_json(req, 200, json_deep_copy(trk_req_json(req)));
}

static int post_raw(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)count_call(req);
    size_t len;
    const char *bytes = trk_req_body(req, &len);
    char *copy = trk_xmalloc(len);
    memcpy(copy, bytes, len);
    return trk_reply_bytes(req, 201, "application/x-test", copy, len);
}

static void upload_end(void *user)
{
    struct service *service = user;
    atomic_fetch_add(&service->uploads_ended, 1);
}

static int upload_piece(struct trk_request *req, const void *bytes, size_t len, struct trk_err *err)
{
    struct service *service = trk_req_ctx(req);
    if (trk_req_user(req) == NULL) {
        trk_req_set_user(req, service, upload_end);
    }
    atomic_fetch_add(&service->bodies, (int)len);
    if (memmem(bytes, len, "REFUSE", 6) != NULL) {
        return trk_err_set(err, TRK_CONFLICT, "this upload is refused");
    }
    return 0;
}

static int put_upload(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)count_call(req);
    struct service *service = trk_req_ctx(req);
    return trk_reply_json(req, 200, json_integer(atomic_load(&service->bodies)));
}

static int get_fail(struct trk_request *req, struct trk_err *err)
{
    (void)count_call(req);
    int64_t code = trk_req_query_int(req, "code", TRK_INTERNAL);
    return trk_err_set(err, (enum trk_code)code, "asking the store: SELECT secret FROM users");
}

/* What json_pack() makes of bytes that are not UTF-8. */
static int get_no_json(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    return trk_reply_json(req, 200, json_pack("{s:s}", "a", "\xff"));
}

static int get_silent(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)count_call(req);
    return 0;
}

static int get_hold(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)count_call(req);
    struct service *service = trk_req_ctx(req);
    atomic_store(&service->is_holding, true);
    bool is_deaf = trk_req_query_bool(req, "deaf", false);
    while (!atomic_load(&service->release) && (is_deaf || !trk_req_is_disconnected(req))) {
        trk_sleep_ms(2);
    }
    return trk_reply_text(req, 200, "text/plain",
                          trk_req_is_disconnected(req) ? "left" : "released");
}

static int get_file(struct trk_request *req, struct trk_err *err)
{
    (void)count_call(req);
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return trk_err_errno(err, errno, "opening");
    }
    return trk_reply_fd(req, 200, "application/octet-stream", fd, 1,
                        (uint64_t)trk_req_query_int(req, "size", 3)); /* "ELF" */
}

struct stream_state {
    struct service *service;
    int left;
    bool breaks;
};
static ssize_t stream_next(void *user, char *bytes, size_t size)
{
    struct stream_state *state = user;
    if (state->left == 0) {
        return state->breaks ? -1 : 0;
    }
    state->left--;
    return snprintf(bytes, size, "data: %d\n\n", state->left);
}
static void stream_end(void *user)
{
    struct stream_state *state = user;
    atomic_fetch_add(&state->service->streams_ended, 1);
    free(state);
}
static int get_stream(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)count_call(req);
    struct stream_state *state = trk_xcalloc(1, sizeof(*state));
    state->service = trk_req_ctx(req);
    state->left = (int)trk_req_query_int(req, "count", 3);
    state->breaks = trk_req_query_bool(req, "breaks", false);
    return trk_reply_stream(req, 200, "text/event-stream", stream_next, state, stream_end);
}

static int list_next(void *user, struct trk_buf *out, struct trk_err *err)
{
    struct stream_state *state = user;
    if (state->left == 0) {
        return state->breaks ? trk_err_set(err, TRK_UNAVAILABLE, "the store: is away") : 0;
    }
    (void)trk_buf_addf(out, ",{\"n\":%d}", --state->left);
    return 1;
}
static int get_list(struct trk_request *req, struct trk_err *err)
{
    (void)count_call(req);
    struct stream_state *state = trk_xcalloc(1, sizeof(*state));
    state->service = trk_req_ctx(req);
    state->left = (int)trk_req_query_int(req, "count", 3);
    state->breaks = trk_req_query_bool(req, "breaks", false);
    return trk_reply_list(req, 200, list_next, state, stream_end, err);
}

static int get_large(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)count_call(req);
    size_t len = 32 << 20;
    char *bytes = trk_xmalloc(len);
    memset(bytes, 'x', len);
    return trk_reply_bytes(req, 200, "text/plain", bytes, len);
}

static const struct trk_route service_routes[] = {
    {.method = "GET",
     .path = "/live",
     .access = "public",
     .handler = trk_http_live_handler,
     .flags = TRK_ROUTE_QUIET,
     .help = "Is the process there?"},
    {.method = "GET",
     .path = "/ready",
     .access = "public",
     .handler = trk_http_ready_handler,
     .flags = TRK_ROUTE_QUIET,
     .help = "Does it take requests?"},
    {.method = "GET",
     .path = "/metrics",
     .access = "public",
     .handler = trk_http_metrics_handler,
     .flags = TRK_ROUTE_QUIET,
     .help = "Metrics as text."},
    {.method = "GET",
     .path = "/api/v1/hello/{name}",
     .access = "public",
     .handler = get_hello,
     .query = "n:int=7:a number;flag:bool=false:yes or no;text:string::any text",
     .help = "Says <hello> & more."},
    {.method = "DELETE",
     .path = "/api/v1/hello/{name}",
     .access = "scope:write",
     .handler = get_hello,
     .help = "The same for those who may."},
    {.method = "POST",
     .path = "/api/v1/echo",
     .access = "public",
     .handler = post_echo,
     .request_schema = "{\"$ref\":\"#/components/schemas/Echo\"}",
     .response_schema = "{\"$ref\":\"#/components/schemas/Echo\"}",
     .body_max_bytes = 300000,
     .help = "Sends the body back."},
    {.method = "POST",
     .path = "/api/v1/private",
     .access = "scope:write",
     .handler = post_echo,
     .request_schema = "{}",
     .help = "Sends the body back to those who may."},
    {.method = "POST",
     .path = "/api/v1/raw",
     .access = "public",
     .handler = post_raw,
     .flags = TRK_ROUTE_RAW_BODY,
     .help = "Any bytes."},
    {.method = "PUT",
     .path = "/api/v1/upload",
     .access = "public",
     .handler = put_upload,
     .flags = TRK_ROUTE_STREAM_BODY,
     .on_body = upload_piece,
     .body_max_bytes = 8 << 20,
     .help = "A streaming upload."},
    {.method = "GET",
     .path = "/api/v1/files/{rest:path}",
     .access = "public",
     .handler = get_hello,
     .flags = TRK_ROUTE_HIDDEN,
     .help = "The rest of the path."},
    {.method = "GET",
     .path = "/fail",
     .access = "public",
     .handler = get_fail,
     .flags = TRK_ROUTE_DEPRECATED,
     .help = "Fails."},
    {.method = "GET",
     .path = "/no-json",
     .access = "public",
     .handler = get_no_json,
     .help = "Fails to answer."},
    {.method = "GET",
     .path = "/silent",
     .access = "public",
     .handler = get_silent,
     .help = "Does not answer."},
    {.method = "GET",
     .path = "/hold",
     .access = "public",
     .handler = get_hold,
     .help = "Waits until released."},
    {.method = "GET", .path = "/file", .access = "public", .handler = get_file, .help = "A file."},
    {.method = "GET",
     .path = "/stream",
     .access = "public",
     .handler = get_stream,
     .help = "A stream of events."},
    {.method = "GET",
     .path = "/list",
     .access = "public",
     .handler = get_list,
     .help = "A list of any length."},
    {.method = "GET",
     .path = "/large",
     .access = "public",
     .handler = get_large,
     .help = "32 MiB."},
    {.method = "GET",
     .path = "/v2/",
     .access = "public",
     .handler = get_hello,
     .flags = TRK_ROUTE_HIDDEN,
     .help = "A path with a slash at its end."},
};
static const struct trk_route_table service_tables[] = {
    {"test", service_routes, TRK_COUNT(service_routes)},
};

static int service_authorize(struct trk_request *req, const char *access, struct trk_err *err)
{
    const char *token = trk_req_header(req, "X-Racetrack-Auth");
    (void)access;
    if (token == NULL) {
        (void)trk_reply_header(req, "WWW-Authenticate", "Basic realm=\"racetrack\"");
        return trk_err_set(err, TRK_UNAUTHENTICATED, "no token");
    }
    if (strcmp(token, "good") != 0) {
        return trk_err_set(err, TRK_FORBIDDEN, "not this token");
    }
    trk_req_set_subject(req, talloc_strdup(trk_req_mem(req), "alice"));
    return 0;
}

/* /api/v1/fatman/… is an old spelling of /api/v1/…; its bodies and answers say "fatman". */
static const char *service_alias(struct trk_request *req, const char *path)
{
    static const char old[] = "/api/v1/fatman/";
    if (strncmp(path, old, strlen(old)) != 0) {
        return NULL;
    }
    return talloc_asprintf(trk_req_mem(req), "/api/v1/%s", path + strlen(old));
}
static json_t *service_alias_body(struct trk_request *req, json_t *body)
{
    (void)req;
    json_t *a = json_object_get(body, "fatman_a");
    if (a != NULL) {
        (void)json_object_set(body, "a", a);
        (void)json_object_del(body, "fatman_a");
    }
    return body;
}
static json_t *service_alias_reply(struct trk_request *req, json_t *value)
{
    (void)req;
    (void)json_object_set_new(value, "is_fatman", json_true());
    return value;
}

static const char *const service_prefixes[] = {"/lifecycle", NULL};

static struct trk_http_options service_options(struct service *service)
{
    return (struct trk_http_options){
        .service = "test",
        .title = "Test & <service>",
        .version = "1.2.3",
        .addr = "127.0.0.1",
        .prefixes = service_prefixes,
        .tables = service_tables,
        .table_count = TRK_COUNT(service_tables),
        .component_schemas =
            "{\"Echo\":{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{"
            "\"a\":{\"type\":\"integer\"},\"list\":{\"type\":\"array\",\"items\":{"
            "\"$ref\":\"#/components/schemas/Item\"}}},\"additionalProperties\":false},"
            "\"Item\":{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"string\"}}}}",
        .ctx = service,
        .authorize = service_authorize,
        .alias = service_alias,
        .alias_body = service_alias_body,
        .alias_reply = service_alias_reply,
    };
}

/* With own options, or NULL for the usual ones. Logs nothing below errors. */
static void service_start(struct service *service, const struct trk_http_options *options)
{
    struct trk_http_options usual = service_options(service);
    struct trk_err err = {0};
    if (options != NULL) {
        usual = *options;
    }
    trk_json_init();
    static int null_fd = -1;
    if (null_fd < 0) {
        null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    }
    trk_log_init(&(struct trk_log_options){.level = TRK_LOG_INFO, .fd = null_fd});
    service->metrics = trk_metrics_new();
    usual.metrics = service->metrics;
    usual.ctx = service;
    int rc = trk_http_server_start(&usual, &service->server, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    service->port = trk_http_server_port(service->server);
}

static void service_stop(struct service *service)
{
    ck_assert(trk_http_server_stop(service->server, 2000));
    trk_metrics_free(service->metrics);
}

/* One request whose connection ends with the answer: method, target, extra header lines, body. */
static struct raw_answer ask(const struct service *service, const char *method, const char *target,
                             const char *headers, const char *body)
{
    trk_autofree char *length = body == NULL
                                    ? trk_xstrdup("")
                                    : trk_xasprintf("Content-Length: %zu\r\n", strlen(body));
    trk_autofree char *text = trk_xasprintf(
        "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%s%s\r\n%s", method, target, length,
        headers, body == NULL ? "" : body);
    return raw_exchange_text(service->port, text);
}

#endif
