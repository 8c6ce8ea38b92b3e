/*
 * subject.h - subjects, their tokens and their permissions: registry_authsubject,
 * registry_authtoken, registry_authresourcepermission.
 *
 * Results hang on `mem`. Whatever changes a token or a permission writes the event that makes
 * gateways forget their decisions; call these inside a transaction.
 */
#ifndef LIFECYCLE_STORE_SUBJECT_H
#define LIFECYCLE_STORE_SUBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/pg/pg.h"
#include "lifecycle/domain/subject.h"

/* Whose token is this text? 0 and the subject (is_active false for a user who was deactivated), or
 * TRK_UNAUTHENTICATED: unknown, revoked, expired. `claims` stay zeroed. */
int subject_store_by_token(struct trk_pg *conn, void *mem, const char *token, struct subject **ret,
                           struct trk_err *err) TRK_MUST_CHECK;
/* A subject as of now, with all permissions (a deployment checks again before it takes effect).
 * TRK_NOT_FOUND. */
int subject_store_get(struct trk_pg *conn, void *mem, const char *subject_id, struct subject **ret,
                      struct trk_err *err) TRK_MUST_CHECK;

/* All subjects of one type. */
struct subject_name {
    const char *id, *name; /* as their tokens call them: user name, ESC id, family name */
};
int subject_store_list(struct trk_pg *conn, void *mem, enum trk_subject_type type,
                       struct subject_name **ret, size_t *ret_count,
                       struct trk_err *err) TRK_MUST_CHECK;
/* The subject of what `owner_id` names (auth_user.id as text, ESC id, family id); made when
 * missing. */
int subject_store_ensure(struct trk_pg *conn, void *mem, enum trk_subject_type type,
                         const char *owner_id, const char **ret_id,
                         struct trk_err *err) TRK_MUST_CHECK;

struct token_row {
    const char *id, *token;
    int64_t expiry_time, last_use_time; /* Unix seconds; 0: none */
    bool is_active, is_session;
};
/* Stores a token: its text, expiry_time and is_session count. */
int token_store_add(struct trk_pg *conn, const char *subject_id, const struct token_row *token,
                    struct trk_err *err) TRK_MUST_CHECK;
/* For one session more: those that have ended go, and the oldest of too many. */
int session_store_make_room(struct trk_pg *conn, const char *subject_id,
                            struct trk_err *err) TRK_MUST_CHECK;
/* That session, or all of the subject's (NULL). Other tokens stay. */
int session_store_end(struct trk_pg *conn, const char *subject_id, const char *token_id,
                      struct trk_err *err) TRK_MUST_CHECK;
/* Stores a given text (the dev profile's) unless the subject has it. */
int token_store_put(struct trk_pg *conn, const char *subject_id, const char *token,
                    struct trk_err *err) TRK_MUST_CHECK;
int token_store_list(struct trk_pg *conn, void *mem, const char *subject_id, struct token_row **ret,
                     size_t *ret_count, struct trk_err *err) TRK_MUST_CHECK;
/* The token that stays valid longest, sessions apart; TRK_NOT_FOUND when none is valid now. */
int token_store_current(struct trk_pg *conn, void *mem, const char *subject_id,
                        const char **ret_token, struct trk_err *err) TRK_MUST_CHECK;
/* TRK_NOT_FOUND when the subject has no such token. */
int token_store_revoke(struct trk_pg *conn, const char *subject_id, const char *token_id,
                       struct trk_err *err) TRK_MUST_CHECK;
int token_store_revoke_all(struct trk_pg *conn, const char *subject_id,
                           struct trk_err *err) TRK_MUST_CHECK;

/* Grants; once more is fine. family_id, job_id, endpoint: NULL means any. */
int permission_store_grant(struct trk_pg *conn, const char *subject_id, const char *scope,
                           const char *family_id, const char *job_id, const char *endpoint,
                           struct trk_err *err) TRK_MUST_CHECK;
/* Takes exactly that grant back: one on everything, or on another job, stays. TRK_NOT_FOUND when
 * there is none. */
int permission_store_revoke(struct trk_pg *conn, const char *subject_id, const char *scope,
                            const char *family_id, const char *job_id, const char *endpoint,
                            struct trk_err *err) TRK_MUST_CHECK;
struct permission_holder {
    enum trk_subject_type type;
    const char *name;
    const char *esc_id; /* NULL unless it is an ESC */
    struct permission permission;
};
/* Who may do anything on a family: grants on it, on a job of it, and on everything. */
int permission_store_holders(struct trk_pg *conn, void *mem, const char *family_id,
                             struct permission_holder **ret, size_t *ret_count,
                             struct trk_err *err) TRK_MUST_CHECK;
/* What the first deployer of a job gets on it: read, call, deploy, delete. */
int permission_store_grant_deployer(struct trk_pg *conn, const char *subject_id, const char *job_id,
                                    struct trk_err *err) TRK_MUST_CHECK;

#endif
