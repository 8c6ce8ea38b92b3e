#include "image_builder/build/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "image_builder/build/build.h"
#include "image_builder/build/reporter.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/manifest/manifest.h"

#define WAITING_MAX 64
#define LINES_MAX   (256U << 10)
#define STACK_BYTES (1U << 20)

struct build_queue {
    struct image_builder *ib;
    unsigned running_max, running, waiting;
    struct build_job *jobs; /* all that have not ended */
    bool is_stopping;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

struct build_job {
    struct build_queue *queue;
    json_t *body;
    atomic_bool cancel;
    unsigned refs;
    bool is_done;
    struct trk_buf lines; /* for whoever waits; what does not fit is left out there */
    json_t *result;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct build_job *next; /* in the queue's list */
};

static void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static struct timespec in_ms(int64_t ms)
{
    int64_t ns = trk_now_ns() + ms * TRK_NS_PER_MS;
    return (struct timespec){.tv_sec = ns / TRK_NS_PER_S, .tv_nsec = ns % TRK_NS_PER_S};
}

/* ---- the queue ---- */

struct build_queue *build_queue_new(struct image_builder *ib, unsigned running_max)
{
    struct build_queue *queue = trk_xcalloc(1, sizeof(*queue));
    queue->ib = ib;
    queue->running_max = running_max;
    (void)pthread_mutex_init(&queue->lock, NULL);
    cond_init(&queue->changed);
    return queue;
}

void build_queue_free(struct build_queue *queue)
{
    if (queue != NULL) {
        (void)pthread_cond_destroy(&queue->changed);
        (void)pthread_mutex_destroy(&queue->lock);
        free(queue);
    }
}

bool build_queue_stop(struct build_queue *queue, int64_t grace_ms)
{
    struct timespec until = in_ms(grace_ms);
    (void)pthread_mutex_lock(&queue->lock);
    queue->is_stopping = true;
    for (struct build_job *job = queue->jobs; job != NULL; job = job->next) {
        job->cancel = true;
    }
    (void)pthread_cond_broadcast(&queue->changed);
    int rc = 0;
    while (queue->jobs != NULL && rc == 0) {
        rc = pthread_cond_timedwait(&queue->changed, &queue->lock, &until);
    }
    bool is_empty = queue->jobs == NULL;
    (void)pthread_mutex_unlock(&queue->lock);
    return is_empty;
}

/* Waits for a place. False: cancelled meanwhile. */
static bool take_place(struct build_queue *queue, const struct build_job *job)
{
    (void)pthread_mutex_lock(&queue->lock);
    queue->waiting++;
    while (queue->running >= queue->running_max && !job->cancel) {
        struct timespec until = in_ms(200); /* a cancelled one need not wait for its turn */
        (void)pthread_cond_timedwait(&queue->changed, &queue->lock, &until);
    }
    queue->waiting--;
    bool is_taken = !job->cancel;
    queue->running += is_taken ? 1 : 0;
    (void)pthread_mutex_unlock(&queue->lock);
    return is_taken;
}

static void leave_place(struct build_queue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    queue->running--;
    (void)pthread_cond_broadcast(&queue->changed);
    (void)pthread_mutex_unlock(&queue->lock);
}

static void leave_queue(struct build_queue *queue, struct build_job *job)
{
    (void)pthread_mutex_lock(&queue->lock);
    struct build_job **at = &queue->jobs;
    while (*at != job) {
        at = &(*at)->next;
    }
    *at = job->next;
    (void)pthread_cond_broadcast(&queue->changed);
    (void)pthread_mutex_unlock(&queue->lock);
}

/* ---- a build ---- */

static void on_line(void *ctx, const char *line)
{
    struct build_job *job = ctx;
    (void)pthread_mutex_lock(&job->lock);
    if (job->lines.len + strlen(line) + 1 < LINES_MAX) {
        (void)trk_buf_adds(&job->lines, line);
        (void)trk_buf_addc(&job->lines, '\n');
        (void)pthread_cond_broadcast(&job->changed);
    }
    (void)pthread_mutex_unlock(&job->lock);
}

struct phase_ctx {
    struct reporter *reporter;
    const struct build *build;
};

static void on_phase(void *ctx, const char *phase)
{
    const struct phase_ctx *p = ctx;
    reporter_phase(p->reporter, p->build->request.deployment_id, phase, p->build->warnings.data);
}

static const char *error_code_name(enum trk_code code)
{
    switch (code) {
    case TRK_INVALID:
    case TRK_SCHEMA:
        return "invalid";
    case TRK_NOT_FOUND:
        return "not_found";
    case TRK_TOO_LARGE:
        return "too_large";
    case TRK_NO_SPACE:
        return "no_space";
    case TRK_UNAVAILABLE:
    case TRK_TIMEOUT:
    case TRK_TOO_MANY:
        return "unavailable";
    case TRK_CANCELLED: /* this image_builder ends; the build was not judged */
        return "cancelled";
    default:
        return "internal";
    }
}

/* A user reads it: a fault of ours is in the log, not here. */
static const char *public_error(const struct build *build, const struct trk_err *err, char *out,
                                size_t size)
{
    if (strcmp(error_code_name(err->code), "internal") != 0) {
        return err->text;
    }
    (void)snprintf(out, size,
                   "internal error of image_builder: its log says more, at deployment %s",
                   build->request.deployment_id);
    return out;
}

static json_t *make_result(const struct build *build, struct build_log *log, int rc,
                           const struct trk_err *err)
{
    char hidden[256];
    trk_autofree char *logs = log != NULL ? build_log_text(log) : trk_xstrdup("");
    json_t *names = json_array();
    if (rc == 0) {
        (void)json_array_append_new(names, json_string(build->image_name));
    }
    const char *error = rc < 0 ? public_error(build, err, hidden, sizeof(hidden)) : NULL;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "image_names", names, "image_name",
                     trk_json_string_or_null(rc == 0 ? build->image_name : NULL), "image_digest",
                     trk_json_string_or_null(rc == 0 ? build->image_digest : NULL), "logs",
                     trk_json_string_or_null(logs), "error", trk_json_string_or_null(error),
                     "error_code", trk_json_string_or_null(rc < 0 ? error_code_name(rc) : NULL),
                     "warnings", build->warnings.data);
}

static void count_end(struct build *build, int rc, int64_t began_ns)
{
    const struct builder_metrics *m = &build->ib->m;
    const char *labels[2] = {build->job_name, build->job_version};
    double seconds = (double)(trk_now_ns() - began_ns) / (double)TRK_NS_PER_S;
    trk_metric_inc(rc == 0 ? m->images_built : m->building_errors);
    trk_series_add(trk_metric_series(m->done_requests, labels), 1);
    trk_series_add(trk_metric_series(m->request_duration, labels), seconds);
    trk_metric_add(m->active_tasks, -1);
}

static void log_end(const struct build *build, int rc, const struct trk_err *err, int64_t began_ns)
{
    char duration[32];
    (void)snprintf(duration, sizeof(duration), "%.1f",
                   (double)(trk_now_ns() - began_ns) / (double)TRK_NS_PER_MS);
    trk_log(rc == 0 ? TRK_LOG_INFO : TRK_LOG_WARN, rc == 0 ? "image built" : "image build failed",
            "job", build->job_name, "version", build->job_version, "deployment",
            build->request.deployment_id, "duration_ms", duration, "digest",
            rc == 0 ? build->image_digest : NULL, "error", rc < 0 ? err->text : NULL, NULL);
}

static int run_in_place(struct build_job *job, struct build *build, struct trk_err *err)
{
    trk_autofree char *path = trk_xasprintf("%s/%s.log", build->ib->logs_dir,
                                            build->request.deployment_id);
    int rc = build_log_open(path, (size_t)build->ib->config->build_log_max_bytes, &build->secrets,
                            on_line, job, &build->log, err);
    if (rc == 0) {
        rc = build_run(build, err);
    }
    return rc;
}

static json_t *run_build(struct build_job *job)
{
    struct build_queue *queue = job->queue;
    struct build build;
    struct trk_err err = {0};
    int64_t began_ns = trk_now_ns();
    build_init(&build);
    build.ib = queue->ib;
    build.cancel = &job->cancel;
    struct phase_ctx phase_ctx = {queue->ib->reporter, &build};
    build.on_phase = on_phase;
    build.ctx = &phase_ctx;
    trk_assert(build_request_read(job->body, &build.request, &err) == 0); /* checked at start */
    build.job_name = trk_json_string_or(build.request.manifest, "name", "");
    build.job_version = trk_manifest_version(build.request.manifest);
    const char *labels[2] = {build.job_name, build.job_version};
    trk_series_add(trk_metric_series(queue->ib->m.requests, labels), 1);
    trk_metric_add(queue->ib->m.active_tasks, 1);
    int rc;
    if (take_place(queue, job)) {
        rc = run_in_place(job, &build, &err);
        leave_place(queue);
    } else {
        rc = trk_err_set(&err, TRK_CANCELLED, "the build was cancelled before it began");
    }
    reporter_forget(queue->ib->reporter, build.request.deployment_id);
    count_end(&build, rc, began_ns);
    log_end(&build, rc, &err, began_ns);
    json_t *result = make_result(&build, build.log, rc, &err);
    build_log_close(build.log);
    build_fini(&build);
    return result;
}

/* ---- jobs ---- */

static void *job_main(void *arg)
{
    struct build_job *job = arg;
    json_t *result = run_build(job);
    (void)pthread_mutex_lock(&job->lock);
    job->result = result;
    job->is_done = true;
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->lock);
    leave_queue(job->queue, job);
    build_job_unref(job);
    return NULL;
}

static int start_thread(struct build_job *job)
{
    pthread_t thread;
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
#endif
    int rc = pthread_create(&thread, &attr, job_main, job);
    (void)pthread_attr_destroy(&attr);
    return rc;
}

int build_job_start(struct build_queue *queue, const json_t *body, struct build_job **ret,
                    struct trk_err *err)
{
    struct build_request request;
    int rc = build_request_read(body, &request, err);
    if (rc < 0) {
        return rc;
    }
    struct build_job *job = trk_xcalloc(1, sizeof(*job));
    job->queue = queue;
    job->body = json_deep_copy(
        body); /* its thread and the request's count no references together */
    job->refs = 2;
    trk_buf_init(&job->lines, LINES_MAX);
    (void)pthread_mutex_init(&job->lock, NULL);
    cond_init(&job->changed);
    (void)pthread_mutex_lock(&queue->lock);
    bool is_refused = queue->is_stopping || queue->waiting >= WAITING_MAX;
    if (!is_refused) {
        job->next = queue->jobs;
        queue->jobs = job;
    }
    (void)pthread_mutex_unlock(&queue->lock);
    rc = is_refused ? EAGAIN : start_thread(job);
    if (rc != 0) {
        if (!is_refused) {
            leave_queue(queue, job);
        }
        job->refs = 1;
        build_job_unref(job);
        return trk_err_set(err, is_refused ? TRK_TOO_MANY : TRK_UNAVAILABLE,
                           "too many builds are waiting: try again later");
    }
    *ret = job;
    return 0;
}

void build_job_cancel(struct build_job *job)
{
    job->cancel = true;
}

void build_job_unref(struct build_job *job)
{
    (void)pthread_mutex_lock(&job->lock);
    bool is_last = --job->refs == 0;
    (void)pthread_mutex_unlock(&job->lock);
    if (!is_last) {
        return;
    }
    json_decref(job->body);
    json_decref(job->result);
    trk_buf_fini(&job->lines);
    (void)pthread_cond_destroy(&job->changed);
    (void)pthread_mutex_destroy(&job->lock);
    free(job);
}

enum build_job_news build_job_wait(struct build_job *job, int64_t timeout_ms, struct trk_buf *lines)
{
    struct timespec until = in_ms(timeout_ms);
    enum build_job_news news = BUILD_JOB_NOTHING;
    (void)pthread_mutex_lock(&job->lock);
    for (int rc = 0; rc == 0 && news == BUILD_JOB_NOTHING;) {
        if (lines != NULL && job->lines.len > 0) {
            (void)trk_buf_add(lines, job->lines.data, job->lines.len);
            trk_buf_reset(&job->lines);
            news = BUILD_JOB_LINES;
        } else if (job->is_done) {
            news = BUILD_JOB_DONE;
        } else {
            rc = pthread_cond_timedwait(&job->changed, &job->lock, &until);
        }
    }
    (void)pthread_mutex_unlock(&job->lock);
    return news;
}

json_t *build_job_result(struct build_job *job)
{
    (void)pthread_mutex_lock(&job->lock);
    json_t *result = TRK_STEAL(job->result);
    (void)pthread_mutex_unlock(&job->lock);
    return result;
}
