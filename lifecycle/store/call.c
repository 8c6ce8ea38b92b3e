#include "lifecycle/store/call.h"

#include <string.h>

#include "libtrack/data/version.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/rows.h"

static struct job *new_job(void *mem, const struct trk_pg_result *res)
{
    struct job *job = row_array(mem, struct job, 1);
    *job = (struct job){
        .id = row_text(job, res, 0, "id"),
        .name = row_text(job, res, 0, "name"),
        .version = row_text(job, res, 0, "version"),
        .status = row_text(job, res, 0, "status"),
        .create_time = trk_pg_int(res, 0, "create_time"),
        .update_time = trk_pg_int(res, 0, "update_time"),
        .infrastructure_target = row_text(job, res, 0, "infrastructure_target"),
        .addresses = row_text(job, res, 0, "addresses"),
        .job_type_version = row_text(job, res, 0, "job_type_version"),
    };
    return job;
}

int call_store_ask(struct trk_pg *conn, void *mem, const char *name, const char *version,
                   const char *token, struct call_question *ret, struct trk_err *err)
{
    *ret = (struct call_question){0};
    const char *exact = version;
    int missing = 0;
    if (trk_version_is_alias(version)) {
        missing = job_store_resolve_version(conn, mem, name, version, &exact, &ret->job_err);
        if (missing < 0 && missing != TRK_NOT_FOUND) {
            *err = ret->job_err;
            return missing;
        }
    }
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(
        conn, &res, err,
        "select m.value as maintenance, (select string_agg(e.endpoint, E'\\n') from "
        "registry_publicendpointrequest e where e.job_id = j.id and e.active) as "
        "endpoints, j.id, j.name, j.version, j.status, extract(epoch from j.create_time)::bigint "
        "as "
        "create_time, extract(epoch from j.update_time)::bigint as update_time, "
        "j.infrastructure_target, " JOB_ADDRESSES ", j.job_type_version, " TOKEN_COLUMNS
        ", p.scope, case when p.job_family_id is not null then f.name end as on_family, case when "
        "p.job_id is not null then j.name end as on_job, case when p.job_id is not null then "
        "j.version end as on_version, p.endpoint from (select (select value #>> '{}' from "
        "registry_setting where name = 'maintenance_mode') as value) m left join "
        "registry_jobfamily f "
        "on f.name = $1 left join registry_job j on j.name = $1 and j.version = $2 left join "
        "registry_authtoken t on t.token = $3 left join "
        "registry_authsubject s on s.id = t.auth_subject_id left join auth_user u on u.id = "
        "s.user_id left join registry_authresourcepermission p on p.auth_subject_id = s.id and "
        "p.scope in ('" SCOPE_CALL_JOB "', '" SCOPE_FULL_ACCESS
        "') and (p.job_id is null or p.job_id = j.id) and (p.job_family_id is null or "
        "p.job_family_id = f.id) order by t.active desc, expired",
        "sss", name, exact, token);
    if (rc < 0) {
        return rc;
    }
    const char *maintenance = trk_pg_text(res, 0, "maintenance");
    ret->is_maintenance = maintenance != NULL && strcmp(maintenance, "true") == 0;
    ret->public_endpoints = row_text(mem, res, 0, "endpoints");
    if (!trk_pg_is_null(res, 0, "id")) {
        ret->job = new_job(mem, res);
    } else if (missing == 0) {
        (void)trk_err_set(&ret->job_err, TRK_NOT_FOUND, "no job named %s in version %s", name,
                          version);
    }
    rc = subject_of_rows(conn, mem, res, &ret->caller, &ret->caller_err);
    if (rc < 0 && rc != TRK_UNAUTHENTICATED) {
        *err = ret->caller_err;
        return rc;
    }
    return 0;
}
