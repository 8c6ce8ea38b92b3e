#include "libtrack/metrics/metrics.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/metrics/metrics_internal.h"

#define LABEL_VALUE_MAX 512  /* bytes; longer ones are cut */
#define DEAD_SERIES_MAX 1024 /* removed label sets kept apart before their memory is used again */

struct trk_metrics *trk_metrics_new(void)
{
    struct trk_metrics *m = trk_xcalloc(1, sizeof(*m));
    (void)pthread_mutex_init(&m->lock, NULL);
    return m;
}

static void series_free(struct trk_series *series)
{
    if (series == NULL) {
        return;
    }
    for (size_t i = 0; series->labels != NULL && i < series->metric->label_count; i++) {
        free(series->labels[i]);
    }
    free(series->labels);
    free(series);
}

static void series_list_free(struct trk_series *list)
{
    while (list != NULL) {
        struct trk_series *next = list->next;
        series_free(list);
        list = next;
    }
}

void trk_metrics_free(struct trk_metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    while (metrics->first != NULL) {
        struct trk_metric *metric = metrics->first;
        metrics->first = metric->next;
        for (size_t i = 0; i < TRK_METRIC_BUCKETS; i++) {
            series_list_free(metric->table[i]);
        }
        series_list_free(metric->dead);
        series_free(metric->plain);
        series_free(metric->overflow);
        for (size_t i = 0; i < metric->label_count; i++) {
            free(metric->label_names[i]);
        }
        (void)pthread_mutex_destroy(&metric->lock);
        free(metric->bounds);
        free(metric->name);
        free(metric->help);
        free(metric);
    }
    (void)pthread_mutex_destroy(&metrics->lock);
    free(metrics);
}

/* [a-zA-Z_:][a-zA-Z0-9_:]* for metrics, without ':' for labels. */
static bool is_name(const char *s, bool colon)
{
    if (*s == '\0' || isdigit((unsigned char)*s)) {
        return false;
    }
    for (; *s != '\0'; s++) {
        if (!isalnum((unsigned char)*s) && *s != '_' && !(colon && *s == ':')) {
            return false;
        }
    }
    return true;
}

static void split_labels(struct trk_metric *metric, const char *names)
{
    while (names != NULL && *names != '\0') {
        size_t len = strcspn(names, ",");
        if (metric->label_count == TRK_METRIC_LABELS_MAX) {
            trk_die("metric %s has more than %d labels", metric->name, TRK_METRIC_LABELS_MAX);
        }
        char *label = trk_xstrndup(names, len);
        if (!is_name(label, false) || strcmp(label, "le") == 0) {
            trk_die("metric %s: bad label name '%s'", metric->name, label);
        }
        metric->label_names[metric->label_count++] = label;
        names += len;
        names += *names == ',';
    }
}

static struct trk_series *series_new(struct trk_metric *metric)
{
    /* bounds and +Inf */
    size_t buckets = metric->type == TRK_METRIC_HISTOGRAM ? metric->bound_count + 1 : 0;
    struct trk_series *series = trk_xcalloc(1,
                                            sizeof(*series) + buckets * sizeof(series->buckets[0]));
    series->metric = metric;
    return series;
}

static struct trk_metric *new_family(enum trk_metric_type type, const char *name, const char *help,
                                     const char *label_names)
{
    if (!is_name(name, true)) {
        trk_die("bad metric name '%s'", name);
    }
    struct trk_metric *metric = trk_xcalloc(1, sizeof(*metric));
    metric->type = type;
    metric->name = trk_xstrdup(name);
    metric->help = trk_xstrdup(help);
    (void)pthread_mutex_init(&metric->lock, NULL);
    split_labels(metric, label_names);
    return metric;
}

/* Publishes a complete family: a scrape may run meanwhile. */
static void publish(struct trk_metrics *m, struct trk_metric *metric)
{
    if (metric->label_count == 0 && metric->read == NULL) {
        metric->plain = series_new(metric);
    }
    (void)pthread_mutex_lock(&m->lock);
    struct trk_metric **at = &m->first;
    for (; *at != NULL; at = &(*at)->next) {
        if (strcmp((*at)->name, metric->name) == 0) {
            trk_die("metric %s is registered twice", metric->name);
        }
    }
    *at = metric;
    (void)pthread_mutex_unlock(&m->lock);
}

struct trk_metric *trk_metrics_counter(struct trk_metrics *m, const char *name, const char *help,
                                       const char *label_names)
{
    struct trk_metric *metric = new_family(TRK_METRIC_COUNTER, name, help, label_names);
    publish(m, metric);
    return metric;
}

struct trk_metric *trk_metrics_gauge(struct trk_metrics *m, const char *name, const char *help,
                                     const char *label_names)
{
    struct trk_metric *metric = new_family(TRK_METRIC_GAUGE, name, help, label_names);
    publish(m, metric);
    return metric;
}

struct trk_metric *trk_metrics_histogram(struct trk_metrics *m, const char *name, const char *help,
                                         const char *label_names, const double *bounds,
                                         size_t bound_count)
{
    struct trk_metric *metric = new_family(TRK_METRIC_HISTOGRAM, name, help, label_names);
    metric->bounds = trk_xcalloc(bound_count, sizeof(double));
    metric->bound_count = bound_count;
    for (size_t i = 0; i < bound_count; i++) {
        if (!isfinite(bounds[i]) || (i > 0 && bounds[i] <= bounds[i - 1])) {
            trk_die("metric %s: bounds must be finite and ascending", name);
        }
        metric->bounds[i] = bounds[i];
    }
    publish(m, metric);
    return metric;
}

void trk_metrics_gauge_fn(struct trk_metrics *m, const char *name, const char *help,
                          double (*read)(void *ctx), void *ctx)
{
    struct trk_metric *metric = new_family(TRK_METRIC_GAUGE, name, help, NULL);
    metric->read = read;
    metric->read_ctx = ctx;
    publish(m, metric);
}

/* Label values as they are kept: valid UTF-8 of bounded length (a scraper refuses the whole page
 * for one bad byte). Returns `value` itself when it is fine, else `out`. */
static const char *clean_value(const char *value, char out[LABEL_VALUE_MAX + 1])
{
    if (value == NULL) {
        return "";
    }
    size_t len = strnlen(value, LABEL_VALUE_MAX + 1);
    if (len <= LABEL_VALUE_MAX && trk_utf8_is_valid(value, len)) {
        return value;
    }
    if (len > LABEL_VALUE_MAX) {
        len = LABEL_VALUE_MAX;
        while (len > 0 && ((unsigned char)value[len] & 0xC0) == 0x80) {
            len--; /* cut before a character, not within */
        }
    }
    memcpy(out, value, len);
    out[len] = '\0';
    if (!trk_utf8_is_valid(out, len)) {
        for (size_t i = 0; i < len; i++) {
            out[i] = (unsigned char)out[i] >= 0x80 ? '?' : out[i];
        }
    }
    return out;
}

static uint64_t hash_values(const char *const *values, size_t count)
{
    uint64_t h = UINT64_C(1469598103934665603); /* FNV-1a */
    for (size_t i = 0; i < count; i++) {
        const char *p = values[i];
        do {
            h = (h ^ (unsigned char)*p) * UINT64_C(1099511628211);
        } while (*p++ != '\0');
    }
    return h;
}

static bool has_values(const struct trk_series *series, const char *const *values)
{
    for (size_t i = 0; i < series->metric->label_count; i++) {
        if (strcmp(series->labels[i], values[i]) != 0) {
            return false;
        }
    }
    return true;
}

static struct trk_series **find_in(struct trk_series **list, uint64_t hash,
                                   const char *const *values)
{
    while (*list != NULL && ((*list)->hash != hash || !has_values(*list, values))) {
        list = &(*list)->next;
    }
    return list;
}

/* A series for a label set that is not there: one that was removed before comes back with its
 * handle; past the limit of removed ones the oldest one's memory is taken. */
static struct trk_series *series_for(struct trk_metric *metric, uint64_t hash,
                                     const char *const *values)
{
    struct trk_series **at = find_in(&metric->dead, hash, values);
    if (*at == NULL && metric->dead_count >= DEAD_SERIES_MAX) {
        at = &metric->dead; /* oldest first */
    }
    struct trk_series *series = *at;
    if (series != NULL) {
        *at = series->next;
        metric->dead_count--;
    } else {
        series = series_new(metric);
        series->labels = trk_xcalloc(metric->label_count, sizeof(char *));
    }
    for (size_t i = 0; i < metric->label_count; i++) {
        char *copy = trk_xstrdup(values[i]);
        free(series->labels[i]);
        series->labels[i] = copy;
    }
    series->hash = hash;
    return series;
}

/* With metric->lock held. */
static struct trk_series *find_or_add(struct trk_metric *metric, uint64_t hash,
                                      const char *const *values)
{
    struct trk_series **bucket = &metric->table[hash % TRK_METRIC_BUCKETS];
    struct trk_series **at = find_in(bucket, hash, values);
    if (*at != NULL) {
        return *at;
    }
    if (metric->series_count >= TRK_METRIC_SERIES_MAX) {
        if (metric->overflow == NULL) {
            metric->overflow = series_new(metric);
        }
        return metric->overflow;
    }
    struct trk_series *series = series_for(metric, hash, values);
    series->next = *bucket;
    *bucket = series;
    metric->series_count++;
    return series;
}

struct trk_series *trk_metric_series(struct trk_metric *metric, const char *const *label_values)
{
    if (metric->label_count == 0) {
        return metric->plain;
    }
    trk_assert(label_values != NULL);
    char room[TRK_METRIC_LABELS_MAX][LABEL_VALUE_MAX + 1];
    const char *values[TRK_METRIC_LABELS_MAX];
    for (size_t i = 0; i < metric->label_count; i++) {
        values[i] = clean_value(label_values[i], room[i]);
    }
    uint64_t hash = hash_values(values, metric->label_count);
    (void)pthread_mutex_lock(&metric->lock);
    struct trk_series *series = find_or_add(metric, hash, values);
    (void)pthread_mutex_unlock(&metric->lock);
    return series;
}

static void series_zero(struct trk_series *series)
{
    const struct trk_metric *metric = series->metric;
    atomic_store(&series->bits, 0);
    for (size_t i = 0; metric->type == TRK_METRIC_HISTOGRAM && i <= metric->bound_count; i++) {
        atomic_store(&series->buckets[i], 0);
    }
}

void trk_metric_remove(struct trk_metric *metric, const char *const *label_values)
{
    trk_assert(metric->label_count > 0);
    char room[TRK_METRIC_LABELS_MAX][LABEL_VALUE_MAX + 1];
    const char *values[TRK_METRIC_LABELS_MAX];
    for (size_t i = 0; i < metric->label_count; i++) {
        values[i] = clean_value(label_values[i], room[i]);
    }
    uint64_t hash = hash_values(values, metric->label_count);
    (void)pthread_mutex_lock(&metric->lock);
    struct trk_series **at = find_in(&metric->table[hash % TRK_METRIC_BUCKETS], hash, values);
    struct trk_series *series = *at;
    if (series != NULL) {
        *at = series->next;
        series->next = NULL;
        series_zero(series);
        struct trk_series **end = &metric->dead;
        while (*end != NULL) {
            end = &(*end)->next;
        }
        *end = series;
        metric->dead_count++;
        metric->series_count--;
    }
    (void)pthread_mutex_unlock(&metric->lock);
}

static void add_double(_Atomic uint64_t *bits, double value)
{
    uint64_t old = atomic_load_explicit(bits, memory_order_relaxed);
    uint64_t new;
    do {
        double sum;
        memcpy(&sum, &old, sizeof(sum));
        sum += value;
        memcpy(&new, &sum, sizeof(new));
    } while (!atomic_compare_exchange_weak_explicit(bits, &old, new, memory_order_relaxed,
                                                    memory_order_relaxed));
}

void trk_series_add(struct trk_series *series, double value)
{
    trk_assert(series->metric->type != TRK_METRIC_HISTOGRAM);
    if (series->metric->type == TRK_METRIC_COUNTER && !(value >= 0)) {
        return; /* a counter never goes down; a NaN would stick */
    }
    add_double(&series->bits, value);
}

void trk_series_set(struct trk_series *series, double value)
{
    trk_assert(series->metric->type == TRK_METRIC_GAUGE);
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    atomic_store_explicit(&series->bits, bits, memory_order_relaxed);
}

void trk_series_observe(struct trk_series *series, double value)
{
    const struct trk_metric *metric = series->metric;
    trk_assert(metric->type == TRK_METRIC_HISTOGRAM);
    if (isnan(value)) {
        return;
    }
    size_t low = 0; /* first bound >= value; bound_count is +Inf */
    size_t high = metric->bound_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (metric->bounds[middle] < value) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    atomic_fetch_add_explicit(&series->buckets[low], 1, memory_order_relaxed);
    add_double(&series->bits, value);
}

void trk_metric_inc(struct trk_metric *metric)
{
    trk_metric_add(metric, 1);
}

void trk_metric_add(struct trk_metric *metric, double value)
{
    trk_assert(metric->plain != NULL);
    trk_series_add(metric->plain, value);
}
