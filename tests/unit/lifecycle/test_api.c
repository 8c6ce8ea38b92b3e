/* The API as callers see it: a real server over a real Postgres, without deployments being worked
 * on. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/clock.h"
#include "libtrack/crypto.h"
#include "libtrack/http_client.h"
#include "libtrack/json.h"
#include "libtrack/log.h"
#include "libtrack/mem.h"
#include "libtrack/profile.h"
#include "libtrack/str.h"
#include "lifecycle/api/api.h"
#include "lifecycle/bootstrap.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/endpoint.h"
#include "lifecycle/store/esc.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/migrations.h"
#include "lifecycle/store/setting.h"
#include "lifecycle/store/subject.h"
#include "lifecycle/store/user.h"
#include "tests/unit/support/pg_cluster.h"

static struct pg_cluster *cluster;
static struct lifecycle_config config;
static struct lifecycle lc;
static struct trk_http_options options;
static struct trk_http_server *server;
static struct trk_http_client *client;
static struct trk_err err;
static void *mem;

/* Before the tests run there is nothing to report to. */
#define need(call)                                                                                 \
    do {                                                                                           \
        if ((call) != 0) {                                                                         \
            trk_die("%s: %s", #call, err.text);                                                    \
        }                                                                                          \
    } while (0)
#define must(call) ck_assert_msg((call) == 0, "%s: %s", #call, err.text)

/* -- calling -- */

struct answer {
    int status;
    json_t *body; /* NULL when it is no JSON */
    char *text;
};

static struct answer call(const char *method, const char *path, const char *token, json_t *body)
{
    trk_autofree char *url = trk_xasprintf("http://127.0.0.1:%d%s", trk_http_server_port(server),
                                           path);
    json_auto_t *owned = body;
    struct trk_http_call request = {
        .method = method, .url = url, .auth_token = token, .json = owned, .timeout_ms = 20000};
    struct trk_http_answer answer;
    ck_assert_msg(trk_http_call(client, &request, &answer, &err) == 0, "%s %s: %s", method, path,
                  err.text);
    struct answer ret = {.status = answer.status, .text = talloc_strdup(mem, answer.body)};
    if (trk_json_parse(answer.body, answer.body_len, &ret.body, NULL) < 0) {
        ret.body = NULL;
    }
    trk_http_answer_fini(&answer);
    return ret;
}

/* Status of a call whose body does not matter. */
static int status_of(const char *method, const char *path, const char *token, json_t *body)
{
    struct answer a = call(method, path, token, body);
    json_decref(a.body);
    return a.status;
}

static const char *text_in(const struct answer *a, const char *key)
{
    return trk_json_string_or(a->body, key, "");
}

static const char *const admin = TRK_DEV_ADMIN_TOKEN;

static const char *internal_token(const char *scope)
{
    struct trk_token claims = {.type = TRK_SUBJECT_INTERNAL};
    memcpy(claims.subject, "test", 5);
    if (scope != NULL) {
        (void)snprintf(claims.scopes[0], sizeof(claims.scopes[0]), "%s", scope);
        claims.scope_count = 1;
    }
    trk_autofree char *token = NULL;
    must(trk_jwt_sign(&claims, lc.auth_key, &token, &err));
    return talloc_strdup(mem, token);
}

/* -- rows -- */

static struct trk_pg *acquire(void)
{
    struct trk_pg *conn;
    must(trk_pg_acquire(lc.pool, &conn, &err));
    return conn;
}

static const char *new_esc(const char *id, const char **ret_subject)
{
    TRK_PG_AUTO(conn)
    = acquire();
    const char *token;
    must(esc_store_create(conn, mem, id, id, lc.auth_key, &err));
    must(subject_store_ensure(conn, mem, TRK_SUBJECT_ESC, id, ret_subject, &err));
    must(token_store_current(conn, mem, *ret_subject, &token, &err));
    return token;
}

static void new_job(const char *name, const char *version, const char *status)
{
    TRK_PG_AUTO(conn)
    = acquire();
    const char *family_id;
    must(family_store_ensure(conn, mem, name, lc.auth_key, &family_id, &err));
    struct job job = {.family_id = family_id,
                      .name = name,
                      .version = version,
                      .status = status,
                      .manifest = "name: x\nlabels:\n  job: mine\n",
                      .internal_name = "127.0.0.1:4000",
                      .replica_internal_names = "127.0.0.1:4000"};
    must(job_store_save(conn, &job, &err));
}

static void grant(const char *subject, const char *scope, const char *family, const char *endpoint)
{
    TRK_PG_AUTO(conn)
    = acquire();
    const char *family_id;
    must(family_store_get(conn, mem, family, &family_id, &err));
    must(permission_store_grant(conn, subject, scope, family_id, NULL, endpoint, &err));
}

static void sql(const char *text)
{
    TRK_PG_AUTO(conn)
    = acquire();
    must(trk_pg_query(conn, NULL, &err, text, ""));
}

static void set_up(void)
{
    mem = talloc_new(NULL);
}

static void tear_down(void)
{
    talloc_free(mem);
}

/* -- who may call what -- */

static const char *const public_routes[] = {
    "GET /live",
    "GET /ready",
    "GET /health",
    "GET /metrics",
    "GET /api/v1/info",
    "GET /api/v1/info/plugins",
    "GET /api/v1/auth/can-call-job/{name}/{version}/{endpoint:path}",
    "GET /api/v1/auth/allowed/job/{name}/{version}/scope/{scope}",
    "GET /api/v1/auth/allowed/job_endpoint/{name}/{version}/scope/{scope}/endpoint/{endpoint:path}",
    "POST /api/v1/users/login",
    "GET /api/v1/users/logout",
};

static const char *concrete(const char *path)
{
    char *out = talloc_strdup(mem, "");
    while (*path != '\0') {
        size_t len = strcspn(path, "{");
        out = talloc_strndup_append_buffer(out, path, len);
        path += len;
        if (*path == '{') {
            const char *value = strncmp(path, "{version}", 9) == 0 ? "1.0.0"
                                : strncmp(path, "{scope}", 7) == 0 ? "read_job"
                                                                   : "matrix";
            out = talloc_strdup_append_buffer(out, value);
            path += strcspn(path, "}") + 1;
        }
    }
    return out;
}

static bool is_listed_public(const struct trk_route *route)
{
    trk_autofree char *name = trk_xasprintf("%s %s", route->method, route->path);
    for (size_t i = 0; i < TRK_COUNT(public_routes); i++) {
        if (strcmp(public_routes[i], name) == 0) {
            return true;
        }
    }
    return false;
}

struct refusal {
    const char *who, *token;
    int status;
    const char *but[3]; /* access rules that let it in */
};

static void check_refusal(const struct trk_route *route, const struct refusal *r)
{
    for (size_t i = 0; i < TRK_COUNT(r->but) && r->but[i] != NULL; i++) {
        if (strcmp(route->access, r->but[i]) == 0) {
            return;
        }
    }
    struct answer a = call(route->method, concrete(route->path), r->token, NULL);
    ck_assert_msg(a.status == r->status, "%s %s (%s) answers %d to %s: %s", route->method,
                  route->path, route->access, a.status, r->who, a.text);
    ck_assert_msg(strlen(text_in(&a, "error")) > 0 && strlen(text_in(&a, "type")) > 0,
                  "%s %s: no error text in %s", route->method, route->path, a.text);
    json_decref(a.body);
}

START_TEST(every_route_refuses_whom_it_must)
{
    const char *subject;
    trk_autofree char *forged = NULL;
    struct trk_token claims = {.type = TRK_SUBJECT_INTERNAL, .scope_count = 1};
    memcpy(claims.subject, "pub", 4);
    memcpy(claims.scopes[0], SCOPE_FULL_ACCESS, sizeof(SCOPE_FULL_ACCESS));
    must(trk_jwt_sign(&claims, "another key of at least 32 bytes length", &forged, &err));
    new_job("matrix", "1.0.0", JOB_RUNNING);
    const struct refusal refusals[] = {
        {"nobody", NULL, 401, {NULL}},
        {"a broken token", "x.y.z", 401, {NULL}},
        {"a token signed with another key", forged, 401, {NULL}},
        {"an ESC without rights",
         new_esc("powerless", &subject),
         403,
         {"authenticated", "subject", NULL}},
        {"an internal token without scopes", internal_token(NULL), 403, {NULL}},
        {"an internal token that may read",
         internal_token(SCOPE_READ_JOB),
         403,
         {"authenticated", "scope:" SCOPE_READ_JOB, "job:" SCOPE_READ_JOB}},
    };
    size_t guarded = 0;
    for (size_t t = 0; t < options.table_count; t++) {
        for (size_t i = 0; i < options.tables[t].count; i++) {
            const struct trk_route *route = &options.tables[t].routes[i];
            bool public = strcmp(route->access, "public") == 0;
            ck_assert_msg(public == is_listed_public(route), "%s %s: is it meant to be %s?",
                          route->method, route->path, route->access);
            for (size_t r = 0; !public && r < TRK_COUNT(refusals); r++) {
                check_refusal(route, &refusals[r]);
            }
            guarded += !public;
        }
    }
    ck_assert_uint_ge(guarded, 25);
}
END_TEST

START_TEST(internal_routes_are_not_for_administrators)
{
    ck_assert_int_eq(status_of("GET", "/api/v1/events/stream", admin, NULL), 403);
    ck_assert_int_eq(
        status_of("PUT", "/api/v1/deploy/x/phase", admin, json_pack("{s:s}", "phase", "x")), 403);
    ck_assert_int_eq(status_of("POST", "/api/v1/deploy", internal_token(SCOPE_FULL_ACCESS),
                               json_pack("{s:{}}", "manifest")),
                     403);
}
END_TEST

START_TEST(a_list_shows_what_may_be_read)
{
    const char *subject;
    new_job("list-mine", "1.0.0", JOB_RUNNING);
    new_job("list-other", "1.0.0", JOB_RUNNING);
    const char *token = new_esc("lister", &subject);
    grant(subject, SCOPE_READ_JOB, "list-mine", NULL);
    struct answer jobs = call("GET", "/api/v1/job", token, NULL);
    ck_assert_int_eq(jobs.status, 200);
    ck_assert_uint_eq(json_array_size(jobs.body), 1);
    const json_t *job = json_array_get(jobs.body, 0);
    ck_assert_str_eq(trk_json_string_or(job, "name", ""), "list-mine");
    static const char *const keys[] = {"name",
                                       "version",
                                       "status",
                                       "create_time",
                                       "update_time",
                                       "id",
                                       "manifest",
                                       "manifest_yaml",
                                       "internal_name",
                                       "pub_url",
                                       "error",
                                       "notice",
                                       "image_tag",
                                       "deployed_by",
                                       "last_call_time",
                                       "infrastructure_target",
                                       "replica_internal_names",
                                       "job_type_version",
                                       "infrastructure_stats"};
    for (size_t i = 0; i < TRK_COUNT(keys); i++) {
        ck_assert_msg(json_object_get(job, keys[i]) != NULL, "no key %s", keys[i]);
    }
    ck_assert_uint_eq(json_object_size(job), TRK_COUNT(keys));
    struct answer families = call("GET", "/lifecycle/api/v1/job_family", token, NULL);
    ck_assert_uint_eq(json_array_size(families.body), 1);
    ck_assert_int_eq(status_of("GET", "/api/v1/job/list-mine/latest", token, NULL), 200);
    ck_assert_int_eq(status_of("GET", "/api/v1/job/list-other/latest", token, NULL), 403);
    ck_assert_int_eq(status_of("GET", "/api/v1/job/no-such/latest", token, NULL), 403);
    ck_assert_int_eq(status_of("GET", "/api/v1/job/list-mine/2.x", token, NULL), 404);
    ck_assert_int_eq(status_of("DELETE", "/api/v1/job/list-mine/latest", admin, NULL), 400);
    json_decref(jobs.body);
    json_decref(families.body);
}
END_TEST

/* -- calls of jobs -- */

static struct answer can_call(const char *path, const char *token)
{
    return call("GET", talloc_asprintf(mem, "/api/v1/auth/can-call-job/%s", path), token, NULL);
}

static void expect_decision(const char *path, const char *token, const char *decision,
                            const char *caller)
{
    struct answer a = can_call(path, token);
    ck_assert_msg(a.status == 200, "%s: %s", path, a.text);
    ck_assert_str_eq(text_in(&a, "decision"), decision);
    ck_assert_str_eq(text_in(&a, "caller"), caller);
    const json_t *job = json_object_get(a.body, "job");
    ck_assert_str_eq(trk_json_string_or(job, "internal_name", ""), "127.0.0.1:4000");
    ck_assert_str_eq(trk_json_string_or(job, "version", ""), "1.1.0");
    json_decref(a.body);
}

static void expect_no_call(const char *path, const char *token, int status)
{
    struct answer a = can_call(path, token);
    ck_assert_msg(a.status == status, "%s: %d %s", path, a.status, a.text);
    json_decref(a.body);
}

START_TEST(calls_are_decided_by_token_job_and_path)
{
    const char *wide, *narrow, *none;
    new_job("callee", "1.1.0", JOB_RUNNING);
    new_job("callee", "1.2.0", JOB_STARTING);
    const char *all = new_esc("call-all", &wide);
    const char *one = new_esc("call-one", &narrow);
    const char *nothing = new_esc("call-none", &none);
    grant(wide, SCOPE_CALL_JOB, "callee", NULL);
    grant(narrow, SCOPE_CALL_JOB, "callee", "/api/v1/perform");
    expect_decision("callee/latest/api/v1/perform", all, "any_path", "ESC call-all");
    expect_decision("callee/1.x/", all, "any_path", "ESC call-all");
    expect_decision("callee/1.1.0/api/v1/perform", one, "exact_path", "ESC call-one");
    expect_decision("callee/1.1.0/health", NULL, "exact_path", "");
    expect_decision("callee/latest/x", internal_token(SCOPE_CALL_JOB), "any_path", "Service test");
    expect_no_call("callee/latest/api/v1/other", one, 403);
    expect_no_call("callee/latest/api/v1/perform", nothing, 403);
    expect_no_call("callee/latest/api/v1/perform", NULL, 401);
    expect_no_call("callee/latest/api/v1/perform", "x.y.z", 401);
    expect_no_call("callee/9.x/api/v1/perform", all, 404);
    expect_no_call("nobody/latest/api/v1/perform", NULL, 404);
    expect_no_call("callee/latest/api/v1/perform", internal_token(NULL), 403);
}
END_TEST

START_TEST(public_endpoints_open_what_they_name)
{
    new_job("open", "1.1.0", JOB_RUNNING);
    sql("insert into registry_publicendpointrequest (id, job_id, endpoint, active) select "
        "'pe-1', id, '/echo', true from registry_job where name = 'open'");
    sql("insert into registry_publicendpointrequest (id, job_id, endpoint, active) select "
        "'pe-2', id, '/asked', false from registry_job where name = 'open'");
    expect_decision("open/latest/echo", NULL, "exact_path", "");
    expect_decision("open/latest/echo/deep", "x.y.z", "exact_path", "");
    expect_no_call("open/latest/echoes", NULL, 401);
    expect_no_call("open/latest/asked", NULL, 401);
}
END_TEST

START_TEST(a_revoked_or_expired_token_is_refused_at_once)
{
    const char *subject;
    new_job("revoking", "1.1.0", JOB_RUNNING);
    const char *token = new_esc("revoked", &subject);
    grant(subject, SCOPE_CALL_JOB, "revoking", NULL);
    expect_decision("revoking/latest/x", token, "any_path", "ESC revoked");
    struct answer data = call("GET", "/api/v1/escs/revoked/auth_data", admin, NULL);
    const json_t *row = json_array_get(json_object_get(data.body, "tokens"), 0);
    const char *path = talloc_asprintf(mem, "/api/v1/escs/revoked/auth_token/%s",
                                       trk_json_string_or(row, "id", ""));
    ck_assert_int_eq(status_of("DELETE", path, admin, NULL), 200);
    expect_no_call("revoking/latest/x", token, 401);
    ck_assert_int_eq(status_of("POST", "/api/v1/escs/revoked/auth_token", admin,
                               json_pack("{s:I}", "expiry_time", (json_int_t)(trk_wall_s() - 1))),
                     400);
    ck_assert_int_eq(status_of("POST", "/api/v1/escs/revoked/auth_token", admin, json_object()),
                     422);
    ck_assert_int_eq(status_of("POST", "/api/v1/escs/revoked/auth_token", admin,
                               json_pack("{s:n}", "expiry_time")),
                     200);
    struct answer fresh = call("GET", "/api/v1/auth/token/esc/revoked", admin, NULL);
    expect_decision("revoking/latest/x", text_in(&fresh, "token"), "any_path", "ESC revoked");
    sql("update registry_authtoken set expiry_time = now() - interval '1 second' where active");
    expect_no_call("revoking/latest/x", text_in(&fresh, "token"), 401);
    sql("update registry_authtoken set expiry_time = null");
    json_decref(data.body);
    json_decref(fresh.body);
}
END_TEST

START_TEST(maintenance_stops_calls_and_changes)
{
    new_job("maintained", "1.1.0", JOB_RUNNING);
    TRK_PG_AUTO(conn)
    = acquire();
    json_auto_t *on = json_true();
    json_auto_t *off = json_false();
    must(setting_store_set(conn, SETTING_MAINTENANCE_MODE, on, &err));
    struct answer a = can_call("maintained/latest/x", admin);
    ck_assert_int_eq(a.status, 503);
    ck_assert_ptr_nonnull(strstr(text_in(&a, "error"), "maintenance"));
    json_decref(a.body);
    ck_assert_int_eq(status_of("POST", "/api/v1/deploy", admin, json_pack("{s:{}}", "manifest")),
                     503);
    ck_assert_int_eq(status_of("DELETE", "/api/v1/job/maintained/1.1.0", admin, NULL), 503);
    ck_assert_int_eq(status_of("POST", "/api/v1/job/maintained/1.1.0/redeploy", admin, NULL), 503);
    ck_assert_int_eq(status_of("GET", "/api/v1/job/maintained/1.1.0", admin, NULL), 200);
    must(setting_store_set(conn, SETTING_MAINTENANCE_MODE, off, &err));
    expect_decision("maintained/latest/x", admin, "any_path", "User admin");
}
END_TEST

START_TEST(grants_work_in_both_spellings)
{
    const char *subject;
    new_job("spelling", "1.1.0", JOB_RUNNING);
    const char *token = new_esc("speller", &subject);
    const char *ask = "/api/v1/auth/allowed/fatman/spelling/latest/scope/call_fatman";
    ck_assert_int_eq(status_of("GET", ask, token, NULL), 403);
    ck_assert_int_eq(status_of("POST",
                               "/api/v1/auth/allow/esc/speller/fatman/spelling/scope/call_fatman",
                               admin, NULL),
                     200);
    ck_assert_int_eq(status_of("GET", ask, token, NULL), 202);
    ck_assert_int_eq(
        status_of("GET", "/api/v1/auth/allowed/job/spelling/1.1.0/scope/call_job", token, NULL),
        202);
    ck_assert_int_eq(
        status_of("GET", "/api/v1/auth/allowed/job/spelling/1.1.0/scope/read_job", token, NULL),
        403);
    ck_assert_int_eq(
        status_of("GET",
                  "/api/v1/auth/allowed/job_endpoint/spelling/1.1.0/scope/call_job/endpoint/x",
                  token, NULL),
        202);
    ck_assert_int_eq(status_of("POST",
                               "/api/v1/auth/allow/job_family/spelling/job/spelling/scope/call_job",
                               admin, NULL),
                     200);
    ck_assert_int_eq(
        status_of("POST", "/api/v1/auth/allow/esc/speller/job/spelling/scope/root", admin, NULL),
        400);
    ck_assert_int_eq(
        status_of("POST", "/api/v1/auth/allow/esc/no-one/job/spelling/scope/call_job", admin, NULL),
        404);
}
END_TEST

START_TEST(the_fatman_era_reads_its_own_keys)
{
    new_job("fatman", "1.1.0", JOB_STARTING); /* a job of that very name, too */
    struct answer a = call("GET", "/lifecycle/api/v1/fatman/fatman/1.1.0", admin, NULL);
    ck_assert_int_eq(a.status, 200);
    ck_assert_str_eq(text_in(&a, "status"), "created");
    ck_assert_ptr_nonnull(strstr(text_in(&a, "pub_url"), "/pub/fatman/fatman/1.1.0"));
    /* what is the user's own keeps its spelling */
    const json_t *labels = json_object_get(json_object_get(a.body, "manifest"), "labels");
    ck_assert_str_eq(trk_json_string_or(labels, "job", ""), "mine");
    json_decref(a.body);
    TRK_PG_AUTO(conn)
    = acquire();
    struct job *job;
    must(job_store_get(conn, mem, "fatman", "1.1.0", &job, &err));
    must(endpoint_store_request(conn, job->id, "/p", &err));
    a = call("GET", "/api/v1/fatman/fatman/1.1.0/public-endpoints", admin, NULL);
    ck_assert_str_eq(trk_json_string_or(json_array_get(a.body, 0), "fatman_name", ""), "fatman");
    ck_assert_ptr_null(json_object_get(json_array_get(a.body, 0), "job_name"));
    json_decref(a.body);
    ck_assert_int_eq(status_of("GET", "/api/v1/fatman_family", admin, NULL), 200);
    ck_assert_int_eq(status_of("GET", "/api/v1/fatman/nothing/here/x/y", admin, NULL), 404);
}
END_TEST

/* -- users -- */

START_TEST(login_gives_the_token_and_says_no_more)
{
    struct answer a = call("POST", "/api/v1/users/login", NULL,
                           json_pack("{s:s,s:s}", "username", "admin", "password", "admin"));
    ck_assert_int_eq(a.status, 200);
    ck_assert(json_is_true(json_object_get(a.body, "is_staff")));
    ck_assert_int_eq(
        status_of("GET", "/api/v1/users/validate_user_auth", text_in(&a, "token"), NULL), 200);
    json_decref(a.body);
    ck_assert_int_eq(
        status_of("GET", "/api/v1/users/validate_user_auth", TRK_DEV_ADMIN_TOKEN_EARLY, NULL), 200);
    struct answer wrong = call("POST", "/api/v1/users/login", NULL,
                               json_pack("{s:s,s:s}", "username", "admin", "password", "Admin"));
    struct answer unknown = call("POST", "/api/v1/users/login", NULL,
                                 json_pack("{s:s,s:s}", "username", "xx", "password", "admin"));
    ck_assert_int_eq(wrong.status, 401);
    ck_assert_str_eq(wrong.text, unknown.text);
    json_decref(wrong.body);
    json_decref(unknown.body);
    struct answer token = call("GET", "/api/v1/job", "secret.token.text", NULL);
    ck_assert_ptr_null(strstr(token.text, "secret.token"));
    json_decref(token.body);
}
END_TEST

START_TEST(users_change_their_password_and_tokens)
{
    char hash[TRK_PASSWORD_HASH_SIZE];
    const char *subject, *token;
    must(trk_password_hash("first password", hash, &err));
    {
        TRK_PG_AUTO(conn)
        = acquire();
        must(user_store_create(conn, mem, "carol@x", hash, true, false, &subject, &err));
        must(token_store_create(conn, mem, subject, TRK_SUBJECT_USER, "carol@x", 0, lc.auth_key,
                                &token, &err));
    }
    const char *path = "/api/v1/users/change_password";
    ck_assert_int_eq(status_of("PUT", path, token,
                               json_pack("{s:s,s:s}", "old_password", "wrong", "new_password",
                                         "second password")),
                     401);
    ck_assert_int_eq(status_of("PUT", path, token,
                               json_pack("{s:s,s:s}", "old_password", "first password",
                                         "new_password", "12345678")),
                     400);
    ck_assert_int_eq(status_of("PUT", path, token,
                               json_pack("{s:s,s:s}", "old_password", "first password",
                                         "new_password", "second password")),
                     200);
    ck_assert_int_eq(
        status_of("POST", "/api/v1/users/login", NULL,
                  json_pack("{s:s,s:s}", "username", "carol@x", "password", "second password")),
        200);
    ck_assert_int_eq(status_of("GET", "/api/v1/escs", token, NULL), 403); /* not of the staff */
    struct answer a = call("POST", "/api/v1/auth/token/user/regenerate", token, NULL);
    ck_assert_int_eq(status_of("GET", "/api/v1/users/validate_user_auth", token, NULL), 401);
    ck_assert_int_eq(
        status_of("GET", "/api/v1/users/validate_user_auth", text_in(&a, "new_token"), NULL), 200);
    sql("update auth_user set is_active = false where username = 'carol@x'");
    ck_assert_int_eq(
        status_of("GET", "/api/v1/users/validate_user_auth", text_in(&a, "new_token"), NULL), 401);
    ck_assert_int_eq(
        status_of("POST", "/api/v1/users/login", NULL,
                  json_pack("{s:s,s:s}", "username", "carol@x", "password", "second password")),
        401);
    json_decref(a.body);
}
END_TEST

/* -- deployments: what is refused before anything happens -- */

START_TEST(a_bad_manifest_comes_back_with_every_fault)
{
    struct answer a = call("POST", "/api/v1/deploy", admin,
                           json_pack("{s:{s:s,s:s,s:s,s:i}}", "manifest", "name", "adder",
                                     "version", "1.2", "jobtype", "python3:latest", "colour", 1));
    ck_assert_int_eq(a.status, 422);
    ck_assert_str_eq(text_in(&a, "type"), "ValidationError");
    const json_t *faults = json_object_get(a.body, "faults");
    bool version = false, colour = false, git = false;
    for (size_t i = 0; i < json_array_size(faults); i++) {
        const char *path = trk_json_string_or(json_array_get(faults, i), "path", "");
        version |= strcmp(path, "version") == 0;
        colour |= strcmp(path, "colour") == 0;
        git |= strcmp(path, "git") == 0;
    }
    ck_assert_msg(version && colour && git, "%s", a.text);
    ck_assert_ptr_nonnull(strstr(text_in(&a, "error"), "colour"));
    json_decref(a.body);
    ck_assert_int_eq(status_of("POST", "/api/v1/deploy", admin, json_object()), 422);
    ck_assert_int_eq(status_of("GET", "/api/v1/deploy?limit=x", admin, NULL), 422);
    ck_assert_int_eq(status_of("GET", "/api/v1/deploy?limit=0", admin, NULL), 400);
    ck_assert_int_eq(status_of("GET", "/api/v1/deploy/no-such", admin, NULL), 404);
}
END_TEST

/* -- the event stream -- */

struct listening {
    pthread_mutex_t lock;
    char text[8192];
    size_t len;
    volatile bool stop;
    const char *url, *last_id, *token;
};

static int on_data(void *ctx, int status, const char *bytes, size_t len, struct trk_err *e)
{
    struct listening *l = ctx;
    if (status != 200) {
        return trk_err_set(e, TRK_BAD_GATEWAY, "status %d", status);
    }
    (void)pthread_mutex_lock(&l->lock);
    if (l->len + len < sizeof(l->text)) {
        memcpy(l->text + l->len, bytes, len);
        l->len += len;
    }
    (void)pthread_mutex_unlock(&l->lock);
    return 0;
}

static void *run_stream(void *arg)
{
    struct listening *l = arg;
    trk_autofree char *header = trk_xasprintf("Last-Event-ID: %s", l->last_id);
    const char *headers[] = {l->last_id != NULL ? header : NULL, NULL};
    struct trk_http_client *own = trk_http_client_new();
    struct trk_http_call request = {.url = l->url,
                                    .headers = headers,
                                    .auth_token = l->token,
                                    .timeout_ms = -1,
                                    .on_data = on_data,
                                    .ctx = l,
                                    .cancel = &l->stop};
    struct trk_http_answer answer = {0};
    struct trk_err e = {0};
    if (trk_http_call(own, &request, &answer, &e) == 0) {
        trk_http_answer_fini(&answer);
    }
    trk_http_client_free(own);
    return NULL;
}

static bool heard(struct listening *l, const char *text)
{
    int64_t deadline = trk_now_ns() + 10 * TRK_NS_PER_S;
    for (;;) {
        (void)pthread_mutex_lock(&l->lock);
        bool ok = strstr(l->text, text) != NULL;
        (void)pthread_mutex_unlock(&l->lock);
        if (ok || trk_now_ns() > deadline) {
            return ok;
        }
        trk_sleep_ms(5);
    }
}

static int add_event(struct trk_pg *conn, void *ctx, struct trk_err *e)
{
    return event_store_add(conn, EVENT_JOB_CHANGED, ctx, "1.0.0", e);
}

static void announce(const char *name)
{
    must(trk_pg_transaction(lc.pool, add_event, (void *)(uintptr_t)name, &err));
}

static int64_t newest_event(void)
{
    TRK_PG_AUTO(conn)
    = acquire();
    int64_t first, last;
    must(event_store_range(conn, &first, &last, &err));
    return last;
}

static pthread_t listen_from(struct listening *l, const char *last_id)
{
    *l = (struct listening){.lock = PTHREAD_MUTEX_INITIALIZER, .last_id = last_id};
    l->url = talloc_asprintf(mem, "http://127.0.0.1:%d/api/v1/events/stream",
                             trk_http_server_port(server));
    l->token = internal_token(SCOPE_FULL_ACCESS);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_stream, l), 0);
    ck_assert(heard(l, "event: hello\n"));
    return thread;
}

static void stop_listening(struct listening *l, pthread_t thread)
{
    __atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
    (void)pthread_join(thread, NULL);
}

START_TEST(the_stream_tells_at_once_and_resumes)
{
    struct listening l;
    announce("before");
    pthread_t thread = listen_from(&l, NULL);
    int64_t start = trk_now_ns();
    announce("one");
    ck_assert(heard(&l, "{\"job_name\": \"one\", \"job_version\": \"1.0.0\"}"));
    ck_assert_int_lt(trk_now_ns() - start, 2 * TRK_NS_PER_S); /* not by the look every 5 s */
    stop_listening(&l, thread);
    ck_assert_ptr_null(strstr(l.text, "before"));

    const char *seen = talloc_asprintf(mem, "%lld", (long long)newest_event());
    announce("two");
    announce("three");
    thread = listen_from(&l, seen);
    ck_assert(heard(&l, "three"));
    stop_listening(&l, thread);
    const char *two = strstr(l.text, "two");
    ck_assert_ptr_nonnull(two);
    ck_assert_ptr_nonnull(strstr(two, "three"));
    ck_assert_ptr_null(strstr(l.text, "\"one\""));
    ck_assert_ptr_null(strstr(l.text, "missed"));
}
END_TEST

START_TEST(a_reader_that_missed_events_is_told)
{
    struct listening l;
    announce("old");
    announce("new");
    sql("delete from registry_event where id < (select max(id) from registry_event)");
    pthread_t thread = listen_from(&l, "1");
    ck_assert(heard(&l, "event: settings_changed\ndata: {\"missed\":true}"));
    stop_listening(&l, thread);
    /* ids of a database that was reset since */
    thread = listen_from(&l, "999999999");
    ck_assert(heard(&l, "\"missed\":true"));
    stop_listening(&l, thread);
}
END_TEST

/* -- the database goes away -- */

START_TEST(without_the_database_it_says_so_and_recovers)
{
    pg_cluster_crash(cluster);
    int64_t start = trk_now_ns();
    struct answer a = call("GET", "/api/v1/job", admin, NULL);
    ck_assert_int_lt(trk_now_ns() - start, 3 * TRK_NS_PER_S);
    ck_assert_int_eq(a.status, 503);
    ck_assert_ptr_nonnull(strstr(text_in(&a, "error"), "database is not reachable"));
    json_decref(a.body);
    ck_assert_int_eq(status_of("GET", "/live", NULL, NULL), 200);
    ck_assert_int_eq(status_of("GET", "/ready", NULL, NULL), 503);
    a = call("GET", "/health", NULL, NULL);
    ck_assert_int_eq(a.status, 500);
    ck_assert(json_is_false(json_object_get(a.body, "database_connected")));
    json_decref(a.body);
    ck_assert_int_eq(status_of("GET", "/metrics", NULL, NULL), 200);
    pg_cluster_resume(cluster);
    ck_assert_int_eq(status_of("GET", "/api/v1/job", admin, NULL), 200);
    ck_assert_int_eq(status_of("GET", "/ready", NULL, NULL), 200);
}
END_TEST

START_TEST(the_docs_are_made_of_the_tables)
{
    struct answer a = call("GET", "/lifecycle/openapi.json", NULL, NULL);
    ck_assert_int_eq(a.status, 200);
    const json_t *paths = json_object_get(a.body, "paths");
    ck_assert_ptr_nonnull(json_object_get(paths, "/api/v1/job/{name}/{version}"));
    ck_assert_ptr_null(json_object_get(paths, "/api/v1/info/plugins"));
    json_decref(a.body);
    ck_assert_int_eq(status_of("GET", "/docs", NULL, NULL), 200);
}
END_TEST

/* -- set-up -- */

static void start(void)
{
    cluster = pg_cluster_start();
    (void)setenv("RACETRACK_PROFILE", "dev", 1);
    (void)setenv("LIFECYCLE_PORT", "0", 1);
    (void)setenv("LOG_LEVEL", "error", 0);
    trk_json_init();
    trk_log_init_from_env();
    need(trk_config_load(&lifecycle_config_table, &config, &err));
    lc.config = &config;
    lc.auth_key = lifecycle_auth_key(&config);
    lc.secret_key = lifecycle_secret_key(&config);
    lc.pg_options = (struct trk_pg_options){.conninfo = pg_cluster_conninfo(cluster),
                                            .schema = "racetrack",
                                            .size = 8,
                                            .acquire_timeout_ms = 2000};
    lc.pool = trk_pg_pool_new(&lc.pg_options);
    lc.metrics = trk_metrics_new();
    lc.events = event_hub_new(&lc);
    api_metrics_register(&lc);
    need(migrations_run(lc.pool, NULL, &err));
    need(bootstrap_run(&lc, &err));
    need(bootstrap_run(&lc, &err)); /* once more changes nothing */
    need(event_hub_start(lc.events, &err));
    atomic_store(&lc.is_started, true);
    api_options(&lc, &options);
    need(trk_http_server_start(&options, &server, &err));
    client = trk_http_client_new();
}

static void stop(void)
{
    trk_http_client_free(client);
    event_hub_stop(lc.events);
    trk_http_server_stop(server, 5000);
    event_hub_free(lc.events);
    trk_metrics_free(lc.metrics);
    trk_pg_pool_free(lc.pool);
    trk_config_fini(&lifecycle_config_table, &config);
    pg_cluster_stop(cluster);
}

int main(void)
{
    start();
    Suite *suite = suite_create("api");
    TCase *tcase = tcase_create("api");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, every_route_refuses_whom_it_must);
    tcase_add_test(tcase, internal_routes_are_not_for_administrators);
    tcase_add_test(tcase, a_list_shows_what_may_be_read);
    tcase_add_test(tcase, calls_are_decided_by_token_job_and_path);
    tcase_add_test(tcase, public_endpoints_open_what_they_name);
    tcase_add_test(tcase, a_revoked_or_expired_token_is_refused_at_once);
    tcase_add_test(tcase, maintenance_stops_calls_and_changes);
    tcase_add_test(tcase, grants_work_in_both_spellings);
    tcase_add_test(tcase, the_fatman_era_reads_its_own_keys);
    tcase_add_test(tcase, login_gives_the_token_and_says_no_more);
    tcase_add_test(tcase, users_change_their_password_and_tokens);
    tcase_add_test(tcase, a_bad_manifest_comes_back_with_every_fault);
    tcase_add_test(tcase, the_stream_tells_at_once_and_resumes);
    tcase_add_test(tcase, a_reader_that_missed_events_is_told);
    tcase_add_test(tcase, without_the_database_it_says_so_and_recovers);
    tcase_add_test(tcase, the_docs_are_made_of_the_tables);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* one server */
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    stop();
    return failures > 0 ? 1 : 0;
}
