/*
 * metrics_internal.h - what metrics.c keeps and metrics_render.c prints; for these two only.
 */
#ifndef LIBTRACK_METRICS_INTERNAL_H
#define LIBTRACK_METRICS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define TRK_METRIC_LABELS_MAX 8
#define TRK_METRIC_BUCKETS    128 /* of a family's hash table of series */

enum trk_metric_type { TRK_METRIC_COUNTER, TRK_METRIC_GAUGE, TRK_METRIC_HISTOGRAM };

struct trk_series {
    struct trk_metric *metric;
    struct trk_series *next;
    char **labels; /* label_count values; NULL for the plain and the overflow series */
    uint64_t hash;
    _Atomic uint64_t bits;      /* of a double: the value, or a histogram's sum */
    _Atomic uint64_t buckets[]; /* histogram: one a bound, then +Inf; not cumulative */
};

struct trk_metric {
    struct trk_metric *next;
    enum trk_metric_type type;
    char *name, *help;
    char *label_names[TRK_METRIC_LABELS_MAX];
    size_t label_count;
    double *bounds;
    size_t bound_count;
    double (*read)(void *ctx);
    void *read_ctx;
    struct trk_series *plain; /* the one series of a family without labels */
    pthread_mutex_t lock;     /* guards what follows */
    struct trk_series *overflow;
    struct trk_series *dead; /* removed label sets, oldest first: handles to them stay valid */
    size_t series_count, dead_count;
    struct trk_series *table[TRK_METRIC_BUCKETS];
};

struct trk_metrics {
    pthread_mutex_t lock; /* guards the list; families are never taken out */
    struct trk_metric *first;
};

#endif
