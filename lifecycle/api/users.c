/* Tokens that are made and revoked by hand. */
#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/subject.h"

struct user_token {
    const char *username, *token;
    bool is_staff;
};
static const struct dto_field user_token_fields[] = {
    {"username", DTO_TEXT, DTO_AT(struct user_token, username)},
    {"token", DTO_TEXT, DTO_AT(struct user_token, token)},
    {"is_staff", DTO_BOOLEAN, DTO_AT(struct user_token, is_staff)},
};
const struct dto api_user_token_dto = DTO("UserToken", struct user_token, user_token_fields);

DTO_ONE_TEXT(api_new_token_dto, "NewToken", "new_token");

int api_reply_user_token(struct trk_request *req, const char *username, const char *token,
                         bool is_staff)
{
    const struct user_token shown = {.username = username, .token = token, .is_staff = is_staff};
    return api_reply_dto(req, &api_user_token_dto, &shown);
}

static int get_validate(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    const struct subject *who = api_subject(req);
    return api_reply_user_token(req, who->name, who->token, who->is_staff);
}

/* -- the caller's own -- */

struct rotation {
    void *mem;
    const struct lifecycle *lc;
    const struct subject *who;
    const char *token, *session;
};

static int add_token(struct trk_pg *conn, struct rotation *r, struct trk_err *err)
{
    return issue_token(conn, r->mem, r->who->id, TRK_SUBJECT_USER, r->who->name, 0, r->lc->auth_key,
                       &r->token, err);
}

static int rotate(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct rotation *r = ctx;
    int rc = token_store_revoke_all(conn, r->who->id, err);
    if (rc == 0) {
        rc = add_token(conn, r, err);
    }
    return rc < 0 ? rc
                  : issue_session(conn, r->mem, r->who->id, r->who->name,
                                  r->lc->config->session_lifetime_s, r->lc->auth_key, &r->session,
                                  err);
}

static struct rotation rotation_of(struct trk_request *req)
{
    return (struct rotation){
        .mem = trk_req_mem(req), .lc = api_lifecycle(req), .who = api_subject(req)};
}

static int post_regenerate(struct trk_request *req, struct trk_err *err)
{
    struct rotation r = rotation_of(req);
    const struct api_deed deed = {.event_type = "tokens_regenerated",
                                  .username_subject = r.who->name};
    int rc = api_transaction_audited(req, &deed, rotate, &r, err);
    if (rc < 0) {
        return rc;
    }
    api_set_cookie(req, r.session);
    return api_reply_dto(req, &api_new_token_dto, &r.token);
}

static int find_own(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct rotation *r = ctx;
    int rc = token_store_current(conn, r->mem, r->who->id, &r->token, err);
    return rc == TRK_NOT_FOUND ? add_token(conn, r, err) : rc;
}

static int get_profile(struct trk_request *req, struct trk_err *err)
{
    struct rotation r = rotation_of(req);
    if (strcmp(r.who->name, trk_req_param(req, "username")) != 0) {
        return trk_err_set(err, TRK_FORBIDDEN, "a token is shown to its own user only");
    }
    int rc = api_transaction(req, find_own, &r, err);
    return rc < 0 ? rc : api_reply_user_token(req, r.who->name, r.token, r.who->is_staff);
}

/* -- everybody's -- */

struct replacement {
    const struct lifecycle *lc;
    enum trk_subject_type type;
};

static int replace_all(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    const struct replacement *r = ctx;
    void *mem = talloc_new(NULL);
    struct subject_name *subjects;
    size_t count = 0;
    int rc = subject_store_list(conn, mem, r->type, &subjects, &count, err);
    for (size_t i = 0; i < count && rc == 0; i++) {
        const char *token;
        rc = token_store_revoke_all(conn, subjects[i].id, err);
        if (rc == 0) {
            rc = issue_token(conn, mem, subjects[i].id, r->type, subjects[i].name, 0,
                             r->lc->auth_key, &token, err);
        }
    }
    talloc_free(mem);
    return rc;
}

static int replace(struct trk_request *req, enum trk_subject_type type, struct trk_err *err)
{
    struct replacement r = {.lc = api_lifecycle(req), .type = type};
    const struct api_deed deed = {
        .event_type = "tokens_regenerated",
        .properties = json_pack("{s:s}", "subject_type", trk_subject_type_name(type))};
    int rc = api_transaction_audited(req, &deed, replace_all, &r, err);
    return rc < 0 ? rc : trk_reply_null(req);
}

static int post_regenerate_users(struct trk_request *req, struct trk_err *err)
{
    return replace(req, TRK_SUBJECT_USER, err);
}

static int post_regenerate_families(struct trk_request *req, struct trk_err *err)
{
    return replace(req, TRK_SUBJECT_JOB_FAMILY, err);
}

static int post_regenerate_escs(struct trk_request *req, struct trk_err *err)
{
    return replace(req, TRK_SUBJECT_ESC, err);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/users/validate_user_auth",
     .access = "user",
     .response_schema = API_REF("UserToken"),
     .handler = get_validate,
     .help = "Whose token is this?"},
    {.method = "POST",
     .path = "/api/v1/auth/token/user/regenerate",
     .access = "user",
     .response_schema = API_REF("NewToken"),
     .handler = post_regenerate,
     .help = "Revokes the caller's tokens, ends the caller's sessions and makes a new token."},
    {.method = "POST",
     .path = "/api/v1/auth/token/user/all/regenerate",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = post_regenerate_users,
     .help = "The same for all users, the caller included."},
    {.method = "POST",
     .path = "/api/v1/auth/token/job_family/regenerate",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = post_regenerate_families,
     .help = "The same for all job families; running jobs get theirs with the next deployment."},
    {.method = "POST",
     .path = "/api/v1/auth/token/esc/regenerate",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = post_regenerate_escs,
     .help = "The same for all external service consumers."},
    {.method = "GET",
     .path = "/api/v1/users/{username}/profile",
     .access = "user",
     .flags = TRK_ROUTE_HIDDEN | TRK_ROUTE_DEPRECATED,
     .handler = get_profile,
     .help = "The caller's own token (fatman era)."},
    {.method = "POST",
     .path = "/api/v1/users/{username}/profile",
     .access = "user",
     .flags = TRK_ROUTE_HIDDEN | TRK_ROUTE_DEPRECATED,
     .handler = get_profile,
     .help = "The same, made when there is none (fatman era)."},
};
API_TABLE(api_user_routes, "users", routes);
