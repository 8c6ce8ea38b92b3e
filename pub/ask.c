#include "pub/ask.h"

#include <errno.h>
#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "pub/answer.h"
#include "pub/share.h"
#include "pub/text.h"

#define RUNNING_MAX       64
#define WAITING_MAX       4096
#define ANSWER_MAX        (1024 * 1024)
#define BROKEN_STREAM_TTL (2 * TRK_NS_PER_S)
#define DOWN_FOR_NS       TRK_NS_PER_S

/* One question on its way, with everybody who waits for it. */
struct pub_ask {
    struct pub_ask *next; /* bucket */
    struct pub_ask *next_in_queue;
    struct pub_worker *worker;
    struct pub_tag any_tag, tag;
    struct pub_waiter *waiters;
    char *job;
    char *head; /* the request; holds the token: wiped */
    size_t head_len, head_sent;
    struct pub_up *up; /* NULL: queued */
    struct trk_buf in;
    struct pub_timer timer;
    struct pub_grave grave;
    int64_t started_ns;
    uint64_t epoch;
    bool is_tainted, has_retried;
};

static bool is_tag(const struct pub_tag *x, const struct pub_tag *y)
{
    return x->a == y->a && x->b == y->b;
}

/* -- waiters -- */

static void add_waiter(struct pub_ask *ask, struct pub_waiter *waiter, struct pub_decision *stale)
{
    waiter->ask = ask;
    waiter->stale = stale != NULL ? pub_decision_ref(stale) : NULL;
    waiter->prev = NULL;
    waiter->next = ask->waiters;
    if (ask->waiters != NULL) {
        ask->waiters->prev = waiter;
    }
    ask->waiters = waiter;
    ask->worker->asks_waiting++;
}

static void remove_waiter(struct pub_waiter *waiter)
{
    struct pub_ask *ask = waiter->ask;
    *(waiter->prev != NULL ? &waiter->prev->next : &ask->waiters) = waiter->next;
    if (waiter->next != NULL) {
        waiter->next->prev = waiter->prev;
    }
    waiter->ask = NULL;
    ask->worker->asks_waiting--;
}

void pub_ask_cancel(struct pub_waiter *waiter)
{
    if (waiter->ask != NULL) {
        remove_waiter(waiter);
        pub_decision_unref(TRK_STEAL(waiter->stale));
    }
}

struct pub_decision *pub_ask_take_stale(struct pub_worker *w, struct pub_waiter *waiter)
{
    if (waiter->stale == NULL) {
        return NULL;
    }
    remove_waiter(waiter);
    w->lifecycle_down_until_ns = w->loop.now_ns + DOWN_FOR_NS;
    pub_stat(&w->stats, PUB_CACHE_RECOVERED);
    return TRK_STEAL(waiter->stale);
}

/* -- the end of a question -- */

static struct pub_ask **bucket_of(struct pub_worker *w, const struct pub_tag *tag)
{
    return &w->asks[tag->a % PUB_ASK_BUCKETS];
}

static void start(struct pub_ask *ask, bool fresh);

static void run_queued(struct pub_worker *w)
{
    while (w->ask_queue != NULL && w->asks_running < RUNNING_MAX) {
        struct pub_ask *ask = w->ask_queue;
        w->ask_queue = ask->next_in_queue;
        if (w->ask_queue == NULL) {
            w->ask_queue_last = NULL;
        }
        w->asks_running++;
        start(ask, false);
    }
}

/* Takes the question out of everything but its waiters. */
static void retire(struct pub_ask *ask, bool can_reuse)
{
    struct pub_worker *w = ask->worker;
    struct pub_ask **p = bucket_of(w, &ask->tag);
    while (*p != ask) {
        p = &(*p)->next;
    }
    *p = ask->next;
    pub_timer_cancel(&ask->timer);
    if (ask->up != NULL) {
        pub_up_put(TRK_STEAL(ask->up), can_reuse);
    }
    w->asks_running--;
    pub_add(&w->stats.counters[PUB_LIFECYCLE_TIME_NS],
            (uint64_t)(w->loop.now_ns - ask->started_ns));
}

static void bury(struct pub_ask *ask)
{
    sodium_memzero(ask->head, ask->head_len);
    free(ask->head);
    free(ask->job);
    trk_buf_fini(&ask->in);
    pub_loop_bury(&ask->worker->loop, &ask->grave, ask);
}

/* Tells everybody. Takes the decision (may be NULL). */
static void finish(struct pub_ask *ask, struct pub_decision *decision, int status, const char *text)
{
    struct pub_worker *w = ask->worker;
    bool is_definite = decision != NULL || (status >= 400 && status < 500);
    while (ask->waiters != NULL) {
        struct pub_waiter *waiter = ask->waiters;
        remove_waiter(waiter);
        struct pub_decision *stale = TRK_STEAL(waiter->stale);
        if (stale != NULL && !is_definite) {
            pub_stat(&w->stats, PUB_CACHE_RECOVERED);
            waiter->on_answer(waiter, stale, 200, "");
            continue;
        }
        pub_decision_unref(stale);
        waiter->on_answer(waiter, decision != NULL ? pub_decision_ref(decision) : NULL, status,
                          text);
    }
    pub_decision_unref(decision);
    bury(ask);
    run_queued(w);
}

static void finish_unanswered(struct pub_ask *ask, const char *text)
{
    struct pub_worker *w = ask->worker;
    pub_stat(&w->stats, PUB_LIFECYCLE_ERRORS);
    w->lifecycle_down_until_ns = w->loop.now_ns + DOWN_FOR_NS;
    trk_log_warn("lifecycle did not answer", "error", text, NULL);
    retire(ask, false);
    finish(ask, NULL, 0, text);
}

/* -- the exchange with lifecycle -- */

static void finish_answered(struct pub_ask *ask, int status, struct trk_h1_slice body,
                            bool can_reuse)
{
    struct pub_worker *w = ask->worker;
    struct trk_err err = {0};
    struct pub_decision *decision = NULL;
    retire(ask, can_reuse);
    if (status == 200 && pub_answer_decision(w, body, ask->started_ns, &decision, &err) < 0) {
        status = 502;
    }
    if (decision != NULL) {
        decision->tag = decision->any_path ? ask->any_tag : ask->tag;
        if (!ask->is_tainted) {
            pub_cache_add(&w->cache, decision);
            pub_share_decision(w, decision, ask->epoch);
        }
        w->lifecycle_down_until_ns = 0;
        finish(ask, decision, 200, "");
        return;
    }
    if (status != 502) {
        pub_answer_error(body, &err);
    }
    if (status >= 500 || status < 400) {
        pub_stat(&w->stats, PUB_LIFECYCLE_ERRORS);
        w->lifecycle_down_until_ns = w->loop.now_ns + DOWN_FOR_NS;
    } else {
        /* A definite no ends what an older answer allowed. */
        struct pub_decision *old = pub_cache_find(&w->cache, &ask->any_tag);
        if (old != NULL) {
            pub_cache_remove(&w->cache, old);
        }
        if ((old = pub_cache_find(&w->cache, &ask->tag)) != NULL) {
            pub_cache_remove(&w->cache, old);
        }
    }
    finish(ask, NULL, status, err.text);
}

/* Looks for a whole answer in ask->in. */
static void read_answer(struct pub_ask *ask, bool is_end)
{
    struct trk_h1_response *r = &ask->worker->response;
    int n = trk_h1_parse_response(r, ask->in.data, ask->in.len);
    if (n < 0) {
        finish_unanswered(ask, "lifecycle's answer is not HTTP");
        return;
    }
    struct trk_h1_slice body = {ask->in.data + n, ask->in.len - (size_t)n};
    bool is_whole = n > 0;
    if (n > 0 && r->body == TRK_H1_LENGTH) {
        is_whole = body.len >= r->content_length;
    } else if (n > 0 && r->body == TRK_H1_UNTIL_CLOSE) {
        is_whole = is_end;
    } else if (n > 0 && r->body == TRK_H1_CHUNKED) {
        int done = pub_answer_dechunk(ask->in.data + n, &body.len);
        if (done < 0) {
            finish_unanswered(ask, "lifecycle's answer is not HTTP");
            return;
        }
        is_whole = done > 0;
    } else if (n > 0) {
        body.len = 0;
    }
    if (is_whole) {
        bool keep = r->keep_alive && !is_end;
        finish_answered(ask, r->status, body, keep);
    } else if (is_end) {
        finish_unanswered(ask, "lifecycle closed the connection");
    }
}

/* An idle connection may have been closed by lifecycle meanwhile: once more on a new one. */
static void lost(struct pub_ask *ask, const char *text)
{
    if (ask->up->is_reused && ask->in.len == 0 && !ask->has_retried) {
        ask->has_retried = true;
        pub_up_put(TRK_STEAL(ask->up), false);
        ask->head_sent = 0;
        start(ask, true);
        return;
    }
    if (!ask->up->is_reused && ask->up->state == PUB_UP_FAILED) {
        pub_host_failed(ask->up->host);
    }
    finish_unanswered(ask, text);
}

static void step(struct pub_ask *ask)
{
    struct pub_up *up = ask->up;
    while (ask->head_sent < ask->head_len) {
        ssize_t n = send(up->watch.fd, ask->head + ask->head_sent, ask->head_len - ask->head_sent,
                         MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n < 0) {
            lost(ask, strerror(errno));
            return;
        }
        ask->head_sent += (size_t)n;
    }
    while (up->is_readable) {
        char *room = trk_buf_reserve(&ask->in, 16384);
        if (room == NULL) {
            finish_unanswered(ask, "lifecycle's answer is too long");
            return;
        }
        ssize_t n = pub_up_recv(up, room, 16384);
        if (n == -EAGAIN) {
            return;
        }
        if (n <= 0 && ask->in.len == 0) {
            lost(ask, n == 0 ? "lifecycle closed the connection" : strerror((int)-n));
            return;
        }
        if (n < 0) {
            finish_unanswered(ask, strerror((int)-n));
            return;
        }
        trk_buf_commit(&ask->in, (size_t)n);
        struct pub_up *before = up;
        read_answer(ask, n == 0);
        if (ask->up != before || n == 0) {
            return;
        }
    }
}

static void on_up(struct pub_up *up)
{
    struct pub_ask *ask = up->owner;
    if (up->state == PUB_UP_FAILED) {
        lost(ask, strerror(up->error));
    } else if (up->state == PUB_UP_OPEN) {
        step(ask);
    }
}

static void on_timeout(struct pub_timer *timer)
{
    struct pub_ask *ask = PUB_CONTAINER(timer, struct pub_ask, timer);
    if (ask->up == NULL) {
        /* Failed before it began: reported from here, not from within pub_ask. */
        finish_unanswered(ask, "lifecycle cannot be connected to");
        return;
    }
    finish_unanswered(ask, "lifecycle did not answer in time");
}

static void start(struct pub_ask *ask, bool fresh)
{
    struct pub_worker *w = ask->worker;
    pub_stat(&w->stats, PUB_LIFECYCLE_CALLS);
    ask->started_ns = w->loop.now_ns;
    ask->epoch = pub_share_epoch(w);
    pub_timer_set(&w->loop.wheel, &ask->timer,
                  w->loop.now_ns + w->shared->config->lifecycle_timeout_ms * TRK_NS_PER_MS);
    ask->up = pub_up_get(w->lifecycle_host, fresh, on_up, ask);
    if (ask->up->state == PUB_UP_OPEN) {
        ssize_t n = send(ask->up->watch.fd, ask->head, ask->head_len, MSG_NOSIGNAL);
        ask->head_sent = n > 0 ? (size_t)n : 0; /* an error shows as an event */
    } else if (ask->up->state == PUB_UP_FAILED) {
        pub_up_put(TRK_STEAL(ask->up), false);
        pub_timer_set(&w->loop.wheel, &ask->timer, w->loop.now_ns);
    }
}

/* -- asking -- */

static char *make_head(struct pub_worker *w, const struct pub_question *q, size_t *ret_len)
{
    struct pub_text t;
    pub_text_init(&t, w->scratch, sizeof(w->scratch));
    pub_text_adds(&t, "GET ");
    pub_text_adds(&t, w->shared->lifecycle.path);
    pub_text_adds(&t, "/api/v1/auth/can-call-job/");
    pub_text_url(&t, q->job.at, q->job.len, false);
    pub_text_adds(&t, "/");
    pub_text_url(&t, q->version.at, q->version.len, false);
    if (q->endpoint.len == 0) {
        pub_text_adds(&t, "/");
    }
    pub_text_url(&t, q->endpoint.at, q->endpoint.len, true);
    pub_text_adds(&t, " HTTP/1.1\r\nHost: ");
    pub_text_adds(&t, w->shared->lifecycle.host);
    pub_text_adds(&t, "\r\nAccept: application/json\r\nX-Request-Tracing-Id: ");
    pub_text_adds(&t, q->tracing_id);
    if (q->token.len > 0) {
        pub_text_adds(&t, "\r\nX-Racetrack-Auth: ");
        pub_text_slice(&t, q->token);
    }
    pub_text_adds(&t, "\r\n\r\n");
    trk_assert(!t.overflow); /* 3 * target + token fit */
    *ret_len = pub_text_len(&t);
    char *head = trk_xmalloc(*ret_len);
    memcpy(head, w->scratch, *ret_len);
    sodium_memzero(w->scratch, *ret_len);
    return head;
}

static struct pub_ask *new_ask(struct pub_worker *w, const struct pub_question *q,
                               const struct pub_tag *any_tag, const struct pub_tag *tag)
{
    struct pub_ask *ask = trk_xcalloc(1, sizeof(*ask));
    ask->worker = w;
    ask->any_tag = *any_tag;
    ask->tag = *tag;
    ask->job = trk_xstrndup(q->job.at, q->job.len);
    ask->head = make_head(w, q, &ask->head_len);
    ask->started_ns = w->loop.now_ns;
    ask->timer.on_fire = on_timeout;
    trk_buf_init(&ask->in, ANSWER_MAX);
    struct pub_ask **bucket = bucket_of(w, tag);
    ask->next = *bucket;
    *bucket = ask;
    return ask;
}

static void send_or_queue(struct pub_worker *w, struct pub_ask *ask)
{
    if (w->asks_running < RUNNING_MAX) {
        w->asks_running++;
        start(ask, false);
        return;
    }
    if (w->ask_queue_last != NULL) {
        w->ask_queue_last->next_in_queue = ask;
    } else {
        w->ask_queue = ask;
    }
    w->ask_queue_last = ask;
}

/* The cached decision, if it may be used without asking; else *ret_stale is what may be used if
 * asking fails. */
static struct pub_decision *from_cache(struct pub_worker *w, const struct pub_tag *any_tag,
                                       const struct pub_tag *tag, struct pub_decision **ret_stale)
{
    const struct pub_config *config = w->shared->config;
    struct pub_decision *d = pub_cache_find(&w->cache, any_tag);
    if (d == NULL) {
        d = pub_cache_find(&w->cache, tag);
    }
    if (d == NULL) {
        return NULL;
    }
    if (d->ends_ns != 0 && w->loop.now_ns >= d->ends_ns) { /* even while lifecycle is away */
        pub_cache_remove(&w->cache, d);
        return NULL;
    }
    int64_t age = w->loop.now_ns - d->fetched_ns;
    int64_t fresh = config->cache_ttl_min_s * TRK_NS_PER_S;
    if (fresh > BROKEN_STREAM_TTL &&
        !atomic_load_explicit(&w->shared->is_stream_open, memory_order_relaxed)) {
        fresh = BROKEN_STREAM_TTL;
    }
    if (age < fresh) {
        pub_stat(&w->stats, PUB_CACHE_RETRIEVED);
        return d;
    }
    if (age >= config->cache_ttl_max_s * TRK_NS_PER_S) {
        pub_cache_remove(&w->cache, d);
        return NULL;
    }
    if (w->lifecycle_down_until_ns > w->loop.now_ns) {
        pub_stat(&w->stats, PUB_CACHE_RECOVERED);
        return d;
    }
    *ret_stale = d;
    return NULL;
}

enum pub_answer pub_ask(struct pub_worker *w, const struct pub_question *q,
                        struct pub_waiter *waiter, struct pub_decision **ret)
{
    struct pub_tag any_tag, tag;
    const unsigned char *key = w->shared->tag_key;
    pub_tag_make(&any_tag, key, q->job, q->version, q->token);
    struct pub_decision *stale = NULL;
    /* An any-path decision answers most calls: the path is hashed only when there is none. */
    if (!q->must_ask) {
        struct pub_decision *d = from_cache(w, &any_tag, &any_tag, &stale);
        if (d == NULL && stale == NULL) {
            pub_tag_add_path(&tag, key, &any_tag, q->endpoint);
            d = from_cache(w, &tag, &tag, &stale);
        }
        if (d != NULL) {
            *ret = pub_decision_ref(d);
            return PUB_ANSWERED;
        }
    }
    pub_tag_add_path(&tag, key, &any_tag, q->endpoint);
    struct pub_ask *ask = *bucket_of(w, &tag);
    while (ask != NULL && (!is_tag(&ask->tag, &tag) || ask->is_tainted)) {
        ask = ask->next;
    }
    if (ask == NULL && w->asks_waiting >= WAITING_MAX) {
        return PUB_OVERLOADED;
    }
    if (ask == NULL) {
        ask = new_ask(w, q, &any_tag, &tag);
        add_waiter(ask, waiter, stale);
        send_or_queue(w, ask);
        return PUB_WAIT;
    }
    add_waiter(ask, waiter, stale);
    return PUB_WAIT;
}

void pub_ask_taint(struct pub_worker *w, const char *job)
{
    for (size_t i = 0; i < PUB_ASK_BUCKETS; i++) {
        for (struct pub_ask *ask = w->asks[i]; ask != NULL; ask = ask->next) {
            if (job == NULL || strcmp(ask->job, job) == 0) {
                ask->is_tainted = true;
                for (struct pub_waiter *p = ask->waiters; p != NULL; p = p->next) {
                    pub_decision_unref(TRK_STEAL(p->stale));
                }
            }
        }
    }
}

void pub_asks_fini(struct pub_worker *w)
{
    for (size_t i = 0; i < PUB_ASK_BUCKETS; i++) {
        while (w->asks[i] != NULL) {
            struct pub_ask *ask = w->asks[i];
            w->asks[i] = ask->next;
            pub_timer_cancel(&ask->timer);
            if (ask->up != NULL) {
                pub_up_put(ask->up, false);
            }
            while (ask->waiters != NULL) {
                pub_ask_cancel(ask->waiters);
            }
            bury(ask);
        }
    }
}
