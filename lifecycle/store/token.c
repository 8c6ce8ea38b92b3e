#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "lifecycle/store/rows.h"
#include "lifecycle/store/subject.h"

#define SESSIONS_MAX 50 /* of one user */

int token_store_add(struct trk_pg *conn, const char *subject_id, const struct token_row *token,
                    struct trk_err *err)
{
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    return trk_pg_query(conn, NULL, err,
                        "insert into registry_authtoken (id, auth_subject_id, token, expiry_time, "
                        "is_session) values ($1, $2, $3, case when $4::bigint = 0 then null else "
                        "to_timestamp($4::bigint) end, $5)",
                        "sssib", id, subject_id, token->token, token->expiry_time,
                        (int)token->is_session);
}

int session_store_make_room(struct trk_pg *conn, const char *subject_id, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "delete from registry_authtoken where auth_subject_id = $1 and "
                        "is_session and (not active or expiry_time <= now() or id in (select "
                        "id from registry_authtoken where auth_subject_id = $1 and is_session "
                        "order by expiry_time desc offset $2))",
                        "si", subject_id, (int64_t)SESSIONS_MAX - 1);
}

int session_store_end(struct trk_pg *conn, const char *subject_id, const char *token_id,
                      struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "delete from registry_authtoken where auth_subject_id = $1 and is_session "
                        "and ($2::text is null or id = $2)",
                        "ss", subject_id, token_id);
}

int token_store_put(struct trk_pg *conn, const char *subject_id, const char *token,
                    struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "select 1 from registry_authtoken where auth_subject_id = $1 and token "
                          "= $2",
                          "ss", subject_id, token);
    if (rc < 0 || trk_pg_rows(res) > 0) {
        return rc;
    }
    const struct token_row row = {.token = token};
    return token_store_add(conn, subject_id, &row, err);
}

int token_store_list(struct trk_pg *conn, void *mem, const char *subject_id, struct token_row **ret,
                     size_t *ret_count, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "select id, token, active, extract(epoch from expiry_time)::bigint as "
                          "expiry_time, extract(epoch from last_use_time)::bigint as "
                          "last_use_time from registry_authtoken where auth_subject_id = $1 "
                          "order by active desc, id",
                          "s", subject_id);
    if (rc < 0) {
        return rc;
    }
    int count = trk_pg_rows(res);
    struct token_row *tokens = row_array(mem, struct token_row, count);
    for (int row = 0; row < count; row++) {
        tokens[row] = (struct token_row){
            .id = row_text(tokens, res, row, "id"),
            .token = row_text(tokens, res, row, "token"),
            .expiry_time = trk_pg_int(res, row, "expiry_time"),
            .last_use_time = trk_pg_int(res, row, "last_use_time"),
            .is_active = trk_pg_bool(res, row, "active"),
        };
    }
    *ret = tokens;
    *ret_count = (size_t)count;
    return 0;
}

int token_store_current(struct trk_pg *conn, void *mem, const char *subject_id,
                        const char **ret_token, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(
        conn, &res, err,
        "select token from registry_authtoken where auth_subject_id = $1 and "
        "active and not is_session and (expiry_time is null or expiry_time > now()) order by "
        "expiry_time desc nulls first, id limit 1",
        "s", subject_id);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no valid token: all were revoked or have expired");
    }
    *ret_token = row_text(mem, res, 0, "token");
    return 0;
}

int token_store_revoke(struct trk_pg *conn, const char *subject_id, const char *token_id,
                       struct trk_err *err)
{
    int rc = trk_pg_query(conn, NULL, err,
                          "update registry_authtoken set active = false where auth_subject_id = "
                          "$1 and id = $2",
                          "ss", subject_id, token_id);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_affected(conn) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no token %s", token_id);
    }
    return 0;
}

int token_store_revoke_all(struct trk_pg *conn, const char *subject_id, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "update registry_authtoken set active = false where auth_subject_id = "
                        "$1 and active",
                        "s", subject_id);
}
