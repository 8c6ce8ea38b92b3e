#include "lifecycle/store/deployment.h"

#include "lifecycle/domain/status.h"
#include "lifecycle/store/queue.h"
#include "lifecycle/store/rows.h"

void deployment_from_row(void *mem, const struct trk_pg_result *res, int row,
                         struct deployment *ret)
{
    *ret = (struct deployment){
        .id = row_text(mem, res, row, "id"),
        .status = row_text(mem, res, row, "status"),
        .manifest = row_text(mem, res, row, "manifest"),
        .error = row_text(mem, res, row, "error"),
        .job_name = row_text(mem, res, row, "job_name"),
        .job_version = row_text(mem, res, row, "job_version"),
        .deployed_by = row_text(mem, res, row, "deployed_by"),
        .build_logs = row_text(mem, res, row, "build_logs"),
        .phase = row_text(mem, res, row, "phase"),
        .image_name = row_text(mem, res, row, "image_name"),
        .infrastructure_target = row_text(mem, res, row, "infrastructure_target"),
        .target_instance = row_text(mem, res, row, "target_instance"),
        .warnings = row_text(mem, res, row, "warnings"),
        .kind = row_text(mem, res, row, "kind"),
        .step = row_text(mem, res, row, "step"),
        .build_flags = row_text(mem, res, row, "build_flags"),
        .subject_id = row_text(mem, res, row, "subject_id"),
        .source_digest = row_text(mem, res, row, "source_digest"),
        .image_digest = row_text(mem, res, row, "image_digest"),
        .generation_id = row_text(mem, res, row, "generation_id"),
        .create_time = trk_pg_int(res, row, "created"),
        .update_time = trk_pg_int(res, row, "updated"),
        .update_mark = row_text(mem, res, row, "update_mark"),
        .force = trk_pg_bool(res, row, "force"),
        .created_job = trk_pg_bool(res, row, "created_job"),
        .attempts = trk_pg_int(res, row, "attempts"),
    };
}

static int get_one(struct trk_pg_result *res, void *mem, struct deployment **ret)
{
    struct deployment *deployment = row_array(mem, struct deployment, 1);
    deployment_from_row(deployment, res, 0, deployment);
    *ret = deployment;
    return 0;
}

int deployment_store_get(struct trk_pg *conn, void *mem, const char *id, struct deployment **ret,
                         struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(
        conn, &res, err, "select " DEPLOYMENT_COLUMNS " from registry_deployment d where id = $1",
        "s", id);
    if (code < 0) {
        return code;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no deployment with id %.60s", id);
    }
    return get_one(res, mem, ret);
}

int deployment_store_state(struct trk_pg *conn, void *mem, const char *id, const char **ret_status,
                           const char **ret_phase, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select status, phase from registry_deployment where id = $1", "s", id);
    if (code < 0) {
        return code;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no deployment with id %.60s", id);
    }
    *ret_status = row_text(mem, res, 0, "status");
    *ret_phase = row_text(mem, res, 0, "phase");
    return 0;
}

int deployment_store_list(struct trk_pg *conn, void *mem, const struct deployment *after,
                          int64_t limit, struct deployment **ret, size_t *ret_count,
                          struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(
        conn, &res, err,
        "select " DEPLOYMENT_COLUMNS_WITH(
            "''") " from registry_deployment d where $2::text is null or (d.update_time, d.id) < "
                  "($2::timestamptz, $3) order by d.update_time desc, d.id desc limit $1",
        "iss", limit, after != NULL ? after->update_mark : NULL, after != NULL ? after->id : NULL);
    if (code < 0) {
        return code;
    }
    int count = trk_pg_rows(res);
    struct deployment *list = row_array(mem, struct deployment, count);
    for (int row = 0; row < count; row++) {
        deployment_from_row(list, res, row, &list[row]);
    }
    *ret = list;
    *ret_count = (size_t)count;
    return 0;
}

int deployment_store_last_of_job(struct trk_pg *conn, void *mem, const char *name,
                                 const char *version, struct deployment **ret, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select " DEPLOYMENT_COLUMNS
                            " from registry_deployment d where job_name = $1 and job_version = $2 "
                            "order by create_time desc limit 1",
                            "ss", name, version);
    if (code < 0) {
        return code;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "job %s %s was never deployed", name, version);
    }
    return get_one(res, mem, ret);
}

int deployment_store_insert(struct trk_pg *conn, const struct deployment *d, struct trk_err *err)
{
    /* The partial unique index lets one in; without an error, which would spoil the transaction. */
    int code = trk_pg_query(
        conn, NULL, err,
        "insert into registry_deployment (id, status, manifest, job_name, job_version, "
        "deployed_by, phase, image_name, infrastructure_target, warnings, kind, step, force, "
        "build_flags, subject_id, source_digest, image_digest, target_instance) values ($1, "
        "'in_progress', $2, $3, $4, $5, 'queued', $6, $7, $8, $9, $10, $11, coalesce($12, ''), "
        "$13, $14, $15, $16) on conflict (job_name, job_version) where status = 'in_progress' do "
        "nothing",
        "ssssssssssbsssss", d->id, d->manifest, d->job_name, d->job_version, d->deployed_by,
        d->image_name, d->infrastructure_target, d->warnings, d->kind != NULL ? d->kind : "deploy",
        d->step != NULL ? d->step : "build", (int)d->force, d->build_flags, d->subject_id,
        d->source_digest, d->image_digest, d->target_instance);
    if (code < 0 || trk_pg_affected(conn) == 1) {
        return code;
    }
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    code = trk_pg_query(conn, &res, err,
                        "select id from registry_deployment where job_name = $1 and job_version = "
                        "$2 and status = 'in_progress'",
                        "ss", d->job_name, d->job_version);
    if (code < 0) {
        return code;
    }
    return trk_err_set(
        err, TRK_CONFLICT,
        "there is already an ongoing deployment of job %s %s (%s); wait until it ends", d->job_name,
        d->job_version, trk_pg_rows(res) > 0 ? trk_pg_text(res, 0, "id") : "just ended");
}

/* Why an update of a deployment in progress touched nothing. */
static int explain_untouched(struct trk_pg *conn, const char *id, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err, "select status from registry_deployment where id = $1",
                            "s", id);
    if (code < 0) {
        return code;
    }
    return trk_pg_rows(res) == 0
               ? trk_err_set(err, TRK_NOT_FOUND, "no deployment with id %.60s", id)
               : trk_err_set(err, TRK_CONFLICT, "deployment %s has ended", id);
}

/* A builder's report may come late: then the deployment is past building, and the phase is not its
 * to tell any more. */
int deployment_store_set_phase(struct trk_pg *conn, const char *id, const char *phase,
                               struct trk_err *err)
{
    int code = trk_pg_query(conn, NULL, err,
                            "update registry_deployment set phase = case when step = 'build' then "
                            "left($2, 256) else phase end, update_time = now() where id = $1 and "
                            "status = 'in_progress' and " ASYNC_COMMIT,
                            "ss", id, phase);
    if (code == 0 && trk_pg_affected(conn) == 0) {
        code = explain_untouched(conn, id, err);
    }
    return code;
}

int deployment_store_add_warnings(struct trk_pg *conn, const char *id, const char *warnings,
                                  struct trk_err *err)
{
    int code = trk_pg_query(
        conn, NULL, err,
        "update registry_deployment set warnings = case when coalesce(warnings, '') = '' then $2 "
        "when position($2 in warnings) > 0 then warnings else warnings || E'\\n' || $2 end, "
        "update_time = now() where id = $1 and status = 'in_progress'",
        "ss", id, warnings);
    if (code == 0 && trk_pg_affected(conn) == 0) {
        code = explain_untouched(conn, id, err);
    }
    return code;
}
