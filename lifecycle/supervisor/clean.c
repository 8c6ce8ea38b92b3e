/*
 * clean.c - counts for the metrics, and the broom.
 */
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/deploy/image_store.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/retention.h"
#include "lifecycle/supervisor/internal.h"

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
