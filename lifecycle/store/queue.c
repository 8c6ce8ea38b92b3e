#include "lifecycle/store/queue.h"

#include "lifecycle/store/rows.h"

#define IS_CLAIMABLE(instances)                                                                    \
    "status = 'in_progress' and (lease_until is null or lease_until < now()) and target_instance " \
    "= any(string_to_array(" instances ", E'\n'))"

int queue_adopt(struct trk_pg *conn, const char *target_name, const char *instance,
                struct trk_err *err)
{
    int code = trk_pg_query(conn, NULL, err,
                            "update registry_deployment set target_instance = $2 where "
                            "target_instance is null and infrastructure_target = $1 and status = "
                            "'in_progress'",
                            "ss", target_name, instance);
    if (code == 0) {
        code = trk_pg_query(conn, NULL, err,
                            "update registry_jobgeneration set target_instance = $2 where "
                            "target_instance is null and infrastructure_target = $1",
                            "ss", target_name, instance);
    }
    return code;
}

int queue_claim(struct trk_pg *conn, void *mem, const char *owner, const char *instances,
                struct deployment **ret, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(
        conn, &res, err,
        "update registry_deployment d set lease_owner = $1, lease_until = now() + "
        "make_interval(secs => $2), attempts = attempts + 1 where id = (select id from "
        "registry_deployment where " IS_CLAIMABLE(
            "$3") " order by create_time for update skip locked limit 1) and " ASYNC_COMMIT
                  " returning " DEPLOYMENT_COLUMNS,
        "sis", owner, (int64_t)QUEUE_LEASE_S, instances);
    if (code < 0) {
        return code;
    }
    *ret = NULL;
    if (trk_pg_rows(res) > 0) {
        *ret = row_array(mem, struct deployment, 1);
        deployment_from_row(*ret, res, 0, *ret);
    }
    return 0;
}

bool queue_has_work(struct trk_pg *conn, const char *instances)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    return trk_pg_query(conn, &res, NULL,
                        "select exists (select 1 from registry_deployment where " IS_CLAIMABLE(
                            "$1") ") as found",
                        "s", instances) == 0 &&
           trk_pg_bool(res, 0, "found");
}

static int check_held(struct trk_pg *conn, int code, const char *id, struct trk_err *err)
{
    if (code == 0 && trk_pg_affected(conn) == 0) {
        return trk_err_set(err, TRK_CONFLICT, "deployment %s is in other hands by now", id);
    }
    return code;
}

int queue_renew(struct trk_pg *conn, const char *owner, const char *id, struct trk_err *err)
{
    int code = trk_pg_query(
        conn, NULL, err,
        "update registry_deployment set lease_until = now() + make_interval(secs => "
        "$3) where id = $1 and lease_owner = $2 and status = 'in_progress' and " ASYNC_COMMIT,
        "ssi", id, owner, (int64_t)QUEUE_LEASE_S);
    return check_held(conn, code, id, err);
}

int queue_release(struct trk_pg *conn, const char *owner, const char *id, int64_t pause_s,
                  struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "update registry_deployment set lease_owner = null, lease_until = now() + "
                        "make_interval(secs => $3), attempts = greatest(attempts - 1, 0) where id "
                        "= $1 and lease_owner = $2 and status = 'in_progress'",
                        "ssi", id, owner, pause_s);
}

int queue_expire(struct trk_pg *conn, const char *owner, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "update registry_deployment set lease_owner = null, lease_until = null "
                        "where lease_owner = $1 and status = 'in_progress'",
                        "s", owner);
}

int queue_advance(struct trk_pg *conn, const char *owner, const char *id,
                  const struct queue_progress *p, bool is_durable, struct trk_err *err)
{
    int code = trk_pg_query(
        conn, NULL, err,
        "update registry_deployment set step = coalesce($3, step), phase = coalesce($4, phase), "
        "image_name = coalesce($5, image_name), image_digest = coalesce($6, image_digest), "
        "build_logs = coalesce($7, build_logs), warnings = case when coalesce($8, '') = '' or "
        "position($8 in coalesce(warnings, '')) > 0 then warnings when coalesce(warnings, '') = '' "
        "then $8 else warnings || E'\\n' || $8 end, generation_id = coalesce($9, generation_id), "
        "created_job = created_job or $10, update_time = now(), lease_until = now() + "
        "make_interval(secs => $11) where id = $1 and lease_owner = $2 and status = 'in_progress' "
        "and ($12 or " ASYNC_COMMIT ")",
        "sssssssssbib", id, owner, p->step, p->phase, p->image_name, p->image_digest, p->build_logs,
        p->warnings, p->generation_id, (int)p->created_job, (int64_t)QUEUE_LEASE_S,
        (int)is_durable);
    return check_held(conn, code, id, err);
}

int queue_finish(struct trk_pg *conn, const char *owner, const char *id, const char *error,
                 const char *warning, struct trk_err *err)
{
    int code = trk_pg_query(
        conn, NULL, err,
        "update registry_deployment set status = case when $3::text is null then 'done' else "
        "'failed' end, error = $3, phase = case when $3::text is null then null else phase end, "
        "warnings = case when $4::text is null then warnings when coalesce(warnings, '') = '' then "
        "$4 else warnings || E'\\n' || $4 end, update_time = now(), lease_owner = null, "
        "lease_until = null where id = $1 and lease_owner = $2 and status = 'in_progress'",
        "ssss", id, owner, error, warning);
    code = check_held(conn, code, id, err);
    if (code == 0) {
        code = trk_pg_query(conn, NULL, err,
                            "delete from registry_deploymentsecret where deployment_id = $1", "s",
                            id);
    }
    return code;
}

int queue_is_in_progress(struct trk_pg *conn, const char *name, const char *version, bool *ret,
                         struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select exists (select 1 from registry_deployment where job_name = $1 "
                            "and job_version = $2 and status = 'in_progress') as found",
                            "ss", name, version);
    if (code == 0) {
        *ret = trk_pg_bool(res, 0, "found");
    }
    return code;
}
