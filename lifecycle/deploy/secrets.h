/*
 * secrets.h - a job's secrets as one JSON object {git_credentials, secret_build_env,
 * secret_runtime_env}, sealed with the secret key for the row it lies in. Any thread.
 */
#ifndef LIFECYCLE_DEPLOY_SECRETS_H
#define LIFECYCLE_DEPLOY_SECRETS_H

#include <jansson.h>

#include "libtrack/pg/pg.h"

/* From the API's shapes; each may be NULL. Returns owned, NULL when there is no secret at all. */
json_t *secrets_make(const json_t *git_credentials, const json_t *secret_vars);
/* secrets NULL: nothing is stored. */
int secrets_save_deployment(struct trk_pg *conn, const char *secret_key, const char *deployment_id,
                            const json_t *secrets, struct trk_err *err) TRK_MUST_CHECK;
/* secrets NULL: those of before are forgotten. */
int secrets_save_job(struct trk_pg *conn, const char *secret_key, const char *name,
                     const char *version, const json_t *secrets,
                     struct trk_err *err) TRK_MUST_CHECK;
/* *ret owned; NULL when there are none. */
int secrets_load_deployment(struct trk_pg *conn, const char *secret_key, const char *deployment_id,
                            json_t **ret, struct trk_err *err) TRK_MUST_CHECK;
int secrets_load_job(struct trk_pg *conn, const char *secret_key, const char *name,
                     const char *version, json_t **ret, struct trk_err *err) TRK_MUST_CHECK;

#endif
