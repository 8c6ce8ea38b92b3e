#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_internal.h"

static int too_large(const struct trk_request *req, struct trk_err *err)
{
    return trk_err_set(err, TRK_TOO_LARGE, "the request body is larger than the limit of %s",
                       trk_size_text(req->match.route->body_max_bytes).text);
}

/* application/json or application/…+json, with any parameters. */
static bool is_json_type(const char *type)
{
    size_t len = strcspn(type, "; \t");
    return (len == 16 && strncasecmp(type, "application/json", 16) == 0) ||
           (len > 17 && strncasecmp(type, "application/", 12) == 0 &&
            strncasecmp(type + len - 5, "+json", 5) == 0);
}

int http_body_check(struct trk_request *req, struct trk_err *err)
{
    const struct http_route *route = req->match.route;
    int64_t length = http_body_length(req);
    if (length > 0 && (uint64_t)length > route->body_max_bytes) {
        return too_large(req, err);
    }
    const char *type = trk_req_header(req, "Content-Type");
    if (route->schema != NULL && length != 0 && type != NULL && !is_json_type(type)) {
        return trk_err_set(err, TRK_MEDIA_TYPE,
                           "Content-Type must be application/json, is %.100s (with curl: "
                           "-H 'Content-Type: application/json')",
                           type);
    }
    trk_buf_init(&req->body, route->body_max_bytes);
    return 0;
}

int http_body_add(struct trk_request *req, const char *bytes, size_t len, struct trk_err *err)
{
    const struct http_route *route = req->match.route;
    if (req->body_seen > route->body_max_bytes) {
        return too_large(req, err);
    }
    if ((route->decl->flags & TRK_ROUTE_STREAM_BODY) != 0) {
        return route->decl->on_body(req, bytes, len, err);
    }
    return trk_req_keep_body(req, bytes, len, err);
}

void http_body_drop(struct trk_request *req)
{
    trk_buf_fini(&req->body);
    (void)atomic_fetch_sub(&req->server->bodies_bytes, req->body_held);
    req->body_held = 0;
}

int trk_req_keep_body(struct trk_request *req, const void *bytes, size_t len, struct trk_err *err)
{
    size_t all = atomic_fetch_add(&req->server->bodies_bytes, len) + len;
    req->body_held += len;
    if (all > HTTP_BODIES_MAX && req->body_held > HTTP_DRAIN_BYTES) {
        http_body_drop(req);
        return trk_err_set(err, TRK_UNAVAILABLE, "too many large requests are on their way");
    }
    return trk_buf_add(&req->body, bytes, len) < 0 ? too_large(req, err) : 0;
}

/* "a.b[2].c" as ["body","a","b",2,"c"]; *ret_input borrows what lies there, NULL when nothing. */
static json_t *fault_location(const char *path, const json_t *body, const json_t **ret_input)
{
    json_t *loc = json_pack("[s]", "body");
    const json_t *at = body;
    while (*path != '\0') {
        if (*path == '[' && isdigit((unsigned char)path[1])) {
            char *end;
            unsigned long index = strtoul(path + 1, &end, 10);
            (void)json_array_append_new(loc, json_integer((json_int_t)index));
            at = json_array_get(at, index);
            path = *end == ']' ? end + 1 : end;
        } else {
            size_t len = 1 + strcspn(path + 1, ".[");
            (void)json_array_append_new(loc, json_stringn(path, len));
            at = json_object_getn(at, path, len);
            path += len;
        }
        path += *path == '.';
    }
    *ret_input = at;
    return loc;
}

static int reply_schema_faults(struct trk_request *req, const struct trk_faults *faults,
                               struct trk_err *err)
{
    json_t *details = json_array();
    for (size_t i = 0; i < faults->count && i < TRK_FAULTS_MAX; i++) {
        const struct trk_fault *fault = &faults->list[i];
        const json_t *input = NULL;
        json_t *loc = fault_location(fault->path, req->json, &input);
        (void)json_array_append_new(details, http_fault(fault->keyword, loc, fault->text, input));
    }
    return http_reply_faults(req, details, err);
}

static int check_schema(struct trk_request *req, bool is_empty, struct trk_err *err)
{
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults)); /* 50 KB: not on */
    if (trk_schema_check(req->match.route->schema, req->json, faults) == 0) { /* a small stack */
        return 0;
    }
    if (is_empty) {
        return http_reply_faults(
            req,
            json_pack("[o]", http_fault("missing", json_pack("[s]", "body"),
                                        "a JSON body is required, the request has none", NULL)),
            err);
    }
    return reply_schema_faults(req, faults, err);
}

int http_body_end(struct trk_request *req, struct trk_err *err)
{
    const struct http_route *route = req->match.route;
    if (route->schema == NULL) {
        return 0;
    }
    bool is_empty = req->body.len == 0;
    if (is_empty) {
        req->json = json_null();
    } else if (trk_json_parse(req->body.data, req->body.len, &req->json, err) < 0) {
        return trk_err_wrap(err, "the request body is not valid JSON");
    }
    trk_buf_fini(&req->body); /* a large one is not kept twice while the handler works */
    if (req->is_alias && req->server->options.alias_body != NULL) {
        req->json = req->server->options.alias_body(req, req->json);
    }
    return check_schema(req, is_empty, err);
}
