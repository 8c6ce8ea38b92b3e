#include "lifecycle/auth/issue.h"

#include <stdio.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/esc.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/subject.h"

static int name_it(struct trk_token *token, const char *name, struct trk_err *err)
{
    if (strlen(name) >= sizeof(token->subject)) {
        return trk_err_set(err, TRK_INVALID, "the name is longer than %zu bytes",
                           sizeof(token->subject) - 1);
    }
    (void)snprintf(token->subject, sizeof(token->subject), "%s", name);
    return 0;
}

static int issue(struct trk_pg *conn, void *mem, const struct token_row *row,
                 const char *subject_id, enum trk_subject_type type, const char *name,
                 const char *auth_key, const char **ret_token, struct trk_err *err)
{
    struct trk_token claims = {.type = type};
    trk_autofree char *text = NULL;
    if (name_it(&claims, name, err) < 0 || trk_jwt_sign(&claims, auth_key, &text, err) < 0) {
        return err->code;
    }
    struct token_row made = *row;
    made.token = text;
    int rc = token_store_add(conn, subject_id, &made, err);
    if (rc == 0) {
        *ret_token = talloc_strdup(mem, text);
    }
    return rc;
}

int issue_token(struct trk_pg *conn, void *mem, const char *subject_id, enum trk_subject_type type,
                const char *name, int64_t expiry_time, const char *auth_key, const char **ret_token,
                struct trk_err *err)
{
    const struct token_row row = {.expiry_time = expiry_time};
    return issue(conn, mem, &row, subject_id, type, name, auth_key, ret_token, err);
}

int issue_session(struct trk_pg *conn, void *mem, const char *subject_id, const char *username,
                  int64_t lifetime_s, const char *auth_key, const char **ret_token,
                  struct trk_err *err)
{
    const struct token_row row = {.expiry_time = trk_wall_s() + lifetime_s, .is_session = true};
    int rc = session_store_make_room(conn, subject_id, err);
    return rc < 0 ? rc
                  : issue(conn, mem, &row, subject_id, TRK_SUBJECT_USER, username, auth_key,
                          ret_token, err);
}

static int equip(struct trk_pg *conn, void *mem, enum trk_subject_type type, const char *owner_id,
                 const char *name, const char *auth_key, struct trk_err *err)
{
    const char *subject_id, *token;
    int rc = subject_store_ensure(conn, mem, type, owner_id, &subject_id, err);
    return rc < 0 ? rc : issue_token(conn, mem, subject_id, type, name, 0, auth_key, &token, err);
}

int issue_esc(struct trk_pg *conn, void *mem, const char *id, const char *name,
              const char *auth_key, struct trk_err *err)
{
    int rc = esc_store_create(conn, id, name, err);
    return rc < 0 ? rc : equip(conn, mem, TRK_SUBJECT_ESC, id, id, auth_key, err);
}

int issue_family(struct trk_pg *conn, void *mem, const char *name, const char *auth_key,
                 const char **ret_id, struct trk_err *err)
{
    bool is_new;
    int rc = family_store_ensure(conn, mem, name, ret_id, &is_new, err);
    return rc < 0 || !is_new
               ? rc
               : equip(conn, mem, TRK_SUBJECT_JOB_FAMILY, *ret_id, name, auth_key, err);
}

int issue_internal(const char *subject,
                   int (*sign)(const struct trk_token *token, const char *auth_key, char **ret,
                               struct trk_err *err),
                   const char *auth_key, char **ret, struct trk_err *err)
{
    struct trk_token token = {
        .type = TRK_SUBJECT_INTERNAL, .scopes = {SCOPE_FULL_ACCESS}, .scope_count = 1};
    int rc = name_it(&token, subject, err);
    return rc < 0 ? rc : sign(&token, auth_key, ret, err);
}
