/*
 * usage.c - what jobs tell about themselves, counts for the metrics, and the broom.
 */
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/deploy/image_store.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/retention.h"
#include "lifecycle/supervisor/internal.h"

enum {
    PROBE_MS = 1000,
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
    int64_t counts[TRK_COUNT(statuses)];
    if (trk_pg_acquire(s->lc->pool, &conn, NULL) < 0 ||
        job_store_count(conn, statuses, TRK_COUNT(statuses), counts, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < TRK_COUNT(statuses); i++) {
        trk_series_set(trk_metric_series(s->jobs_by_status, &statuses[i]), (double)counts[i]);
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
            job_store_note_call(writer, jobs[i].id, time, NULL) < 0) {
            break; /* the database is away: the next round has it */
        }
    }
    talloc_free(mem);
}

static int clean_database(struct supervisor *s, json_t **ret_in_use, struct trk_err *err)
{
    const struct lifecycle_config *config = s->lc->config;
    const struct retention_limits limits = {
        .deployments_per_job = config->deployments_kept_per_job,
        .build_logs_per_job = config->build_logs_kept_per_job,
        .deployment_days = config->deployment_retention_days,
        .audit_days = config->audit_retention_days,
        .status_event_days = config->status_event_retention_days,
    };
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = trk_pg_acquire(s->lc->pool, &conn, err);
    rc = rc == 0 ? event_store_clean(conn, config->event_retention_s, err) : rc;
    rc = rc == 0 ? retention_store_clean(conn, &limits, err) : rc;
    return rc == 0 ? retention_store_in_use(conn, ret_in_use, err) : rc;
}

void supervisor_clean(struct supervisor *s)
{
    json_auto_t *in_use = NULL;
    struct trk_err err = {0};
    int rc = clean_database(s, &in_use, &err);
    rc = rc == 0 ? image_store_retain(s->lc, s->client, in_use, &err) : rc;
    if (rc < 0) {
        trk_log_warn("supervisor: cleaning up failed", "error", err.text, NULL);
    }
}
