#include "lifecycle/store/gateway.h"

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/generation.h"
#include "lifecycle/store/rows.h"

/* jsonb, because its text has no line breaks. A key's rows are those after $1, and of $2. */
#define OF_KEYS(id)                                                                                \
    " where " id " > $1 and ($2::text is null or " id                                              \
    " in (select jsonb_array_elements_text($2::jsonb))) order by " id " limit $3"

static int load(struct trk_pg *conn, void *mem, const char *sql, const json_t *ids,
                const char *after, int64_t limit, struct gateway_record **ret, size_t *ret_count,
                struct trk_err *err)
{
    trk_autofree char *list = ids != NULL ? trk_json_text(ids) : NULL;
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err, sql, "ssi", after, list, limit);
    if (code < 0) {
        return code;
    }
    int count = trk_pg_rows(res);
    struct gateway_record *records = row_array(mem, struct gateway_record, count);
    for (int row = 0; row < count; row++) {
        records[row].id = row_text(records, res, row, "id");
        records[row].generation_id = row_text(records, res, row, "generation_id");
        records[row].json = row_text(records, res, row, "record");
    }
    *ret = records;
    *ret_count = (size_t)count;
    return 0;
}

int gateway_store_jobs(struct trk_pg *conn, void *mem, const json_t *ids, const char *after,
                       int64_t limit, struct gateway_record **ret, size_t *ret_count,
                       struct trk_err *err)
{
    return load(conn, mem,
                "select j.id, j.generation_id, jsonb_build_object('id', j.id, 'name', j.name, "
                "'version', j.version, 'status', j.status, 'public', coalesce((select "
                "jsonb_agg(e.endpoint order by e.endpoint) from registry_publicendpointrequest e "
                "where e.job_id = j.id and e.active), '[]'), 'replicas', case when j.status in "
                "('" JOB_STARTING "', '" JOB_LOST "') then '[]' else coalesce((select "
                "jsonb_agg(jsonb_build_object('address', r.address) order by r.replica) from "
                "registry_jobreplica r where r.generation_id = j.generation_id and r.address is "
                "not null and (r.state = '" REPLICA_RUNNING "' or not exists (select 1 from "
                "registry_jobreplica o where o.generation_id = j.generation_id and o.state = "
                "'" REPLICA_RUNNING "'))), '[]') end)::text as record from registry_job "
                "j" OF_KEYS("j.id"),
                ids, after, limit, ret, ret_count, err);
}

int gateway_store_subjects(struct trk_pg *conn, void *mem, const json_t *ids, const char *after,
                           int64_t limit, struct gateway_record **ret, size_t *ret_count,
                           struct trk_err *err)
{
    return load(
        conn, mem,
        "select s.id, null as generation_id, jsonb_build_object('id', s.id, 'type', case when "
        "s.user_id is not null then 'user' when s.esc_id is not null then 'esc' else 'job' end, "
        "'name', coalesce('User ' || u.username, 'ESC ' || e.name, 'Job family ' || f.name), "
        "'active', coalesce(u.is_active, true), 'tokens', coalesce((select "
        "jsonb_agg(jsonb_build_object('d', t.digest, 'e', extract(epoch from "
        "t.expiry_time)::bigint)) from registry_authtoken t where t.auth_subject_id = s.id and "
        "t.active and (t.expiry_time is null or t.expiry_time > now())), '[]'), 'grants', "
        "coalesce((select jsonb_agg(jsonb_build_object('family', g.name, 'job', p.job_id, "
        "'endpoint', p.endpoint)) from registry_authresourcepermission p left join "
        "registry_jobfamily g on g.id = p.job_family_id where p.auth_subject_id = s.id and p.scope "
        "in ('" SCOPE_CALL_JOB "', '" SCOPE_FULL_ACCESS "')), '[]'))::text as record from "
        "registry_authsubject s left join auth_user u on u.id = s.user_id left join registry_esc e "
        "on e.id = s.esc_id left join registry_jobfamily f on f.id = s.job_family_id" OF_KEYS(
            "s.id"),
        ids, after, limit, ret, ret_count, err);
}

int gateway_store_freeze(struct trk_pg *conn, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "set transaction isolation level repeatable read read only", "");
}

int gateway_store_note_tokens(struct trk_pg *conn, const json_t *tokens, struct trk_err *err)
{
    trk_autofree char *list = trk_json_text(tokens);
    return trk_pg_query(conn, NULL, err,
                        "update registry_authtoken t set last_use_time = least(to_timestamp(r.t), "
                        "now()) from jsonb_to_recordset($1::jsonb) as r(d text, t bigint) where "
                        "t.digest = r.d and (t.last_use_time is null or t.last_use_time < "
                        "to_timestamp(r.t))",
                        "s", list);
}

int gateway_store_note_jobs(struct trk_pg *conn, const json_t *jobs, struct trk_err *err)
{
    trk_autofree char *list = trk_json_text(jobs);
    return trk_pg_query(conn, NULL, err,
                        "update registry_job j set last_call_time = greatest(j.last_call_time, "
                        "least(to_timestamp(r.t), now())), call_count = j.call_count + r.calls "
                        "from jsonb_to_recordset($1::jsonb) as r(name text, version text, t "
                        "bigint, calls bigint) where j.name = r.name and j.version = r.version",
                        "s", list);
}
