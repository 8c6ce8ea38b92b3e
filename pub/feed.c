#include "pub/feed.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_client.h"
#include "pub/link.h"
#include "pub/picture.h"
#include "pub/report.h"

#define SILENCE_MAX_MS    15000 /* lifecycle speaks every five seconds */
#define PAUSE_MIN_MS      100
#define PAUSE_MAX_MS      2000
#define CHORE_EVERY_MS    1000
#define COPY_SHARE        20 /* of the time is the most that copying takes */
#define COPY_AGAIN_MS     10000
#define COPY_BYTES_MAX    ((size_t)1 << 30)
#define REPORT_EVERY_MS   5000
#define REPORT_TIMEOUT_MS 2000 /* a stop waits for it */
#define LAST_REPORT_MS    1000
#define NEVER             INT64_MIN

struct pub_feed {
    struct pub_feed_options options;
    struct pub_link link;
    char *copy_path; /* NULL: none is kept */
    struct pub_stats stats;
    pthread_t reader, chores;
    bool runs;
    atomic_bool is_over; /* written with the lock held */
    _Atomic bool is_open;
    _Atomic int64_t heard_ns; /* NEVER: never */
    /* Guarded by the lock: the table's writing side, and what follows. */
    pthread_mutex_t lock;
    pthread_cond_t woken;
    struct pub_picture picture;
    bool is_copied; /* what is in the table is on disk */
    int socket;     /* of the exchange that is_over ends; -1 */
    /* The reader's. */
    int64_t pause_ms;
    bool was_logged;
    /* The chores'. */
    int64_t copy_at_ns, date_at_ns, report_at_ns;
    json_t *report; /* taken, not delivered yet */
    bool was_copy_logged;
};

static void wait_ms(struct pub_feed *feed, int64_t ms)
{
    int64_t at = trk_now_ns() + ms * TRK_NS_PER_MS;
    struct timespec deadline = {.tv_sec = at / TRK_NS_PER_S, .tv_nsec = at % TRK_NS_PER_S};
    (void)pthread_mutex_lock(&feed->lock);
    int waited = 0;
    while (!feed->is_over && waited == 0) {
        waited = pthread_cond_timedwait(&feed->woken, &feed->lock, &deadline);
    }
    (void)pthread_mutex_unlock(&feed->lock);
}

static bool is_over(struct pub_feed *feed)
{
    return atomic_load(&feed->is_over);
}

/* -- the stream -- */

/* Shows what has come; the lock is held. In the midst of a picture it waits for its end. */
static void publish(struct pub_feed *feed)
{
    if (!feed->picture.is_changed || feed->picture.is_in_picture) {
        return;
    }
    feed->picture.is_changed = false;
    feed->is_copied = false;
    pub_table_publish(feed->picture.table);
    feed->options.on_change(feed->options.ctx);
}

static int on_event(void *ctx, const char *event, const char *id, const char *data,
                    struct trk_err *err)
{
    struct pub_feed *feed = ctx;
    pub_stat(&feed->stats, PUB_EVENTS_RECEIVED);
    return pub_picture_event(&feed->picture, event, id, data, err);
}

struct reading {
    struct pub_feed *feed;
    struct trk_sse *sse;
};

static int on_data(void *ctx, const char *bytes, size_t len, struct trk_err *err)
{
    const struct reading *reading = ctx;
    struct pub_feed *feed = reading->feed;
    (void)pthread_mutex_lock(&feed->lock);
    int code = trk_sse_feed(reading->sse, bytes, len, err);
    publish(feed);
    bool is_in_sync = feed->picture.is_in_sync;
    (void)pthread_mutex_unlock(&feed->lock);
    if (code == 0 && is_in_sync) {
        atomic_store(&feed->heard_ns, trk_now_ns());
        if (!atomic_exchange(&feed->is_open, true)) {
            feed->pause_ms = 0;
            feed->was_logged = false;
            trk_log_info("lifecycle tells what may be called", NULL);
        }
    }
    return code;
}

/* For pub_feed_stop, which shuts it down. */
static void on_socket(void *ctx, int fd)
{
    struct pub_feed *feed = ((const struct reading *)ctx)->feed;
    (void)pthread_mutex_lock(&feed->lock);
    feed->socket = fd;
    if (fd >= 0 && is_over(feed)) {
        (void)shutdown(fd, SHUT_RDWR);
    }
    (void)pthread_mutex_unlock(&feed->lock);
}

/* Until the stream ends, which is an error always. */
static void read_stream(struct pub_feed *feed, struct trk_err *err)
{
    char position[64];
    struct reading reading = {feed, trk_sse_new(on_event, feed)};
    struct pub_link_call call = {.path = "/api/v1/gateway/stream",
                                 .silence_ms = SILENCE_MAX_MS,
                                 .on_data = on_data,
                                 .on_socket = on_socket,
                                 .ctx = &reading};
    if (feed->picture.position >= 0) {
        (void)snprintf(position, sizeof(position), "Last-Event-ID: %lld\r\n",
                       (long long)feed->picture.position);
        call.fields = position;
    }
    int status = 0;
    if (pub_link_run(&feed->link, &call, &status, err) == 0) {
        (void)trk_err_set(err, TRK_BAD_GATEWAY, "lifecycle ended the stream (status %d)", status);
    }
    trk_sse_free(reading.sse);
    (void)pthread_mutex_lock(&feed->lock);
    feed->picture.is_in_sync = feed->picture.is_in_picture = false;
    publish(feed);
    (void)pthread_mutex_unlock(&feed->lock);
    atomic_store(&feed->is_open, false);
}

static void *run_reader(void *arg)
{
    struct pub_feed *feed = arg;
    while (!is_over(feed)) {
        struct trk_err err = {0};
        pub_stat(&feed->stats, PUB_LIFECYCLE_CALLS);
        read_stream(feed, &err);
        if (is_over(feed)) {
            break;
        }
        pub_stat(&feed->stats, PUB_STREAM_BREAKS);
        if (!feed->was_logged) {
            trk_log_warn("lifecycle's stream is cut: calls are decided from what is known", "error",
                         err.text, NULL);
            feed->was_logged = true;
        }
        feed->pause_ms = feed->pause_ms == 0 ? PAUSE_MIN_MS : feed->pause_ms * 2;
        feed->pause_ms = feed->pause_ms > PAUSE_MAX_MS ? PAUSE_MAX_MS : feed->pause_ms;
        wait_ms(feed, feed->pause_ms + trk_now_ns() / 1000 % (feed->pause_ms / 2 + 1));
    }
    return NULL;
}

/* -- the copy on disk: the origin, and the picture as a stream -- */

struct loading {
    struct pub_feed *feed;
    struct pub_picture picture;
    bool is_ours;
};

static int on_copied(void *ctx, const char *event, const char *id, const char *data,
                     struct trk_err *err)
{
    struct loading *loading = ctx;
    if (strcmp(event, "origin") == 0) {
        loading->is_ours = strcmp(data, loading->feed->options.lifecycle_url) == 0;
    }
    return loading->is_ours ? pub_picture_event(&loading->picture, event, id, data, err) : 0;
}

static void load_copy(struct pub_feed *feed)
{
    struct trk_err err = {0};
    struct stat info;
    trk_autofree char *bytes = NULL;
    size_t len;
    if (feed->copy_path == NULL || stat(feed->copy_path, &info) < 0) {
        return;
    }
    struct loading loading = {.feed = feed, .picture = feed->picture};
    struct trk_sse *sse = trk_sse_new(on_copied, &loading);
    if (trk_file_read(feed->copy_path, COPY_BYTES_MAX, &bytes, &len, &err) < 0 ||
        trk_sse_feed(sse, bytes, len, &err) < 0) {
        trk_log_warn("the copy of what may be called is of no use", "error", err.text, NULL);
    } else if (loading.picture.is_in_sync) {
        int64_t age_s = trk_wall_s() - (int64_t)info.st_mtim.tv_sec;
        age_s = age_s < 0 ? 0 : age_s;
        atomic_store(&feed->heard_ns, trk_now_ns() - age_s * TRK_NS_PER_S);
        feed->is_copied = true;
    }
    trk_sse_free(sse);
}

static int write_copy(struct pub_feed *feed, struct trk_err *err)
{
    struct trk_buf buf;
    trk_buf_init(&buf, COPY_BYTES_MAX);
    (void)trk_buf_addf(&buf, "event: origin\ndata: %s\n\n", feed->options.lifecycle_url);
    (void)pthread_mutex_lock(&feed->lock);
    pub_picture_write(feed->picture.table, &buf);
    feed->is_copied = true;
    (void)pthread_mutex_unlock(&feed->lock);
    int code = buf.failed
                   ? trk_err_set(err, TRK_TOO_LARGE, "the copy exceeds %zu bytes", COPY_BYTES_MAX)
                   : trk_file_write(feed->copy_path, buf.data, buf.len, 0600, err);
    trk_buf_fini(&buf);
    if (code < 0) {
        (void)pthread_mutex_lock(&feed->lock);
        feed->is_copied = false;
        (void)pthread_mutex_unlock(&feed->lock);
    }
    return code;
}

/* The copy's time is when lifecycle was heard of last. */
static void date_copy(struct pub_feed *feed)
{
    int64_t age_ns = pub_feed_age_ns(feed, trk_now_ns());
    int64_t at_ms = trk_wall_ms() - (age_ns < 0 ? 0 : age_ns / TRK_NS_PER_MS);
    struct timespec at = {.tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * TRK_NS_PER_MS};
    const struct timespec times[2] = {at, at};
    (void)utimensat(AT_FDCWD, feed->copy_path, times, 0);
    feed->date_at_ns = trk_now_ns() + COPY_AGAIN_MS * TRK_NS_PER_MS;
}

static void keep_copy(struct pub_feed *feed, bool is_last)
{
    int64_t start = trk_now_ns();
    if (feed->copy_path == NULL || !pub_table_has_picture(feed->picture.table)) {
        return;
    }
    (void)pthread_mutex_lock(&feed->lock);
    bool is_due = !feed->is_copied && !feed->picture.is_in_picture;
    (void)pthread_mutex_unlock(&feed->lock);
    if (is_due && (start >= feed->copy_at_ns || is_last)) {
        struct trk_err err = {0};
        int code = write_copy(feed, &err);
        if (code < 0 && !feed->was_copy_logged) {
            trk_log_warn("what may be called cannot be kept on disk", "error", err.text, NULL);
        }
        feed->was_copy_logged = code < 0;
        int64_t now = trk_now_ns();
        feed->copy_at_ns = code < 0 ? now + COPY_AGAIN_MS * TRK_NS_PER_MS
                                    : now + COPY_SHARE * (now - start);
        date_copy(feed);
    } else if (!is_due && atomic_load(&feed->is_open) && (start >= feed->date_at_ns || is_last)) {
        date_copy(feed);
    }
}

/* -- reports -- */

static void take_report(struct pub_feed *feed)
{
    bool has_more = false;
    if (feed->report == NULL) {
        (void)pthread_mutex_lock(&feed->lock);
        feed->report = pub_report_take(feed->picture.table, &has_more);
        (void)pthread_mutex_unlock(&feed->lock);
    }
    feed->report_at_ns = trk_now_ns() + (has_more ? 0 : REPORT_EVERY_MS * TRK_NS_PER_MS);
}

/* False: it stays for the next time. What lifecycle refuses as malformed would be refused again. */
static bool send_report(struct pub_feed *feed, bool is_last)
{
    struct trk_err err = {0};
    int status = 0;
    trk_autofree char *text = trk_json_text(feed->report);
    struct pub_link_call call = {.path = "/api/v1/gateway/report",
                                 .body = text,
                                 .silence_ms = is_last ? LAST_REPORT_MS : REPORT_TIMEOUT_MS};
    int64_t start = trk_now_ns();
    pub_stat(&feed->stats, PUB_REPORTS);
    int code = pub_link_run(&feed->link, &call, &status, &err);
    pub_add(&feed->stats.counters[PUB_LIFECYCLE_TIME_NS], (uint64_t)(trk_now_ns() - start));
    if (code == 0 && status != 200) {
        code = trk_err_set(&err, TRK_BAD_GATEWAY, "lifecycle answered %d", status);
    }
    if (code < 0) {
        pub_stat(&feed->stats, PUB_LIFECYCLE_ERRORS);
        trk_log_debug("a report could not be delivered", "error", err.text, NULL);
    }
    return code == 0 || (status >= 400 && status < 500);
}

static void report(struct pub_feed *feed, bool is_last)
{
    if (!is_last && (trk_now_ns() < feed->report_at_ns || !atomic_load(&feed->is_open))) {
        return;
    }
    for (int i = 0; i < (is_last ? 2 : 1); i++) { /* one may be left over */
        take_report(feed);
        if (feed->report == NULL || !send_report(feed, is_last)) {
            return;
        }
        json_decref(TRK_STEAL(feed->report));
    }
}

static void *run_chores(void *arg)
{
    struct pub_feed *feed = arg;
    while (!is_over(feed)) {
        wait_ms(feed, CHORE_EVERY_MS);
        (void)pthread_mutex_lock(&feed->lock);
        pub_table_tidy(feed->picture.table);
        (void)pthread_mutex_unlock(&feed->lock);
        keep_copy(feed, false);
        report(feed, false);
    }
    keep_copy(feed, true);
    report(feed, true);
    return NULL;
}

/* -- life -- */

int pub_feed_new(const struct pub_feed_options *options, struct pub_feed **ret, struct trk_err *err)
{
    struct pub_feed *feed = trk_xcalloc(1, sizeof(*feed));
    feed->options = *options;
    feed->socket = -1;
    pub_stats_init(&feed->stats);
    atomic_init(&feed->heard_ns, NEVER);
    (void)pthread_mutex_init(&feed->lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&feed->woken, &attr);
    (void)pthread_condattr_destroy(&attr);
    feed->picture = (struct pub_picture){
        .table = pub_table_new(options->readers, options->on_gone, options->ctx), .position = -1};
    if (pub_link_init(&feed->link, options->lifecycle_url, options->token, err) < 0) {
        pub_feed_free(feed);
        return err->code;
    }
    if (options->folder[0] != '\0') {
        trk_autofree char *folder = trk_xasprintf("%s/pub", options->folder);
        if (trk_mkdir_p(folder, 0700, err) < 0) {
            pub_feed_free(feed);
            return err->code;
        }
        feed->copy_path = trk_xasprintf("%s/told", folder);
        load_copy(feed);
    }
    *ret = feed;
    return 0;
}

int pub_feed_start(struct pub_feed *feed, struct trk_err *err)
{
    int n = pthread_create(&feed->reader, NULL, run_reader, feed);
    if (n == 0) {
        n = pthread_create(&feed->chores, NULL, run_chores, feed);
        if (n != 0) {
            trk_die("starting a thread: %s", strerror(n));
        }
        feed->runs = true;
    }
    return n == 0 ? 0 : trk_err_errno(err, n, "starting a thread");
}

void pub_feed_stop(struct pub_feed *feed)
{
    if (!feed->runs) {
        return;
    }
    (void)pthread_mutex_lock(&feed->lock);
    atomic_store(&feed->is_over, true);
    (void)pthread_cond_broadcast(&feed->woken);
    if (feed->socket >= 0) {
        (void)shutdown(feed->socket, SHUT_RDWR);
    }
    (void)pthread_mutex_unlock(&feed->lock);
    (void)pthread_join(feed->reader, NULL);
    (void)pthread_join(feed->chores, NULL);
    feed->runs = false;
}

void pub_feed_free(struct pub_feed *feed)
{
    if (feed == NULL) {
        return;
    }
    pub_feed_stop(feed);
    pub_table_free(feed->picture.table);
    pub_stats_fini(&feed->stats);
    json_decref(feed->report);
    (void)pthread_mutex_destroy(&feed->lock);
    (void)pthread_cond_destroy(&feed->woken);
    free(feed->copy_path);
    free(feed);
}

/* -- for the workers -- */

const struct pub_table *pub_feed_table(const struct pub_feed *feed)
{
    return feed->picture.table;
}

struct pub_stats *pub_feed_stats(struct pub_feed *feed)
{
    return &feed->stats;
}

bool pub_feed_is_open(const struct pub_feed *feed)
{
    return atomic_load(&feed->is_open);
}

int64_t pub_feed_age_ns(const struct pub_feed *feed, int64_t now_ns)
{
    int64_t heard = atomic_load_explicit(&feed->heard_ns, memory_order_relaxed);
    return heard == NEVER ? -1 : heard > now_ns ? 0 : now_ns - heard;
}

void pub_feed_count(struct pub_feed *feed, struct pub_table_counts *ret)
{
    (void)pthread_mutex_lock(&feed->lock);
    pub_table_count(feed->picture.table, ret);
    (void)pthread_mutex_unlock(&feed->lock);
}
