#include "lifecycle/store/job.h"

#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/version.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"
#include "lifecycle/store/rows.h"

#define JOB_COLUMNS                                                                                \
    "j.id, j.family_id, j.name, j.version, j.status, extract(epoch from j.create_time)::bigint "   \
    "as create_time, extract(epoch from j.update_time)::bigint as update_time, extract(epoch "     \
    "from j.last_call_time)::bigint as last_call_time, j.infrastructure_target, " JOB_ADDRESSES    \
    ", j.job_type_version, j.generation_id, j.image_name, "                                        \
    "j.image_digest, j.source_digest, j.spec_digest, j.manifest, j.manifest_json, j.error, "       \
    "j.notice, j.image_tag, j.deployed_by, j.infrastructure_stats"

/* mem NULL: borrowed from the result. */
static const char *text(void *mem, const struct trk_pg_result *res, int row, const char *column)
{
    return mem != NULL ? row_text(mem, res, row, column) : trk_pg_text(res, row, column);
}

static void fill(void *mem, const struct trk_pg_result *res, int row, struct job *job)
{
    *job = (struct job){
        .id = text(mem, res, row, "id"),
        .family_id = text(mem, res, row, "family_id"),
        .name = text(mem, res, row, "name"),
        .version = text(mem, res, row, "version"),
        .status = text(mem, res, row, "status"),
        .create_time = trk_pg_int(res, row, "create_time"),
        .update_time = trk_pg_int(res, row, "update_time"),
        .last_call_time = trk_pg_int(res, row, "last_call_time"),
        .infrastructure_target = text(mem, res, row, "infrastructure_target"),
        .addresses = text(mem, res, row, "addresses"),
        .job_type_version = text(mem, res, row, "job_type_version"),
        .generation_id = text(mem, res, row, "generation_id"),
        .image_name = text(mem, res, row, "image_name"),
        .image_digest = text(mem, res, row, "image_digest"),
        .source_digest = text(mem, res, row, "source_digest"),
        .spec_digest = text(mem, res, row, "spec_digest"),
        .manifest = text(mem, res, row, "manifest"),
        .manifest_json = text(mem, res, row, "manifest_json"),
        .error = text(mem, res, row, "error"),
        .notice = text(mem, res, row, "notice"),
        .image_tag = text(mem, res, row, "image_tag"),
        .deployed_by = text(mem, res, row, "deployed_by"),
        .infrastructure_stats = text(mem, res, row, "infrastructure_stats"),
    };
}

int job_store_get(struct trk_pg *conn, void *mem, const char *name, const char *version,
                  struct job **ret, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select " JOB_COLUMNS
                            " from registry_job j where j.name = $1 and j.version = $2",
                            "ss", name, version);
    if (code < 0) {
        return code;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no job named %s in version %s", name, version);
    }
    *ret = row_array(mem, struct job, 1);
    fill(*ret, res, 0, *ret);
    return 0;
}

int job_store_page(struct trk_pg *conn, const char *after_name, const char *after_version,
                   int64_t limit, void (*see)(void *ctx, const struct job *job), void *ctx,
                   size_t *ret_count, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select " JOB_COLUMNS " from registry_job j where (j.name, j.version) "
                            "> ($1, $2) order by j.name, j.version limit $3",
                            "ssi", after_name, after_version, limit);
    if (code < 0) {
        return code;
    }
    int count = trk_pg_rows(res);
    for (int row = 0; row < count; row++) {
        struct job job;
        fill(NULL, res, row, &job);
        see(ctx, &job);
    }
    *ret_count = (size_t)count;
    return 0;
}

int job_store_resolve_version(struct trk_pg *conn, void *mem, const char *name, const char *wanted,
                              const char **ret_version, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select version, status from registry_job where name = $1", "s", name);
    if (code < 0) {
        return code;
    }
    int count = trk_pg_rows(res);
    struct trk_version_candidate *list = row_array(mem, struct trk_version_candidate, count);
    for (int row = 0; row < count; row++) {
        list[row].version = trk_pg_text(res, row, "version");
        list[row].status = trk_pg_text(res, row, "status");
    }
    size_t found;
    bool ok = trk_version_pick(wanted, list, (size_t)count, &found);
    if (ok) {
        *ret_version = row_text(mem, res, (int)found, "version");
    }
    talloc_free(list);
    if (ok) {
        return 0;
    }
    return count == 0 ? trk_err_set(err, TRK_NOT_FOUND, "no job named %s", name)
                      : trk_err_set(err, TRK_NOT_FOUND,
                                    "no job named %s in version %s (%d deployed, none of them live "
                                    "and matching)",
                                    name, wanted, count);
}

int job_store_resolve(struct trk_pg *conn, void *mem, const char *name, const char *version,
                      struct job **ret, struct trk_err *err)
{
    if (trk_version_is_alias(version)) {
        int code = job_store_resolve_version(conn, mem, name, version, &version, err);
        if (code < 0) {
            return code;
        }
    }
    return job_store_get(conn, mem, name, version, ret, err);
}

/* What is shown of a manifest; NULL when it cannot be read. Returns owned. */
static char *manifest_json(const char *yaml)
{
    json_auto_t *value = NULL;
    if (yaml == NULL || trk_yaml_parse(yaml, strlen(yaml), "manifest", &value, NULL) < 0 ||
        !json_is_object(value)) {
        return NULL;
    }
    json_auto_t *full = trk_manifest_full(value);
    return trk_json_text(full);
}

int job_store_complete(struct trk_pg *conn, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select id, manifest from registry_job where manifest_json is null and "
                            "manifest is not null",
                            "");
    int count = code == 0 ? trk_pg_rows(res) : 0;
    for (int row = 0; row < count && code == 0; row++) {
        const char *manifest = trk_pg_text(res, row, "manifest");
        trk_autofree char *shown = manifest_json(manifest);
        code = trk_pg_query(conn, NULL, err,
                            "update registry_job set manifest_json = $2 where id = $1 and manifest "
                            "= $3",
                            "sss", trk_pg_text(res, row, "id"), shown, manifest);
    }
    return code;
}

int job_store_save(struct trk_pg *conn, const struct job *job, struct trk_err *err)
{
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    trk_autofree char *shown = manifest_json(job->manifest);
    return trk_pg_query(
        conn, NULL, err,
        "insert into registry_job (id, family_id, name, version, status, update_time, manifest, "
        "error, notice, image_tag, deployed_by, last_call_time, infrastructure_target, "
        "job_type_version, infrastructure_stats, generation_id, image_name, image_digest, "
        "source_digest, spec_digest, manifest_json) values ($1, $2, $3, $4, $5, case when "
        "$6::bigint = 0 then now() else to_timestamp($6::bigint) end, $7, $8, $9, $10, $11, case "
        "when $12::bigint = 0 then null else to_timestamp($12::bigint) end, $13, coalesce($14, "
        "''), coalesce($15, '{}'), $16, $17, $18, $19, $20, $21) on conflict (name, version) do "
        "update set status = excluded.status, update_time = excluded.update_time, manifest = "
        "excluded.manifest, manifest_json = excluded.manifest_json, error = excluded.error, notice "
        "= excluded.notice, image_tag = excluded.image_tag, deployed_by = excluded.deployed_by, "
        "last_call_time = coalesce(excluded.last_call_time, registry_job.last_call_time), "
        "infrastructure_target = excluded.infrastructure_target, job_type_version = "
        "excluded.job_type_version, infrastructure_stats = excluded.infrastructure_stats, "
        "generation_id = excluded.generation_id, image_name = excluded.image_name, image_digest = "
        "excluded.image_digest, source_digest = excluded.source_digest, spec_digest = "
        "excluded.spec_digest",
        "sssssisssssisssssssss", job->id != NULL ? job->id : id, job->family_id, job->name,
        job->version, job->status, job->update_time, job->manifest, job->error, job->notice,
        job->image_tag, job->deployed_by, job->last_call_time, job->infrastructure_target,
        job->job_type_version, job->infrastructure_stats, job->generation_id, job->image_name,
        job->image_digest, job->source_digest, job->spec_digest, shown);
}

int job_store_set_status(struct trk_pg *conn, const char *name, const char *version,
                         const char *status, const char *error, const char *reason,
                         struct trk_err *err)
{
    int code = trk_pg_query(
        conn, NULL, err,
        "with old as (select id, status from registry_job where name = $1 and version = $2 for "
        "update), changed as (update registry_job j set status = $3, error = $4 from old where "
        "j.id = old.id) insert into registry_jobstatusevent (job_name, job_version, from_status, "
        "to_status, reason) select $1, $2, old.status, $3, $5 from old",
        "sssss", name, version, status, error, reason);
    if (code < 0) {
        return code;
    }
    if (trk_pg_affected(conn) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no job named %s in version %s", name, version);
    }
    return 0;
}

int job_store_set_error(struct trk_pg *conn, const char *name, const char *version,
                        const char *error, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "update registry_job set error = $3 where name = $1 and version = $2 and "
                        "error is distinct from $3",
                        "sss", name, version, error);
}

int job_store_delete(struct trk_pg *conn, const char *name, const char *version, bool to_trash,
                     struct trk_err *err)
{
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    return trk_pg_query(
        conn, NULL, err,
        "with gone as (delete from registry_job where name = $1 and version = $2 returning *), "
        "kept as (insert into registry_trashjob (id, name, version, status, create_time, "
        "update_time, delete_time, manifest, internal_name, error, image_tag, deployed_by, "
        "last_call_time, infrastructure_target, age_days) select $3, name, version, status, "
        "create_time, update_time, now(), manifest, (select address from registry_jobreplica r "
        "where r.generation_id = gone.generation_id and replica = 0), error, image_tag, "
        "deployed_by, last_call_time, infrastructure_target, extract(epoch from now() - "
        "create_time) / 86400 from gone where $4) select 1 from gone",
        "sssb", name, version, id, to_trash);
}

int job_store_is_in_trash(struct trk_pg *conn, const char *name, const char *version, bool *ret,
                          struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select exists (select 1 from registry_trashjob where name = $1 and "
                            "version = $2) as found",
                            "ss", name, version);
    if (code == 0) {
        *ret = trk_pg_bool(res, 0, "found");
    }
    return code;
}

/* -- for the supervisor -- */

int job_store_count(struct trk_pg *conn, const char *const *statuses, size_t count,
                    int64_t *ret_counts, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(
        conn, &res, err, "select status, count(*) as count from registry_job group by status", "");
    for (size_t i = 0; code == 0 && i < count; i++) {
        ret_counts[i] = 0;
        for (int row = 0; row < trk_pg_rows(res); row++) {
            if (strcmp(trk_pg_text(res, row, "status"), statuses[i]) == 0) {
                ret_counts[i] = trk_pg_int(res, row, "count");
            }
        }
    }
    return code;
}
