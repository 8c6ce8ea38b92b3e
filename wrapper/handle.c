#include "wrapper/front.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

const char *http_reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 204:
        return "No Content";
    case 304:
        return "Not Modified";
    case 307:
        return "Temporary Redirect";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 421:
        return "Misdirected Request";
    case 422:
        return "Unprocessable Content";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 502:
        return "Bad Gateway";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    case 505:
        return "HTTP Version Not Supported";
    case 507:
        return "Insufficient Storage";
    default:
        return status < 300 ? "OK" : status < 400 ? "Redirect" : status < 500 ? "Refused" : "Error";
    }
}

/* ---- errors ---- */

char *error_json(int status, const char *type, const char *text)
{
    json_auto_t *json = json_object();
    json_t *shown = json_string(text);
    (void)json_object_set_new(json, "error", shown != NULL ? shown : json_string("error"));
    (void)json_object_set_new(json, "type", json_string(type));
    if (status == 429) {
        (void)json_object_set_new(json, "detail", json_string(text));
    }
    return trk_json_text(json);
}

void conn_reply_json(struct conn *conn, int status, json_t *takes)
{
    trk_autofree char *text = trk_json_text(takes);
    json_decref(takes);
    const struct reply reply = {.status = status, .data = text, .len = strlen(text), .file_fd = -1};
    conn_reply(conn, &reply);
}

void conn_reply_error(struct conn *conn, int status, const char *type, const char *text)
{
    trk_autofree char *json = error_json(status, type, text);
    const struct reply reply = {.status = status,
                                .data = json,
                                .len = strlen(json),
                                .file_fd = -1,
                                .headers = status == 503 || status == 429 ? "Retry-After: 1\r\n"
                                                                          : NULL};
    conn_reply(conn, &reply);
}

/* ---- small answers ---- */

static bool method_is(const struct exchange *e, const char *name)
{
    size_t len = strlen(name);
    return e->request->method.len == len && memcmp(e->request->method.at, name, len) == 0;
}

static bool is_read(const struct exchange *e)
{
    return method_is(e, "GET") || method_is(e, "HEAD");
}

static void refuse_method(struct conn *conn, const char *allow)
{
    trk_autofree char *headers = trk_xasprintf("Allow: %s\r\n", allow);
    trk_autofree char *json = error_json(405, "MethodNotAllowed", "this path has other methods");
    const struct reply reply = {
        .status = 405, .headers = headers, .data = json, .len = strlen(json), .file_fd = -1};
    conn_reply(conn, &reply);
}

static void redirect(struct conn *conn, const struct route *route, const char *path)
{
    trk_autofree char *headers = trk_xasprintf("Location: %.*s%s%.*s\r\n", (int)route->base_len,
                                               route->base, path, (int)route->query_len,
                                               route->query);
    const struct reply reply = {.status = 307, .headers = headers, .data = "", .file_fd = -1};
    conn_reply(conn, &reply);
}

static void reply_text(struct conn *conn, const char *type, const char *text)
{
    const struct reply reply = {
        .status = 200, .type = type, .data = text, .len = strlen(text), .file_fd = -1};
    conn_reply(conn, &reply);
}

/* What the worker announces is not known before it has loaded. */
static void reply_announced(struct conn *conn, const char *text)
{
    if (text != NULL) {
        reply_text(conn, NULL, text);
    } else if (conn->front->is_failed) {
        conn_reply_error(conn, 503, "JobNotAvailable", conn->front->failure);
    } else {
        conn_reply_error(conn, 503, "JobNotAvailable",
                         "the job is still loading, try again in a moment");
    }
}

/* ---- calls ---- */

static void reply_answer(struct conn *conn, const struct answer *answer)
{
    struct reply reply = {.status = answer->status,
                          .type = answer->type,
                          .data = answer->data,
                          .len = answer->len,
                          .file_fd = -1};
    if (answer->fd < 0) {
        conn_reply(conn, &reply);
        return;
    }
    char *bytes = malloc(answer->len > 0 ? answer->len : 1);
    size_t got = 0;
    while (bytes != NULL && got < answer->len) {
        ssize_t n = pread(answer->fd, bytes + got, answer->len - got,
                          (off_t)(answer->offset + got));
        if (n <= 0) {
            break;
        }
        got += (size_t)n;
    }
    if (got == answer->len && bytes != NULL) {
        reply.data = bytes;
        conn_reply(conn, &reply);
    } else {
        conn_reply_error(conn, 507, "NoSpace", "there is no memory for a result of this size");
    }
    free(bytes);
}

static void on_call_done(void *owner, const struct answer *answer)
{
    struct conn *conn = owner;
    conn->call = NULL;
    metrics_call_done(conn->front, conn->endpoint, answer->status, conn->begun_ns,
                      conn->front->now_ns);
    reply_answer(conn, answer);
    conn_resume(conn);
}

static void call_endpoint(struct conn *conn, int endpoint, const struct exchange *e)
{
    struct front *front = conn->front;
    char reason[4096];
    const struct call_request request = {
        .kind = RING_CALL,
        .endpoint = (uint32_t)endpoint,
        .is_limited = true,
        .head = e->head,
        .head_len = e->head_len,
        .body = e->body,
        .body_len = e->body_len,
        .done = on_call_done,
        .owner = conn,
    };
    conn->endpoint = endpoint;
    conn->begun_ns = front->now_ns;
    metrics_call_started(front, endpoint);
    int status = call_start(front, &request, &conn->call, reason, sizeof(reason));
    if (status == 0) {
        conn->state = CONN_CALLING;
        return;
    }
    metrics_call_done(front, endpoint, status, conn->begun_ns, front->now_ns);
    conn_reply_error(conn, status, status == 429 ? "TooManyRequests" : "JobNotAvailable", reason);
}

/* A 404 that names the path as it was asked for. */
static void reply_not_found(struct conn *conn, const struct exchange *e)
{
    const struct trk_h1_slice *target = &e->request->target;
    const char *query = memchr(target->at, '?', target->len);
    size_t len = query != NULL ? (size_t)(query - target->at) : target->len;
    char text[400];
    (void)snprintf(text, sizeof(text), "the job has no %.*s; /docs lists what it has",
                   len < 300 ? (int)len : 300, target->at);
    conn_reply_error(conn, 404, "NotFound", text);
}

static void handle_api(struct conn *conn, const struct route *route, const struct exchange *e)
{
    const struct job *job = &conn->front->job;
    bool is_known = false;
    int endpoint = job_find_endpoint(job, route->path, e->request->method, &is_known);
    if (endpoint >= 0) {
        call_endpoint(conn, endpoint, e);
        return;
    }
    const char *rest = NULL;
    const struct job_static *entry = job_find_static(job, route->path, &rest);
    if (entry != NULL && is_read(e)) {
        static_serve(conn, entry, rest);
    } else if (entry != NULL) {
        refuse_method(conn, "GET, HEAD");
    } else if (is_known) {
        char allow[64] = "";
        for (size_t i = 0; i < job->endpoint_count; i++) {
            if (strcmp(job->endpoints[i].path, route->path) == 0) {
                size_t used = strlen(allow);
                (void)snprintf(allow + used, sizeof(allow) - used, "%s%s", used > 0 ? ", " : "",
                               job->endpoints[i].method);
            }
        }
        refuse_method(conn, allow);
    } else if (job->parameters == NULL) {
        reply_announced(conn, NULL);
    } else {
        reply_not_found(conn, e);
    }
}

static void handle_read(struct conn *conn, const struct route *route, const struct exchange *e)
{
    const struct front *front = conn->front;
    switch (route->kind) {
    case ROUTE_HOME:
        redirect(conn, route, front->options.home_page);
        break;
    case ROUTE_LIVE:
        health_live(conn);
        break;
    case ROUTE_READY:
        health_ready(conn);
        break;
    case ROUTE_HEALTH:
        health_health(conn, route_is_fatman(route));
        break;
    case ROUTE_METRICS:
        scrape_start(conn);
        break;
    case ROUTE_DOCS:
        reply_text(conn, "text/html; charset=utf-8", docs_page);
        break;
    case ROUTE_OPENAPI:
        reply_announced(conn, front->job.openapi);
        break;
    case ROUTE_PARAMETERS:
        reply_announced(conn, front->job.parameters);
        break;
    default:
        reply_not_found(conn, e);
        break;
    }
}

/* Probes and metrics are asked by who knows no secret; everything else comes through the gateway.
 */
static bool is_let_in(const struct conn *conn, const struct route *route, const struct exchange *e)
{
    const char *secret = conn->front->options.call_secret;
    if (secret == NULL || route->kind == ROUTE_LIVE || route->kind == ROUTE_READY ||
        route->kind == ROUTE_HEALTH || route->kind == ROUTE_METRICS) {
        return true;
    }
    const struct trk_h1_header *shown = trk_h1_find(e->request->headers, e->request->header_count,
                                                    "x-racetrack-job-secret");
    return shown != NULL && shown->value.len == strlen(secret) &&
           sodium_memcmp(shown->value.at, secret, shown->value.len) == 0;
}

void handle_request(struct conn *conn, const struct exchange *e)
{
    struct route route;
    int status = route_resolve(e->request->target.at, e->request->target.len, &route);
    if (status != 0) {
        conn_reply_error(conn, status, "BadRequest",
                         status == 414 ? "the path is too long" : "the path is malformed");
    } else if (conn->front->options.is_deployed &&
               !route_names(&route, conn->front->options.job_name)) {
        /* It stands where another job stood: the caller was let in to that one, not to this. */
        conn_reply_error(conn, 421, "MisdirectedRequest",
                         "this is not the job that the request is for; try again");
    } else if (!is_let_in(conn, &route, e)) {
        conn_reply_error(conn, 403, "Forbidden",
                         "a job is called through the gateway only: take the job's pub_url");
    } else if (route.kind == ROUTE_API) {
        handle_api(conn, &route, e);
    } else if (route.kind == ROUTE_ADD_SLASH) {
        redirect(conn, &route, "/");
    } else if (route.kind != ROUTE_UNKNOWN && !is_read(e)) {
        refuse_method(conn, "GET, HEAD");
    } else {
        handle_read(conn, &route, e);
    }
}
