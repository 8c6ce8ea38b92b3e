/* A request's way through the HTTP server: from its target to the end of its answer. */
#include <stdio.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/http_internal.h"

void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct trk_request *req = talloc_zero(NULL, struct trk_request);
    if (req == NULL) {
        trk_die("out of memory");
    }
    req->server = cls;
    req->mhd = mhd;
    req->pair = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    req->target = talloc_strdup(req, uri);
    trk_buf_init(&req->body, 1);
    return req;
}

/* As it came: segments and queries are decoded one by one by our own code. */
size_t http_keep_encoded(void *cls, struct MHD_Connection *mhd, char *s)
{
    (void)cls;
    (void)mhd;
    return strlen(s);
}

static int find_route(struct trk_request *req, const char *path, struct trk_err *err)
{
    const struct trk_http_options *options = &req->server->options;
    if (http_routes_find(req->server->routes, req, req->method, path, &req->match, err) < 0) {
        return err->code;
    }
    if (req->match.route != NULL || req->match.allow[0] != '\0' || options->alias == NULL) {
        return 0;
    }
    char *asked = req->match.path;
    const char *other = options->alias(req, path);
    if (other == NULL) {
        return 0;
    }
    req->is_alias = true;
    int code = http_routes_find(req->server->routes, req, req->method, other, &req->match, err);
    if (code == 0 && req->match.route == NULL && req->match.allow[0] == '\0') {
        req->match.path = asked; /* what the answer names */
    }
    return code;
}

static const char *raw_path_of(struct trk_request *req)
{
    return talloc_strndup(req, req->target, strcspn(req->target, "?"));
}

static int redirect(struct trk_request *req, const char *mount, const char *path)
{
    const char *query = strchr(req->target, '?');
    return http_reply_redirect(
        req, talloc_asprintf(req, "%s%s%s", mount, path, query == NULL ? "" : query));
}

/* Does the path exist with or without its trailing slash? Then the client is sent there. */
static int try_other_slash(struct trk_request *req, const char *mount, const char *path,
                           struct trk_err *err)
{
    size_t len = strlen(path);
    const char *other = path[len - 1] == '/' ? talloc_strndup(req, path, len - 1)
                                             : talloc_asprintf(req, "%s/", path);
    if (other[0] != '/' || (mount[0] == '\0' && other[1] == '/')) {
        return 0; /* "//host" in a Location would lead elsewhere */
    }
    if (find_route(req, other, err) < 0) {
        return err->code;
    }
    bool is_there = req->match.route != NULL || req->match.allow[0] != '\0';
    req->match = (struct http_match){0};
    req->is_alias = false;
    if (!is_there) {
        return 0;
    }
    return redirect(req, mount, other);
}

/* Which mount the path lies under ("" for the root); *path moves behind it. */
static const char *strip_mount(const struct trk_request *req, const char **path)
{
    const char *const *prefix = req->server->options.prefixes;
    for (; prefix != NULL && *prefix != NULL; prefix++) {
        size_t len = strlen(*prefix);
        if (strncmp(*path, *prefix, len) == 0 && ((*path)[len] == '/' || (*path)[len] == '\0')) {
            *path += len;
            return *prefix;
        }
    }
    return "";
}

/* Sets the route, or makes the answer (redirect), or fails with 400, 404 or 405. */
static int route(struct trk_request *req, struct trk_err *err)
{
    if (strchr(req->target, '\\') != NULL) { /* some take it for '/' */
        req->must_close = true;
        return trk_err_set(err, TRK_INVALID, "bad request: a backslash in the request target");
    }
    const char *path = raw_path_of(req);
    const char *mount = strip_mount(req, &path);
    if (*path == '\0') {
        return redirect(req, mount, "/");
    }
    if (find_route(req, path, err) < 0) {
        return err->code;
    }
    if (req->match.route == NULL && req->match.allow[0] == '\0') {
        req->path = req->match.path;
        if (try_other_slash(req, mount, path, err) < 0) {
            return err->code;
        }
    } else {
        req->path = req->match.path;
    }
    if (req->match.route != NULL || req->response != NULL) {
        return 0;
    }
    if (req->match.allow[0] != '\0') {
        (void)trk_reply_header(req, "Allow", req->match.allow);
        return trk_err_set(err, TRK_METHOD, "%s does not take %s, but %s", req->path, req->method,
                           req->match.allow);
    }
    return trk_err_set(err, TRK_NOT_FOUND, "there is no %.200s here", req->path);
}

/* Everything that is decided before the body is read. */
static int check_request(struct trk_request *req, struct trk_err *err)
{
    if (route(req, err) < 0 || req->response != NULL) {
        return err->code;
    }
    if (http_parse_query(req, err) < 0) {
        return err->code;
    }
    const char *access = req->match.route->decl->access;
    if (strcmp(access, "public") != 0 && req->server->options.authorize(req, access, err) < 0) {
        return err->code;
    }
    if (req->response != NULL) {
        return 0; /* authorize() answered itself */
    }
    if (http_check_query(req, err) < 0) {
        return err->code;
    }
    return http_body_check(req, err);
}

/* The answer is made before the body has come: a small body is read and dropped, which keeps the
 * connection; with a large one the connection ends. */
static enum MHD_Result answer_early(struct trk_request *req)
{
    int64_t length = http_body_length(req);
    if (length == 0 ||
        (length > 0 && length <= HTTP_DRAIN_BYTES && trk_req_header(req, "Expect") == NULL)) {
        req->discard = true;
        return MHD_YES;
    }
    req->must_close = true;
    return http_reply_queue(req);
}

static enum MHD_Result begin(struct trk_request *req, const char *method)
{
    struct trk_http_server *server = req->server;
    struct trk_err err = {0};
    req->begun = true;
    req->begun_ns = trk_now_ns();
    req->method = talloc_strdup(req, method);
    req->path = talloc_strndup(req, req->target, strcspn(req->target, "?"));
    atomic_fetch_add(&server->active, 1);
    if (server->started != NULL) {
        trk_metric_inc(server->started);
    }
    http_set_tracing_id(req);
    trk_log_set_tracing_id(req->tracing_id);
    int rc = check_request(req, &err);
    if (rc < 0 && (rc != TRK_SCHEMA || req->response == NULL)) {
        http_reply_err(req, &err);
    }
    return req->response != NULL ? answer_early(req) : MHD_YES;
}

static enum MHD_Result take_body(struct trk_request *req, const char *bytes, size_t *len)
{
    struct trk_err err = {0};
    req->body_seen += *len;
    size_t piece = *len;
    *len = 0;
    if (req->discard || http_body_add(req, bytes, piece, &err) == 0) {
        return MHD_YES;
    }
    int64_t length = http_body_length(req);
    if (length > 0 && (uint64_t)length - req->body_seen <= HTTP_DRAIN_BYTES) {
        http_reply_err(req, &err);
        req->discard = true;
        return MHD_YES;
    }
    http_reply_raw(req, &err);
    return MHD_NO;
}

static enum MHD_Result finish(struct trk_request *req)
{
    if (req->discard) {
        return http_reply_queue(req);
    }
    struct trk_err err = {0};
    int rc = http_body_end(req, &err);
    if (rc < 0 && req->response == NULL) {
        http_reply_err(req, &err);
    } else if (rc == 0) {
        rc = req->match.route->decl->handler(req, &err);
        if (rc < 0) {
            http_reply_err(req, &err);
        }
    }
    return http_reply_queue(req);
}

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *bytes,
                                size_t *len, void **con_cls)
{
    (void)cls;
    (void)mhd;
    (void)url;
    (void)version;
    struct trk_request *req = *con_cls;
    if (!req->begun) {
        return begin(req, method);
    }
    return *len > 0 ? take_body(req, bytes, len) : finish(req);
}

static void log_access(const struct trk_request *req, int64_t duration_ns)
{
    const struct http_route *route_of = req->match.route;
    bool quiet = route_of != NULL && (route_of->decl->flags & TRK_ROUTE_QUIET) != 0;
    if (quiet || !trk_log_is_enabled(TRK_LOG_INFO)) {
        return;
    }
    char status[16];
    char duration[32];
    (void)snprintf(status, sizeof(status), "%d", req->status != 0 ? req->status : 499);
    (void)snprintf(duration, sizeof(duration), "%.3f", (double)duration_ns / TRK_NS_PER_MS);
    trk_log_info("request", "method", req->method, "path", req->path, "status", status,
                 "duration_ms", duration, "peer", http_pair_peer(req->pair), NULL);
}

static void end_request(struct trk_request *req)
{
    struct trk_http_server *server = req->server;
    int64_t duration_ns = trk_now_ns() - req->begun_ns;
    if (server->done != NULL) {
        trk_metric_inc(server->done);
        trk_series_observe(server->duration, (double)duration_ns / TRK_NS_PER_S);
    }
    log_access(req, duration_ns);
}

void http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                       enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)mhd;
    (void)code;
    struct trk_request *req = *con_cls;
    if (req == NULL) {
        return;
    }
    *con_cls = NULL;
    trk_req_set_user(req, NULL, NULL);
    if (req->response != NULL) {
        MHD_destroy_response(req->response); /* made, but the client left before it was queued */
    }
    struct trk_http_server *server = req->server;
    struct http_pair *pair = req->pair;
    bool begun = req->begun, is_short = req->is_short;
    if (begun) {
        end_request(req);
    }
    trk_log_set_tracing_id(NULL);
    json_decref(req->json);
    http_body_drop(req);
    talloc_free(req);
    if (is_short) {
        http_gate_pass_answer(server->gate, pair);
    }
    if (begun && atomic_fetch_sub(&server->active, 1) == 1 && atomic_load(&server->stopping)) {
        http_server_on_idle(server);
    }
}
