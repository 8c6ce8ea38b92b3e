#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "pub/client.h"
#include "pub/text.h"
#include "pub/token.h"

/* A question that is never answered outlives lifecycle's own timeout only while it is queued. */
#define ASK_SLACK_MS  1000
#define STALE_WAIT_MS 1000
#define TOKEN_MAX     8192

static const char job_error[] = "Proxy request error: ";

const struct trk_h1_request *pub_call_request(struct pub_client *c)
{
    struct pub_worker *w = c->worker;
    if (w->request_of != c) {
        int n = trk_h1_parse_request(&w->request, c->in.bytes, c->head_len);
        trk_assert(n == (int)c->head_len);
        w->request_of = c;
    }
    return &w->request;
}

/* -- accounts -- */

void pub_call_end(struct pub_client *c, int status, bool can_reuse)
{
    struct pub_worker *w = c->worker;
    struct pub_decision *d = TRK_STEAL(c->decision);
    int64_t duration = w->loop.now_ns - c->started_ns;
    if (c->up != NULL) {
        pub_up_put(TRK_STEAL(c->up), can_reuse);
    }
    if (d == NULL) {
        return;
    }
    pub_job_stats_done(d->stats, status, duration);
    pub_add(&w->stats.counters[PUB_OVERALL_TIME_NS], (uint64_t)duration);
    if (trk_log_is_enabled(TRK_LOG_DEBUG)) {
        char text[16];
        (void)snprintf(text, sizeof(text), "%d", status);
        trk_log_debug("call", "job", d->job, "version", d->version, "status", text, "caller",
                      d->caller, "tracing_id", c->tracing_id, NULL);
    }
    pub_decision_unref(d);
}

static void fail(struct pub_client *c, int status, enum pub_counter counter, const char *text,
                 const char *detail)
{
    struct pub_worker *w = c->worker;
    pub_stat(&w->stats, PUB_ERRORS);
    pub_stat(&w->stats, counter);
    trk_log_error(text, "detail", detail, "job", c->decision->job, "version", c->decision->version,
                  "tracing_id", c->tracing_id, NULL);
    if (c->up != NULL) {
        pub_up_put(TRK_STEAL(c->up), false);
    }
    pub_reply_job_error(c, status, text, detail);
    pub_call_end(c, status, false);
}

void pub_call_cancel(struct pub_client *c)
{
    struct pub_worker *w = c->worker;
    pub_stat(&w->stats, PUB_ERRORS);
    pub_stat(&w->stats, PUB_CANCELED);
    trk_log_debug("client (or proxy timeout) canceled the request", "tracing_id", c->tracing_id,
                  NULL);
    pub_call_end(c, 502, false);
    pub_client_close(c);
}

/* -- getting to the job -- */

static void start_ask(struct pub_client *c, bool must_ask);

/* The host with the fewest calls among those that did not fail lately, in turn. */
static struct pub_host *choose_host(struct pub_client *c)
{
    struct pub_decision *d = c->decision;
    if (d->host_count == 1) {
        return d->hosts[0];
    }
    int64_t now = c->worker->loop.now_ns;
    struct pub_host *best = NULL;
    unsigned first = d->next_host++;
    for (size_t i = 0; i < d->host_count; i++) {
        struct pub_host *h = d->hosts[(first + i) % d->host_count];
        bool is_better = best == NULL;
        if (!is_better && (h->failed_until_ns > now) != (best->failed_until_ns > now)) {
            is_better = best->failed_until_ns > now;
        } else if (!is_better) {
            is_better = h->active < best->active;
        }
        if (is_better) {
            best = h;
        }
    }
    return best;
}

static void connect_failed(struct pub_client *c, int error);

static void on_up(struct pub_up *up)
{
    struct pub_client *c = up->owner;
    if (c->state == PUB_CLIENT_CONNECT) {
        if (up->state == PUB_UP_FAILED) {
            connect_failed(c, up->error);
        } else if (up->state == PUB_UP_OPEN) {
            pub_exchange_begin(c);
        }
    }
    pub_client_run(c);
}

static void connect_to_job(struct pub_client *c, bool fresh)
{
    c->up = pub_up_get(choose_host(c), fresh, on_up, c);
    if (c->up->state == PUB_UP_OPEN) {
        pub_exchange_begin(c);
    } else if (c->up->state == PUB_UP_FAILED) {
        connect_failed(c, c->up->error);
    } else {
        c->state = PUB_CLIENT_CONNECT;
        pub_client_arm(c, c->worker->shared->config->connect_timeout_ms);
    }
}

/* Nothing was sent: another replica, then what lifecycle says now, then an error. */
static void connect_failed(struct pub_client *c, int error)
{
    struct pub_worker *w = c->worker;
    pub_host_failed(c->up->host);
    pub_up_put(TRK_STEAL(c->up), false);
    if (++c->hosts_tried < c->decision->host_count) {
        connect_to_job(c, false);
        return;
    }
    if (!c->has_asked_again) {
        c->has_asked_again = true;
        c->hosts_tried = 0;
        pub_cache_remove(&w->cache, c->decision);
        start_ask(c, true);
        return;
    }
    if (error == ETIMEDOUT) {
        fail(c, 504, PUB_DEADLINE, "request to a job timed out", "connecting");
    } else {
        fail(c, 502, PUB_CONNECTION_REFUSED,
             error == ECONNREFUSED ? "connection refused to a target job (job may be dead)"
                                   : "connection failed to a target job (job may be dead)",
             strerror(error));
    }
}

void pub_call_lost(struct pub_client *c, int error)
{
    struct pub_worker *w = c->worker;
    /* A kept connection may have been closed by the job before this request reached it. */
    bool may_repeat = c->up->is_reused && !c->has_response && c->out.len == 0 && c->in.is_whole &&
                      !c->has_retried && (c->is_idempotent || c->sent_to_job == 0);
    if (may_repeat) {
        c->has_retried = true;
        pub_stat(&w->stats, PUB_RETRIES);
        pub_up_put(TRK_STEAL(c->up), false);
        pub_block_reset(&c->to_job);
        c->in.sent = c->in.base;
        connect_to_job(c, true);
        return;
    }
    fail(c, 502, PUB_CONNECTION_BROKEN, "connection broken to a target job (job may have died)",
         error == 0 ? "EOF" : strerror(error));
}

/* -- authorisation -- */

static void decided(struct pub_client *c, struct pub_decision *decision)
{
    struct pub_worker *w = c->worker;
    pub_decision_unref(c->decision);
    c->decision = decision;
    if (!c->has_asked_again) {
        pub_stat(&w->stats, PUB_AUTH_SUCCESSFUL);
        pub_add(&decision->stats->requests, 1);
    }
    connect_to_job(c, false);
}

static void refused(struct pub_client *c, int status, const char *text)
{
    struct pub_worker *w = c->worker;
    char detail[1024];
    if (c->decision != NULL) {
        if (status < 400 || status >= 500) {
            fail(c, 502, PUB_CONNECTION_REFUSED,
                 "connection refused to a target job (job may be dead)", text);
            return;
        }
        pub_call_end(c, status, false);
    }
    pub_stat(&w->stats, PUB_REQUEST_ERRORS);
    switch (status) {
    case 401:
    case 403:
        pub_stat(&w->stats, PUB_AUTH_FAILED);
        (void)snprintf(detail, sizeof(detail), "%s",
                       status == 401 ? "Unauthenticated" : "Forbidden");
        if (text[0] != '\0' && (status == 403 || w->shared->config->auth_debug)) {
            (void)snprintf(detail, sizeof(detail), "%s: %s",
                           status == 401 ? "Unauthenticated" : "Forbidden", text);
        }
        break;
    case 404:
        (void)snprintf(detail, sizeof(detail), "Job was not found: %s", text);
        break;
    case 503:
        (void)snprintf(detail, sizeof(detail), "%s", text);
        break;
    default:
        trk_log_error("lifecycle could not authorise a call", "error", text, "tracing_id",
                      c->tracing_id, NULL);
        (void)snprintf(detail, sizeof(detail), "Lifecycle is not available: %s",
                       status >= 500 ? "it answered with an error" : text);
        status = status >= 400 && status < 500 ? status : 500;
        break;
    }
    pub_reply_error(c, status, job_error, detail);
}

static void on_answer(struct pub_waiter *waiter, struct pub_decision *decision, int status,
                      const char *text)
{
    struct pub_client *c = (struct pub_client *)(void *)((char *)waiter -
                                                         offsetof(struct pub_client, waiter));
    if (decision != NULL) {
        decided(c, decision);
    } else {
        refused(c, status, text);
    }
    pub_client_run(c);
}

/* Fills what the request says; -1 when it was answered already. Slices live in the request and in
 * the worker's memory. */
static int make_question(struct pub_client *c, struct pub_question *q, struct pub_route *route)
{
    struct pub_worker *w = c->worker;
    const struct trk_h1_request *r = pub_call_request(c);
    const char *fault = "";
    if (pub_path_route(route, r->target, w->shared->config->service_name, w->decoded, &fault) < 0) {
        pub_stat(&w->stats, PUB_BAD_REQUESTS);
        pub_reply_error(c, 400, job_error, fault);
        return -1;
    }
    if (route->kind != PUB_ROUTE_JOB) {
        return 0;
    }
    *q = (struct pub_question){.job = route->job,
                               .version = route->version,
                               .endpoint = route->endpoint,
                               .tracing_id = c->tracing_id};
    c->rest = route->rest;
    if (pub_token_find(r, w->cookie, &q->token) < 0 || q->token.len > TOKEN_MAX) {
        refused(c, 401, "the token has characters that no token has, or is too long");
        return -1;
    }
    return 0;
}

static void ask(struct pub_client *c, struct pub_question *q)
{
    struct pub_worker *w = c->worker;
    const struct pub_config *config = w->shared->config;
    struct pub_decision *decision = NULL;
    c->waiter.on_answer = on_answer;
    switch (pub_ask(w, q, &c->waiter, &decision)) {
    case PUB_ANSWERED:
        decided(c, decision);
        break;
    case PUB_WAIT:
        c->state = PUB_CLIENT_ASK;
        pub_client_arm(c, c->waiter.stale != NULL ? STALE_WAIT_MS
                                                  : config->lifecycle_timeout_ms + ASK_SLACK_MS);
        break;
    case PUB_OVERLOADED:
        pub_stat(&w->stats, PUB_REJECTED);
        refused(c, 503, "too many calls wait for authorisation");
        break;
    }
}

static void start_ask(struct pub_client *c, bool must_ask)
{
    struct pub_question q;
    struct pub_route route;
    if (make_question(c, &q, &route) == 0) {
        q.must_ask = must_ask;
        ask(c, &q);
    }
}

void pub_call_timeout(struct pub_client *c)
{
    if (c->state == PUB_CLIENT_CONNECT) {
        connect_failed(c, ETIMEDOUT);
        return;
    }
    struct pub_decision *stale = pub_ask_take_stale(c->worker, &c->waiter);
    if (stale != NULL) {
        decided(c, stale);
        return;
    }
    pub_ask_cancel(&c->waiter);
    refused(c, 0, "it did not answer in time");
}

/* -- a new request -- */

static bool is_idempotent(struct trk_h1_slice method)
{
    static const char *const methods[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};
    for (size_t i = 0; i < TRK_COUNT(methods); i++) {
        if (strlen(methods[i]) == method.len && memcmp(method.at, methods[i], method.len) == 0) {
            return true;
        }
    }
    return false;
}

/* Only WebSocket is let through: an h2c upgrade would carry requests past the authorisation. */
static bool wants_websocket(const struct trk_h1_request *r)
{
    if (!r->upgrade || r->body != TRK_H1_NO_BODY) {
        return false;
    }
    size_t count = 0;
    bool is_websocket = false;
    for (size_t i = 0; i < r->header_count; i++) {
        if (r->headers[i].id == TRK_H1_UPGRADE) {
            count++;
            is_websocket = trk_h1_is(r->headers[i].value, "websocket");
        }
    }
    return count == 1 && is_websocket;
}

static void reset(struct pub_client *c, const struct trk_h1_request *r, size_t head_len)
{
    c->head_len = head_len;
    c->minor = r->minor;
    c->keep_alive = r->keep_alive;
    c->is_head = r->method.len == 4 && memcmp(r->method.at, "HEAD", 4) == 0;
    c->is_idempotent = is_idempotent(r->method);
    c->is_upgrade = wants_websocket(r);
    c->wants_continue = r->expect_continue;
    c->hosts_tried = 0;
    c->has_asked_again = c->has_retried = c->has_started = false;
    c->has_response = c->job_keeps_alive = false;
    c->sent_to_job = 0;
    c->status = 0;
    c->out.len = c->out.sent = c->out.checked = 0;
    c->out.is_done = false;
    c->started_ns = c->worker->loop.now_ns;
}

static void find_tracing_id(struct pub_client *c, const struct trk_h1_request *r)
{
    const char *name = c->worker->shared->tracing_header;
    size_t len = strlen(name);
    struct trk_h1_slice value = {"", 0};
    for (size_t i = 0; i < r->header_count; i++) {
        if (r->headers[i].name.len == len && trk_h1_is(r->headers[i].name, name)) {
            value = r->headers[i].value;
            break;
        }
    }
    pub_head_tracing_id(c, value);
}

void pub_call_dispatch(struct pub_client *c, size_t head_len)
{
    struct pub_worker *w = c->worker;
    const struct trk_h1_request *r = &w->request;
    reset(c, r, head_len);
    find_tracing_id(c, r);
    pub_flow_begin(&c->in, head_len, head_len, r->body, r->content_length);
    if (pub_flow_check(&c->in) < 0) {
        pub_stat(&w->stats, PUB_BAD_REQUESTS);
        c->keep_alive = false;
        pub_reply_error(c, 400, "Bad request: ", "the chunked body is malformed");
        return;
    }
    struct pub_question q;
    struct pub_route route;
    if (make_question(c, &q, &route) < 0) {
        return;
    }
    if (route.kind != PUB_ROUTE_JOB) {
        pub_local(c, &route);
        return;
    }
    ask(c, &q);
}
