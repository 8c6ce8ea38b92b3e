#include "lifecycle/store/retention.h"

#include <stddef.h>

#include "libtrack/base/mem.h"

/* Deployments that have ended, numbered from the newest of their job on. */
#define NUMBERED                                                                                   \
    "with numbered as (select id, row_number() over (partition by job_name, job_version order by " \
    "create_time desc, id) as place from registry_deployment where status <> 'in_progress') "

static const struct {
    const char *statement;
    size_t limit; /* where in the limits $1 is */
} rules[] = {
    {"delete from registry_deployment d where status <> 'in_progress' and $1 > 0 and update_time < "
     "now() - make_interval(days => $1::int) and not exists (select 1 from registry_job j where "
     "j.name = d.job_name and j.version = d.job_version) and not exists (select 1 from "
     "registry_jobgeneration g where g.deployment_id = d.id)",
     offsetof(struct retention_limits, deployment_days)},
    {"delete from registry_auditlogevent where $1 > 0 and timestamp < now() - make_interval(days "
     "=> "
     "$1::int)",
     offsetof(struct retention_limits, audit_days)},
    {"delete from registry_jobstatusevent where $1 > 0 and timestamp < now() - make_interval(days "
     "=> $1::int)",
     offsetof(struct retention_limits, status_event_days)},
    {NUMBERED "delete from registry_deployment d using numbered n where n.id = d.id and n.place > "
              "$1 and not exists (select 1 from registry_jobgeneration g where g.deployment_id = "
              "d.id)",
     offsetof(struct retention_limits, deployments_per_job)},
    {NUMBERED "update registry_deployment d set build_logs = '' from numbered n where n.id = d.id "
              "and n.place > $1 and d.build_logs <> ''",
     offsetof(struct retention_limits, build_logs_per_job)},
};

int retention_store_clean(struct trk_pg *conn, const struct retention_limits *limits,
                          struct trk_err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < TRK_COUNT(rules); i++) {
        const int64_t *limit = (const int64_t *)((const char *)limits + rules[i].limit);
        rc = trk_pg_query(conn, NULL, err, rules[i].statement, "i", *limit);
    }
    return rc;
}

static int list(struct trk_pg *conn, const char *statement, json_t **ret, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err, statement, "");
    if (rc < 0) {
        return rc;
    }
    json_t *array = json_array();
    for (int row = 0; row < trk_pg_rows(res); row++) {
        (void)json_array_append_new(array, json_string(trk_pg_text(res, row, "item")));
    }
    *ret = array;
    return 0;
}

int retention_store_in_use(struct trk_pg *conn, json_t **ret, struct trk_err *err)
{
    json_auto_t *images = NULL;
    json_auto_t *sources = NULL;
    int rc = list(
        conn,
        "select image_name || '@' || image_digest as item from registry_job where "
        "image_digest is not null union select image_name || '@' || image_digest from "
        "registry_deployment where status = 'in_progress' and image_digest is not null order by 1",
        &images, err);
    rc = rc == 0 ? list(conn,
                        "select source_digest as item from registry_job where source_digest is not "
                        "null union select source_digest from registry_deployment where status = "
                        "'in_progress' and source_digest is not null order by 1",
                        &sources, err)
                 : rc;
    if (rc == 0) {
        *ret = json_pack("{s:O, s:O}", "images", images, "sources", sources);
    }
    return rc;
}
