#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "pub/client.h"
#include "pub/text.h"
#include "pub/token.h"
#include "pub/websocket.h"

#define TOKEN_MAX       8192
#define START_WAIT_MS   3000 /* for a job that has no replica yet */
#define MOVE_WAIT_MS    250  /* for the news that a job has moved, when nobody is at its address */
#define MOVES_MAX       3
#define LATE_WAIT_MS    100 /* for what is refused: a grant made a moment ago may be on its way */
#define STALENESS_MIN_S 10  /* lifecycle speaks every five */

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

void pub_call_note(struct pub_client *c, int status)
{
    struct pub_worker *w = c->worker;
    const struct pub_access_line line = {
        .peer = c->peer,
        .tracing_id = c->tracing_id,
        .request = c->line,
        .status = status,
        .duration_ns = c->line.len > 0 ? w->loop.now_ns - c->started_ns : 0,
        .caller = c->caller};
    pub_access_note(&w->access, &line);
}

void pub_call_end(struct pub_client *c, int status, bool can_reuse)
{
    struct pub_worker *w = c->worker;
    if (c->target != NULL && c->state != PUB_CLIENT_TUNNEL) { /* that was noted when it began */
        pub_call_note(c, status);
    }
    struct pub_target *target = TRK_STEAL(c->target);
    trk_autofree char *caller = TRK_STEAL(c->caller);
    free(TRK_STEAL(c->pass));
    int64_t duration = w->loop.now_ns - c->started_ns;
    if (c->up != NULL) {
        pub_up_put(TRK_STEAL(c->up), can_reuse);
    }
    if (target == NULL) {
        return;
    }
    pub_job_stats_done(target->stats, status, duration);
    pub_add(&w->stats.counters[PUB_OVERALL_TIME_NS], (uint64_t)duration);
    if (trk_log_is_enabled(TRK_LOG_DEBUG)) {
        char text[16];
        (void)snprintf(text, sizeof(text), "%d", status);
        trk_log_debug("call", "job", target->job, "version", target->version, "status", text,
                      "caller", caller, "tracing_id", c->tracing_id, NULL);
    }
    pub_target_unref(target);
}

static void fail(struct pub_client *c, int status, enum pub_counter counter, const char *text,
                 const char *detail)
{
    struct pub_worker *w = c->worker;
    pub_stat(&w->stats, PUB_ERRORS);
    pub_stat(&w->stats, counter);
    trk_log_error(text, "detail", detail, "job", c->target->job, "version", c->target->version,
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

static void decide(struct pub_client *c);
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
    c->up = pub_up_get(pub_target_host(c->target, c->worker->loop.now_ns), fresh, on_up, c);
    if (c->up->state == PUB_UP_OPEN) {
        pub_exchange_begin(c);
    } else if (c->up->state == PUB_UP_FAILED) {
        connect_failed(c, c->up->error);
    } else {
        c->state = PUB_CLIENT_CONNECT;
        pub_client_arm(c, c->worker->shared->config->connect_timeout_ms);
    }
}

static void nobody_there(struct pub_client *c)
{
    if (c->error == ETIMEDOUT) {
        fail(c, 504, PUB_DEADLINE, "request to a job timed out", "connecting");
    } else {
        fail(c, 502, PUB_CONNECTION_REFUSED,
             c->error == ECONNREFUSED ? "connection refused to a target job (job may be dead)"
                                      : "connection failed to a target job (job may be dead)",
             strerror(c->error));
    }
}

/* It is not the job that is at fault. */
static void exhausted(struct pub_client *c, int error)
{
    trk_log_error("no connection to a job can be opened", "error", strerror(error), "tracing_id",
                  c->tracing_id, NULL);
    pub_stat(&c->worker->stats, PUB_REJECTED);
    pub_reply_job_error(c, 503,
                        error == EMFILE || error == ENFILE
                            ? "the gateway has no file descriptor left (raise its limit, "
                              "RLIMIT_NOFILE); retry later"
                            : "the gateway cannot open another connection; retry later",
                        strerror(error));
    pub_call_end(c, 503, false);
}

/* Nothing was sent: another replica, then what the table says now. */
static void connect_failed(struct pub_client *c, int error)
{
    if (pub_up_is_exhausted(error)) {
        exhausted(c, error);
        return;
    }
    pub_host_failed(c->up->host);
    pub_up_put(TRK_STEAL(c->up), false);
    if (++c->hosts_tried < c->target->host_count) {
        connect_to_job(c, false);
        return;
    }
    c->error = error;
    decide(c);
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

static void refuse(struct pub_client *c, int status, const char *prefix, const char *detail)
{
    struct pub_worker *w = c->worker;
    c->wants_news = false;
    pub_stat(&w->stats, PUB_REQUEST_ERRORS);
    if (status == 401 || status == 403) {
        pub_stat(&w->stats, PUB_AUTH_FAILED);
    }
    pub_reply_error(c, status, prefix, detail);
    pub_call_end(c, status, false); /* one that had begun before its job moved */
}

static void refuse_token(struct pub_client *c, const char *why)
{
    char text[256];
    bool is_told = c->worker->shared->config->auth_debug;
    (void)snprintf(text, sizeof(text), "Unauthenticated%s%s", is_told ? ": " : "",
                   is_told ? why : "");
    refuse(c, 401, job_error, text);
}

static void refuse_grant(struct pub_client *c, const struct pub_question *q,
                         const struct pub_finding *f)
{
    char text[1024];
    if (c->worker->shared->config->auth_debug) {
        (void)snprintf(text, sizeof(text),
                       "Forbidden: no permission: %s lacks the scope call_job on %s %s %s",
                       f->subject->caller, f->job->family->text, f->job->version, q->endpoint);
    } else {
        (void)snprintf(text, sizeof(text), "Forbidden: no permission to call %s %s",
                       f->job->family->text, f->job->version);
    }
    refuse(c, 403, job_error, text);
}

static void refuse_version(struct pub_client *c, const struct pub_question *q,
                           const struct pub_finding *f)
{
    char text[1024];
    (void)snprintf(
        text, sizeof(text),
        "no job named %.*s in version %.*s (%zu deployed, none of them live and fitting)",
        (int)q->job.len, q->job.at, (int)q->version.len, q->version.at, f->version_count);
    refuse(c, 404, "Proxy request error: Job was not found: ", text);
}

static void refuse_verdict(struct pub_client *c, enum pub_verdict verdict,
                           const struct pub_question *q, const struct pub_finding *f)
{
    char text[1024];
    switch (verdict) {
    case PUB_KNOWS_NOTHING:
        refuse(c, 503, job_error,
               "the gateway has not heard from lifecycle yet what may be called; try again in a "
               "moment");
        break;
    case PUB_MAINTENANCE:
        refuse(c, 503, job_error, "Racetrack is in maintenance mode; try again when it is over");
        break;
    case PUB_NO_FAMILY:
        (void)snprintf(text, sizeof(text), "no job named %.*s", (int)q->job.len, q->job.at);
        refuse(c, 404, "Proxy request error: Job was not found: ", text);
        break;
    case PUB_NO_VERSION:
        refuse_version(c, q, f);
        break;
    case PUB_NO_TOKEN:
        if (c->is_cross_site) {
            refuse(c, 403, job_error,
                   "Forbidden: a page of another origin may not call with the cookie's token; send "
                   "it in the header X-Racetrack-Auth");
            break;
        }
        refuse_token(c, "auth token not found in a header X-Racetrack-Auth");
        break;
    case PUB_UNKNOWN_TOKEN:
        refuse_token(c, "no such token, or it was revoked");
        break;
    case PUB_ENDED_TOKEN:
        refuse_token(c, "the token has expired");
        break;
    case PUB_INACTIVE:
        refuse_token(c, "this user is not active; an administrator has to activate it");
        break;
    default:
        refuse_grant(c, q, f);
        break;
    }
}

/* A tunnel lasts: it is looked at again at each change of the table. */
static void keep_pass(struct pub_client *c, const struct pub_question *q,
                      const struct pub_finding *f)
{
    size_t size = strlen(q->endpoint) + 1;
    c->pass = trk_xcalloc(1, sizeof(*c->pass) + size);
    memcpy(c->pass->digest, f->token->digest, PUB_DIGEST_SIZE);
    memcpy(c->pass->endpoint, q->endpoint, size);
    c->pass->ends_s = f->token->ends_s;
}

/* The table's answer may call; what is needed of it after this turn is copied. */
static void begin_call(struct pub_client *c, const struct pub_question *q,
                       const struct pub_finding *f)
{
    struct pub_worker *w = c->worker;
    struct pub_target *target = pub_target_get(&w->targets, f->job);
    bool is_first = c->target == NULL;
    pub_target_unref(c->target);
    c->target = target;
    c->wants_news = false;
    c->hosts_tried = 0;
    if (is_first) {
        uint32_t now_s = (uint32_t)trk_wall_s();
        if (f->subject != NULL) {
            c->caller = trk_xstrdup(f->subject->caller);
            if (c->is_upgrade) {
                keep_pass(c, q, f);
            }
            pub_note(&((struct pub_token *)(uintptr_t)f->token)->last_s, now_s);
        }
        pub_note(&f->job->id->last_s, now_s);
        (void)atomic_fetch_add_explicit(&f->job->id->calls, 1, memory_order_relaxed);
        pub_stat(&w->stats, PUB_AUTH_SUCCESSFUL);
        pub_add(&target->stats->requests, 1);
    }
    if (target->host_count == 0) {
        fail(c, 503, PUB_CONNECTION_REFUSED, "no replica of the job has a usable address", "");
        return;
    }
    connect_to_job(c, false);
}

/* Nothing serves the job as it is known now. News is on its way, or it is dead. */
static void wait_for_news(struct pub_client *c, const struct pub_finding *f)
{
    char text[1024];
    if (!c->is_wait_over && !c->wants_news) {
        c->state = PUB_CLIENT_WAIT;
        c->wants_news = true;
        pub_client_arm(c, c->target != NULL ? MOVE_WAIT_MS : START_WAIT_MS);
        atomic_store(&c->worker->wants_news, true);
        decide(c); /* once more: it may have come just before that */
        return;
    }
    if (!c->is_wait_over) {
        atomic_store(&c->worker->wants_news, true);
        return;
    }
    if (c->target != NULL) {
        nobody_there(c);
        return;
    }
    (void)snprintf(text, sizeof(text),
                   "job %s %s is %s: nothing serves it yet, try again in a moment",
                   f->job->family->text, f->job->version, f->job->status);
    refuse(c, 503, job_error, text);
}

/* Whoever has just deployed a job, made a token or been granted something calls at once; the news
 * takes a few milliseconds. Such a call is decided again once, after a moment and not before: what
 * strangers ask costs no more than two looks. */
static bool may_be_late(const struct pub_client *c, enum pub_verdict verdict)
{
    return !c->is_wait_over && c->target == NULL && pub_feed_is_open(c->worker->shared->feed) &&
           (verdict == PUB_NO_FAMILY || verdict == PUB_NO_VERSION || verdict == PUB_UNKNOWN_TOKEN ||
            verdict == PUB_NOT_ALLOWED);
}

static bool is_too_old(const struct pub_worker *w)
{
    int64_t max_s = w->shared->config->max_staleness_s;
    max_s = max_s > 0 && max_s < STALENESS_MIN_S ? STALENESS_MIN_S : max_s;
    return max_s > 0 && pub_feed_age_ns(w->shared->feed, w->loop.now_ns) > max_s * TRK_NS_PER_S;
}

/* RFC 9110 §9.2.1 */
static bool is_safe(struct trk_h1_slice method)
{
    return (method.len == 3 && memcmp(method.at, "GET", 3) == 0) ||
           (method.len == 4 && memcmp(method.at, "HEAD", 4) == 0) ||
           (method.len == 7 && memcmp(method.at, "OPTIONS", 7) == 0);
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
    memcpy(w->endpoint, route->endpoint.at, route->endpoint.len);
    w->endpoint[route->endpoint.len] = '\0';
    *q = (struct pub_question){.job = route->job,
                               .version = route->version,
                               .endpoint = w->endpoint,
                               .now_s = trk_wall_s()};
    c->rest = route->rest;
    struct pub_token_found found;
    if (pub_token_find(r, w->cookie, &found) < 0 || found.text.len > TOKEN_MAX) {
        refuse_token(c, "the token has characters that no token has, or is too long");
        return -1;
    }
    q->token = found.text;
    if (found.is_cookie && (c->is_upgrade || !is_safe(r->method)) && pub_token_is_cross_site(r)) {
        q->token.len = 0; /* the browser sent it along, the page may not use it */
        c->is_cross_site = true;
    }
    return 0;
}

static void answer_question(struct pub_client *c, const struct pub_question *q)
{
    const struct pub_worker *w = c->worker;
    struct pub_finding f;
    if (is_too_old(w)) {
        refuse(c, 503, job_error,
               "the gateway has not heard from lifecycle for too long (PUB_MAX_STALENESS_S)");
        return;
    }
    enum pub_verdict verdict = pub_table_decide(w->shared->table, q, &f);
    if (verdict != PUB_MAY_CALL && may_be_late(c, verdict)) {
        c->state = PUB_CLIENT_WAIT;
        c->wants_news = false;
        pub_client_arm(c, LATE_WAIT_MS);
        return;
    }
    if (verdict != PUB_MAY_CALL) {
        refuse_verdict(c, verdict, q, &f);
        return;
    }
    bool is_same = c->target != NULL &&
                   (c->target->serial == f.job->serial || c->moves++ >= MOVES_MAX);
    if (is_same || f.job->is_starting || f.job->replica_count == 0) {
        wait_for_news(c, &f);
    } else {
        begin_call(c, q, &f);
    }
}

/* Again: the table may say something else by now. */
static void decide(struct pub_client *c)
{
    struct pub_question q;
    struct pub_route route;
    if (make_question(c, &q, &route) == 0) {
        answer_question(c, &q);
    }
}

void pub_call_timeout(struct pub_client *c)
{
    if (c->state == PUB_CLIENT_CONNECT) {
        connect_failed(c, ETIMEDOUT);
        return;
    }
    c->is_wait_over = true;
    c->wants_news = false;
    decide(c);
}

bool pub_call_may_go_on(struct pub_client *c)
{
    if (c->pass == NULL) {
        return true;
    }
    const struct pub_target *target = c->target;
    struct pub_question q = {.job = {target->job, strlen(target->job)},
                             .version = {target->version, strlen(target->version)},
                             .endpoint = c->pass->endpoint,
                             .digest = c->pass->digest,
                             .now_s = trk_wall_s()};
    struct pub_finding f;
    c->wants_news = true;
    atomic_store(&c->worker->wants_news, true);
    enum pub_verdict verdict = pub_table_decide(c->worker->shared->table, &q, &f);
    return verdict == PUB_MAY_CALL || verdict == PUB_MAINTENANCE;
}

void pub_call_news(struct pub_worker *w)
{
    for (struct pub_client *c = w->clients, *next; c != NULL; c = next) {
        next = c->next;
        if (c->state == PUB_CLIENT_WAIT && c->wants_news) {
            decide(c);
            pub_client_run(c);
        } else if (c->state == PUB_CLIENT_TUNNEL && !pub_call_may_go_on(c)) {
            pub_call_end(c, 101, false);
            pub_client_close(c);
        }
    }
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

static void reset(struct pub_client *c, const struct trk_h1_request *r, size_t head_len)
{
    c->head_len = head_len;
    c->line = (struct trk_h1_slice){r->method.at,
                                    (size_t)(r->target.at + r->target.len - r->method.at)};
    c->minor = r->minor;
    c->keep_alive = r->keep_alive;
    c->is_head = r->method.len == 4 && memcmp(r->method.at, "HEAD", 4) == 0;
    c->is_idempotent = is_idempotent(r->method);
    c->is_upgrade = pub_websocket_is_asked(r);
    c->wants_continue = r->expect_continue;
    c->hosts_tried = 0;
    c->moves = 0;
    c->is_cross_site = c->wants_news = c->is_wait_over = c->has_retried = c->has_started = false;
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

static bool is_method(const struct trk_h1_request *r, const char *method)
{
    return strlen(method) == r->method.len && memcmp(r->method.at, method, r->method.len) == 0;
}

/* OPTIONS * and an OPTIONS that may go no further (RFC 9110 §7.6.2, §9.3.7) are answered here;
 * TRACE is not passed on: its answer would show what only the job may see. */
static bool is_for_us(struct pub_client *c, const struct trk_h1_request *r)
{
    if (is_method(r, "TRACE")) {
        pub_reply_allow(c, 405);
        return true;
    }
    if (!is_method(r, "OPTIONS")) {
        return false;
    }
    const struct trk_h1_header *forwards = trk_h1_find(r->headers, r->header_count, "max-forwards");
    if (r->target.at[0] == '*' || (forwards != NULL && trk_h1_is(forwards->value, "0"))) {
        pub_reply_allow(c, 204);
        return true;
    }
    return false;
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
    if (is_for_us(c, r)) {
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
    answer_question(c, &q);
}
