#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/subject.h"
#include "lifecycle/store/user.h"

#define COOKIE_MAX_AGE_S 2678400 /* 31 days */
#define LOGINS_MAX       16      /* at once: two are hashed, the others wait */
#define PASSWORD_MIN     8
#define PASSWORD_MAX     1024

static void set_cookie(struct trk_request *req, const char *token)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 4 * TRK_TOKEN_MAX);
    (void)trk_buf_adds(&buf, "X-Racetrack-Auth=");
    (void)trk_url_encode(&buf, token, strlen(token), NULL);
    (void)trk_buf_addf(&buf, "; Max-Age=%d; Path=/; HttpOnly; SameSite=lax%s",
                       token[0] != '\0' ? COOKIE_MAX_AGE_S : 0,
                       api_lifecycle(req)->config->enforce_secure_cookie ? "; Secure" : "");
    (void)trk_reply_header(req, "Set-Cookie", buf.data);
    trk_buf_fini(&buf);
}

static int wrong_password(struct trk_err *err)
{
    return trk_err_set(err, TRK_UNAUTHENTICATED, "wrong username or password");
}

/* -- login -- */

struct login {
    void *mem;
    const struct lifecycle *lc;
    const struct user *user;
    char *new_hash; /* when the stored one is of an older kind */
    const char *token;
};

static int finish_login(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct login *login = ctx;
    const struct user *user = login->user;
    int code = user_store_note_login(conn, user->username, err);
    if (code == 0 && login->new_hash != NULL) {
        code = user_store_set_password(conn, user->username, login->new_hash, err);
    }
    if (code < 0) {
        return code;
    }
    code = token_store_current(conn, login->mem, user->subject_id, &login->token, err);
    return code != TRK_NOT_FOUND
               ? code
               : token_store_create(conn, login->mem, user->subject_id, TRK_SUBJECT_USER,
                                    user->username, 0, login->lc->auth_key, &login->token, err);
}

static int find_user(struct trk_request *req, const char *username, struct user **ret,
                     struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int code = api_acquire(req, &conn, err);
    return code < 0 ? code : user_store_get(conn, trk_req_mem(req), username, ret, err);
}

/* Logins that wait for the hash: more are refused, so that a flood of them leaves threads for the
 * rest. */
static atomic_int logins;

/* TRK_UNAUTHENTICATED unless the password is right. Hashing happens with no connection held. */
static int compare_password(struct trk_request *req, const char *username, const char *password,
                            struct user **ret, char **ret_new_hash, struct trk_err *err)
{
    char hash[TRK_PASSWORD_HASH_SIZE];
    if (strlen(password) > PASSWORD_MAX) {
        return wrong_password(err);
    }
    struct user *user;
    int code = find_user(req, username, &user, err);
    if (code == TRK_NOT_FOUND) {
        /* Takes as long as for a user that exists: the time must not tell. */
        code = trk_password_hash(password, hash, err);
        return code < 0 ? code : wrong_password(err);
    }
    if (code < 0) {
        return code;
    }
    bool old;
    if (!trk_password_verify(password, user->password, &old)) {
        return wrong_password(err);
    }
    if (old && ret_new_hash != NULL && trk_password_hash(password, hash, NULL) == 0) {
        *ret_new_hash = talloc_strdup(trk_req_mem(req), hash);
    }
    *ret = user;
    return 0;
}

static int check_password(struct trk_request *req, const char *username, const char *password,
                          struct user **ret, char **ret_new_hash, struct trk_err *err)
{
    int code = TRK_TOO_MANY;
    if (atomic_fetch_add(&logins, 1) < LOGINS_MAX) {
        code = compare_password(req, username, password, ret, ret_new_hash, err);
    } else {
        (void)trk_err_set(err, code, "too many logins at once, try again in a moment");
    }
    atomic_fetch_sub(&logins, 1);
    return code;
}

static int post_login(struct trk_request *req, struct trk_err *err)
{
    const json_t *body = trk_req_json(req);
    struct login login = {.mem = trk_req_mem(req), .lc = api_lifecycle(req)};
    struct user *user;
    int code = check_password(req, trk_json_string_or(body, "username", ""),
                              trk_json_string_or(body, "password", ""), &user, &login.new_hash,
                              err);
    if (code < 0) {
        return code;
    }
    if (!user->is_active) {
        return trk_err_set(err, TRK_UNAUTHENTICATED,
                           "this user is not active; an administrator has to activate it");
    }
    login.user = user;
    code = api_transaction(req, finish_login, &login, err);
    if (code < 0) {
        return code;
    }
    set_cookie(req, login.token);
    return trk_reply_json(req, 200,
                          json_pack("{s:s,s:s,s:b}", "username", user->username, "token",
                                    login.token, "is_staff", (int)user->is_staff));
}

static int get_logout(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    set_cookie(req, "");
    return trk_reply_empty(req, 200);
}

static int get_validate(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    const struct subject *who = api_subject(req);
    return trk_reply_json(req, 200,
                          json_pack("{s:s,s:s,s:b}", "username", who->name, "token", who->token,
                                    "is_staff", (int)who->is_staff));
}

/* -- password and tokens -- */

static int check_new_password(const char *password, struct trk_err *err)
{
    size_t len = strlen(password);
    if (len < PASSWORD_MIN || len > PASSWORD_MAX) {
        return trk_err_set(err, TRK_INVALID, "the new password must have %d to %d bytes",
                           PASSWORD_MIN, PASSWORD_MAX);
    }
    return strspn(password, "0123456789") == len
               ? trk_err_set(err, TRK_INVALID, "the new password must not be a number only")
               : 0;
}

static int put_password(struct trk_request *req, struct trk_err *err)
{
    const json_t *body = trk_req_json(req);
    const char *username = api_subject(req)->name;
    const char *new_password = trk_json_string_or(body, "new_password", "");
    struct user *user;
    int code = check_password(req, username, trk_json_string_or(body, "old_password", ""), &user,
                              NULL, err);
    if (code == 0) {
        code = check_new_password(new_password, err);
    }
    char hash[TRK_PASSWORD_HASH_SIZE];
    if (code == 0) {
        code = trk_password_hash(new_password, hash, err);
    }
    trk_pg_auto struct trk_pg *conn = NULL;
    if (code == 0) {
        code = api_acquire(req, &conn, err);
    }
    if (code == 0) {
        code = user_store_set_password(conn, username, hash, err);
    }
    return code < 0 ? code : trk_reply_null(req);
}

struct rotation {
    void *mem;
    const struct lifecycle *lc;
    const char *username;
    const char *token;
};

static int rotate(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct rotation *r = ctx;
    struct user *user;
    int code = user_store_get(conn, r->mem, r->username, &user, err);
    if (code == 0) {
        code = token_store_revoke_all(conn, user->subject_id, err);
    }
    if (code == 0) {
        code = token_store_create(conn, r->mem, user->subject_id, TRK_SUBJECT_USER, r->username, 0,
                                  r->lc->auth_key, &r->token, err);
    }
    return code;
}

static int post_regenerate(struct trk_request *req, struct trk_err *err)
{
    struct rotation r = {
        .mem = trk_req_mem(req), .lc = api_lifecycle(req), .username = api_subject(req)->name};
    int code = api_transaction(req, rotate, &r, err);
    if (code < 0) {
        return code;
    }
    set_cookie(req, r.token);
    return trk_reply_json(req, 200, json_pack("{s:s}", "new_token", r.token));
}

/* -- fatman era -- */

static int profile(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct rotation *r = ctx;
    struct user *user = NULL;
    int code = user_store_get(conn, r->mem, r->username, &user, err);
    if (code == 0) {
        code = token_store_current(conn, r->mem, user->subject_id, &r->token, err);
    }
    if (code == TRK_NOT_FOUND && user != NULL) {
        code = token_store_create(conn, r->mem, user->subject_id, TRK_SUBJECT_USER, r->username, 0,
                                  r->lc->auth_key, &r->token, err);
    }
    return code;
}

static int get_profile(struct trk_request *req, struct trk_err *err)
{
    struct rotation r = {.mem = trk_req_mem(req),
                         .lc = api_lifecycle(req),
                         .username = trk_req_param(req, "username")};
    int code = api_transaction(req, profile, &r, err);
    return code < 0
               ? code
               : trk_reply_json(req, 200,
                                json_pack("{s:s,s:s}", "username", r.username, "token", r.token));
}

#define STRING_512 "{\"type\":\"string\",\"minLength\":1,\"maxLength\":512}"
#define PASSWORD   "{\"type\":\"string\",\"maxLength\":1024}"

static const struct trk_route routes[] = {
    {.method = "POST",
     .path = "/api/v1/users/login",
     .access = "public",
     .request_schema = "{\"type\":\"object\",\"required\":[\"username\",\"password\"],"
                       "\"properties\":{\"username\":" STRING_512 ",\"password\":" PASSWORD "}}",
     .response_schema = API_REF("UserToken"),
     .handler = post_login,
     .help = "Exchanges a name and a password for a token, in the answer and as a cookie."},
    {.method = "GET",
     .path = "/api/v1/users/logout",
     .access = "public",
     .handler = get_logout,
     .help = "Clears the cookie."},
    {.method = "GET",
     .path = "/api/v1/users/validate_user_auth",
     .access = "user",
     .response_schema = API_REF("UserToken"),
     .handler = get_validate,
     .help = "Whose token is this?"},
    {.method = "PUT",
     .path = "/api/v1/users/change_password",
     .access = "user",
     .request_schema =
         "{\"type\":\"object\",\"required\":[\"old_password\",\"new_password\"],\"properties\":{"
         "\"old_password\":" PASSWORD ",\"new_password\":" PASSWORD "}}",
     .handler = put_password,
     .help = "Changes the caller's password."},
    {.method = "POST",
     .path = "/api/v1/auth/token/user/regenerate",
     .access = "user",
     .response_schema =
         "{\"type\":\"object\",\"properties\":{\"new_token\":{\"type\":\"string\"}}}",
     .handler = post_regenerate,
     .help = "Revokes the caller's tokens and makes a new one."},
    {.method = "GET",
     .path = "/api/v1/users/{username}/profile",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .flags = TRK_ROUTE_HIDDEN | TRK_ROUTE_DEPRECATED,
     .handler = get_profile,
     .help = "A user's token (fatman era)."},
    {.method = "POST",
     .path = "/api/v1/users/{username}/profile",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .flags = TRK_ROUTE_HIDDEN | TRK_ROUTE_DEPRECATED,
     .handler = get_profile,
     .help = "A user's token, made when there is none (fatman era)."},
};
API_TABLE(api_user_routes, "users", routes);
