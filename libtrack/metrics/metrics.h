/*
 * metrics.h - counters, gauges and histograms in Prometheus' text format 0.0.4.
 *
 * Names are exact (the original's, some without `_total`). Registration once at start, returning
 * handles; updates are lock-free for series without labels and take a short lock to find a labelled
 * series. A family keeps at most `TRK_METRIC_SERIES_MAX` label sets; further ones are counted under
 * {overflow="true"} so that outside bytes cannot grow memory. Any thread.
 */
#ifndef LIBTRACK_METRICS_H
#define LIBTRACK_METRICS_H

#include <stdint.h>

#include "libtrack/base/buf.h"

#define TRK_METRIC_SERIES_MAX 4096

struct trk_metrics;
struct trk_metric; /* a family */
struct trk_series; /* one label set of it; valid as long as the registry */

struct trk_metrics *trk_metrics_new(void);
void trk_metrics_free(struct trk_metrics *metrics);

/* label_names: "job_name,job_version" or NULL. Aborts on a duplicate name. */
struct trk_metric *trk_metrics_counter(struct trk_metrics *m, const char *name, const char *help,
                                       const char *label_names);
struct trk_metric *trk_metrics_gauge(struct trk_metrics *m, const char *name, const char *help,
                                     const char *label_names);
/* bounds: ascending upper bounds in the metric's unit (seconds for durations), without +Inf;
 * copied. */
struct trk_metric *trk_metrics_histogram(struct trk_metrics *m, const char *name, const char *help,
                                         const char *label_names, const double *bounds,
                                         size_t bound_count);
/* A gauge read at scrape time. */
void trk_metrics_gauge_fn(struct trk_metrics *m, const char *name, const char *help,
                          double (*read)(void *ctx), void *ctx);

/* Label values in the order of the names; NULL for a family without labels. */
struct trk_series *trk_metric_series(struct trk_metric *metric, const char *const *label_values);
/* Forgets a label set (a deleted job). */
void trk_metric_remove(struct trk_metric *metric, const char *const *label_values);
void trk_series_add(struct trk_series *series, double value);     /* counter or gauge */
void trk_series_set(struct trk_series *series, double value);     /* gauge */
void trk_series_observe(struct trk_series *series, double value); /* histogram */
/* For families without labels. */
void trk_metric_inc(struct trk_metric *metric);
void trk_metric_add(struct trk_metric *metric, double value);

/* Appends the whole exposition, plus process_resident_memory_bytes, process_cpu_seconds_total,
 * process_open_fds, process_start_time_seconds. */
int trk_metrics_render(struct trk_metrics *metrics, struct trk_buf *buf);

#endif
