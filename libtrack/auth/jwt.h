/*
 * jwt.h - Racetrack's tokens: JWT, payload seed, subject, subject_type, scopes. Any thread.
 *
 * Those of users, ESCs, job families and services are HS256 with AUTH_KEY, which lifecycle alone
 * holds. What lifecycle shows the image store is ES256: who holds the public key can check it, not
 * make it.
 *
 * Signed and verified by libjwt, which jwt.c loads when the first token needs it; what libjwt would
 * let through is refused here. Verification requires alg to be exactly the one asked for, refuses
 * `crit`, extra payload keys, duplicate keys, tokens over 4 KiB and keys under 32 bytes; header and
 * payload are parsed strictly and with a depth limit before libjwt sees them, and nothing of them
 * is believed or returned unless the signature matches (compared in constant time). Expiry and
 * revocation live in the database. libjwt sorts a payload's keys: the original's tokens have
 * another text and the same meaning. Error texts never contain the token.
 */
#ifndef LIBTRACK_JWT_H
#define LIBTRACK_JWT_H

#include <stdbool.h>

#include "libtrack/base/err.h"

#define TRK_TOKEN_MAX    4096
#define TRK_DEV_AUTH_KEY "QaPU2UW8r7KXfRtLJVCKahCK93TKhVB5" /* the public dev profile's key */

enum trk_subject_type {
    TRK_SUBJECT_USER,
    TRK_SUBJECT_ESC,
    TRK_SUBJECT_JOB_FAMILY,
    TRK_SUBJECT_INTERNAL
};
const char *
trk_subject_type_name(enum trk_subject_type type); /* "user" | "esc" | "job_family" | "internal" */

struct trk_token {
    char seed[64];
    char subject[512];
    enum trk_subject_type type; /* "fatman_family" reads as job_family */
    char scopes[8][32];         /* internal tokens only */
    unsigned scope_count;
};
/* full_access has every scope; no scopes have none (the original lets them have all). */
bool trk_token_has_scope(const struct trk_token *token, const char *scope);

/* TRK_UNAUTHENTICATED with a text for the caller, or 0. */
int trk_jwt_verify(const char *text, const char *auth_key, struct trk_token *ret,
                   struct trk_err *err) TRK_MUST_CHECK;
/* Fresh seed unless token->seed is set. *ret owned. */
int trk_jwt_sign(const struct trk_token *token, const char *auth_key, char **ret,
                 struct trk_err *err) TRK_MUST_CHECK;
/* The same with the key pair of service_key.h. */
int trk_jwt_verify_service(const char *text, const char *public_key, struct trk_token *ret,
                           struct trk_err *err) TRK_MUST_CHECK;
int trk_jwt_sign_service(const struct trk_token *token, const char *auth_key, char **ret,
                         struct trk_err *err) TRK_MUST_CHECK;

#endif
