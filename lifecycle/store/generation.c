#include "lifecycle/store/generation.h"

#include <jansson.h>

#include "lifecycle/store/rows.h"

#define COLUMNS                                                                                    \
    "g.id, g.job_name, g.job_version, g.deployment_id, g.infrastructure_target, "                  \
    "g.target_instance, g.state, g.spec, case when g.asleep then 0 else g.replicas end as "        \
    "replica_count, coalesce((select jsonb_agg(jsonb_build_array(r.replica, r.state, r.address, "  \
    "r.reason, r.restarts) order by r.replica) from registry_jobreplica r where r.generation_id "  \
    "= g.id), '[]')::text as replicas, (extract(epoch from now() - g.state_time) * 1000)::bigint " \
    "as state_age_ms, j.status as job_status from registry_jobgeneration g left join "             \
    "registry_job j on j.name = g.job_name and j.version = g.job_version and j.generation_id = "   \
    "g.id"

static void fill(void *mem, const struct trk_pg_result *res, int row, struct generation *ret)
{
    *ret = (struct generation){
        .id = row_text(mem, res, row, "id"),
        .job_name = row_text(mem, res, row, "job_name"),
        .job_version = row_text(mem, res, row, "job_version"),
        .deployment_id = row_text(mem, res, row, "deployment_id"),
        .infrastructure_target = row_text(mem, res, row, "infrastructure_target"),
        .target_instance = row_text(mem, res, row, "target_instance"),
        .state = row_text(mem, res, row, "state"),
        .spec = row_text(mem, res, row, "spec"),
        .replica_count = trk_pg_int(res, row, "replica_count"),
        .replicas = row_text(mem, res, row, "replicas"),
        .state_age_ms = trk_pg_int(res, row, "state_age_ms"),
        .job_status = row_text(mem, res, row, "job_status"),
    };
}

int generation_store_list(struct trk_pg *conn, void *mem, const char *name, const char *version,
                          struct generation **ret, size_t *ret_count, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select " COLUMNS " where $1::text is null or (g.job_name = $1 and "
                            "g.job_version = $2) order by g.create_time, g.id",
                            "ss", name, version);
    if (code < 0) {
        return code;
    }
    int count = trk_pg_rows(res);
    struct generation *list = row_array(mem, struct generation, count);
    for (int row = 0; row < count; row++) {
        fill(list, res, row, &list[row]);
    }
    *ret = list;
    *ret_count = (size_t)count;
    return 0;
}

int generation_store_get(struct trk_pg *conn, void *mem, const char *id, struct generation **ret,
                         struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err, "select " COLUMNS " where g.id = $1", "s", id);
    if (code == 0 && trk_pg_rows(res) == 0) {
        code = trk_err_set(err, TRK_NOT_FOUND, "no generation %s", id);
    }
    if (code == 0) {
        *ret = row_array(mem, struct generation, 1);
        fill(*ret, res, 0, *ret);
    }
    return code;
}

int generation_store_insert(struct trk_pg *conn, const struct generation *g, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "insert into registry_jobgeneration (id, job_name, job_version, "
                        "deployment_id, infrastructure_target, target_instance, state, spec, "
                        "replicas) values ($1, $2, $3, $4, $5, $6, 'starting', $7, $8) on conflict "
                        "do nothing",
                        "sssssssi", g->id, g->job_name, g->job_version, g->deployment_id,
                        g->infrastructure_target, g->target_instance, g->spec, g->replica_count);
}

int generation_store_set(struct trk_pg *conn, const char *id, const char *state,
                         struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "update registry_jobgeneration set state_time = case when state = $2 then "
                        "state_time else now() end, state = $2 where id = $1",
                        "ss", id, state);
}

int generation_store_put_replicas(struct trk_pg *conn, const char *id, const char *replicas,
                                  struct trk_err *err)
{
    int code = trk_pg_query(conn, NULL, err,
                            "delete from registry_jobreplica r where generation_id = $1 and not "
                            "exists (select 1 from jsonb_array_elements($2::jsonb) e where (e ->> "
                            "0)::int = r.replica)",
                            "ss", id, replicas);
    if (code == 0) {
        code = trk_pg_query(
            conn, NULL, err,
            "insert into registry_jobreplica as r (generation_id, replica, state, address, reason, "
            "restarts) select $1, (e ->> 0)::int, e ->> 1, e ->> 2, e ->> 3, (e ->> 4)::bigint "
            "from jsonb_array_elements($2::jsonb) e on conflict (generation_id, replica) do update "
            "set state = excluded.state, address = excluded.address, reason = excluded.reason, "
            "restarts = excluded.restarts where (r.state, r.address, r.reason, r.restarts) is "
            "distinct from (excluded.state, excluded.address, excluded.reason, excluded.restarts)",
            "ss", id, replicas);
    }
    return code;
}

char *generation_store_replicas_text(const struct replica *list, size_t count)
{
    json_auto_t *all = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(all, json_pack("[I, s, s?, s, I]", (json_int_t)list[i].number,
                                                   list[i].state, list[i].address, list[i].reason,
                                                   (json_int_t)list[i].restarts));
    }
    return json_dumps(all, 0);
}

int generation_store_replace(struct trk_pg *conn, const char *name, const char *version,
                             const char *keep_id, const char *state, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "update registry_jobgeneration set state = $4, state_time = now() where "
                        "job_name = $1 and job_version = $2 and id <> $3 and state = 'serving'",
                        "ssss", name, version, keep_id, state);
}

int generation_store_delete(struct trk_pg *conn, const char *id, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err, "delete from registry_jobgeneration where id = $1", "s",
                        id);
}

int generation_store_retire_stray(struct trk_pg *conn, struct trk_err *err)
{
    return trk_pg_query(
        conn, NULL, err,
        "update registry_jobgeneration g set state = 'removing', state_time = now() where (g.state "
        "= 'starting' and not exists (select 1 from registry_deployment d where d.id = "
        "g.deployment_id and d.status = 'in_progress')) or (g.state = 'serving' and not exists "
        "(select 1 from registry_job j where j.generation_id = g.id))",
        "");
}

int generation_store_lock_job(struct trk_pg *conn, void *mem, const struct generation *g,
                              const char **ret_status, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(
        conn, &res, err,
        "select status from registry_job j where name = $1 and version = $2 and generation_id = $3 "
        "and not exists (select 1 from registry_deployment d where d.job_name = j.name and "
        "d.job_version = j.version and d.status = 'in_progress') for update of j",
        "sss", g->job_name, g->job_version, g->id);
    if (code == 0) {
        *ret_status = trk_pg_rows(res) > 0 ? row_text(mem, res, 0, "status") : NULL;
    }
    return code;
}

bool generation_store_replica(void *mem, const char *replicas, int64_t number, struct replica *ret)
{
    json_auto_t *all = json_loads(replicas, 0, NULL);
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *one = json_array_get(all, i);
        const char *address = json_string_value(json_array_get(one, 2));
        if (json_integer_value(json_array_get(one, 0)) == number) {
            *ret = (struct replica){
                .number = number,
                .state = talloc_strdup(mem, json_string_value(json_array_get(one, 1))),
                .address = address != NULL ? talloc_strdup(mem, address) : NULL,
                .reason = talloc_strdup(mem, json_string_value(json_array_get(one, 3))),
                .restarts = json_integer_value(json_array_get(one, 4)),
            };
            return true;
        }
    }
    return false;
}

/* -- secrets -- */

static int get_sealed(struct trk_pg_result *res, void **ret, size_t *ret_len, struct trk_err *err)
{
    if (trk_pg_rows(res) == 0) {
        *ret = NULL;
        *ret_len = 0;
        return 0;
    }
    return trk_pg_bytes(res, 0, "sealed", ret, ret_len, err);
}

int secret_store_put_deployment(struct trk_pg *conn, const char *deployment_id, const void *sealed,
                                size_t len, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "insert into registry_deploymentsecret (deployment_id, sealed) values ($1, "
                        "$2) on conflict (deployment_id) do update set sealed = excluded.sealed",
                        "sx", deployment_id, sealed, len);
}

int secret_store_get_deployment(struct trk_pg *conn, const char *deployment_id, void **ret,
                                size_t *ret_len, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select sealed from registry_deploymentsecret where deployment_id = $1",
                            "s", deployment_id);
    return code < 0 ? code : get_sealed(res, ret, ret_len, err);
}

int secret_store_put_job(struct trk_pg *conn, const char *name, const char *version,
                         const void *sealed, size_t len, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "insert into registry_jobsecret (job_name, job_version, sealed) values "
                        "($1, $2, $3) on conflict (job_name, job_version) do update set sealed = "
                        "excluded.sealed, update_time = now()",
                        "ssx", name, version, sealed, len);
}

int secret_store_get_job(struct trk_pg *conn, const char *name, const char *version, void **ret,
                         size_t *ret_len, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select sealed from registry_jobsecret where job_name = $1 and "
                            "job_version = $2",
                            "ss", name, version);
    return code < 0 ? code : get_sealed(res, ret, ret_len, err);
}

int secret_store_delete_job(struct trk_pg *conn, const char *name, const char *version,
                            struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "delete from registry_jobsecret where job_name = $1 and job_version = $2",
                        "ss", name, version);
}
