/* What the gateway asks: may this token call this path of this job? */
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/setting.h"
#include "tests/unit/support/lifecycle_api.h"

static struct answer can_call(const char *path, const char *token)
{
    return call("GET", talloc_asprintf(api.mem, "/api/v1/auth/can-call-job/%s", path), token, NULL);
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
    ck_assert_msg(json_is_null(json_object_get(job, "manifest")) &&
                      json_is_null(json_object_get(job, "manifest_yaml")),
                  "%s shows the manifest: %s", path, a.text);
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
    expect_no_call("nobody/latest/api/v1/perform", ADMIN, 404);
    expect_no_call("nobody/latest/api/v1/perform", all, 403); /* as of a job that is there */
    expect_no_call("nobody/latest/health", NULL, 401);
    expect_no_call("callee/latest/api/v1/perform", internal_token(NULL), 403);
}
END_TEST

START_TEST(a_refusal_does_not_tell_what_there_is)
{
    const char *subject;
    new_job("hidden", "1.1.0", JOB_RUNNING);
    const char *token = new_esc("stranger", &subject);
    static const struct {
        const char *before, *after;
    } questions[] = {
        {"/api/v1/auth/can-call-job/", "/latest/x"},
        {"/api/v1/auth/can-call-job/", "/2.2.2/x"},
        {"/api/v1/auth/allowed/job/", "/latest/scope/read_job"},
        {"/api/v1/auth/allowed/job_endpoint/", "/1.x/scope/call_job/endpoint/x"},
        {"/api/v1/job/", "/latest"},
        {"/api/v1/job/", "/2.2.2"},
    };
    static const char *const names[] = {"hidden", "absent"};
    for (size_t i = 0; i < 2 * TRK_COUNT(questions); i++) {
        const char *path = talloc_asprintf(api.mem, "%s%s%s", questions[i / 2].before, names[i % 2],
                                           questions[i / 2].after);
        struct answer a = call("GET", path, token, NULL);
        ck_assert_msg(a.status == 403, "%s: %d %s", path, a.status, a.text);
        ck_assert_msg(strstr(a.text, "1.1.0") == NULL, "%s: %s", path, a.text);
        json_decref(a.body);
    }
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
    expect_decision("open/latest/echo/deep", NULL, "exact_path", "");
    expect_no_call("open/latest/echoes", NULL, 401);
    expect_no_call("open/latest/asked", NULL, 401);
}
END_TEST

static int set_public(const char *version, const char *endpoint, bool active, const char *token)
{
    const char *path = talloc_asprintf(api.mem, "/api/v1/job/opened/%s/public-endpoints", version);
    return status_of("PUT", path, token,
                     json_pack("{s:s,s:b}", "endpoint", endpoint, "active", (int)active));
}

START_TEST(public_endpoints_are_opened_and_closed_by_administrators)
{
    const char *subject;
    new_job("opened", "1.1.0", JOB_RUNNING);
    sql("insert into registry_publicendpointrequest (id, job_id, endpoint, active) select "
        "'pe-3', id, '/echo', false from registry_job where name = 'opened'");
    const char *esc = new_esc("no-admin", &subject);
    ck_assert_int_eq(set_public("1.1.0", "/echo", true, esc), 403);
    grant(subject, SCOPE_FULL_ACCESS, "opened", NULL);
    ck_assert_int_eq(set_public("1.1.0", "/echo", true, esc), 403); /* the job is not everything */
    expect_no_call("opened/latest/echo", NULL, 401);
    sql("delete from registry_event");
    ck_assert_int_eq(set_public("1.1.0", "/echo", true, ADMIN), 200);
    trk_pg_auto struct trk_pg *conn = acquire();
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    must(trk_pg_query(conn, &res, &api.err,
                      "select 1 from registry_event where kind = 'job_changed' and payload ->> "
                      "'job_name' = 'opened'",
                      ""));
    ck_assert_int_eq(trk_pg_rows(res), 1);
    expect_decision("opened/latest/echo/deep", NULL, "exact_path", "");
    expect_no_call("opened/latest/echoes", NULL, 401);
    sql("insert into registry_authresourcepermission (auth_subject_id, scope) select id, "
        "'call_admin_api' from registry_authsubject where esc_id = 'no-admin'");
    ck_assert_int_eq(set_public("latest", "/echo", false, esc), 200);
    expect_no_call("opened/latest/echo", NULL, 401);
    struct answer a = call("PUT", "/api/v1/fatman/opened/1.1.0/public-endpoints", ADMIN,
                           json_pack("{s:s,s:b}", "endpoint", "/other", "active", 1));
    ck_assert_int_eq(a.status, 404);
    ck_assert_str_eq(text_in(&a, "error"), "the manifest of opened 1.1.0 does not ask for the "
                                           "public endpoint /other; it asks for /echo");
    json_decref(a.body);
    ck_assert_int_eq(set_public("9.9.9", "/echo", true, ADMIN), 404);
    ck_assert_int_eq(status_of("PUT", "/api/v1/job/opened/1.1.0/public-endpoints", ADMIN,
                               json_pack("{s:s}", "endpoint", "/echo")),
                     422);
}
END_TEST

/* 0: as long as nothing changes. */
static int64_t valid_for_ms(const char *target, const char *token)
{
    struct answer a = call("GET", talloc_asprintf(api.mem, "/api/v1/auth/can-call-job/%s", target),
                           token, NULL);
    ck_assert_int_eq(a.status, 200);
    const json_t *value = json_object_get(a.body, "valid_for_ms");
    ck_assert_msg(json_is_integer(value) || json_is_null(value), "%s", a.text);
    int64_t ms = json_integer_value(value);
    json_decref(a.body);
    return ms;
}

START_TEST(a_revoked_or_expired_token_is_refused_at_once)
{
    const char *subject;
    new_job("revoking", "1.1.0", JOB_RUNNING);
    const char *token = new_esc("revoked", &subject);
    grant(subject, SCOPE_CALL_JOB, "revoking", NULL);
    expect_decision("revoking/latest/x", token, "any_path", "ESC revoked");
    struct answer data = call("GET", "/api/v1/escs/revoked/auth_data", ADMIN, NULL);
    const json_t *row = json_array_get(json_object_get(data.body, "tokens"), 0);
    const char *path = talloc_asprintf(api.mem, "/api/v1/escs/revoked/auth_token/%s",
                                       trk_json_string_or(row, "id", ""));
    ck_assert_int_eq(status_of("DELETE", path, ADMIN, NULL), 200);
    expect_no_call("revoking/latest/x", token, 401);
    ck_assert_int_eq(status_of("POST", "/api/v1/escs/revoked/auth_token", ADMIN,
                               json_pack("{s:I}", "expiry_time", (json_int_t)(trk_wall_s() - 1))),
                     400);
    ck_assert_int_eq(status_of("POST", "/api/v1/escs/revoked/auth_token", ADMIN, json_object()),
                     422);
    ck_assert_int_eq(status_of("POST", "/api/v1/escs/revoked/auth_token", ADMIN,
                               json_pack("{s:n}", "expiry_time")),
                     200);
    struct answer fresh = call("GET", "/api/v1/auth/token/esc/revoked", ADMIN, NULL);
    expect_decision("revoking/latest/x", text_in(&fresh, "token"), "any_path", "ESC revoked");
    ck_assert_int_eq(valid_for_ms("revoking/latest/x", text_in(&fresh, "token")), 0);
    sql("update registry_authtoken set expiry_time = now() + interval '1 minute' where active");
    int64_t left_ms = valid_for_ms("revoking/latest/x", text_in(&fresh, "token"));
    ck_assert_msg(left_ms > 30000 && left_ms <= 60000, "%lld ms", (long long)left_ms);
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
    trk_pg_auto struct trk_pg *conn = acquire();
    json_auto_t *on = json_true();
    json_auto_t *off = json_false();
    must(setting_store_set(conn, SETTING_MAINTENANCE_MODE, on, &api.err));
    struct answer a = can_call("maintained/latest/x", ADMIN);
    ck_assert_int_eq(a.status, 503);
    ck_assert_ptr_nonnull(strstr(text_in(&a, "error"), "maintenance"));
    json_decref(a.body);
    ck_assert_int_eq(status_of("POST", "/api/v1/deploy", ADMIN, json_pack("{s:{}}", "manifest")),
                     503);
    ck_assert_int_eq(status_of("DELETE", "/api/v1/job/maintained/1.1.0", ADMIN, NULL), 503);
    ck_assert_int_eq(status_of("POST", "/api/v1/job/maintained/1.1.0/redeploy", ADMIN, NULL), 503);
    ck_assert_int_eq(status_of("GET", "/api/v1/job/maintained/1.1.0", ADMIN, NULL), 200);
    must(setting_store_set(conn, SETTING_MAINTENANCE_MODE, off, &api.err));
    expect_decision("maintained/latest/x", ADMIN, "any_path", "User admin");
}
END_TEST

START_TEST(audit_events_tell_details_to_who_may_read_the_job)
{
    const char *subject;
    new_job("audited", "1.1.0", JOB_RUNNING);
    const char *token = new_esc("auditor", &subject);
    sql("insert into registry_auditlogevent (id, version, timestamp, event_type, properties, "
        "username_executor, job_name, job_version) values "
        "('22222222-2222-4222-8222-222222222222', 1, now(), 'deployment_failed', "
        "'{\"error\":\"Traceback: s3cret\"}', 'somebody', 'audited', '1.1.0')");
    static const char path[] = "/api/v1/audit/events/job/audited";
    struct answer before = call("GET", path, token, NULL);
    ck_assert_int_eq(before.status, 200);
    ck_assert_uint_eq(json_array_size(before.body), 0);
    grant(subject, SCOPE_READ_JOB, "audited", NULL);
    struct answer after = call("GET", path, token, NULL);
    ck_assert_ptr_nonnull(strstr(after.text, "s3cret"));
    json_decref(before.body);
    json_decref(after.body);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_test(tcase, calls_are_decided_by_token_job_and_path);
    tcase_add_test(tcase, a_refusal_does_not_tell_what_there_is);
    tcase_add_test(tcase, public_endpoints_open_what_they_name);
    tcase_add_test(tcase, public_endpoints_are_opened_and_closed_by_administrators);
    tcase_add_test(tcase, a_revoked_or_expired_token_is_refused_at_once);
    tcase_add_test(tcase, audit_events_tell_details_to_who_may_read_the_job);
    tcase_add_test(tcase, maintenance_stops_calls_and_changes);
}

int main(void)
{
    return api_fixture_run("api_calls", add_tests);
}
