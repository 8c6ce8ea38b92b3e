#include "lifecycle/bootstrap.h"

#include <stdio.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/config/profile.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/lifecycle.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/subject.h"
#include "lifecycle/store/user.h"

#define PASSWORD_BYTES 16

struct admin {
    const struct lifecycle *lc;
    void *mem;
    char password[2 * PASSWORD_BYTES + 2];
    char hash[TRK_PASSWORD_HASH_SIZE];
    char *path; /* of the password file; NULL in the dev profile */
    bool was_made;
};

static int add_tokens(struct trk_pg *conn, const struct admin *admin, const char *subject_id,
                      struct trk_err *err)
{
    const char *token;
    if (admin->path != NULL || strcmp(admin->lc->auth_key, TRK_DEV_AUTH_KEY) != 0) {
        return issue_token(conn, admin->mem, subject_id, TRK_SUBJECT_USER, TRK_DEV_ADMIN_USER, 0,
                           admin->lc->auth_key, &token, err);
    }
    /* Both strings of the public token: of the early guide and of the original's last version. */
    int rc = token_store_put(conn, subject_id, TRK_DEV_ADMIN_TOKEN, err);
    return rc < 0 ? rc : token_store_put(conn, subject_id, TRK_DEV_ADMIN_TOKEN_EARLY, err);
}

static int make_admin(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct admin *admin = ctx;
    admin->was_made = false;
    /* Two services that start on a new database at once: one makes it. */
    int rc = user_store_lock(conn, err);
    bool empty = false;
    if (rc == 0) {
        rc = user_store_is_empty(conn, &empty, err);
    }
    if (rc < 0 || !empty) {
        return rc;
    }
    const char *subject_id;
    rc = user_store_create(conn, admin->mem, TRK_DEV_ADMIN_USER, admin->hash, true, true,
                           &subject_id, err);
    if (rc == 0) {
        rc = permission_store_grant(conn, subject_id, SCOPE_FULL_ACCESS, NULL, NULL, NULL, err);
    }
    if (rc == 0) {
        rc = add_tokens(conn, admin, subject_id, err);
    }
    /* Before commit: a password that nobody can read would lock everybody out. */
    if (rc == 0 && admin->path != NULL) {
        rc = trk_file_write(admin->path, admin->password, strlen(admin->password), 0600, err);
    }
    admin->was_made = rc == 0;
    return rc;
}

/* Has it users? What rows of older versions lack is filled on the way. */
static int look_at_database(const struct lifecycle *lc, bool *ret, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    bool empty;
    int rc = trk_pg_acquire(lc->pool, &conn, err);
    if (rc == 0) {
        rc = user_store_is_empty(conn, &empty, err);
    }
    if (rc == 0) {
        rc = job_store_complete(conn, err);
    }
    if (rc == 0) {
        *ret = !empty;
    }
    return rc;
}

int bootstrap_run(struct lifecycle *lc, struct trk_err *err)
{
    bool done = false;
    int rc = look_at_database(lc, &done, err);
    if (rc < 0 || done) {
        return rc;
    }
    struct admin admin = {.lc = lc, .mem = talloc_new(NULL)};
    if (trk_profile_is_dev(lc->config->profile)) {
        (void)snprintf(admin.password, sizeof(admin.password), "%s", TRK_DEV_ADMIN_PASSWORD);
    } else {
        trk_random_hex(admin.password, PASSWORD_BYTES);
        admin.path = talloc_asprintf(admin.mem, "%s/admin-password", lc->config->state_dir);
    }
    rc = trk_password_hash(admin.password, admin.hash, err);
    if (rc == 0 && admin.path != NULL) {
        (void)strncat(admin.password, "\n", 2);
        rc = trk_mkdir_p(lc->config->state_dir, 0755, err);
    }
    if (rc == 0) {
        rc = trk_pg_transaction(lc->pool, make_admin, &admin, err);
    }
    if (rc == 0 && admin.was_made && admin.path != NULL) {
        trk_log_info("made user admin; its password is in a file", "path", admin.path, NULL);
    } else if (rc == 0 && admin.was_made) {
        trk_log_warn("made user admin with the public development password and tokens", NULL);
    }
    explicit_bzero(admin.password, sizeof(admin.password));
    talloc_free(admin.mem);
    return rc;
}
