/* Who may do what, and what callers are told. */
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/infra/target.h"
#include "lifecycle/store/endpoint.h"
#include "lifecycle/store/subject.h"
#include "lifecycle/store/user.h"
#include "tests/unit/support/lifecycle_api.h"

/* -- who may call what -- */

static const char *const public_routes[] = {
    "GET /live",
    "GET /ready",
    "GET /health",
    "GET /metrics",
    "GET /api/v1/info",
    "GET /admin/",
    "GET /api/v1/info/plugins",
    "GET /api/v1/auth/can-call-job/{name}/{version}/{endpoint:path}",
    "GET /api/v1/auth/allowed/job/{name}/{version}/scope/{scope}",
    "GET /api/v1/auth/allowed/job_endpoint/{name}/{version}/scope/{scope}/endpoint/{endpoint:path}",
    "POST /api/v1/users/login",
    "GET /api/v1/users/logout",
};

static const char *concrete(const char *path)
{
    char *out = talloc_strdup(api.mem, "");
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
    must(trk_jwt_sign(&claims, "another key of at least 32 bytes length", &forged, &api.err));
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
    for (size_t t = 0; t < api.options.table_count; t++) {
        for (size_t i = 0; i < api.options.tables[t].count; i++) {
            const struct trk_route *route = &api.options.tables[t].routes[i];
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
    ck_assert_int_eq(status_of("GET", "/api/v1/gateway/stream", ADMIN, NULL), 403);
    ck_assert_int_eq(
        status_of("PUT", "/api/v1/deploy/x/phase", ADMIN, json_pack("{s:s}", "phase", "x")), 403);
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
    ck_assert_int_eq(status_of("DELETE", "/api/v1/job/list-mine/latest", ADMIN, NULL), 400);
    json_decref(jobs.body);
    json_decref(families.body);
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
                               ADMIN, NULL),
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
                               ADMIN, NULL),
                     200);
    ck_assert_int_eq(
        status_of("POST", "/api/v1/auth/allow/esc/speller/job/spelling/scope/root", ADMIN, NULL),
        400);
    ck_assert_int_eq(
        status_of("POST", "/api/v1/auth/allow/esc/no-one/job/spelling/scope/call_job", ADMIN, NULL),
        404);
}
END_TEST

/* How often the list of the family's permissions names this holder and scope. */
static int listed(const char *path, const char *holder, const char *scope, const char *version)
{
    struct answer a = call("GET", path, ADMIN, NULL);
    ck_assert_msg(a.status == 200, "%s: %s", path, a.text);
    int found = 0;
    for (size_t i = 0; i < json_array_size(a.body); i++) {
        const json_t *p = json_array_get(a.body, i);
        found += strcmp(trk_json_string_or(p, "subject", ""), holder) == 0 &&
                 strcmp(trk_json_string_or(p, "scope", ""), scope) == 0 &&
                 strcmp(trk_json_string_or(p, "job_version", "any"), version) == 0;
    }
    json_decref(a.body);
    return found;
}

START_TEST(a_grant_is_taken_back_in_both_spellings)
{
    const char *subject;
    new_job("revoke", "1.1.0", JOB_RUNNING);
    new_job("revoke-other", "1.1.0", JOB_RUNNING);
    const char *token = new_esc("revoked", &subject);
    const char *ask = "/api/v1/auth/allowed/job/revoke/latest/scope/call_job";
    const char *list = "/api/v1/auth/allow/job/revoke";
    static const char *const paths[] = {
        "/api/v1/auth/allow/esc/revoked/job/revoke/scope/call_job",
        "/api/v1/auth/allow/esc/revoked/fatman/revoke/scope/call_fatman",
    };
    grant(subject, SCOPE_CALL_JOB, "revoke-other", NULL);
    grant(subject, SCOPE_CALL_JOB, "revoke", "/x"); /* narrower ones are other grants */
    for (size_t i = 0; i < TRK_COUNT(paths); i++) {
        ck_assert_int_eq(status_of("POST", paths[i], ADMIN, NULL), 200);
        ck_assert_int_eq(status_of("GET", ask, token, NULL), 202);
        ck_assert_int_eq(listed(list, "revoked", SCOPE_CALL_JOB, "any"), 2);
        sql("delete from registry_event");
        ck_assert_int_eq(status_of("DELETE", paths[i], ADMIN, NULL), 200);
        ck_assert_int_eq(status_of("GET", ask, token, NULL), 403);
        ck_assert_int_eq(listed(list, "revoked", SCOPE_CALL_JOB, "any"), 1);
        trk_pg_auto struct trk_pg *conn = acquire();
        trk_pg_result_auto struct trk_pg_result *res = NULL;
        must(trk_pg_query(conn, &res, &api.err,
                          "select 1 from registry_event where kind = 'subject_changed'", ""));
        ck_assert_int_eq(trk_pg_rows(res), 1);
        struct answer a = call("DELETE", paths[i], ADMIN, NULL);
        ck_assert_int_eq(a.status, 404);
        ck_assert_str_eq(text_in(&a, "error"),
                         "ESC revoked has no grant of call_job on job family revoke");
        json_decref(a.body);
    }
    ck_assert_int_eq(status_of("GET", "/api/v1/auth/allowed/job/revoke-other/latest/scope/call_job",
                               token, NULL),
                     202);
    const char *family = "/api/v1/auth/allow/job_family/revoke/job/revoke-other/scope/call_job";
    const char *other = "/api/v1/auth/allow/fatman/revoke-other";
    ck_assert_int_eq(status_of("DELETE", family, ADMIN, NULL), 404);
    ck_assert_int_eq(status_of("POST", family, ADMIN, NULL), 200);
    ck_assert_int_eq(listed(other, "revoke", SCOPE_CALL_JOB, "any"), 1);
    ck_assert_int_eq(status_of("DELETE", family, ADMIN, NULL), 200);
    ck_assert_int_eq(listed(other, "revoke", SCOPE_CALL_JOB, "any"), 0);
    /* on everything, and on one version */
    ck_assert_int_eq(listed(list, "admin", SCOPE_FULL_ACCESS, "any"), 1);
    sql("insert into registry_authresourcepermission (auth_subject_id, scope, job_id) select s.id, "
        "'read_job', j.id from registry_authsubject s, registry_job j where s.esc_id = 'revoked' "
        "and j.name = 'revoke'");
    ck_assert_int_eq(listed(list, "revoked", SCOPE_READ_JOB, "1.1.0"), 1);
    ck_assert_int_eq(listed(other, "revoked", SCOPE_READ_JOB, "1.1.0"), 0);
    ck_assert_int_eq(status_of("GET", "/api/v1/auth/allow/job/no-such", ADMIN, NULL), 404);
}
END_TEST

START_TEST(the_fatman_era_reads_its_own_keys)
{
    new_job("fatman", "1.1.0", JOB_STARTING); /* a job of that very name, too */
    struct answer a = call("GET", "/lifecycle/api/v1/fatman/fatman/1.1.0", ADMIN, NULL);
    ck_assert_int_eq(a.status, 200);
    ck_assert_str_eq(text_in(&a, "status"), "created");
    ck_assert_ptr_nonnull(strstr(text_in(&a, "pub_url"), "/pub/fatman/fatman/1.1.0"));
    /* what is the user's own keeps its spelling */
    const json_t *labels = json_object_get(json_object_get(a.body, "manifest"), "labels");
    ck_assert_str_eq(trk_json_string_or(labels, "job", ""), "mine");
    json_decref(a.body);
    trk_pg_auto struct trk_pg *conn = acquire();
    struct job *job;
    must(job_store_get(conn, api.mem, "fatman", "1.1.0", &job, &api.err));
    must(endpoint_store_request(conn, job->id, "/p", &api.err));
    a = call("GET", "/api/v1/fatman/fatman/1.1.0/public-endpoints", ADMIN, NULL);
    ck_assert_str_eq(trk_json_string_or(json_array_get(a.body, 0), "fatman_name", ""), "fatman");
    ck_assert_ptr_null(json_object_get(json_array_get(a.body, 0), "job_name"));
    json_decref(a.body);
    ck_assert_int_eq(status_of("GET", "/api/v1/fatman_family", ADMIN, NULL), 200);
    ck_assert_int_eq(status_of("GET", "/api/v1/fatman/nothing/here/x/y", ADMIN, NULL), 404);
}
END_TEST

/* -- the list of jobs -- */

START_TEST(a_list_of_many_jobs_is_whole_and_in_order)
{
    const char *subject;
    new_job("many", "1.0.0", JOB_RUNNING);
    sql("insert into registry_job (id, family_id, name, version, status, manifest, manifest_json, "
        "error) select 'many-' || n, family_id, name, '2.0.' || to_char(n, 'FM0000'), status, "
        "manifest, manifest_json, E'a \"quoted\"\\nline \\x01' from registry_job, "
        "generate_series(1, 650) n where name = 'many'");
    const char *token = new_esc("reads-many", &subject);
    grant(subject, SCOPE_READ_JOB, "many", NULL);
    struct answer a = call("GET", "/api/v1/job", token, NULL);
    ck_assert_int_eq(a.status, 200);
    ck_assert_uint_eq(json_array_size(a.body), 651);
    const char *before = "";
    for (size_t i = 0; i < json_array_size(a.body); i++) {
        const json_t *job = json_array_get(a.body, i);
        const char *version = trk_json_string_or(job, "version", "");
        ck_assert_str_eq(trk_json_string_or(job, "name", ""), "many");
        ck_assert_int_gt(strcmp(version, before), 0);
        before = version;
    }
    const json_t *last = json_array_get(a.body, 650);
    ck_assert_str_eq(trk_json_string_or(last, "error", ""), "a \"quoted\"\nline \x01");
    struct answer one = call("GET", "/api/v1/job/many/2.0.0650", token, NULL);
    ck_assert_msg(json_equal(last, one.body), "%s", one.text);
    struct answer old = call("GET", "/api/v1/fatman", token, NULL);
    ck_assert_uint_eq(json_array_size(old.body), 651);
    ck_assert_ptr_nonnull(strstr(trk_json_string_or(json_array_get(old.body, 0), "pub_url", ""),
                                 "/fatman/many/1.0.0"));
    json_decref(a.body);
    json_decref(one.body);
    json_decref(old.body);
    sql("delete from registry_job where name = 'many'");
    a = call("GET", "/api/v1/job", token, NULL);
    ck_assert_str_eq(a.text, "[]");
    json_decref(a.body);
}
END_TEST

START_TEST(rows_of_older_versions_get_the_manifest_that_is_shown)
{
    new_job("older", "1.0.0", JOB_RUNNING);
    sql("update registry_job set manifest = E'name: older\\nlabels: {a: b}\\n', manifest_json = "
        "null "
        "where name = 'older'");
    {
        trk_pg_auto struct trk_pg *conn = acquire();
        must(job_store_complete(conn, &api.err));
    }
    struct answer a = call("GET", "/api/v1/job/older/1.0.0", ADMIN, NULL);
    const json_t *manifest = json_object_get(a.body, "manifest");
    ck_assert_str_eq(trk_json_string_or(json_object_get(manifest, "labels"), "a", ""), "b");
    ck_assert(json_is_null(json_object_get(manifest, "golang"))); /* every field is there */
    json_decref(a.body);
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
    must(trk_password_hash("first password", hash, &api.err));
    {
        trk_pg_auto struct trk_pg *conn = acquire();
        must(user_store_create(conn, api.mem, "carol@x", hash, true, false, &subject, &api.err));
        must(issue_token(conn, api.mem, subject, TRK_SUBJECT_USER, "carol@x", 0, api.lc.auth_key,
                         &token, &api.err));
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

static const char *log_in(const char *username, const char *password)
{
    struct answer a = call("POST", "/api/v1/users/login", NULL,
                           json_pack("{s:s,s:s}", "username", username, "password", password));
    ck_assert_msg(a.status == 200, "%s", a.text);
    const char *token = talloc_strdup(api.mem, text_in(&a, "token"));
    json_decref(a.body);
    return token;
}

static const char *new_user(const char *name, const char *password, bool is_staff,
                            const char **ret_token)
{
    char hash[TRK_PASSWORD_HASH_SIZE];
    const char *subject;
    trk_pg_auto struct trk_pg *conn = acquire();
    must(trk_password_hash(password, hash, &api.err));
    must(user_store_create(conn, api.mem, name, hash, true, is_staff, &subject, &api.err));
    must(issue_token(conn, api.mem, subject, TRK_SUBJECT_USER, name, 0, api.lc.auth_key, ret_token,
                     &api.err));
    return subject;
}

static int who_is(const char *token)
{
    return status_of("GET", "/api/v1/users/validate_user_auth", token, NULL);
}

START_TEST(a_session_ends_with_logout_and_with_the_password)
{
    const char *lasting;
    (void)new_user("dora@x", "first password", false, &lasting);
    const char *one = log_in("dora@x", "first password"), *two = log_in("dora@x", "first password");
    ck_assert_str_ne(one, two);
    ck_assert_int_eq(who_is(one), 200);
    ck_assert_int_eq(status_of("GET", "/api/v1/users/logout", one, NULL), 200);
    ck_assert_int_eq(who_is(one), 401);
    ck_assert_int_eq(who_is(two), 200);
    ck_assert_int_eq(status_of("GET", "/api/v1/users/logout", one, NULL), 200); /* once more */
    ck_assert_int_eq(status_of("GET", "/api/v1/users/logout", lasting, NULL), 200);
    ck_assert_int_eq(who_is(lasting), 200); /* no session */
    ck_assert_int_eq(status_of("PUT", "/api/v1/users/change_password", two,
                               json_pack("{s:s,s:s}", "old_password", "first password",
                                         "new_password", "second password")),
                     200);
    ck_assert_int_eq(who_is(two), 401);
    ck_assert_int_eq(who_is(lasting), 200);
    struct answer own = call("GET", "/api/v1/users/dora@x/profile",
                             log_in("dora@x", "second password"), NULL);
    ck_assert_str_eq(text_in(&own, "token"), lasting); /* a session's is not shown as the user's */
    json_decref(own.body);
    ck_assert_int_eq(status_of("GET", "/api/v1/users/dora@x/profile", ADMIN, NULL), 403);
    const char *last = log_in("dora@x", "second password");
    sql("update registry_authtoken set expiry_time = now() - interval '1 s' where is_session");
    ck_assert_int_eq(who_is(last), 401);
    for (int i = 0; i < 60; i++) {
        trk_pg_auto struct trk_pg *conn = acquire();
        struct user *user;
        must(user_store_get(conn, api.mem, "dora@x", &user, &api.err));
        must(issue_session(conn, api.mem, user->subject_id, "dora@x", 60, api.lc.auth_key, &last,
                           &api.err));
    }
    trk_pg_auto struct trk_pg *conn = acquire();
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    must(trk_pg_query(conn, &res, &api.err,
                      "select 1 from registry_authtoken t join registry_authsubject s on s.id = "
                      "t.auth_subject_id join auth_user u on u.id = s.user_id where is_session and "
                      "username = 'dora@x'",
                      ""));
    ck_assert_int_eq(trk_pg_rows(res), 50);
    ck_assert_int_eq(who_is(last), 200);
}
END_TEST

START_TEST(wrong_passwords_make_wait)
{
    int status = 401, tries = 0;
    while (status == 401 && tries < 30) {
        tries++;
        status = status_of("POST", "/api/v1/users/login", NULL,
                           json_pack("{s:s,s:s}", "username", "nobody@x", "password", "guess"));
    }
    ck_assert_int_eq(status, 429);
    ck_assert_int_ge(tries, 11); /* more when the machine is slow: they ease with time */
    struct answer a = call("POST", "/api/v1/users/login", NULL,
                           json_pack("{s:s,s:s}", "username", "nobody@x", "password", "guess"));
    ck_assert_int_eq(a.status, 429);
    ck_assert_ptr_nonnull(strstr(text_in(&a, "error"), "too many wrong passwords, try again in "));
    json_decref(a.body);
    (void)log_in("admin", "admin"); /* another name may */
}
END_TEST

START_TEST(the_staff_sees_tokens_of_escs_without_their_texts)
{
    const char *staff, *subject;
    (void)new_user("eve@x", "some password", true, &staff);
    const char *token = new_esc("guarded", &subject);
    struct answer a = call("GET", "/api/v1/escs/guarded/auth_data", staff, NULL);
    ck_assert_int_eq(a.status, 200);
    ck_assert_ptr_null(strstr(a.text, token));
    ck_assert_uint_eq(json_array_size(json_object_get(a.body, "tokens")), 1);
    json_decref(a.body);
    ck_assert_int_eq(status_of("GET", "/api/v1/auth/token/esc/guarded", staff, NULL), 403);
    a = call("GET", "/api/v1/escs/guarded/auth_data", ADMIN, NULL);
    ck_assert_ptr_nonnull(strstr(a.text, token));
    json_decref(a.body);
}
END_TEST

START_TEST(tokens_of_a_kind_are_replaced_together)
{
    const char *subject;
    const char *old = new_esc("rotated", &subject);
    ck_assert_int_eq(status_of("GET", "/api/v1/auth/token/esc/regenerate", ADMIN, NULL), 404);
    ck_assert_int_eq(status_of("POST", "/api/v1/auth/token/esc/regenerate", old, NULL), 403);
    ck_assert_int_eq(status_of("POST", "/api/v1/auth/token/esc/regenerate", ADMIN, NULL), 200);
    ck_assert_int_eq(status_of("GET", "/api/v1/info/plugins", old, NULL), 200);
    ck_assert_int_eq(status_of("GET", "/api/v1/audit/events", old, NULL), 401);
    struct answer a = call("GET", "/api/v1/auth/token/esc/rotated", ADMIN, NULL);
    ck_assert_int_eq(status_of("GET", "/api/v1/audit/events", text_in(&a, "token"), NULL), 200);
    json_decref(a.body);
    new_job("rotating", "1.0.0", JOB_RUNNING);
    ck_assert_int_eq(status_of("POST", "/api/v1/auth/token/job_family/regenerate", ADMIN, NULL),
                     200);
    const char *frank;
    (void)new_user("frank@x", "some password", false, &frank);
    sql("insert into registry_authresourcepermission (auth_subject_id, scope) select s.id, "
        "'call_admin_api' from registry_authsubject s join auth_user u on u.id = s.user_id where "
        "u.username = 'frank@x'");
    ck_assert_int_eq(status_of("POST", "/api/v1/auth/token/user/all/regenerate", frank, NULL), 200);
    ck_assert_int_eq(who_is(frank), 401);
    ck_assert_int_eq(who_is(ADMIN), 401);
    sql("update registry_authtoken set active = true where token like '%'"); /* for other tests */
    ck_assert_int_eq(who_is(ADMIN), 200);
}
END_TEST

START_TEST(what_is_done_to_rights_is_written_down)
{
    const char *subject, *other, *none;
    sql("delete from registry_auditlogevent");
    new_job("watched", "1.0.0", JOB_RUNNING);
    (void)new_user("gil@x", "some password", false, &none);
    const char *token = log_in("gil@x", "some password");
    ck_assert_int_eq(status_of("POST", "/api/v1/escs", ADMIN,
                               json_pack("{s:s,s:s}", "name", "w", "id", "watcher")),
                     200);
    const char *grant_path = "/api/v1/auth/allow/esc/watcher/job/watched/scope/call_job";
    ck_assert_int_eq(status_of("POST", grant_path, ADMIN, NULL), 200);
    ck_assert_int_eq(status_of("DELETE", grant_path, ADMIN, NULL), 200);
    ck_assert_int_eq(status_of("DELETE", grant_path, ADMIN, NULL), 404); /* nothing was done */
    static const char *const types[] = {"permission_revoked", "permission_granted", "esc_created",
                                        "user_logged_in"};
    struct answer all = call("GET", "/api/v1/audit/events", ADMIN, NULL);
    ck_assert_uint_eq(json_array_size(all.body), TRK_COUNT(types));
    for (size_t i = 0; i < TRK_COUNT(types); i++) {
        const json_t *e = json_array_get(all.body, i);
        ck_assert_str_eq(trk_json_string_or(e, "event_type", ""), types[i]);
        ck_assert(json_is_object(json_object_get(e, "properties")));
        ck_assert_str_eq(trk_json_string_or(e, "username_executor", ""), i < 3 ? "admin" : "gil@x");
    }
    json_decref(all.body);
    struct answer own = call("GET", "/api/v1/audit/events", token, NULL);
    ck_assert_uint_eq(json_array_size(own.body), 1);
    json_decref(own.body);
    struct answer admins = call("GET", "/api/v1/audit/user_events/job/watched", ADMIN, NULL);
    ck_assert_uint_eq(json_array_size(admins.body), 2);
    json_decref(admins.body);
    admins = call("GET", "/api/v1/audit/user_events/fatman/watched/9.9.9", ADMIN, NULL);
    ck_assert_str_eq(admins.text, "[]");
    json_decref(admins.body);
    struct answer nothing = call("GET", "/api/v1/audit/events", new_esc("blind", &other), NULL);
    ck_assert_uint_eq(json_array_size(nothing.body), 0);
    json_decref(nothing.body);
    const char *reader = new_esc("reader", &subject);
    grant(subject, SCOPE_READ_JOB, "watched", NULL);
    struct answer some = call("GET", "/api/v1/audit/events/job/watched", reader, NULL);
    ck_assert_uint_eq(json_array_size(some.body), 2); /* of the family */
    json_decref(some.body);
}
END_TEST

/* -- deployments: what is refused before anything happens -- */

START_TEST(a_bad_manifest_comes_back_with_every_fault)
{
    struct answer a = call("POST", "/api/v1/deploy", ADMIN,
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
    ck_assert_int_eq(status_of("POST", "/api/v1/deploy", ADMIN, json_object()), 422);
    ck_assert_int_eq(status_of("GET", "/api/v1/deploy?limit=x", ADMIN, NULL), 422);
    ck_assert_int_eq(status_of("GET", "/api/v1/deploy?limit=0", ADMIN, NULL), 400);
    ck_assert_int_eq(status_of("GET", "/api/v1/deploy/no-such", ADMIN, NULL), 404);
}
END_TEST

START_TEST(a_deployment_is_found_behind_those_of_others)
{
    const char *subject;
    const char *token = new_esc("deploys-mine", &subject);
    new_job("deploys-mine", "1.0.0", JOB_RUNNING);
    grant(subject, SCOPE_READ_JOB, "deploys-mine", NULL);
    sql("insert into registry_deployment (id, status, manifest, job_name, job_version) values "
        "('deploys-mine', 'done', 'name: x', 'deploys-mine', '1.0.0')");
    sql("insert into registry_deployment (id, status, manifest, job_name, job_version, "
        "update_time) select 'deploys-' || i, 'done', 'name: x', 'deploys-other', i::text, now() "
        "from generate_series(1, 250) i");
    struct answer a = call("GET", "/api/v1/deploy?limit=1", token, NULL);
    ck_assert_int_eq(a.status, 200);
    ck_assert_uint_eq(json_array_size(a.body), 1);
    ck_assert_str_eq(trk_json_string_or(json_array_get(a.body, 0), "id", ""), "deploys-mine");
    json_decref(a.body);
    a = call("GET", "/api/v1/deploy?limit=201", ADMIN, NULL);
    ck_assert_uint_eq(json_array_size(a.body), 201);
    json_decref(a.body);
    sql("delete from registry_deployment where id like 'deploys-%'");
}
END_TEST

START_TEST(what_fails_after_acceptance_is_no_refusal)
{
    static const struct infra_target process = {.name = "process", .instance = "here"};
    static const struct infra_target *const targets[] = {&process};
    api.lc.targets = (struct infra_registry){.list = targets, .count = 1};
    sql("create function refuse() returns trigger language plpgsql as $$ begin raise exception "
        "'no'; end $$");
    sql("create trigger refuse before update of warnings on registry_deployment for each row "
        "execute function refuse()");
    struct answer a = call("POST", "/api/v1/deploy", ADMIN,
                           json_pack("{s:{s:s,s:s,s:s,s:{s:s},s:{s:s,s:s}}}", "manifest", "name",
                                     "accepted", "owner_email", "a@example.com", "lang",
                                     "python3:latest", "git", "remote", "https://example.com/x.git",
                                     "jobtype_extra", "entrypoint_path", "a.py", "entrypoint_class",
                                     "A"));
    sql("drop function refuse cascade");
    ck_assert_msg(a.status == 200 && text_in(&a, "id")[0] != '\0', "%s", a.text);
    json_decref(a.body);
    sql("delete from registry_deployment where job_name = 'accepted'");
    api.lc.targets.count = 0;
}
END_TEST

/* -- the database goes away -- */

START_TEST(without_the_database_it_says_so_and_recovers)
{
    pg_cluster_crash(api.cluster);
    int64_t start = trk_now_ns();
    struct answer a = call("GET", "/api/v1/job", ADMIN, NULL);
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
    pg_cluster_resume(api.cluster);
    ck_assert_int_eq(status_of("GET", "/api/v1/job", ADMIN, NULL), 200);
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

static void add_tests(TCase *tcase)
{
    tcase_add_test(tcase, every_route_refuses_whom_it_must);
    tcase_add_test(tcase, internal_routes_are_not_for_administrators);
    tcase_add_test(tcase, a_list_shows_what_may_be_read);
    tcase_add_test(tcase, grants_work_in_both_spellings);
    tcase_add_test(tcase, a_grant_is_taken_back_in_both_spellings);
    tcase_add_test(tcase, the_fatman_era_reads_its_own_keys);
    tcase_add_test(tcase, login_gives_the_token_and_says_no_more);
    tcase_add_test(tcase, a_list_of_many_jobs_is_whole_and_in_order);
    tcase_add_test(tcase, rows_of_older_versions_get_the_manifest_that_is_shown);
    tcase_add_test(tcase, users_change_their_password_and_tokens);
    tcase_add_test(tcase, a_session_ends_with_logout_and_with_the_password);
    tcase_add_test(tcase, wrong_passwords_make_wait);
    tcase_add_test(tcase, the_staff_sees_tokens_of_escs_without_their_texts);
    tcase_add_test(tcase, tokens_of_a_kind_are_replaced_together);
    tcase_add_test(tcase, what_is_done_to_rights_is_written_down);
    tcase_add_test(tcase, a_bad_manifest_comes_back_with_every_fault);
    tcase_add_test(tcase, a_deployment_is_found_behind_those_of_others);
    tcase_add_test(tcase, what_fails_after_acceptance_is_no_refusal);
    tcase_add_test(tcase, without_the_database_it_says_so_and_recovers);
    tcase_add_test(tcase, the_docs_are_made_of_the_tables);
}

int main(void)
{
    return api_fixture_run("api", add_tests);
}
