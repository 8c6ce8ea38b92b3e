#include "lifecycle/deploy/secrets.h"

#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/store/generation.h"

static void set_object(json_t *secrets, const char *key, const json_t *value)
{
    if (json_is_object(value) && json_object_size(value) > 0) {
        (void)json_object_set_new(secrets, key, json_deep_copy(value));
    }
}

json_t *secrets_make(const json_t *git_credentials, const json_t *secret_vars)
{
    json_t *secrets = json_object();
    set_object(secrets, "git_credentials", git_credentials);
    set_object(secrets, "secret_build_env", json_object_get(secret_vars, "build_env"));
    set_object(secrets, "secret_runtime_env", json_object_get(secret_vars, "runtime_env"));
    if (json_object_size(secrets) == 0) {
        json_decref(secrets);
        return NULL;
    }
    return secrets;
}

static char *job_identity(const char *name, const char *version)
{
    return trk_xasprintf("job %s %s", name, version);
}

static void wipe(char *text)
{
    explicit_bzero(text, strlen(text));
}

static int seal(const char *secret_key, const char *identity, const json_t *secrets, void **ret,
                size_t *ret_len, struct trk_err *err)
{
    trk_autofree char *text = trk_json_text(secrets);
    int rc = trk_seal(secret_key, identity, text, strlen(text), ret, ret_len, err);
    wipe(text);
    return rc < 0 ? trk_err_wrap(err, "sealing secrets") : 0;
}

static int unseal(const char *secret_key, const char *identity, const void *sealed, size_t len,
                  json_t **ret, struct trk_err *err)
{
    if (sealed == NULL) {
        *ret = NULL;
        return 0;
    }
    trk_autofree void *text = NULL;
    size_t text_len;
    int rc = trk_unseal(secret_key, identity, sealed, len, &text, &text_len, err);
    if (rc == 0) {
        rc = trk_json_parse(text, text_len, ret, err);
        explicit_bzero(text, text_len);
    }
    return rc < 0 ? trk_err_wrap(err, "opening secrets (was SECRET_KEY changed?)") : 0;
}

int secrets_save_deployment(struct trk_pg *conn, const char *secret_key, const char *deployment_id,
                            const json_t *secrets, struct trk_err *err)
{
    trk_autofree void *sealed = NULL;
    size_t len;
    if (secrets == NULL) {
        return 0;
    }
    int rc = seal(secret_key, deployment_id, secrets, &sealed, &len, err);
    return rc < 0 ? rc : secret_store_put_deployment(conn, deployment_id, sealed, len, err);
}

int secrets_save_job(struct trk_pg *conn, const char *secret_key, const char *name,
                     const char *version, const json_t *secrets, struct trk_err *err)
{
    trk_autofree char *identity = job_identity(name, version);
    trk_autofree void *sealed = NULL;
    size_t len;
    if (secrets == NULL) {
        return secret_store_delete_job(conn, name, version, err);
    }
    int rc = seal(secret_key, identity, secrets, &sealed, &len, err);
    return rc < 0 ? rc : secret_store_put_job(conn, name, version, sealed, len, err);
}

int secrets_load_deployment(struct trk_pg *conn, const char *secret_key, const char *deployment_id,
                            json_t **ret, struct trk_err *err)
{
    trk_autofree void *sealed = NULL;
    size_t len;
    int rc = secret_store_get_deployment(conn, deployment_id, &sealed, &len, err);
    return rc < 0 ? rc : unseal(secret_key, deployment_id, sealed, len, ret, err);
}

int secrets_load_job(struct trk_pg *conn, const char *secret_key, const char *name,
                     const char *version, json_t **ret, struct trk_err *err)
{
    trk_autofree char *identity = job_identity(name, version);
    trk_autofree void *sealed = NULL;
    size_t len;
    int rc = secret_store_get_job(conn, name, version, &sealed, &len, err);
    return rc < 0 ? rc : unseal(secret_key, identity, sealed, len, ret, err);
}
