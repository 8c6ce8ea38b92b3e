#include "lifecycle/store/user.h"

#include "lifecycle/store/rows.h"
#include "lifecycle/store/subject.h"

#define COLUMNS                                                                                    \
    "u.id::text as id, u.username, u.password, u.is_active, u.is_staff, s.id as subject_id"

static void fill(void *mem, const struct trk_pg_result *res, int row, struct user *user)
{
    *user = (struct user){
        .id = row_text(mem, res, row, "id"),
        .username = row_text(mem, res, row, "username"),
        .password = row_text(mem, res, row, "password"),
        .subject_id = row_text(mem, res, row, "subject_id"),
        .is_active = trk_pg_bool(res, row, "is_active"),
        .is_staff = trk_pg_bool(res, row, "is_staff"),
    };
}

int user_store_get(struct trk_pg *conn, void *mem, const char *username, struct user **ret,
                   struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "select " COLUMNS " from auth_user u left join registry_authsubject s "
                          "on s.user_id = u.id where u.username = $1",
                          "s", username);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no user named %s", username);
    }
    struct user *user = row_array(mem, struct user, 1);
    fill(user, res, 0, user);
    if (user->subject_id == NULL) {
        rc = subject_store_ensure(conn, user, TRK_SUBJECT_USER, user->id, &user->subject_id, err);
        if (rc < 0) {
            return rc;
        }
    }
    *ret = user;
    return 0;
}

int user_store_set_password(struct trk_pg *conn, const char *username, const char *hash,
                            struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err, "update auth_user set password = $2 where username = $1",
                        "ss", username, hash);
}

int user_store_note_login(struct trk_pg *conn, const char *username, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "update auth_user set last_login = now() where username = $1", "s",
                        username);
}

int user_store_lock(struct trk_pg *conn, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err, "lock table auth_user in share row exclusive mode", "");
}

int user_store_is_empty(struct trk_pg *conn, bool *ret, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err, "select exists (select 1 from auth_user) as found", "");
    if (rc == 0) {
        *ret = !trk_pg_bool(res, 0, "found");
    }
    return rc;
}

int user_store_create(struct trk_pg *conn, void *mem, const char *username, const char *hash,
                      bool is_active, bool is_staff, const char **ret_subject_id,
                      struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "insert into auth_user (username, password, is_active, is_staff, "
                          "is_superuser) values ($1, $2, $3, $4, $4) on conflict do nothing "
                          "returning id::text as id",
                          "ssbb", username, hash, is_active, is_staff);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_CONFLICT, "there is a user named %s already", username);
    }
    return subject_store_ensure(conn, mem, TRK_SUBJECT_USER, trk_pg_text(res, 0, "id"),
                                ret_subject_id, err);
}
