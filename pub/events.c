#include "pub/events.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "pub/ask.h"
#include "pub/sse.h"
#include "pub/text.h"

#define SILENCE_MAX_NS (15 * TRK_NS_PER_S)
#define PAUSE_MIN_MS   100
#define PAUSE_MAX_MS   2000

struct pub_events {
    struct pub_worker *worker;
    struct pub_up *up;
    struct pub_timer timer; /* silence while open, pause while closed */
    struct pub_sse sse;
    struct trk_buf head; /* the answer's, until it is whole */
    bool has_head, is_chunked, has_sent, was_logged;
    bool has_position;    /* a hello was seen: sse.id says where to go on */
    int64_t resumed_from; /* what this connection asked for */
    struct trk_h1_chunked chunked;
    int64_t pause_ms;
};

/* -- invalidation on every thread -- */

struct drop {
    struct pub_message message;
    bool is_all, is_removed;
    char job[256], version[256];
};

static void run_drop(struct pub_message *message, void *ctx)
{
    struct drop *drop = (struct drop *)message;
    struct pub_worker *w = ctx;
    if (drop->is_all) {
        pub_cache_remove_all(&w->cache);
        pub_ask_taint(w, NULL);
        return;
    }
    pub_cache_remove_job(&w->cache, drop->job);
    pub_ask_taint(w, drop->job);
    if (drop->is_removed) {
        pub_job_stats_forget(&w->stats, drop->job, drop->version);
    }
}

static void broadcast(struct pub_shared *shared, const char *job, const char *version,
                      bool is_removed)
{
    (void)atomic_fetch_add(&shared->epoch, 1);
    for (size_t i = 0; i < shared->worker_count; i++) {
        struct drop *drop = trk_xcalloc(1, sizeof(*drop));
        drop->message.run = run_drop;
        drop->is_all = job == NULL || strlen(job) >= sizeof(drop->job);
        drop->is_removed = is_removed && !drop->is_all && strlen(version) < sizeof(drop->version);
        if (!drop->is_all) {
            memcpy(drop->job, job, strlen(job) + 1);
        }
        if (drop->is_removed) {
            memcpy(drop->version, version, strlen(version) + 1);
        }
        pub_loop_post(&shared->workers[i].loop, &drop->message);
    }
}

static void on_job_event(struct pub_events *events, const char *data, bool is_removed)
{
    json_auto_t *value = NULL;
    struct trk_err err = {0};
    const char *job = NULL;
    if (trk_json_parse(data, strlen(data), &value, &err) == 0) {
        job = trk_json_string_or(value, "job_name", NULL);
    }
    broadcast(events->worker->shared, job,
              job != NULL ? trk_json_string_or(value, "job_version", "") : "", is_removed);
}

/* The stream is open. Without an id to resume from, or with one the database does not know (it was
 * restored), changes may have been missed. */
static void on_hello(struct pub_events *events, const char *data)
{
    struct pub_shared *shared = events->worker->shared;
    json_auto_t *value = NULL;
    struct trk_err err = {0};
    int64_t last = -1;
    if (trk_json_parse(data, strlen(data), &value, &err) == 0) {
        last = trk_json_int_or(value, "last_id", -1);
    }
    if (!events->has_position || last < events->resumed_from) {
        broadcast(shared, NULL, "", false);
        if (last >= 0) {
            (void)snprintf(events->sse.id, sizeof(events->sse.id), "%lld", (long long)last);
            memcpy(events->sse.next_id, events->sse.id, sizeof(events->sse.id));
        }
    }
    events->has_position = true;
    atomic_store(&shared->is_stream_open, true);
    events->pause_ms = 0;
    events->was_logged = false;
    trk_log_info("event stream from lifecycle is open", NULL);
}

static void on_event(void *ctx, const char *event, const char *id, const char *data)
{
    struct pub_events *events = ctx;
    (void)id;
    pub_stat(&events->worker->stats, PUB_EVENTS_RECEIVED);
    if (strcmp(event, "hello") == 0) {
        on_hello(events, data);
    } else if (strcmp(event, "job_changed") == 0 || strcmp(event, "job_removed") == 0) {
        on_job_event(events, data, strcmp(event, "job_removed") == 0);
    } else {
        /* Permissions, tokens, settings; and kinds of a newer lifecycle. */
        broadcast(events->worker->shared, NULL, "", false);
    }
}

/* -- the connection -- */

static void broken(struct pub_events *events, const char *why)
{
    struct pub_worker *w = events->worker;
    if (events->up != NULL) {
        pub_up_put(TRK_STEAL(events->up), false);
    }
    atomic_store(&w->shared->is_stream_open, false);
    pub_stat(&w->stats, PUB_STREAM_BREAKS);
    if (!events->was_logged) {
        trk_log_warn("event stream from lifecycle is down, decisions are asked for again after 2 s",
                     "error", why, NULL);
        events->was_logged = true;
    }
    events->pause_ms = events->pause_ms == 0 ? PAUSE_MIN_MS : events->pause_ms * 2;
    if (events->pause_ms > PAUSE_MAX_MS) {
        events->pause_ms = PAUSE_MAX_MS;
    }
    int64_t jitter_ms = w->loop.now_ns / 1000 % (events->pause_ms / 2 + 1);
    pub_timer_set(&w->loop.wheel, &events->timer,
                  w->loop.now_ns + (events->pause_ms + jitter_ms) * TRK_NS_PER_MS);
}

static void send_request(struct pub_events *events)
{
    struct pub_shared *shared = events->worker->shared;
    struct pub_text t;
    char request[8192];
    pub_text_init(&t, request, sizeof(request));
    pub_text_adds(&t, "GET ");
    pub_text_adds(&t, shared->lifecycle.path);
    pub_text_adds(&t, "/api/v1/events/stream HTTP/1.1\r\nHost: ");
    pub_text_adds(&t, shared->lifecycle.host);
    pub_text_adds(&t, "\r\nAccept: text/event-stream\r\nX-Racetrack-Auth: ");
    pub_text_adds(&t, shared->internal_token);
    if (events->has_position && events->sse.id[0] != '\0') {
        events->resumed_from = atoll(events->sse.id);
        pub_text_adds(&t, "\r\nLast-Event-ID: ");
        pub_text_adds(&t, events->sse.id);
    }
    pub_text_adds(&t, "\r\n\r\n");
    size_t len = pub_text_len(&t);
    events->has_sent = true;
    if (t.overflow || send(events->up->watch.fd, request, len, MSG_NOSIGNAL) != (ssize_t)len) {
        broken(events, t.overflow ? "LIFECYCLE_AUTH_TOKEN is too long" : strerror(errno));
    }
}

/* Feeds a piece of the body. 0 or -1 when broken() was called. */
static int read_body(struct pub_events *events, const char *bytes, size_t len)
{
    int n = 0;
    while (len > 0 && n == 0) {
        struct trk_h1_slice piece = {bytes, len};
        size_t used = len;
        if (events->is_chunked) {
            n = trk_h1_chunked_next(&events->chunked, bytes, len, &used, &piece);
        }
        if (n < 0 || pub_sse_feed(&events->sse, piece.at, piece.len) < 0) {
            broken(events, "the stream is malformed");
            return -1;
        }
        bytes += used;
        len -= used;
    }
    if (n > 0) {
        broken(events, "lifecycle ended the stream");
        return -1;
    }
    return 0;
}

static int read_head(struct pub_events *events, const char *bytes, size_t len)
{
    struct trk_h1_response *r = &events->worker->response;
    (void)trk_buf_add(&events->head, bytes, len);
    int n = trk_h1_parse_response(r, events->head.data, events->head.len);
    if (n == 0) {
        return 0;
    }
    if (n < 0 || r->status != 200) {
        char why[64];
        (void)snprintf(why, sizeof(why), n < 0 ? "the answer is not HTTP" : "answered %d",
                       n < 0 ? 0 : r->status);
        broken(events, why);
        return -1;
    }
    events->has_head = true;
    events->is_chunked = r->body == TRK_H1_CHUNKED;
    return read_body(events, events->head.data + n, events->head.len - (size_t)n);
}

static void on_up(struct pub_up *up)
{
    struct pub_events *events = up->owner;
    if (up->state == PUB_UP_FAILED) {
        pub_host_failed(up->host);
        broken(events, strerror(up->error));
        return;
    }
    if (up->state != PUB_UP_OPEN) {
        return;
    }
    if (!events->has_sent) {
        send_request(events);
    }
    char bytes[8192];
    while (events->up != NULL && up->is_readable) {
        ssize_t n = pub_up_recv(up, bytes, sizeof(bytes));
        if (n == -EAGAIN) {
            return;
        }
        if (n <= 0) {
            broken(events, n == 0 ? "lifecycle closed it" : strerror((int)-n));
            return;
        }
        pub_timer_set(&events->worker->loop.wheel, &events->timer,
                      events->worker->loop.now_ns + SILENCE_MAX_NS);
        int result = events->has_head ? read_body(events, bytes, (size_t)n)
                                      : read_head(events, bytes, (size_t)n);
        if (result < 0) {
            return;
        }
    }
}

static void connect_stream(struct pub_events *events)
{
    struct pub_worker *w = events->worker;
    pub_sse_reset(&events->sse);
    trk_buf_reset(&events->head);
    trk_h1_chunked_init(&events->chunked);
    events->has_head = events->has_sent = false;
    pub_timer_set(&w->loop.wheel, &events->timer, w->loop.now_ns + SILENCE_MAX_NS);
    events->up = pub_up_get(w->lifecycle_host, true, on_up, events);
    if (events->up->state == PUB_UP_FAILED) {
        broken(events, strerror(events->up->error));
    }
}

static void on_timer(struct pub_timer *timer)
{
    struct pub_events *events = PUB_CONTAINER(timer, struct pub_events, timer);
    if (events->up != NULL) {
        broken(events, "no sign of life for 15 s");
    } else {
        connect_stream(events);
    }
}

struct pub_events *pub_events_new(struct pub_worker *w)
{
    struct pub_events *events = trk_xcalloc(1, sizeof(*events));
    events->worker = w;
    events->timer.on_fire = on_timer;
    pub_sse_init(&events->sse, on_event, events);
    trk_buf_init(&events->head, TRK_H1_HEAD_MAX + 8192);
    connect_stream(events);
    return events;
}

void pub_events_free(struct pub_events *events)
{
    if (events == NULL) {
        return;
    }
    pub_timer_cancel(&events->timer);
    if (events->up != NULL) {
        pub_up_put(events->up, false);
    }
    pub_sse_fini(&events->sse);
    trk_buf_fini(&events->head);
    free(events);
}
