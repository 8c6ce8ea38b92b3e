#include "pub/stats.h"

#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/metrics/metrics.h"

void pub_stats_init(struct pub_stats *stats)
{
    memset(stats, 0, sizeof(*stats));
    (void)pthread_mutex_init(&stats->lock, NULL);
}

static void free_job(struct pub_job_stats *job)
{
    free(job->job);
    free(job->version);
    free(job);
}

void pub_stats_fini(struct pub_stats *stats)
{
    while (stats->jobs != NULL) {
        struct pub_job_stats *job = stats->jobs;
        stats->jobs = job->next;
        free_job(job);
    }
    (void)pthread_mutex_destroy(&stats->lock);
}

static struct pub_job_stats *find(struct pub_stats *stats, const char *job, const char *version)
{
    struct pub_job_stats *j = stats->jobs;
    while (j != NULL && (strcmp(j->job, job) != 0 || strcmp(j->version, version) != 0)) {
        j = j->next;
    }
    return j;
}

struct pub_job_stats *pub_job_stats_get(struct pub_stats *stats, const char *job,
                                        const char *version)
{
    struct pub_job_stats *j = find(stats, job, version);
    if (j == NULL && stats->job_count >= TRK_METRIC_SERIES_MAX) {
        job = version = "overflow";
        j = find(stats, job, version);
    }
    if (j == NULL) {
        j = trk_xcalloc(1, sizeof(*j));
        j->owner = stats;
        j->job = trk_xstrdup(job);
        j->version = trk_xstrdup(version);
        (void)pthread_mutex_lock(&stats->lock);
        j->next = stats->jobs;
        stats->jobs = j;
        stats->job_count++;
        (void)pthread_mutex_unlock(&stats->lock);
    }
    j->is_gone = false;
    j->refs++;
    return j;
}

static void drop_if_unused(struct pub_job_stats *job)
{
    if (!job->is_gone || job->refs > 0) {
        return;
    }
    struct pub_stats *stats = job->owner;
    (void)pthread_mutex_lock(&stats->lock);
    struct pub_job_stats **p = &stats->jobs;
    while (*p != job) {
        p = &(*p)->next;
    }
    *p = job->next;
    stats->job_count--;
    (void)pthread_mutex_unlock(&stats->lock);
    free_job(job);
}

void pub_job_stats_unref(struct pub_job_stats *job)
{
    if (job != NULL) {
        job->refs--;
        drop_if_unused(job);
    }
}

void pub_job_stats_forget(struct pub_stats *stats, const char *job, const char *version)
{
    struct pub_job_stats *j = find(stats, job, version);
    if (j != NULL) {
        j->is_gone = true;
        drop_if_unused(j);
    }
}

void pub_job_stats_done(struct pub_job_stats *job, int status, int64_t duration_ns)
{
    pub_add(&job->done, 1);
    if (status >= PUB_CODE_MIN && status <= PUB_CODE_MAX) {
        pub_add(&job->codes[status - PUB_CODE_MIN], 1);
    }
    pub_add(&job->time_ns, (uint64_t)duration_ns);
    int bucket = 0;
    int64_t bound = 1000000;
    while (bucket < PUB_HISTOGRAM_BUCKETS && duration_ns > bound) {
        bound *= 2;
        bucket++;
    }
    pub_add(&job->histogram[bucket], 1);
}

/* -- exposition -- */

static const struct {
    const char *name, *help;
    bool is_time; /* kept in ns, shown in s */
} counter_names[PUB_COUNTERS] = {
    [PUB_ERRORS] = {"pub_job_proxy_errors", "calls that ended in an error of the gateway", false},
    [PUB_CONNECTION_BROKEN] = {"pub_job_proxy_connection_broken_errors",
                               "calls whose job closed the connection", false},
    [PUB_CONNECTION_REFUSED] = {"pub_job_proxy_connection_refused_errors",
                                "calls whose job could not be connected to", false},
    [PUB_CANCELED] = {"pub_job_proxy_context_canceled_errors", "calls that the client gave up",
                      false},
    [PUB_DEADLINE] = {"pub_job_proxy_context_deadline_errors", "calls that timed out", false},
    [PUB_REQUEST_ERRORS] = {"pub_job_proxy_request_errors",
                            "calls refused before they reached a job", false},
    [PUB_LIFECYCLE_CALLS] = {"pub_lifecycle_calls", "times lifecycle's stream was asked for",
                             false},
    [PUB_LIFECYCLE_ERRORS] = {"pub_lifecycle_errors", "reports that lifecycle did not take", false},
    [PUB_CACHE_RETRIEVED] = {"pub_lifecycle_cache_retrieved_responses",
                             "always 0: kept for dashboards", false},
    [PUB_CACHE_RECOVERED] = {"pub_lifecycle_cache_recovered_failed_responses",
                             "always 0: kept for dashboards", false},
    [PUB_AUTH_SUCCESSFUL] = {"pub_auth_successful", "calls that were authorised", false},
    [PUB_AUTH_FAILED] = {"pub_auth_failed", "calls that were not authorised", false},
    [PUB_HEALTH_REQUESTS] = {"pub_health_requests", "requests of /health", false},
    [PUB_PANIC_ERRORS] = {"pub_panic_errors", "always 0: kept for dashboards", false},
    [PUB_RETRIES] = {"pub_job_proxy_retries", "calls sent again to a job", false},
    [PUB_REJECTED] = {"pub_rejected_requests", "requests refused because of overload", false},
    [PUB_BAD_REQUESTS] = {"pub_bad_requests", "malformed requests", false},
    [PUB_CONNECTIONS_ACCEPTED] = {"pub_connections_accepted", "client connections", false},
    [PUB_EVENTS_RECEIVED] = {"pub_lifecycle_events", "events received from lifecycle", false},
    [PUB_STREAM_BREAKS] = {"pub_lifecycle_event_stream_breaks",
                           "times the event stream was lost or could not be opened", false},
    [PUB_REPORTS] = {"pub_lifecycle_reports", "reports of token use and calls to lifecycle", false},
    [PUB_OVERALL_TIME_NS] = {"pub_overall_job_proxy_response_time", "seconds spent on calls in all",
                             true},
    [PUB_LIFECYCLE_TIME_NS] = {"pub_lifecycle_call_time", "seconds spent on reports to lifecycle",
                               true},
};

static uint64_t load(const pub_count *count)
{
    return atomic_load_explicit(count, memory_order_relaxed);
}

static void header(struct trk_buf *buf, const char *name, const char *help, const char *type)
{
    (void)trk_buf_addf(buf, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void render_counters(struct pub_stats *const *all, size_t count, struct trk_buf *buf)
{
    for (int c = 0; c < PUB_COUNTERS; c++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < count; i++) {
            sum += load(&all[i]->counters[c]);
        }
        header(buf, counter_names[c].name, counter_names[c].help, "counter");
        if (counter_names[c].is_time) {
            (void)trk_buf_addf(buf, "%s %.9f\n", counter_names[c].name, (double)sum / 1e9);
        } else {
            (void)trk_buf_addf(buf, "%s %llu\n", counter_names[c].name, (unsigned long long)sum);
        }
    }
}

/* The counters of one job, summed over the threads. */
struct sum {
    char labels[1024]; /* escaped, `job_name="…",job_version="…"` */
    const char *job, *version;
    uint64_t requests, started, done, time_ns;
    uint64_t histogram[PUB_HISTOGRAM_BUCKETS + 1];
    uint64_t codes[PUB_CODE_MAX - PUB_CODE_MIN + 1];
};

static void add_label(struct trk_buf *buf, const char *value)
{
    for (; *value != '\0'; value++) {
        if (*value == '"' || *value == '\\') {
            (void)trk_buf_addc(buf, '\\');
        }
        (void)trk_buf_addc(buf, *value == '\n' ? ' ' : *value);
    }
}

static void make_labels(struct sum *s)
{
    struct trk_buf labels;
    trk_buf_init(&labels, sizeof(s->labels) - 1);
    (void)trk_buf_adds(&labels, "job_name=\"");
    add_label(&labels, s->job);
    (void)trk_buf_adds(&labels, "\",job_version=\"");
    add_label(&labels, s->version);
    (void)trk_buf_adds(&labels, "\"");
    const char *text = labels.failed ? "job_name=\"overflow\",job_version=\"overflow\""
                                     : labels.data;
    memcpy(s->labels, text, strlen(text) + 1);
    trk_buf_fini(&labels);
}

static void add_to_sum(struct sum *s, const struct pub_job_stats *j)
{
    s->requests += load(&j->requests);
    s->started += load(&j->started);
    s->done += load(&j->done);
    s->time_ns += load(&j->time_ns);
    for (int i = 0; i <= PUB_HISTOGRAM_BUCKETS; i++) {
        s->histogram[i] += load(&j->histogram[i]);
    }
    for (int i = 0; i <= PUB_CODE_MAX - PUB_CODE_MIN; i++) {
        s->codes[i] += load(&j->codes[i]);
    }
}

static int compare_jobs(const void *a, const void *b)
{
    const struct pub_job_stats *x = *(const struct pub_job_stats *const *)a;
    const struct pub_job_stats *y = *(const struct pub_job_stats *const *)b;
    int order = strcmp(x->job, y->job);
    return order != 0 ? order : strcmp(x->version, y->version);
}

/* Sums of all jobs of all threads, whose locks are held. *ret owned. */
static size_t sum_jobs(struct pub_stats *const *all, size_t count, struct sum **ret)
{
    size_t n = 0, at = 0, sums = 0;
    for (size_t i = 0; i < count; i++) {
        n += all[i]->job_count;
    }
    trk_autofree const struct pub_job_stats **jobs = trk_xcalloc(n + 1, sizeof(*jobs));
    for (size_t i = 0; i < count; i++) {
        for (const struct pub_job_stats *j = all[i]->jobs; j != NULL; j = j->next) {
            jobs[at++] = j;
        }
    }
    qsort(jobs, n, sizeof(*jobs), compare_jobs);
    *ret = trk_xcalloc(n + 1, sizeof(**ret));
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || compare_jobs(&jobs[i - 1], &jobs[i]) != 0) {
            struct sum *s = &(*ret)[sums++];
            s->job = jobs[i]->job;
            s->version = jobs[i]->version;
            make_labels(s);
        }
        add_to_sum(&(*ret)[sums - 1], jobs[i]);
    }
    return sums;
}

static void render_simple(const struct sum *sums, size_t count, size_t offset, const char *name,
                          const char *help, struct trk_buf *buf)
{
    header(buf, name, help, "counter");
    for (size_t i = 0; i < count; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&sums[i] + offset, sizeof(value));
        (void)trk_buf_addf(buf, "%s{%s} %llu\n", name, sums[i].labels, (unsigned long long)value);
    }
}

static void render_codes(const struct sum *sums, size_t count, struct trk_buf *buf)
{
    header(buf, "pub_job_proxy_response_codes", "answers of jobs by status", "counter");
    for (size_t i = 0; i < count; i++) {
        for (int c = 0; c <= PUB_CODE_MAX - PUB_CODE_MIN; c++) {
            if (sums[i].codes[c] > 0) {
                (void)trk_buf_addf(
                    buf, "pub_job_proxy_response_codes{%s,status_code=\"%d\"} %llu\n",
                    sums[i].labels, c + PUB_CODE_MIN, (unsigned long long)sums[i].codes[c]);
            }
        }
    }
}

static void render_histogram(const struct sum *s, struct trk_buf *buf)
{
    static const char name[] = "pub_job_call_response_time_histogram";
    uint64_t below = 0;
    double bound = 0.001;
    for (int b = 0; b < PUB_HISTOGRAM_BUCKETS; b++, bound *= 2) {
        below += s->histogram[b];
        (void)trk_buf_addf(buf, "%s_bucket{%s,le=\"%g\"} %llu\n", name, s->labels, bound,
                           (unsigned long long)below);
    }
    below += s->histogram[PUB_HISTOGRAM_BUCKETS];
    (void)trk_buf_addf(buf, "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_sum{%s} %.9f\n%s_count{%s} %llu\n",
                       name, s->labels, (unsigned long long)below, name, s->labels,
                       (double)s->time_ns / 1e9, name, s->labels, (unsigned long long)below);
}

static void render_jobs(const struct sum *sums, size_t count, struct trk_buf *buf)
{
    render_simple(sums, count, offsetof(struct sum, requests), "pub_job_proxy_requests",
                  "calls of a job", buf);
    render_simple(sums, count, offsetof(struct sum, started), "pub_job_proxy_requests_started",
                  "calls forwarded to a job", buf);
    render_simple(sums, count, offsetof(struct sum, done), "pub_job_proxy_requests_done",
                  "calls that ended", buf);
    render_codes(sums, count, buf);
    header(buf, "pub_job_call_response_time", "seconds spent on calls of a job", "counter");
    for (size_t i = 0; i < count; i++) {
        (void)trk_buf_addf(buf, "pub_job_call_response_time{%s} %.9f\n", sums[i].labels,
                           (double)sums[i].time_ns / 1e9);
    }
    header(buf, "pub_job_call_response_time_histogram", "seconds from a call to its last byte",
           "histogram");
    for (size_t i = 0; i < count; i++) {
        render_histogram(&sums[i], buf);
    }
}

static void gauge(struct trk_buf *buf, const char *name, const char *help, double value)
{
    header(buf, name, help, "gauge");
    (void)trk_buf_addf(buf, "%s %g\n", name, value);
}

void pub_stats_render(struct pub_stats *const *all, size_t count, const struct pub_gauges *gauges,
                      struct trk_buf *buf)
{
    render_counters(all, count, buf);
    gauge(buf, "pub_connections", "open client connections", gauges->connections);
    gauge(buf, "pub_lifecycle_event_stream_up",
          "1 while lifecycle tells what may be called; 0: calls are decided from what is known",
          gauges->is_stream_open);
    gauge(buf, "pub_table_age_seconds", "seconds since lifecycle was heard of last", gauges->age_s);
    gauge(buf, "pub_table_jobs", "job versions known", (double)gauges->jobs);
    gauge(buf, "pub_table_tokens", "tokens known", (double)gauges->tokens);
    gauge(buf, "pub_table_grants", "grants known", (double)gauges->grants);
    for (size_t i = 0; i < count; i++) {
        (void)pthread_mutex_lock(&all[i]->lock);
    }
    struct sum *sums;
    size_t sum_count = sum_jobs(all, count, &sums);
    render_jobs(sums, sum_count, buf);
    free(sums);
    for (size_t i = 0; i < count; i++) {
        (void)pthread_mutex_unlock(&all[i]->lock);
    }
}
