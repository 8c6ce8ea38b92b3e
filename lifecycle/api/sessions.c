/* Logins with a password: each makes a token of its own, which ends with the session. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/throttle.h"
#include "lifecycle/store/subject.h"
#include "lifecycle/store/user.h"

#define LOGINS_MAX   16 /* at once: two are hashed, the others wait */
#define ADDRESS_EASE 10 /* so many people may share an address, or a dashboard */
#define PASSWORD_MIN 8
#define PASSWORD_MAX 1024

void api_set_cookie(struct trk_request *req, const char *token)
{
    const struct lifecycle_config *config = api_lifecycle(req)->config;
    struct trk_buf buf;
    trk_buf_init(&buf, 4 * TRK_TOKEN_MAX);
    (void)trk_buf_adds(&buf, "X-Racetrack-Auth=");
    (void)trk_url_encode(&buf, token, strlen(token), NULL);
    (void)trk_buf_addf(&buf, "; Max-Age=%lld; Path=/; HttpOnly; SameSite=lax%s",
                       token[0] != '\0' ? (long long)config->session_lifetime_s : 0,
                       config->enforce_secure_cookie ? "; Secure" : "");
    (void)trk_reply_header(req, "Set-Cookie", buf.data);
    trk_buf_fini(&buf);
}

struct credentials {
    const char *username, *password;
};
static const struct dto_field credentials_fields[] = {
    {"username", DTO_TEXT, DTO_AT(struct credentials, username), .is_required = true,
     .schema = "\"minLength\":1,\"maxLength\":512"},
    {"password", DTO_TEXT, DTO_AT(struct credentials, password), .is_required = true,
     .schema = "\"maxLength\":1024"},
};
const struct dto api_credentials_dto = DTO("Credentials", struct credentials, credentials_fields);

struct passwords {
    const char *before, *after;
};
static const struct dto_field passwords_fields[] = {
    {"old_password", DTO_TEXT, DTO_AT(struct passwords, before), .is_required = true,
     .schema = "\"maxLength\":1024"},
    {"new_password", DTO_TEXT, DTO_AT(struct passwords, after), .is_required = true,
     .schema = "\"maxLength\":1024"},
};
const struct dto api_passwords_dto = DTO("PasswordChange", struct passwords, passwords_fields);

/* -- is it the password? -- */

static int wrong_password(struct trk_err *err)
{
    return trk_err_set(err, TRK_UNAUTHENTICATED, "wrong username or password");
}

static int find_user(struct trk_request *req, const char *username, struct user **ret,
                     struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, err);
    return rc < 0 ? rc : user_store_get(conn, trk_req_mem(req), username, ret, err);
}

/* TRK_UNAUTHENTICATED unless the password is right. Hashing happens with no connection held. */
static int compare_password(struct trk_request *req, const char *username, const char *password,
                            struct user **ret, char **ret_new_hash, struct trk_err *err)
{
    char hash[TRK_PASSWORD_HASH_SIZE];
    if (strlen(password) > PASSWORD_MAX) {
        return wrong_password(err);
    }
    struct user *user;
    int rc = find_user(req, username, &user, err);
    if (rc == TRK_NOT_FOUND) {
        /* Takes as long as for a user that exists: the time must not tell. */
        rc = trk_password_hash(password, hash, err);
        return rc < 0 ? rc : wrong_password(err);
    }
    if (rc < 0) {
        return rc;
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

static int too_many(struct trk_request *req, int64_t wait_ms, struct trk_err *err)
{
    char seconds[24];
    (void)snprintf(seconds, sizeof(seconds), "%lld", (long long)(wait_ms + 999) / 1000);
    (void)trk_reply_header(req, "Retry-After", seconds);
    return trk_err_set(err, TRK_TOO_MANY, "too many wrong passwords, try again in %s s", seconds);
}

/* Logins that wait for the hash: more are refused, so that a flood of them leaves threads for the
 * rest. */
static atomic_int logins;

static int check_password(struct trk_request *req, const char *username, const char *password,
                          struct user **ret, char **ret_new_hash, struct trk_err *err)
{
    struct throttle *throttle = api_lifecycle(req)->logins;
    const char *name = talloc_asprintf(trk_req_mem(req), "name %s", username);
    const char *address = talloc_asprintf(trk_req_mem(req), "address %s", trk_req_peer(req));
    int64_t by_name = throttle_wait_ms(throttle, name, 1, trk_now_ns());
    int64_t by_address = throttle_wait_ms(throttle, address, ADDRESS_EASE, trk_now_ns());
    if (by_name > 0 || by_address > 0) {
        return too_many(req, by_name > by_address ? by_name : by_address, err);
    }
    int rc = TRK_TOO_MANY;
    if (atomic_fetch_add(&logins, 1) < LOGINS_MAX) {
        rc = compare_password(req, username, password, ret, ret_new_hash, err);
    } else {
        (void)trk_err_set(err, rc, "too many logins at once, try again in a moment");
    }
    atomic_fetch_sub(&logins, 1);
    if (rc == TRK_UNAUTHENTICATED) {
        throttle_note_failure(throttle, name, 1, trk_now_ns());
        throttle_note_failure(throttle, address, ADDRESS_EASE, trk_now_ns());
    }
    return rc;
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
    int rc = user_store_note_login(conn, user->username, err);
    if (rc == 0 && login->new_hash != NULL) {
        rc = user_store_set_password(conn, user->username, login->new_hash, err);
    }
    return rc < 0 ? rc
                  : issue_session(conn, login->mem, user->subject_id, user->username,
                                  login->lc->config->session_lifetime_s, login->lc->auth_key,
                                  &login->token, err);
}

static int post_login(struct trk_request *req, struct trk_err *err)
{
    struct credentials given;
    dto_read(&api_credentials_dto, trk_req_json(req), &given);
    struct login login = {.mem = trk_req_mem(req), .lc = api_lifecycle(req)};
    struct user *user;
    int rc = check_password(req, given.username, given.password, &user, &login.new_hash, err);
    if (rc < 0) {
        return rc;
    }
    if (!user->is_active) {
        return trk_err_set(err, TRK_UNAUTHENTICATED,
                           "this user is not active; an administrator has to activate it");
    }
    login.user = user;
    const struct api_deed deed = {.event_type = "user_logged_in",
                                  .executor = user->username,
                                  .username_subject = user->username,
                                  .properties = json_pack("{s:s}", "address", trk_req_peer(req))};
    rc = api_transaction_audited(req, &deed, finish_login, &login, err);
    if (rc < 0) {
        return rc;
    }
    api_set_cookie(req, login.token);
    return api_reply_user_token(req, user->username, login.token, user->is_staff);
}

/* -- logout -- */

static int end_session(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    const struct subject *who = ctx;
    return session_store_end(conn, who->id, who->token_id, err);
}

static int log_out(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct subject *who;
    int rc = api_token_text(req) != NULL ? api_authenticate(req, &conn, &who, err)
                                         : TRK_UNAUTHENTICATED;
    if (rc == TRK_UNAUTHENTICATED || (rc == 0 && !who->is_session)) {
        return 0; /* nothing that could end */
    }
    trk_pg_release(conn);
    conn = NULL;
    const struct api_deed deed = {.event_type = "user_logged_out",
                                  .executor = rc == 0 ? who->name : NULL,
                                  .username_subject = rc == 0 ? who->name : NULL};
    return rc < 0 ? rc : api_transaction_audited(req, &deed, end_session, who, err);
}

static int get_logout(struct trk_request *req, struct trk_err *err)
{
    api_set_cookie(req, "");
    int rc = log_out(req, err);
    return rc < 0 ? rc : trk_reply_empty(req, 200);
}

/* -- the password -- */

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

struct password_change {
    const struct user *user;
    char hash[TRK_PASSWORD_HASH_SIZE];
};

static int change_password(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    const struct password_change *c = ctx;
    int rc = user_store_set_password(conn, c->user->username, c->hash, err);
    return rc < 0 ? rc : session_store_end(conn, c->user->subject_id, NULL, err);
}

static int put_password(struct trk_request *req, struct trk_err *err)
{
    struct passwords given;
    dto_read(&api_passwords_dto, trk_req_json(req), &given);
    const char *username = api_subject(req)->name;
    struct user *user;
    struct password_change c;
    int rc = check_password(req, username, given.before, &user, NULL, err);
    if (rc == 0) {
        rc = check_new_password(given.after, err);
    }
    if (rc == 0) {
        rc = trk_password_hash(given.after, c.hash, err);
    }
    if (rc == 0) {
        const struct api_deed deed = {.event_type = "password_changed",
                                      .username_subject = username};
        c.user = user;
        rc = api_transaction_audited(req, &deed, change_password, &c, err);
    }
    if (rc == 0 && api_subject(req)->is_session) {
        api_set_cookie(req, "");
    }
    return rc < 0 ? rc : trk_reply_null(req);
}

static const struct trk_route routes[] = {
    {.method = "POST",
     .path = "/api/v1/users/login",
     .access = "public",
     .request_schema = API_REF("Credentials"),
     .response_schema = API_REF("UserToken"),
     .handler = post_login,
     .help = "Exchanges a name and a password for a token, in the answer and as a cookie. It ends "
             "with logout, with the next change of the password, or by itself."},
    {.method = "GET",
     .path = "/api/v1/users/logout",
     .access = "public",
     .handler = get_logout,
     .help = "Ends the session of the token that comes with it, and clears the cookie."},
    {.method = "PUT",
     .path = "/api/v1/users/change_password",
     .access = "user",
     .request_schema = API_REF("PasswordChange"),
     .handler = put_password,
     .help = "Changes the caller's password and ends all sessions of the caller."},
};
API_TABLE(api_session_routes, "sessions", routes);
