/*
 * usage.c - what jobs tell about themselves, counts for the metrics, and the broom.
 */
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/deployment.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/job.h"
#include "lifecycle/supervisor/internal.h"

enum {
    PROBE_MS = 1000,
    STATUS_EVENTS_KEPT_DAYS = 90,
    CLOCKS_DIFFER_S = 60,
};

/* Owned body of GET path when the answer is 200, else NULL. */
static char *get(struct supervisor *s, const char *address, const char *path)
{
    trk_autofree char *url = trk_xasprintf("http://%s%s", address, path);
    struct trk_http_call call = {.url = url,
                                 .connect_timeout_ms = PROBE_MS,
                                 .timeout_ms = PROBE_MS,
                                 .answer_max_bytes = 1 << 20};
    struct trk_http_answer answer = {0};
    char *body = NULL;
    if (trk_http_call(s->client, &call, &answer, NULL) == 0) {
        body = answer.status == 200 ? trk_xstrdup(answer.body) : NULL;
        trk_http_answer_fini(&answer);
    }
    return body;
}

void supervisor_count_jobs(struct supervisor *s)
{
    static const char *const statuses[] = {JOB_STARTING, JOB_RUNNING, JOB_ERROR, JOB_ORPHANED,
                                           JOB_LOST};
    trk_pg_auto struct trk_pg *conn = NULL;
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    if (trk_pg_acquire(s->lc->pool, &conn, NULL) < 0 ||
        trk_pg_query(conn, &res, NULL,
                     "select status, count(*) as count from registry_job group by status",
                     "") < 0) {
        return;
    }
    for (size_t i = 0; i < TRK_COUNT(statuses); i++) {
        double count = 0;
        for (int row = 0; row < trk_pg_rows(res); row++) {
            if (strcmp(trk_pg_text(res, row, "status"), statuses[i]) == 0) {
                count = (double)trk_pg_int(res, row, "count");
            }
        }
        trk_series_set(trk_metric_series(s->jobs_by_status, &statuses[i]), count);
    }
}

/* The value of `last_call_timestamp` in a Prometheus exposition; 0 when it is not there or no time
 * that has been: a job may say anything. */
static int64_t last_call(const char *text)
{
    static const char name[] = "last_call_timestamp";
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, sizeof(name) - 1) == 0) {
            const char *value = line + strcspn(line, " \n");
            double time = *value == ' ' ? strtod(value, NULL) : 0;
            return time >= 0 && time <= (double)trk_wall_s() + CLOCKS_DIFFER_S ? (int64_t)time : 0;
        }
    }
    return 0;
}

void supervisor_read_usage(struct supervisor *s)
{
    void *mem = talloc_new(NULL);
    struct job *jobs = NULL;
    size_t count = 0;
    struct trk_pg *conn = NULL;
    if (trk_pg_acquire(s->lc->pool, &conn, NULL) < 0 ||
        job_store_list(conn, mem, NULL, &jobs, &count, NULL) < 0) {
        count = 0;
    }
    trk_pg_release(conn); /* not held while jobs are asked */
    for (size_t i = 0; i < count; i++) {
        if (strcmp(jobs[i].status, JOB_RUNNING) != 0 || jobs[i].internal_name == NULL) {
            continue;
        }
        trk_autofree char *text = get(s, jobs[i].internal_name, "/metrics");
        int64_t time = text != NULL ? last_call(text) : 0;
        trk_pg_auto struct trk_pg *writer = NULL;
        if (time > jobs[i].last_call_time && trk_pg_acquire(s->lc->pool, &writer, NULL) == 0 &&
            trk_pg_query(writer, NULL, NULL,
                         "update registry_job set last_call_time = greatest(last_call_time, "
                         "to_timestamp($2)) where id = $1 and set_config('synchronous_commit', "
                         "'off', true) = 'off'",
                         "si", jobs[i].id, time) < 0) {
            break; /* the database is away: the next round has it */
        }
    }
    talloc_free(mem);
}

void supervisor_clean(struct supervisor *s)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    int rc = trk_pg_acquire(s->lc->pool, &conn, &err);
    rc = rc == 0 ? event_store_clean(conn, s->lc->config->event_retention_s, &err) : rc;
    rc = rc == 0 ? trk_pg_query(conn, NULL, &err,
                                "delete from registry_jobstatusevent where timestamp < now() - "
                                "make_interval(days => $1::int)",
                                "i", (int64_t)STATUS_EVENTS_KEPT_DAYS)
                 : rc;
    if (rc < 0) {
        trk_log_warn("supervisor: cleaning up failed", "error", err.text, NULL);
    }
}
