/*
 * user.h - people with a password: auth_user. Structs hang on `mem`.
 */
#ifndef LIFECYCLE_STORE_USER_H
#define LIFECYCLE_STORE_USER_H

#include <stdbool.h>

#include "libtrack/pg/pg.h"

struct user {
    const char *id, *username, *password; /* password: the hash */
    const char *subject_id;
    bool is_active, is_staff;
};
/* TRK_NOT_FOUND. */
int user_store_get(struct trk_pg *conn, void *mem, const char *username, struct user **ret,
                   struct trk_err *err) TRK_MUST_CHECK;
int user_store_set_password(struct trk_pg *conn, const char *username, const char *hash,
                            struct trk_err *err) TRK_MUST_CHECK;
int user_store_note_login(struct trk_pg *conn, const char *username,
                          struct trk_err *err) TRK_MUST_CHECK;
/* Until the transaction ends nobody else makes users. */
int user_store_lock(struct trk_pg *conn, struct trk_err *err) TRK_MUST_CHECK;
/* Is there any user yet? */
int user_store_is_empty(struct trk_pg *conn, bool *ret, struct trk_err *err) TRK_MUST_CHECK;
/* A user with its subject; TRK_CONFLICT when the name is taken. *ret_subject_id hangs on mem. */
int user_store_create(struct trk_pg *conn, void *mem, const char *username, const char *hash,
                      bool is_active, bool is_staff, const char **ret_subject_id,
                      struct trk_err *err) TRK_MUST_CHECK;

#endif
