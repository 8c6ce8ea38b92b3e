#include <check.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libtrack/base/mem.h"
#include "libtrack/metrics/metrics.h"

static struct trk_metrics *metrics;
static struct trk_buf text;

static void setup(void)
{
    metrics = trk_metrics_new();
    trk_buf_init(&text, 16 << 20);
}

static void teardown(void)
{
    trk_metrics_free(metrics);
    trk_buf_fini(&text);
}

static void render(void)
{
    trk_buf_reset(&text);
    ck_assert_int_eq(trk_metrics_render(metrics, &text), 0);
}

/* Is this one whole line of the page? */
static bool has_line(const char *line)
{
    size_t len = strlen(line);
    for (const char *at = text.data; (at = strstr(at, line)) != NULL; at++) {
        if ((at == text.data || at[-1] == '\n') && at[len] == '\n') {
            return true;
        }
    }
    return false;
}
#define ck_line(line) ck_assert_msg(has_line(line), "no line %s in\n%s", line, text.data)

static const char *const *labels(const char *a, const char *b)
{
    static _Thread_local const char *values[2];
    values[0] = a;
    values[1] = b;
    return values;
}

START_TEST(test_counter)
{
    struct trk_metric *metric = trk_metrics_counter(metrics, "done_total", "What is\ndone \\.",
                                                    NULL);
    render();
    ck_line("done_total 0");
    trk_metric_inc(metric);
    trk_metric_add(metric, 2.5);
    trk_metric_add(metric, -1); /* never down */
    trk_metric_add(metric, NAN);
    render();
    ck_line("# HELP done_total What is\\ndone \\\\.");
    ck_line("# TYPE done_total counter");
    ck_line("done_total 3.5");
}
END_TEST

START_TEST(test_numbers)
{
    struct trk_series *series = trk_metric_series(trk_metrics_gauge(metrics, "g", "Gauge.", NULL),
                                                  NULL);
    static const struct {
        double value;
        const char *line;
    } cases[] = {
        {0, "g 0"},
        {-0.0, "g 0"},
        {1e9, "g 1000000000"},
        {-2, "g -2"},
        {0.1, "g 0.1"},
        {INFINITY, "g +Inf"},
        {-INFINITY, "g -Inf"},
        {NAN, "g NaN"},
        {1e300, "g 1e+300"},
        {1.0 / 3, "g 0.33333333333333331"},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        trk_series_set(series, cases[i].value);
        render();
        ck_line(cases[i].line);
    }
    trk_series_set(series, 5);
    trk_series_add(series, -7);
    render();
    ck_line("g -2");
}
END_TEST

START_TEST(test_labels)
{
    struct trk_metric *metric = trk_metrics_gauge(metrics, "jobs", "Jobs.", "name,version");
    render();
    ck_assert_ptr_null(strstr(text.data, "\njobs"));
    trk_series_set(trk_metric_series(metric, labels("a\"b\\c\nd", "1.0")), 3);
    trk_series_set(trk_metric_series(metric, labels("", NULL)), 4);
    trk_series_set(trk_metric_series(metric, labels("J\xC3\xB6rg", "1")), 5);
    trk_series_set(trk_metric_series(metric, labels("\xff\xfe", "1")), 6);
    render();
    ck_line("jobs{name=\"a\\\"b\\\\c\\nd\",version=\"1.0\"} 3");
    ck_line("jobs{name=\"\",version=\"\"} 4");
    ck_line("jobs{name=\"J\xC3\xB6rg\",version=\"1\"} 5");
    ck_line("jobs{name=\"?\?\",version=\"1\"} 6");
    ck_assert_ptr_eq(trk_metric_series(metric, labels("", "")),
                     trk_metric_series(metric, labels("", NULL)));
    ck_assert_ptr_ne(trk_metric_series(metric, labels("ab", "c")),
                     trk_metric_series(metric, labels("a", "bc")));
}
END_TEST

/* A long value is cut, and never within a character. */
START_TEST(test_long_label)
{
    struct trk_metric *metric = trk_metrics_counter(metrics, "c", "Count.", "name");
    char value[2001];
    for (int shift = 0; shift < 2; shift++) {
        memset(value, 'x', (size_t)shift);
        for (size_t i = (size_t)shift; i + 1 < sizeof(value); i += 2) {
            memcpy(value + i, "\xC3\xB6", 2);
        }
        value[2000] = '\0';
        (void)trk_metric_series(metric, (const char *[]){value});
    }
    render();
    const char *at = strstr(text.data, "c{name=\"");
    ck_assert_ptr_nonnull(at);
    ck_assert_uint_eq(strcspn(at + 8, "\""), 512);
    at = strstr(text.data, "c{name=\"x");
    ck_assert_ptr_nonnull(at);
    ck_assert_uint_eq(strcspn(at + 8, "\""), 511);
}
END_TEST

START_TEST(test_histogram)
{
    static const double bounds[] = {0.5, 1, 2};
    struct trk_metric *plain = trk_metrics_histogram(metrics, "h", "Seconds.", NULL, bounds, 3);
    struct trk_series *series = trk_metric_series(plain, NULL);
    static const double seen[] = {0.1, 0.5, 0.6, 1, 2, 2.1, 100};
    for (size_t i = 0; i < TRK_COUNT(seen); i++) {
        trk_series_observe(series, seen[i]);
    }
    trk_series_observe(series, NAN);
    struct trk_metric *labelled = trk_metrics_histogram(metrics, "l", "Seconds.", "job", bounds, 1);
    trk_series_observe(trk_metric_series(labelled, (const char *[]){"a"}), 3);
    render();
    ck_line("# TYPE h histogram");
    ck_line("h_bucket{le=\"0.5\"} 2"); /* a bound belongs to its bucket */
    ck_line("h_bucket{le=\"1\"} 4");
    ck_line("h_bucket{le=\"2\"} 5");
    ck_line("h_bucket{le=\"+Inf\"} 7");
    ck_line("h_sum 106.3");
    ck_line("h_count 7");
    ck_line("l_bucket{job=\"a\",le=\"0.5\"} 0");
    ck_line("l_bucket{job=\"a\",le=\"+Inf\"} 1");
    ck_line("l_count{job=\"a\"} 1");
}
END_TEST

START_TEST(test_overflow)
{
    struct trk_metric *metric = trk_metrics_counter(metrics, "calls", "Calls.", "job");
    char name[32];
    for (int i = 0; i < TRK_METRIC_SERIES_MAX + 100; i++) {
        (void)snprintf(name, sizeof(name), "job-%d", i);
        trk_series_add(trk_metric_series(metric, (const char *[]){name}), 1);
    }
    trk_series_add(trk_metric_series(metric, (const char *[]){"job-7"}), 1); /* known: its own */
    render();
    ck_line("calls{overflow=\"true\"} 100");
    ck_line("calls{job=\"job-7\"} 2");
    size_t lines = 0;
    for (const char *at = text.data; (at = strstr(at, "\ncalls{")) != NULL; at++) {
        lines++;
    }
    ck_assert_uint_eq(lines, TRK_METRIC_SERIES_MAX + 1);
    trk_metric_remove(metric, (const char *[]){"job-7"}); /* makes room for one */
    trk_series_add(trk_metric_series(metric, (const char *[]){"late"}), 1);
    render();
    ck_line("calls{job=\"late\"} 1");
}
END_TEST

START_TEST(test_remove)
{
    struct trk_metric *metric = trk_metrics_counter(metrics, "calls", "Calls.", "job");
    struct trk_series *series = trk_metric_series(metric, (const char *[]){"a"});
    trk_series_add(series, 5);
    trk_metric_remove(metric, (const char *[]){"a"});
    trk_metric_remove(metric, (const char *[]){"a"});
    trk_metric_remove(metric, (const char *[]){"unknown"});
    render();
    ck_assert_ptr_null(strstr(text.data, "calls{"));
    trk_series_add(series, 1); /* an old handle does no harm */
    trk_series_add(trk_metric_series(metric, (const char *[]){"b"}), 2);
    render();
    ck_assert_ptr_null(strstr(text.data, "job=\"a\""));
    ck_line("calls{job=\"b\"} 2");
    /* Removing and adding for ever does not grow: the oldest handles' memory is taken. */
    char name[32];
    for (int i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof(name), "short-%d", i);
        trk_series_add(trk_metric_series(metric, (const char *[]){name}), 1);
        trk_metric_remove(metric, (const char *[]){name});
    }
    trk_series_add(trk_metric_series(metric, (const char *[]){"short-5"}), 1);
    render();
    ck_line("calls{job=\"short-5\"} 1"); /* starts from zero */
}
END_TEST

static double read_seven(void *ctx)
{
    return *(double *)ctx;
}

START_TEST(test_gauge_fn)
{
    double seven = 7;
    trk_metrics_gauge_fn(metrics, "seven", "Seven.", read_seven, &seven);
    render();
    ck_line("# TYPE seven gauge");
    ck_line("seven 7");
    seven = 8;
    render();
    ck_line("seven 8");
}
END_TEST

START_TEST(test_process)
{
    render();
    double rss = 0;
    double fds = 0;
    double start = 0;
    const char *at = strstr(text.data, "\nprocess_resident_memory_bytes ");
    ck_assert(at != NULL && sscanf(at, " process_resident_memory_bytes %lf", &rss) == 1);
    ck_assert_double_gt(rss, 500000);
    at = strstr(text.data, "\nprocess_open_fds ");
    ck_assert(at != NULL && sscanf(at, " process_open_fds %lf", &fds) == 1);
    int extra = dup(0);
    render();
    double more = 0;
    at = strstr(text.data, "\nprocess_open_fds ");
    ck_assert(at != NULL && sscanf(at, " process_open_fds %lf", &more) == 1);
    ck_assert_double_eq(more, fds + 1);
    (void)close(extra);
    at = strstr(text.data, "\nprocess_start_time_seconds ");
    ck_assert(at != NULL && sscanf(at, " process_start_time_seconds %lf", &start) == 1);
    ck_assert_double_lt(fabs(start - (double)time(NULL)), 600);
    ck_assert_ptr_nonnull(strstr(text.data, "\nprocess_cpu_seconds_total "));
}
END_TEST

/* The page does not fit: said, not cut silently. */
START_TEST(test_cap)
{
    struct trk_buf small;
    trk_buf_init(&small, 100);
    ck_assert_int_eq(trk_metrics_render(metrics, &small), TRK_TOO_LARGE);
    trk_buf_fini(&small);
}
END_TEST

static void *count_many(void *arg)
{
    struct trk_metric *metric = arg;
    char name[32];
    for (int i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof(name), "%d", i % 300);
        trk_series_add(trk_metric_series(metric, (const char *[]){name}), 1);
        if (i % 1000 == 0) {
            (void)trk_metric_series(metric, (const char *[]){"x"});
            trk_metric_remove(metric, (const char *[]){"x"});
        }
    }
    return NULL;
}

START_TEST(test_threads)
{
    struct trk_metric *metric = trk_metrics_counter(metrics, "calls", "Calls.", "job");
    pthread_t threads[4];
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_many, metric), 0);
    }
    for (int i = 0; i < 20; i++) {
        render();
    }
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        (void)pthread_join(threads[i], NULL);
    }
    render();
    double sum = 0;
    for (const char *at = text.data; (at = strstr(at, "\ncalls{")) != NULL; at++) {
        sum += strtod(strchr(at, '}') + 2, NULL);
    }
    ck_assert_double_eq(sum, 4 * 20000);
}
END_TEST

/* Registering twice or under a bad name is a programming error. */
START_TEST(test_duplicate)
{
    (void)trk_metrics_counter(metrics, "twice", "Once.", NULL);
    (void)trk_metrics_gauge(metrics, "twice", "Twice.", NULL);
}
END_TEST
START_TEST(test_bad_name)
{
    (void)trk_metrics_counter(metrics, "a-b", "Bad.", NULL);
}
END_TEST
START_TEST(test_bad_bounds)
{
    (void)trk_metrics_histogram(metrics, "h", "Bad.", NULL, (const double[]){1, 1}, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tcase = tcase_create("metrics");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_counter);
    tcase_add_test(tcase, test_numbers);
    tcase_add_test(tcase, test_labels);
    tcase_add_test(tcase, test_long_label);
    tcase_add_test(tcase, test_histogram);
    tcase_add_test(tcase, test_overflow);
    tcase_add_test(tcase, test_remove);
    tcase_add_test(tcase, test_gauge_fn);
    tcase_add_test(tcase, test_process);
    tcase_add_test(tcase, test_cap);
    tcase_add_test(tcase, test_threads);
    const char *fork_mode = getenv("CK_FORK");
    if (fork_mode == NULL || strcmp(fork_mode, "no") != 0) { /* an abort needs its own process */
        tcase_add_test_raise_signal(tcase, test_duplicate, SIGABRT);
        tcase_add_test_raise_signal(tcase, test_bad_name, SIGABRT);
        tcase_add_test_raise_signal(tcase, test_bad_bounds, SIGABRT);
    }
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
