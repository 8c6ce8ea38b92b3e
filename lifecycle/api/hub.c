#include "lifecycle/api/hub.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/deploy/deploy.h"

#define STREAMS_MAX    64
#define BATCH          500
#define RING_SIZE      2048 /* messages */
#define RING_BYTES_MAX ((size_t)16 << 20)
#define JOIN_WAIT_MS   2000
#define STACK_SIZE     ((size_t)512 << 10)

struct event_hub {
    struct lifecycle *lc;
    pthread_mutex_t lock;
    pthread_cond_t woken, published;
    uint64_t wakes; /* counts notifications */
    struct hub_message *ring[RING_SIZE];
    uint64_t first, end; /* numbers of the messages that the ring has */
    size_t bytes;
    int64_t last_id; /* read up to this event; -1: not begun */
    uint64_t breaks; /* times that the database could not be asked */
    unsigned streams;
    uint64_t connected, disconnected;
    bool closing;
    atomic_bool stop;
    bool runs;
    pthread_t listener, reader;
};

/* -- messages -- */

static struct hub_message *message_new(enum hub_audience audience, int64_t id, const char *text,
                                       size_t len)
{
    struct hub_message *m = trk_xcalloc(1, sizeof(*m));
    *m = (struct hub_message){
        .refs = 1, .audience = audience, .id = id, .text = trk_xstrndup(text, len), .len = len};
    return m;
}

void hub_message_unref(struct hub_message *m)
{
    if (m == NULL || atomic_fetch_sub(&m->refs, 1) > 1) {
        return;
    }
    free((void *)(uintptr_t)m->text);
    free((void *)(uintptr_t)m->kind);
    free((void *)(uintptr_t)m->job_name);
    free((void *)(uintptr_t)m->job_version);
    free(m);
}

struct hub_message *hub_event_message(const struct event *event)
{
    json_auto_t *payload = NULL;
    if (trk_json_parse(event->payload, strlen(event->payload), &payload, NULL) < 0) {
        payload = NULL;
    }
    trk_autofree char *text = trk_xasprintf("id: %" PRId64 "\nevent: %s\ndata: %s\n\n", event->id,
                                            event->kind, event->payload);
    struct hub_message *m = message_new(HUB_EVENT, event->id, text, strlen(text));
    const char *name = trk_json_string_or(payload, "job_name", NULL);
    const char *version = trk_json_string_or(payload, "job_version", NULL);
    m->kind = trk_xstrdup(event->kind);
    m->job_name = name != NULL ? trk_xstrdup(name) : NULL;
    m->job_version = version != NULL ? trk_xstrdup(version) : NULL;
    return m;
}

/* -- the ring; under the lock -- */

static void drop_first(struct event_hub *hub)
{
    struct hub_message *m = hub->ring[hub->first++ % RING_SIZE];
    hub->bytes -= m->len;
    hub_message_unref(m);
}

/* Takes the message. */
static void publish(struct event_hub *hub, struct hub_message *m)
{
    while (hub->first < hub->end &&
           (hub->end - hub->first == RING_SIZE || hub->bytes + m->len > RING_BYTES_MAX)) {
        drop_first(hub);
    }
    hub->ring[hub->end++ % RING_SIZE] = m;
    hub->bytes += m->len;
}

/* -- the two threads -- */

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

/* One batch of events into the ring; *ret_more: there are more. */
static int read_batch(struct event_hub *hub, struct trk_pg *conn, bool *ret_more,
                      struct trk_err *err)
{
    void *mem = talloc_new(NULL);
    struct event *events;
    size_t count;
    struct trk_buf text;
    trk_buf_init(&text, RING_BYTES_MAX);
    int code = event_store_after(conn, mem, hub->last_id, BATCH, &events, &count, err);
    code = code == 0 && count > 0 ? hub_render(hub->lc, conn, events, count, &text, err) : code;
    if (code == 0 && count > 0) {
        (void)pthread_mutex_lock(&hub->lock);
        for (size_t i = 0; i < count; i++) {
            publish(hub, hub_event_message(&events[i]));
        }
        if (text.len > 0) {
            publish(hub, message_new(HUB_GATEWAY, events[count - 1].id, text.data, text.len));
        }
        hub->last_id = events[count - 1].id;
        (void)pthread_cond_broadcast(&hub->published);
        (void)pthread_mutex_unlock(&hub->lock);
    }
    if (code == TRK_TOO_LARGE) {
        hub->last_id = events[count - 1].id; /* the readers come back for a whole picture */
    }
    *ret_more = code == 0 && count == BATCH;
    trk_buf_fini(&text);
    talloc_free(mem);
    return code;
}

static int read_news(struct event_hub *hub, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int64_t first, last;
    int code = trk_pg_acquire(hub->lc->pool, &conn, err);
    if (code == 0 && hub->last_id < 0) {
        code = event_store_range(conn, &first, &last, err);
        if (code == 0) {
            (void)pthread_mutex_lock(&hub->lock);
            hub->last_id = last;
            (void)pthread_cond_broadcast(&hub->published);
            (void)pthread_mutex_unlock(&hub->lock);
        }
    }
    for (bool more = code == 0; more && code == 0;) {
        code = read_batch(hub, conn, &more, err);
    }
    return code;
}

/* Waits for a notification, a heartbeat's time at most. */
static void await_wake(struct event_hub *hub, uint64_t *seen)
{
    int64_t pause_ms = atomic_load(&hub->lc->is_started) ? HUB_HEARTBEAT_MS : 50;
    int64_t at = trk_now_ns() + pause_ms * TRK_NS_PER_MS;
    struct timespec deadline = {.tv_sec = at / TRK_NS_PER_S, .tv_nsec = at % TRK_NS_PER_S};
    (void)pthread_mutex_lock(&hub->lock);
    int waited = 0;
    while (!hub->closing && hub->wakes == *seen && waited == 0) {
        waited = pthread_cond_timedwait(&hub->woken, &hub->lock, &deadline);
    }
    *seen = hub->wakes;
    (void)pthread_mutex_unlock(&hub->lock);
}

static void *run_reader(void *arg)
{
    struct event_hub *hub = arg;
    uint64_t seen = 0;
    while (!atomic_load(&hub->stop)) {
        struct trk_err err = {0};
        if (atomic_load(&hub->lc->is_started) && read_news(hub, &err) < 0) {
            /* Readers must not take silence for "no change". */
            trk_log_debug("events cannot be read", "error", err.text, NULL);
            (void)pthread_mutex_lock(&hub->lock);
            hub->breaks++;
            (void)pthread_cond_broadcast(&hub->published);
            (void)pthread_mutex_unlock(&hub->lock);
        }
        await_wake(hub, &seen);
    }
    return NULL;
}

/* -- life -- */

struct event_hub *event_hub_new(struct lifecycle *lc)
{
    struct event_hub *hub = trk_xcalloc(1, sizeof(*hub));
    hub->lc = lc;
    hub->last_id = -1;
    (void)pthread_mutex_init(&hub->lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&hub->woken, &attr);
    (void)pthread_cond_init(&hub->published, &attr);
    (void)pthread_condattr_destroy(&attr);
    return hub;
}

int event_hub_start(struct event_hub *hub, struct trk_err *err)
{
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_SIZE);
    int failed = pthread_create(&hub->listener, &attr, run_listener, hub);
    if (failed == 0) {
        failed = pthread_create(&hub->reader, &attr, run_reader, hub);
        if (failed != 0) {
            atomic_store(&hub->stop, true);
            (void)pthread_join(hub->listener, NULL);
        }
    }
    (void)pthread_attr_destroy(&attr);
    hub->runs = failed == 0;
    return failed == 0 ? 0 : trk_err_errno(err, failed, "starting the threads of the event hub");
}

void event_hub_stop(struct event_hub *hub)
{
    atomic_store(&hub->stop, true);
    (void)pthread_mutex_lock(&hub->lock);
    hub->closing = true;
    (void)pthread_cond_broadcast(&hub->woken);
    (void)pthread_cond_broadcast(&hub->published);
    (void)pthread_mutex_unlock(&hub->lock);
    if (hub->runs) {
        (void)pthread_join(hub->listener, NULL);
        (void)pthread_join(hub->reader, NULL);
        hub->runs = false;
    }
}

void event_hub_free(struct event_hub *hub)
{
    if (hub == NULL) {
        return;
    }
    trk_assert(hub->streams == 0);
    while (hub->first < hub->end) {
        drop_first(hub);
    }
    (void)pthread_cond_destroy(&hub->woken);
    (void)pthread_cond_destroy(&hub->published);
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

/* -- readers -- */

static int wait_on(struct event_hub *hub, int64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = deadline_ns / TRK_NS_PER_S,
                                .tv_nsec = deadline_ns % TRK_NS_PER_S};
    return pthread_cond_timedwait(&hub->published, &hub->lock, &deadline);
}

int hub_join(struct event_hub *hub, struct hub_reader *ret, struct trk_err *err)
{
    int64_t deadline = trk_now_ns() + JOIN_WAIT_MS * TRK_NS_PER_MS;
    (void)pthread_mutex_lock(&hub->lock);
    while (hub->last_id < 0 && !hub->closing && wait_on(hub, deadline) == 0) {
    }
    bool is_ready = hub->last_id >= 0 && !hub->closing;
    bool is_full = hub->streams >= STREAMS_MAX;
    if (is_ready && !is_full) {
        hub->streams++;
        hub->connected++;
        *ret = (struct hub_reader){.hub = hub, .next = hub->end, .breaks = hub->breaks};
    }
    (void)pthread_mutex_unlock(&hub->lock);
    if (!is_ready) {
        return trk_err_set(err, TRK_UNAVAILABLE, "lifecycle is starting, try again in a moment");
    }
    return is_full ? trk_err_set(err, TRK_UNAVAILABLE, "%d event streams are open, no more",
                                 STREAMS_MAX)
                   : 0;
}

void hub_leave(struct hub_reader *reader)
{
    struct event_hub *hub = reader->hub;
    (void)pthread_mutex_lock(&hub->lock);
    hub->streams--;
    hub->disconnected++;
    (void)pthread_mutex_unlock(&hub->lock);
}

enum hub_news hub_next(struct hub_reader *reader, int64_t timeout_ms, struct hub_message **ret)
{
    struct event_hub *hub = reader->hub;
    int64_t deadline = trk_now_ns() + timeout_ms * TRK_NS_PER_MS;
    (void)pthread_mutex_lock(&hub->lock);
    int waited = 0;
    while (reader->next == hub->end && hub->breaks == reader->breaks && !hub->closing &&
           waited == 0) {
        waited = wait_on(hub, deadline);
    }
    enum hub_news news = HUB_QUIET;
    if (hub->closing || hub->breaks != reader->breaks || reader->next < hub->first) {
        news = HUB_ENDED;
    } else if (reader->next < hub->end) {
        *ret = hub->ring[reader->next++ % RING_SIZE];
        (void)atomic_fetch_add(&(*ret)->refs, 1);
        news = HUB_MESSAGE;
    }
    (void)pthread_mutex_unlock(&hub->lock);
    return news;
}
