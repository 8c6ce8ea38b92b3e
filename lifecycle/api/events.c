/*
 * The stream of changes (server-sent events). Truth is the table registry_event; LISTEN only wakes
 * the streams, and a look every few seconds covers a notification that went astray. Any replica can
 * resume any stream, because the ids are the table's.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "lifecycle/api/api.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/store/event.h"

#define STREAMS_MAX  64
#define HEARTBEAT_MS 5000
#define BATCH        200
#define BUFFER_MAX   (1u << 20)
#define LISTEN_STACK (256 * 1024)

struct event_hub {
    struct lifecycle *lc;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    uint64_t wakes; /* counts notifications */
    unsigned streams;
    uint64_t connected, disconnected;
    bool closing;
    volatile bool stop;
    bool listens;
    pthread_t listener;
};

struct event_hub *event_hub_new(struct lifecycle *lc)
{
    struct event_hub *hub = trk_xcalloc(1, sizeof(*hub));
    hub->lc = lc;
    (void)pthread_mutex_init(&hub->lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&hub->woken, &attr);
    (void)pthread_condattr_destroy(&attr);
    return hub;
}

static void wake(void *ctx, const char *payload)
{
    (void)payload; /* the table says what happened */
    struct event_hub *hub = ctx;
    if (atomic_load(&hub->lc->is_started)) {
        deploy_notify(hub->lc); /* a deployment that another replica ended changes a job */
    }
    (void)pthread_mutex_lock(&hub->lock);
    hub->wakes++;
    (void)pthread_cond_broadcast(&hub->woken);
    (void)pthread_mutex_unlock(&hub->lock);
}

static void *run_listener(void *arg)
{
    struct event_hub *hub = arg;
    trk_pg_listen(&hub->lc->pg_options, EVENT_CHANNEL, wake, hub, &hub->stop);
    return NULL;
}

int event_hub_start(struct event_hub *hub, struct trk_err *err)
{
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, LISTEN_STACK);
    int failed = pthread_create(&hub->listener, &attr, run_listener, hub);
    (void)pthread_attr_destroy(&attr);
    hub->listens = failed == 0;
    return failed == 0 ? 0 : trk_err_errno(err, failed, "starting the thread that listens");
}

void event_hub_stop(struct event_hub *hub)
{
    __atomic_store_n(&hub->stop, true, __ATOMIC_RELEASE);
    (void)pthread_mutex_lock(&hub->lock);
    hub->closing = true;
    (void)pthread_cond_broadcast(&hub->woken);
    (void)pthread_mutex_unlock(&hub->lock);
    if (hub->listens) {
        (void)pthread_join(hub->listener, NULL);
        hub->listens = false;
    }
}

void event_hub_free(struct event_hub *hub)
{
    if (hub == NULL) {
        return;
    }
    trk_assert(hub->streams == 0);
    (void)pthread_cond_destroy(&hub->woken);
    (void)pthread_mutex_destroy(&hub->lock);
    free(hub);
}

void event_hub_count(struct event_hub *hub, uint64_t *ret_connected, uint64_t *ret_disconnected)
{
    (void)pthread_mutex_lock(&hub->lock);
    *ret_connected = hub->connected;
    *ret_disconnected = hub->disconnected;
    (void)pthread_mutex_unlock(&hub->lock);
}

/* -- one stream -- */

struct stream {
    struct event_hub *hub;
    struct trk_buf out;
    int64_t last_id;
    uint64_t seen_wakes;
    bool has_looked; /* with seen_wakes */
};

static void end_stream(void *user)
{
    struct stream *s = user;
    (void)pthread_mutex_lock(&s->hub->lock);
    s->hub->streams--;
    s->hub->disconnected++;
    (void)pthread_mutex_unlock(&s->hub->lock);
    trk_buf_fini(&s->out);
    free(s);
}

/* Waits for a wake-up, a heartbeat's time at most. False when the stream has to end. */
static bool wait_for_news(struct stream *s)
{
    struct event_hub *hub = s->hub;
    int64_t at = trk_now_ns() + HEARTBEAT_MS * TRK_NS_PER_MS;
    struct timespec deadline = {.tv_sec = at / TRK_NS_PER_S, .tv_nsec = at % TRK_NS_PER_S};
    (void)pthread_mutex_lock(&hub->lock);
    int waited = 0;
    while (s->has_looked && !hub->closing && hub->wakes == s->seen_wakes && waited == 0) {
        waited = pthread_cond_timedwait(&hub->woken, &hub->lock, &deadline);
    }
    s->seen_wakes = hub->wakes; /* before looking: what comes while we look wakes us again */
    s->has_looked = true;
    bool closing = hub->closing;
    (void)pthread_mutex_unlock(&hub->lock);
    return !closing;
}

static int add_news(struct stream *s)
{
    void *mem = talloc_new(NULL);
    struct event *events;
    size_t count = 0;
    trk_pg_auto struct trk_pg *conn = NULL;
    int code = trk_pg_acquire(s->hub->lc->pool, &conn, NULL);
    if (code == 0) {
        code = event_store_after(conn, mem, s->last_id, BATCH, &events, &count, NULL);
    }
    for (size_t i = 0; i < count; i++) {
        (void)trk_buf_addf(&s->out, "id: %" PRId64 "\nevent: %s\ndata: %s\n\n", events[i].id,
                           events[i].kind, events[i].payload);
        s->last_id = events[i].id;
    }
    if (count == BATCH) {
        s->has_looked = false; /* there is more: no waiting */
    }
    talloc_free(mem);
    return code < 0 || s->out.failed ? -1 : 0;
}

static ssize_t next(void *user, char *bytes, size_t size)
{
    struct stream *s = user;
    if (s->out.len == 0) {
        /* When the database cannot be asked, the stream ends: a reader must not take silence for
         * "no change". */
        if (!wait_for_news(s) || add_news(s) < 0) {
            return 0;
        }
        if (s->out.len == 0) {
            (void)trk_buf_adds(&s->out, ": heartbeat\n\n");
        }
    }
    size_t len = s->out.len < size ? s->out.len : size;
    memcpy(bytes, s->out.data, len);
    trk_buf_consume(&s->out, len);
    return (ssize_t)len;
}

/* Where to begin: after Last-Event-ID when everything since is still there, else now. */
static int begin(struct trk_request *req, struct stream *s, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int64_t first, last;
    int code = api_acquire(req, &conn, err);
    if (code == 0) {
        code = event_store_range(conn, &first, &last, err);
    }
    if (code < 0) {
        return code;
    }
    const char *asked = trk_req_header(req, "Last-Event-ID");
    int64_t after = -1;
    bool resumes = asked != NULL && trk_parse_int64(asked, 0, INT64_MAX, &after, NULL) == 0;
    /* The newest event is never cleaned away, so a gap before the oldest one is visible. */
    bool complete = resumes && after <= last && (last == 0 || after >= first - 1);
    s->last_id = complete ? after : last;
    (void)trk_buf_addf(&s->out, "event: hello\ndata: {\"last_id\":%" PRId64 "}\n\n", s->last_id);
    if (resumes && !complete) {
        (void)trk_buf_addf(&s->out,
                           "id: %" PRId64 "\nevent: " EVENT_SETTINGS_CHANGED
                           "\ndata: {\"missed\":true}\n\n",
                           last);
    }
    return 0;
}

static int get_stream(struct trk_request *req, struct trk_err *err)
{
    struct event_hub *hub = api_lifecycle(req)->events;
    struct stream *s = trk_xcalloc(1, sizeof(*s));
    s->hub = hub;
    trk_buf_init(&s->out, BUFFER_MAX);
    (void)pthread_mutex_lock(&hub->lock);
    bool full = hub->streams >= STREAMS_MAX;
    hub->streams++;
    hub->connected++;
    (void)pthread_mutex_unlock(&hub->lock);
    int code = full ? trk_err_set(err, TRK_UNAVAILABLE, "%d event streams are open, no more",
                                  STREAMS_MAX)
                    : begin(req, s, err);
    if (code < 0) {
        end_stream(s);
        return code;
    }
    (void)trk_reply_header(req, "Cache-Control", "no-store");
    (void)trk_reply_header(req, "X-Accel-Buffering", "no");
    return trk_reply_stream(req, 200, "text/event-stream", next, s, end_stream);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/events/stream",
     .access = "internal",
     .flags = TRK_ROUTE_QUIET,
     .handler = get_stream,
     .help =
         "Changes of jobs, permissions, tokens and settings as server-sent events; resumes after "
         "Last-Event-ID."},
};
API_TABLE(api_event_routes, "events", routes);
