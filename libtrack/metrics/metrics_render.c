#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/mem.h"
#include "libtrack/metrics/metrics.h"
#include "libtrack/metrics/metrics_internal.h"

/* Prometheus text format 0.0.4: HELP escapes \ and newline, a label value also ". */
static void add_escaped(struct trk_buf *buf, const char *s, bool quote)
{
    for (; *s != '\0'; s++) {
        if (*s == '\n') {
            (void)trk_buf_adds(buf, "\\n");
        } else if (*s == '\\' || (quote && *s == '"')) {
            (void)trk_buf_addc(buf, '\\');
            (void)trk_buf_addc(buf, *s);
        } else {
            (void)trk_buf_addc(buf, *s);
        }
    }
}

static void add_number(struct trk_buf *buf, double value)
{
    if (isnan(value)) {
        (void)trk_buf_adds(buf, "NaN");
    } else if (isinf(value)) {
        (void)trk_buf_adds(buf, value > 0 ? "+Inf" : "-Inf");
    } else if (value == trunc(value) && fabs(value) < 1e15) {
        (void)trk_buf_addf(buf, "%.0f", value == 0 ? 0.0 : value);
    } else {
        char text[40]; /* the shortest of two that reads back as the same */
        (void)snprintf(text, sizeof(text), "%.15g", value);
        if (strtod(text, NULL) != value) {
            (void)snprintf(text, sizeof(text), "%.17g", value);
        }
        (void)trk_buf_adds(buf, text);
    }
}

/* name<suffix>{labels,le="…"} and a space. */
static void add_sample_name(struct trk_buf *buf, const struct trk_series *series,
                            const char *suffix, const double *le)
{
    const struct trk_metric *metric = series->metric;
    (void)trk_buf_addf(buf, "%s%s", metric->name, suffix);
    const char *separator = "{";
    if (series == metric->overflow) {
        (void)trk_buf_adds(buf, "{overflow=\"true\"");
        separator = ",";
    }
    for (size_t i = 0; series->labels != NULL && i < metric->label_count; i++) {
        (void)trk_buf_addf(buf, "%s%s=\"", separator, metric->label_names[i]);
        add_escaped(buf, series->labels[i], true);
        (void)trk_buf_addc(buf, '"');
        separator = ",";
    }
    if (le != NULL) {
        (void)trk_buf_addf(buf, "%sle=\"", separator);
        add_number(buf, *le);
        (void)trk_buf_addc(buf, '"');
        separator = ",";
    }
    (void)trk_buf_adds(buf, *separator == ',' ? "} " : " ");
}

static double load_double(const _Atomic uint64_t *at)
{
    uint64_t bits = atomic_load_explicit(at, memory_order_relaxed);
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void add_histogram(struct trk_buf *buf, const struct trk_series *series)
{
    const struct trk_metric *metric = series->metric;
    uint64_t total = 0;
    for (size_t i = 0; i <= metric->bound_count; i++) {
        total += atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
        double bound = i < metric->bound_count ? metric->bounds[i] : INFINITY;
        add_sample_name(buf, series, "_bucket", &bound);
        (void)trk_buf_addf(buf, "%llu\n", (unsigned long long)total);
    }
    add_sample_name(buf, series, "_sum", NULL);
    add_number(buf, load_double(&series->bits));
    (void)trk_buf_addc(buf, '\n');
    add_sample_name(buf, series, "_count", NULL); /* equals the +Inf bucket by construction */
    (void)trk_buf_addf(buf, "%llu\n", (unsigned long long)total);
}

static void add_series(struct trk_buf *buf, const struct trk_series *series)
{
    if (series->metric->type == TRK_METRIC_HISTOGRAM) {
        add_histogram(buf, series);
        return;
    }
    add_sample_name(buf, series, "", NULL);
    add_number(buf, load_double(&series->bits));
    (void)trk_buf_addc(buf, '\n');
}

static void add_head(struct trk_buf *buf, const char *name, const char *help, const char *type)
{
    (void)trk_buf_addf(buf, "# HELP %s ", name);
    add_escaped(buf, help, false);
    (void)trk_buf_addf(buf, "\n# TYPE %s %s\n", name, type);
}

static void add_family(struct trk_buf *buf, struct trk_metric *metric)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    add_head(buf, metric->name, metric->help, types[metric->type]);
    if (metric->read != NULL) {
        (void)trk_buf_addf(buf, "%s ", metric->name);
        add_number(buf, metric->read(metric->read_ctx));
        (void)trk_buf_addc(buf, '\n');
        return;
    }
    if (metric->plain != NULL) {
        add_series(buf, metric->plain);
        return;
    }
    (void)pthread_mutex_lock(&metric->lock);
    for (size_t i = 0; i < TRK_METRIC_BUCKETS; i++) {
        for (struct trk_series *s = metric->table[i]; s != NULL; s = s->next) {
            add_series(buf, s);
        }
    }
    if (metric->overflow != NULL) {
        add_series(buf, metric->overflow);
    }
    (void)pthread_mutex_unlock(&metric->lock);
}

static void add_value(struct trk_buf *buf, const char *name, const char *help, const char *type,
                      double value)
{
    add_head(buf, name, help, type);
    (void)trk_buf_addf(buf, "%s ", name);
    add_number(buf, value);
    (void)trk_buf_addc(buf, '\n');
}

static double open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return NAN;
    }
    int count = -3; /* ".", ".." and this folder's own */
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

/* Reads a small file under /proc as text. */
static bool read_proc(const char *path, char *out, size_t size)
{
    trk_autofclose FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    size_t n = fread(out, 1, size - 1, f);
    out[n] = '\0';
    return n > 0;
}

static double boot_time_s(void)
{
    char text[8192]; /* btime stands behind the per-CPU and interrupt lines */
    trk_autofclose FILE *f = fopen("/proc/stat", "re");
    long long btime;
    while (f != NULL && fgets(text, sizeof(text), f) != NULL) {
        if (sscanf(text, "btime %lld", &btime) == 1) {
            return (double)btime;
        }
    }
    return NAN;
}

static void add_process(struct trk_buf *buf)
{
    char stat[2048];
    unsigned long user, system;
    unsigned long long start;
    long rss;
    const char *p = read_proc("/proc/self/stat", stat, sizeof(stat)) ? strrchr(stat, ')') : NULL;
    /* proc(5): utime and stime are fields 14 and 15, starttime 22, rss 24; ')' ends field 2 */
    if (p != NULL && sscanf(p + 1,
                            " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d "
                            "%*d %*d %llu %*u %ld",
                            &user, &system, &start, &rss) == 4) {
        double ticks = (double)sysconf(_SC_CLK_TCK);
        add_value(buf, "process_resident_memory_bytes", "Resident memory size in bytes.", "gauge",
                  (double)rss * (double)sysconf(_SC_PAGESIZE));
        add_value(buf, "process_cpu_seconds_total",
                  "Total user and system CPU time spent in seconds.", "counter",
                  (double)(user + system) / ticks);
        add_value(buf, "process_start_time_seconds",
                  "Start time of the process since the Unix epoch in seconds.", "gauge",
                  boot_time_s() + (double)start / ticks);
    }
    add_value(buf, "process_open_fds", "Number of open file descriptors.", "gauge", open_fds());
}

int trk_metrics_render(struct trk_metrics *metrics, struct trk_buf *buf)
{
    (void)pthread_mutex_lock(&metrics->lock);
    struct trk_metric *first = metrics->first;
    (void)pthread_mutex_unlock(&metrics->lock);
    /* Families are only ever appended, complete, so the list is walked without the lock: a gauge's
     * read function may register or count. */
    for (struct trk_metric *m = first; m != NULL;) {
        add_family(buf, m);
        (void)pthread_mutex_lock(&metrics->lock);
        m = m->next;
        (void)pthread_mutex_unlock(&metrics->lock);
    }
    add_process(buf);
    return buf->failed ? TRK_TOO_LARGE : 0;
}
