#include "lifecycle/store/subject.h"

#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/rows.h"

/* Names come by sub-queries: a join of all eight tables takes the planner 2.5 ms, this 0.2 ms. */
#define SUBJECT_COLUMNS                                                                            \
    "s.id as subject_id, u.username, u.is_active, u.is_staff, s.esc_id, (select name from "        \
    "registry_esc e where e.id = s.esc_id) as esc_name, (select name from registry_jobfamily f "   \
    "where f.id = s.job_family_id) as family_name, " PERMISSION_COLUMNS
#define PERMISSION_COLUMNS                                                                         \
    "p.scope, (select name from registry_jobfamily f where f.id = p.job_family_id) as on_family, " \
    "(select name from registry_job j where j.id = p.job_id) as on_job, (select version from "     \
    "registry_job j where j.id = p.job_id) as on_version, p.endpoint"
#define SUBJECT_JOINS                                                                              \
    " left join auth_user u on u.id = s.user_id left join registry_authresourcepermission p on "   \
    "p.auth_subject_id = s.id "

static void fill_permissions(struct subject *subject, const struct trk_pg_result *res)
{
    int count = trk_pg_rows(res);
    struct permission *list = row_array(subject, struct permission, count);
    unsigned used = 0;
    for (int row = 0; row < count; row++) {
        if (trk_pg_is_null(res, row, "scope")) {
            continue; /* the outer join's row of a subject without any */
        }
        list[used++] = (struct permission){
            .scope = row_text(list, res, row, "scope"),
            .family_name = row_text(list, res, row, "on_family"),
            .job_name = row_text(list, res, row, "on_job"),
            .job_version = row_text(list, res, row, "on_version"),
            .endpoint = row_text(list, res, row, "endpoint"),
        };
    }
    subject->permissions = list;
    subject->permission_count = used;
}

static struct subject *new_subject(void *mem, const struct trk_pg_result *res)
{
    struct subject *subject = row_array(mem, struct subject, 1);
    subject->id = row_text(subject, res, 0, "subject_id");
    subject->is_active = true;
    if (!trk_pg_is_null(res, 0, "username")) {
        subject->type = TRK_SUBJECT_USER;
        subject->name = row_text(subject, res, 0, "username");
        subject->is_active = trk_pg_bool(res, 0, "is_active");
        subject->is_staff = trk_pg_bool(res, 0, "is_staff");
    } else if (!trk_pg_is_null(res, 0, "esc_id")) {
        subject->type = TRK_SUBJECT_ESC;
        subject->name = row_text(subject, res, 0, "esc_name");
    } else {
        subject->type = TRK_SUBJECT_JOB_FAMILY;
        subject->name = row_text(subject, res, 0, "family_name");
    }
    fill_permissions(subject, res);
    return subject;
}

static int note_use(struct trk_pg *conn, const char *token_id, struct trk_err *err)
{
    /* Day granularity: one write a day and token. */
    return trk_pg_query(conn, NULL, err,
                        "update registry_authtoken set last_use_time = date_trunc('day', now()) "
                        "where id = $1",
                        "s", token_id);
}

int subject_of_rows(struct trk_pg *conn, void *mem, const struct trk_pg_result *res,
                    struct subject **ret, struct trk_err *err)
{
    if (trk_pg_rows(res) == 0 || trk_pg_is_null(res, 0, "token_id")) {
        return trk_err_set(err, TRK_UNAUTHENTICATED, "wrong credentials: token is unknown");
    }
    if (!trk_pg_bool(res, 0, "active")) {
        return trk_err_set(err, TRK_UNAUTHENTICATED, "given access token has been revoked");
    }
    if (trk_pg_bool(res, 0, "expired")) {
        return trk_err_set(err, TRK_UNAUTHENTICATED, "given access token has expired");
    }
    struct subject *subject = new_subject(mem, res);
    subject->token_id = row_text(subject, res, 0, "token_id");
    subject->is_session = trk_pg_bool(res, 0, "is_session");
    subject->valid_for_ms = trk_pg_int(res, 0, "valid_for_ms");
    if (trk_pg_bool(res, 0, "not_used_today")) {
        int rc = note_use(conn, subject->token_id, err);
        if (rc < 0) {
            return rc;
        }
    }
    *ret = subject;
    return 0;
}

int subject_store_by_token(struct trk_pg *conn, void *mem, const char *token, struct subject **ret,
                           struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "select " TOKEN_COLUMNS ", " PERMISSION_COLUMNS
                          " from registry_authtoken t join registry_authsubject s on s.id = "
                          "t.auth_subject_id" SUBJECT_JOINS
                          "where t.token = $1 order by t.active desc, expired",
                          "s", token);
    return rc < 0 ? rc : subject_of_rows(conn, mem, res, ret, err);
}

int subject_store_get(struct trk_pg *conn, void *mem, const char *subject_id, struct subject **ret,
                      struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "select " SUBJECT_COLUMNS " from registry_authsubject s" SUBJECT_JOINS
                          "where s.id = $1",
                          "s", subject_id);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "who asked for this does not exist any more");
    }
    *ret = new_subject(mem, res);
    return 0;
}

int subject_store_list(struct trk_pg *conn, void *mem, enum trk_subject_type type,
                       struct subject_name **ret, size_t *ret_count, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(
        conn, &res, err,
        "select * from (select s.id, case $1 when 'user' then (select username from auth_user u "
        "where u.id = s.user_id) when 'esc' then s.esc_id else (select name from "
        "registry_jobfamily f where f.id = s.job_family_id) end as name from registry_authsubject "
        "s) all_subjects where name is not null order by name",
        "s", trk_subject_type_name(type));
    if (rc < 0) {
        return rc;
    }
    int count = trk_pg_rows(res);
    struct subject_name *list = row_array(mem, struct subject_name, count);
    for (int row = 0; row < count; row++) {
        list[row] = (struct subject_name){.id = row_text(list, res, row, "id"),
                                          .name = row_text(list, res, row, "name")};
    }
    *ret = list;
    *ret_count = (size_t)count;
    return 0;
}

static const char *owner_column(enum trk_subject_type type)
{
    switch (type) {
    case TRK_SUBJECT_USER:
        return "user_id";
    case TRK_SUBJECT_ESC:
        return "esc_id";
    case TRK_SUBJECT_JOB_FAMILY:
        return "job_family_id";
    case TRK_SUBJECT_INTERNAL:
        break;
    }
    trk_die("internal subjects are not in the database");
}

int subject_store_ensure(struct trk_pg *conn, void *mem, enum trk_subject_type type,
                         const char *owner_id, const char **ret_id, struct trk_err *err)
{
    const char *column = owner_column(type);
    const char *cast = type == TRK_SUBJECT_USER ? "::integer" : "";
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    char *insert = talloc_asprintf(mem,
                                   "insert into registry_authsubject (id, %s) values ($1, $2%s) on "
                                   "conflict do nothing",
                                   column, cast);
    char *select = talloc_asprintf(mem, "select id from registry_authsubject where %s = $1%s",
                                   column, cast);
    int rc = trk_pg_query(conn, NULL, err, insert, "ss", id, owner_id);
    if (rc < 0) {
        return rc;
    }
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    rc = trk_pg_query(conn, &res, err, select, "s", owner_id);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no such subject");
    }
    *ret_id = row_text(mem, res, 0, "id");
    return 0;
}

int permission_store_grant(struct trk_pg *conn, const char *subject_id, const char *scope,
                           const char *family_id, const char *job_id, const char *endpoint,
                           struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "insert into registry_authresourcepermission (auth_subject_id, scope, "
                        "job_family_id, job_id, endpoint) values ($1, $2, $3, $4, $5) on "
                        "conflict do nothing",
                        "sssss", subject_id, scope, family_id, job_id, endpoint);
}

int permission_store_revoke(struct trk_pg *conn, const char *subject_id, const char *scope,
                            const char *family_id, const char *job_id, const char *endpoint,
                            struct trk_err *err)
{
    int rc = trk_pg_query(conn, NULL, err,
                          "delete from registry_authresourcepermission where auth_subject_id = "
                          "$1 and scope = $2 and job_family_id is not distinct from $3 and "
                          "job_id is not distinct from $4 and endpoint is not distinct from $5",
                          "sssss", subject_id, scope, family_id, job_id, endpoint);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_affected(conn) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "the scope %s is not granted", scope);
    }
    return 0;
}

/* The subject's name as in new_subject, and of whom it is a name. */
static void fill_holder(void *mem, const struct trk_pg_result *res, int row,
                        struct permission_holder *holder)
{
    static const struct {
        const char *column;
        enum trk_subject_type type;
    } names[] = {
        {"username", TRK_SUBJECT_USER},
        {"esc_name", TRK_SUBJECT_ESC},
        {"family_name", TRK_SUBJECT_JOB_FAMILY},
    };
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        if (!trk_pg_is_null(res, row, names[i].column)) {
            holder->type = names[i].type;
            holder->name = row_text(mem, res, row, names[i].column);
        }
    }
    holder->esc_id = row_text(mem, res, row, "esc_id");
    holder->permission = (struct permission){
        .scope = row_text(mem, res, row, "scope"),
        .family_name = row_text(mem, res, row, "on_family"),
        .job_name = row_text(mem, res, row, "on_job"),
        .job_version = row_text(mem, res, row, "on_version"),
        .endpoint = row_text(mem, res, row, "endpoint"),
    };
}

int permission_store_holders(struct trk_pg *conn, void *mem, const char *family_id,
                             struct permission_holder **ret, size_t *ret_count, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "select " SUBJECT_COLUMNS " from registry_authsubject s" SUBJECT_JOINS
                          "where p.id is not null and (p.job_family_id is null or "
                          "p.job_family_id = $1) and (p.job_id is null or exists (select 1 from "
                          "registry_job x where x.id = p.job_id and x.family_id = $1)) order by "
                          "u.username, esc_name, family_name, p.scope, p.id",
                          "s", family_id);
    if (rc < 0) {
        return rc;
    }
    int count = trk_pg_rows(res);
    struct permission_holder *list = row_array(mem, struct permission_holder, count);
    for (int row = 0; row < count; row++) {
        fill_holder(list, res, row, &list[row]);
    }
    *ret = list;
    *ret_count = (size_t)count;
    return 0;
}

int permission_store_grant_deployer(struct trk_pg *conn, const char *subject_id, const char *job_id,
                                    struct trk_err *err)
{
    return trk_pg_query(
        conn, NULL, err,
        "insert into registry_authresourcepermission (auth_subject_id, scope, job_id) select $1, "
        "scope, $2 from unnest(array['" SCOPE_READ_JOB "', '" SCOPE_CALL_JOB "', '" SCOPE_DEPLOY_JOB
        "', '" SCOPE_DELETE_JOB "']) as scope on conflict do nothing",
        "ss", subject_id, job_id);
}
