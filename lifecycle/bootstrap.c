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
    int code = token_store_put(conn, subject_id, TRK_DEV_ADMIN_TOKEN, err);
    return code < 0 ? code : token_store_put(conn, subject_id, TRK_DEV_ADMIN_TOKEN_EARLY, err);
}

static int make_admin(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct admin *admin = ctx;
    admin->was_made = false;
    /* Two services that start on a new database at once: one makes it. */
    int code = user_store_lock(conn, err);
    bool empty = false;
    if (code == 0) {
        code = user_store_is_empty(conn, &empty, err);
    }
    if (code < 0 || !empty) {
        return code;
    }
    const char *subject_id;
    code = user_store_create(conn, admin->mem, TRK_DEV_ADMIN_USER, admin->hash, true, true,
                             &subject_id, err);
    if (code == 0) {
        code = permission_store_grant(conn, subject_id, SCOPE_FULL_ACCESS, NULL, NULL, NULL, err);
    }
    if (code == 0) {
        code = add_tokens(conn, admin, subject_id, err);
    }
    /* Before commit: a password that nobody can read would lock everybody out. */
    if (code == 0 && admin->path != NULL) {
        code = trk_file_write(admin->path, admin->password, strlen(admin->password), 0600, err);
    }
    admin->was_made = code == 0;
    return code;
}

/* Has it users? What rows of older versions lack is filled on the way. */
static int look_at_database(const struct lifecycle *lc, bool *ret, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    bool empty;
    int code = trk_pg_acquire(lc->pool, &conn, err);
    if (code == 0) {
        code = user_store_is_empty(conn, &empty, err);
    }
    if (code == 0) {
        code = job_store_complete(conn, err);
    }
    if (code == 0) {
        *ret = !empty;
    }
    return code;
}

int bootstrap_run(struct lifecycle *lc, struct trk_err *err)
{
    bool done = false;
    int code = look_at_database(lc, &done, err);
    if (code < 0 || done) {
        return code;
    }
    struct admin admin = {.lc = lc, .mem = talloc_new(NULL)};
    if (trk_profile_is_dev(lc->config->profile)) {
        (void)snprintf(admin.password, sizeof(admin.password), "%s", TRK_DEV_ADMIN_PASSWORD);
    } else {
        trk_random_hex(admin.password, PASSWORD_BYTES);
        admin.path = talloc_asprintf(admin.mem, "%s/admin-password", lc->config->state_dir);
    }
    code = trk_password_hash(admin.password, admin.hash, err);
    if (code == 0 && admin.path != NULL) {
        (void)strncat(admin.password, "\n", 2);
        code = trk_mkdir_p(lc->config->state_dir, 0755, err);
    }
    if (code == 0) {
        code = trk_pg_transaction(lc->pool, make_admin, &admin, err);
    }
    if (code == 0 && admin.was_made && admin.path != NULL) {
        trk_log_info("made user admin; its password is in a file", "path", admin.path, NULL);
    } else if (code == 0 && admin.was_made) {
        trk_log_warn("made user admin with the public development password and tokens", NULL);
    }
    explicit_bzero(admin.password, sizeof(admin.password));
    talloc_free(admin.mem);
    return code;
}
