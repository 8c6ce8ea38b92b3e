/*
 * issue.h - who gets a token: signs it with AUTH_KEY and has it stored. The one place of lifecycle
 * that signs; call these inside a transaction. Results hang on `mem`.
 *
 *     const char *token;
 *     if (issue_token(conn, mem, subject_id, TRK_SUBJECT_ESC, esc_id, 0, auth_key, &token, err) <
 * 0)
 */
#ifndef LIFECYCLE_AUTH_ISSUE_H
#define LIFECYCLE_AUTH_ISSUE_H

#include <stdint.h>

#include "libtrack/auth/jwt.h"
#include "libtrack/pg/pg.h"

/* `name`: what the claims call the subject (user name, ESC id, family name). expiry_time: Unix
 * seconds; 0: never. */
int issue_token(struct trk_pg *conn, void *mem, const char *subject_id, enum trk_subject_type type,
                const char *name, int64_t expiry_time, const char *auth_key, const char **ret_token,
                struct trk_err *err) TRK_MUST_CHECK;
/* The token of a login with a password: it ends with the session, and after lifetime_s. */
int issue_session(struct trk_pg *conn, void *mem, const char *subject_id, const char *username,
                  int64_t lifetime_s, const char *auth_key, const char **ret_token,
                  struct trk_err *err) TRK_MUST_CHECK;
/* An ESC with its subject and a token; TRK_CONFLICT when the id is taken. */
int issue_esc(struct trk_pg *conn, void *mem, const char *id, const char *name,
              const char *auth_key, struct trk_err *err) TRK_MUST_CHECK;
/* The family with its subject and a token, made unless it is there. */
int issue_family(struct trk_pg *conn, void *mem, const char *name, const char *auth_key,
                 const char **ret_id, struct trk_err *err) TRK_MUST_CHECK;
/* A service's own token, with full access; `sign`: trk_jwt_sign for lifecycle's doors,
 * trk_jwt_sign_service for image_builder's. *ret owned. */
int issue_internal(const char *subject,
                   int (*sign)(const struct trk_token *token, const char *auth_key, char **ret,
                               struct trk_err *err),
                   const char *auth_key, char **ret, struct trk_err *err) TRK_MUST_CHECK;

#endif
