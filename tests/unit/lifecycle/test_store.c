/* The store against a real Postgres: what SQL decides. Each test works on rows of its own. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/config/profile.h"
#include "libtrack/data/json.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/call.h"
#include "lifecycle/store/endpoint.h"
#include "lifecycle/store/esc.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/migrations.h"
#include "lifecycle/store/retention.h"
#include "lifecycle/store/setting.h"
#include "lifecycle/store/subject.h"
#include "lifecycle/store/user.h"
#include "tests/unit/support/pg_cluster.h"

#define KEY TRK_DEV_AUTH_KEY

static struct pg_cluster *cluster;
static struct trk_pg_pool *pool;
static struct trk_pg *conn;
static void *mem;
static struct trk_err err;

#define must(call) ck_assert_msg((call) == 0, "%s: %s", #call, err.text)

static void set_up(void)
{
    mem = talloc_new(NULL);
    must(trk_pg_acquire(pool, &conn, &err));
}

static void tear_down(void)
{
    trk_pg_release(conn);
    conn = NULL;
    talloc_free(mem);
}

static void add_job(const char *name, const char *version, const char *status)
{
    const char *family_id;
    must(issue_family(conn, mem, name, KEY, &family_id, &err));
    struct job job = {.family_id = family_id,
                      .name = name,
                      .version = version,
                      .status = status,
                      .manifest = "name: x\n"};
    must(job_store_save(conn, &job, &err));
}

static int64_t last_event(void)
{
    int64_t first, last;
    must(event_store_range(conn, &first, &last, &err));
    return last;
}

START_TEST(a_job_is_saved_changed_and_found)
{
    add_job("saved", "1.0.0", JOB_STARTING);
    struct job *job;
    must(job_store_get(conn, mem, "saved", "1.0.0", &job, &err));
    ck_assert_str_eq(job->status, JOB_STARTING);
    ck_assert_ptr_null(job->addresses);
    ck_assert_str_eq(job->infrastructure_stats, "{}");
    ck_assert_int_eq(job->last_call_time, 0);
    ck_assert_int_ge(job->create_time, trk_wall_s() - 5);
    const char *id = job->id;
    job->last_call_time = 1234;
    job->update_time = 5678;
    job->error = "it's broken";
    must(job_store_save(conn, job, &err));
    must(job_store_get(conn, mem, "saved", "1.0.0", &job, &err));
    ck_assert_str_eq(job->id, id);
    ck_assert_int_eq(job->last_call_time, 1234);
    ck_assert_int_eq(job->update_time, 5678);
    ck_assert_str_eq(job->error, "it's broken");
    ck_assert_int_eq(job_store_get(conn, mem, "saved", "1.0.1", &job, &err), TRK_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "saved"));
}
END_TEST

START_TEST(aliases_are_resolved_among_live_jobs)
{
    add_job("alias", "1.0.0", JOB_RUNNING);
    add_job("alias", "1.9.0", JOB_RUNNING);
    add_job("alias", "1.10.0", JOB_STARTING);
    struct job *job;
    must(job_store_resolve(conn, mem, "alias", "latest", &job, &err));
    ck_assert_str_eq(job->version, "1.9.0");
    must(job_store_set_status(conn, "alias", "1.10.0", JOB_RUNNING, NULL, "it is ready", &err));
    must(job_store_resolve(conn, mem, "alias", "1.x", &job, &err));
    ck_assert_str_eq(job->version, "1.10.0");
    ck_assert_int_eq(job_store_resolve(conn, mem, "alias", "2.x", &job, &err), TRK_NOT_FOUND);
    ck_assert_int_eq(job_store_resolve(conn, mem, "nobody", "latest", &job, &err), TRK_NOT_FOUND);
}
END_TEST

START_TEST(a_status_leaves_its_reason_and_an_event)
{
    add_job("status", "1.0.0", JOB_RUNNING);
    int64_t before = last_event();
    must(job_store_set_status(conn, "status", "1.0.0", JOB_LOST, "gone", "the process is gone",
                              &err));
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    must(trk_pg_query(conn, &res, &err,
                      "select from_status, to_status, reason from registry_jobstatusevent where "
                      "job_name = 'status'",
                      ""));
    ck_assert_str_eq(trk_pg_text(res, 0, "from_status"), JOB_RUNNING);
    ck_assert_str_eq(trk_pg_text(res, 0, "to_status"), JOB_LOST);
    ck_assert_str_eq(trk_pg_text(res, 0, "reason"), "the process is gone");
    struct event *events;
    size_t count;
    must(event_store_after(conn, mem, before, 10, &events, &count, &err));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(events[0].kind, EVENT_JOB_CHANGED);
    ck_assert_ptr_nonnull(strstr(events[0].payload, "\"job_name\": \"status\", \"job_version\": "
                                                    "\"1.0.0\"}"));
    ck_assert_int_eq(job_store_set_status(conn, "status", "9.0.0", JOB_LOST, NULL, "x", &err),
                     TRK_NOT_FOUND);
}
END_TEST

START_TEST(deleting_keeps_a_record_and_is_repeatable)
{
    add_job("doomed", "1.0.0", JOB_RUNNING);
    /* age_days overflowed in the original */
    must(trk_pg_query(conn, NULL, &err,
                      "update registry_job set create_time = now() - interval '3000 days' where "
                      "name = 'doomed'",
                      ""));
    must(job_store_delete(conn, "doomed", "1.0.0", true, &err));
    int64_t before = last_event();
    must(job_store_delete(conn, "doomed", "1.0.0", true, &err));
    ck_assert_int_eq(last_event(), before);
    bool trashed = false;
    must(job_store_is_in_trash(conn, "doomed", "1.0.0", &trashed, &err));
    ck_assert(trashed);
    must(job_store_is_in_trash(conn, "doomed", "1.0.1", &trashed, &err));
    ck_assert(!trashed);
}
END_TEST

START_TEST(a_family_comes_with_a_token_of_its_own)
{
    const char *first, *second, *token, *again;
    must(issue_family(conn, mem, "family", KEY, &first, &err));
    must(family_store_token(conn, mem, "family", &token, &err));
    must(issue_family(conn, mem, "family", KEY, &second, &err));
    must(family_store_token(conn, mem, "family", &again, &err));
    ck_assert_str_eq(first, second);
    ck_assert_str_eq(token, again);
    struct trk_token claims;
    must(trk_jwt_verify(token, KEY, &claims, &err));
    ck_assert_int_eq(claims.type, TRK_SUBJECT_JOB_FAMILY);
    ck_assert_str_eq(claims.subject, "family");
    struct subject *who;
    must(subject_store_by_token(conn, mem, token, &who, &err));
    ck_assert_int_eq(who->type, TRK_SUBJECT_JOB_FAMILY);
    ck_assert_str_eq(who->name, "family");
    ck_assert_uint_eq(who->permission_count, 0);
}
END_TEST

static const char *esc_with_token(const char *id, const char **ret_subject)
{
    const char *token;
    must(issue_esc(conn, mem, id, "name of it", KEY, &err));
    must(subject_store_ensure(conn, mem, TRK_SUBJECT_ESC, id, ret_subject, &err));
    must(token_store_current(conn, mem, *ret_subject, &token, &err));
    return token;
}

START_TEST(tokens_are_known_revoked_or_expired)
{
    const char *subject;
    const char *token = esc_with_token("esc-tokens", &subject);
    struct subject *who;
    must(subject_store_by_token(conn, mem, token, &who, &err));
    ck_assert_str_eq(who->name, "name of it");
    struct token_row *rows;
    size_t count;
    must(token_store_list(conn, mem, subject, &rows, &count, &err));
    ck_assert_uint_eq(count, 1);
    ck_assert_int_gt(rows[0].last_use_time, 0);
    must(token_store_revoke(conn, subject, rows[0].id, &err));
    ck_assert_int_eq(subject_store_by_token(conn, mem, token, &who, &err), TRK_UNAUTHENTICATED);
    ck_assert_ptr_nonnull(strstr(err.text, "revoked"));
    must(issue_token(conn, mem, subject, TRK_SUBJECT_ESC, "esc-tokens", trk_wall_s() - 5, KEY,
                     &token, &err));
    ck_assert_int_eq(subject_store_by_token(conn, mem, token, &who, &err), TRK_UNAUTHENTICATED);
    ck_assert_ptr_nonnull(strstr(err.text, "expired"));
    ck_assert_int_eq(token_store_current(conn, mem, subject, &token, &err), TRK_NOT_FOUND);
    ck_assert_int_eq(subject_store_by_token(conn, mem, "a.b.c", &who, &err), TRK_UNAUTHENTICATED);
    ck_assert_ptr_null(strstr(err.text, "a.b.c"));
    ck_assert_int_eq(token_store_revoke(conn, subject, "no-such", &err), TRK_NOT_FOUND);
}
END_TEST

START_TEST(permissions_come_with_what_they_are_on)
{
    const char *subject, *family_id;
    const char *token = esc_with_token("esc-grants", &subject);
    add_job("granted", "1.0.0", JOB_RUNNING);
    add_job("other", "1.0.0", JOB_RUNNING);
    struct job *job;
    must(job_store_get(conn, mem, "granted", "1.0.0", &job, &err));
    must(family_store_get(conn, mem, "other", &family_id, &err));
    int64_t before = last_event();
    must(permission_store_grant(conn, subject, SCOPE_CALL_JOB, family_id, NULL, "/x", &err));
    ck_assert_int_gt(last_event(), before);
    before = last_event();
    must(permission_store_grant(conn, subject, SCOPE_CALL_JOB, family_id, NULL, "/x", &err));
    ck_assert_int_eq(last_event(), before); /* nothing new: nobody is told */
    must(permission_store_grant_deployer(conn, subject, job->id, &err));
    struct subject *who;
    must(subject_store_by_token(conn, mem, token, &who, &err));
    ck_assert_uint_eq(who->permission_count, 5);
    ck_assert(subject_can(who, SCOPE_DELETE_JOB, "granted", "1.0.0", NULL));
    ck_assert(!subject_can(who, SCOPE_DELETE_JOB, "other", "1.0.0", NULL));
    ck_assert(subject_can(who, SCOPE_CALL_JOB, "other", "1.0.0", "/x"));
    ck_assert(!subject_can(who, SCOPE_CALL_JOB, "other", "1.0.0", NULL));
    struct call_question q; /* knows those that concern calls of the job */
    must(call_store_ask(conn, mem, "other", "1.0.0", token, &q, &err));
    ck_assert_uint_eq(q.caller->permission_count, 1);
    ck_assert(subject_can(q.caller, SCOPE_CALL_JOB, "other", "1.0.0", "/x"));
    must(call_store_ask(conn, mem, "granted", "latest", token, &q, &err));
    ck_assert_uint_eq(q.caller->permission_count, 1);
    ck_assert(subject_can(q.caller, SCOPE_CALL_JOB, "granted", "1.0.0", NULL));
    must(job_store_delete(conn, "granted", "1.0.0", true, &err));
    must(subject_store_get(conn, mem, subject, &who, &err));
    ck_assert_uint_eq(who->permission_count, 1); /* the rows on the job went with it */
}
END_TEST

START_TEST(a_call_target_says_what_a_decision_needs)
{
    add_job("target", "1.0.0", JOB_RUNNING);
    struct job *job;
    struct call_question target;
    must(job_store_get(conn, mem, "target", "1.0.0", &job, &err));
    must(endpoint_store_request(conn, job->id, "/open", &err));
    must(endpoint_store_request(conn, job->id, "/open", &err));
    must(endpoint_store_request(conn, job->id, "/closed", &err));
    must(trk_pg_query(conn, NULL, &err,
                      "update registry_publicendpointrequest set active = true where endpoint = "
                      "'/open'",
                      ""));
    must(call_store_ask(conn, mem, "target", "latest", NULL, &target, &err));
    ck_assert_str_eq(target.job->version, "1.0.0");
    ck_assert_str_eq(target.public_endpoints, "/open");
    ck_assert(!target.is_maintenance);
    json_auto_t *on = json_string("true");
    must(setting_store_set(conn, SETTING_MAINTENANCE_MODE, on, &err));
    must(call_store_ask(conn, mem, "target", "latest", NULL, &target, &err));
    ck_assert(target.is_maintenance);
    ck_assert_int_eq(setting_store_refuse_in_maintenance(conn, &err), TRK_UNAVAILABLE);
    json_auto_t *off = json_false();
    must(setting_store_set(conn, SETTING_MAINTENANCE_MODE, off, &err));
    must(setting_store_refuse_in_maintenance(conn, &err));
    must(call_store_ask(conn, mem, "target", "9.9.9", NULL, &target, &err));
    ck_assert_ptr_null(target.job);
    ck_assert_int_eq(target.job_err.code, TRK_NOT_FOUND);
    ck_assert_int_eq(target.caller_err.code, TRK_UNAUTHENTICATED);
    must(call_store_ask(conn, mem, "no-such", "latest", NULL, &target, &err));
    ck_assert_ptr_null(target.job);
    ck_assert_int_eq(target.job_err.code, TRK_NOT_FOUND);
    ck_assert_int_eq(target.caller_err.code, TRK_UNAUTHENTICATED);
}
END_TEST

START_TEST(a_name_is_taken_once)
{
    const char *subject;
    must(user_store_create(conn, mem, "someone@x", "hash", true, false, &subject, &err));
    ck_assert_int_eq(user_store_create(conn, mem, "someone@x", "hash", true, false, &subject, &err),
                     TRK_CONFLICT);
    struct user *user;
    must(user_store_get(conn, mem, "someone@x", &user, &err));
    ck_assert_str_eq(user->subject_id, subject);
    ck_assert(user->is_active);
    ck_assert(!user->is_staff);
    must(issue_esc(conn, mem, "esc-once", "x", KEY, &err));
    ck_assert_int_eq(issue_esc(conn, mem, "esc-once", "x", KEY, &err), TRK_CONFLICT);
}
END_TEST

/* Writers in many threads: whoever reads "all after N" must never miss one that commits later with
 * a smaller number. */
struct writing {
    int count;
};

static int write_event(struct trk_pg *c, void *ctx, struct trk_err *e)
{
    (void)ctx;
    int code = trk_pg_query(c, NULL, e, "select registry_event_write('settings_changed', '{}')",
                            "");
    return code < 0 ? code : trk_pg_query(c, NULL, e, "select pg_sleep(0.001)", "");
}

static void *run_writer(void *arg)
{
    const struct writing *w = arg;
    struct trk_err e = {0};
    for (int i = 0; i < w->count; i++) {
        ck_assert_msg(trk_pg_transaction(pool, write_event, NULL, &e) == 0, "%s", e.text);
    }
    return NULL;
}

START_TEST(events_become_visible_in_order)
{
    enum { WRITERS = 4, EACH = 25 };
    struct writing w = {.count = EACH};
    pthread_t threads[WRITERS];
    int64_t after = last_event();
    for (int i = 0; i < WRITERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_writer, &w), 0);
    }
    size_t seen = 0;
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (seen < WRITERS * EACH && trk_now_ns() < deadline) {
        struct event *events;
        size_t count;
        must(event_store_after(conn, mem, after, 1000, &events, &count, &err));
        for (size_t i = 0; i < count; i++) {
            ck_assert_int_gt(events[i].id, after);
            after = events[i].id;
        }
        seen += count;
        talloc_free(events);
    }
    for (int i = 0; i < WRITERS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    ck_assert_uint_eq(seen, WRITERS * EACH);
}
END_TEST

START_TEST(cleaning_keeps_the_newest_event)
{
    must(trk_pg_query(conn, NULL, &err, "select registry_event_write('settings_changed', '{}')",
                      ""));
    int64_t first, last, newest = last_event();
    must(trk_pg_query(conn, NULL, &err,
                      "update registry_event set create_time = now() - interval "
                      "'1 year'",
                      ""));
    must(event_store_clean(conn, 60, &err));
    must(event_store_range(conn, &first, &last, &err));
    ck_assert_int_eq(first, newest);
    ck_assert_int_eq(last, newest);
}
END_TEST

static int64_t number(const char *statement)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    must(trk_pg_query(conn, &res, &err, statement, ""));
    return trk_pg_int(res, 0, "n");
}

START_TEST(retention_keeps_what_is_needed)
{
    static const char *const rows[] = {
        /* ten deployments of a job that is there, the seventh made what runs, one is under way */
        "insert into registry_deployment (id, status, manifest, job_name, job_version, "
        "create_time, "
        "update_time, build_logs, image_name, image_digest, source_digest) select 'd' || i, case "
        "when i = 0 then 'in_progress' else 'done' end, '', 'kept', '1', now() - "
        "make_interval(days => i * 50), now() - make_interval(days => i * 50), 'log', 'h/r:t' || "
        "i, "
        "'sha256:' || i, 'sha256:s' || i from generate_series(0, 10) i",
        "insert into registry_jobgeneration (id, job_name, job_version, deployment_id, "
        "infrastructure_target, state, spec) values ('g', 'kept', '1', 'd7', 'process', 'serving', "
        "'{}')",
        "insert into registry_deployment (id, status, manifest, job_name, job_version, "
        "update_time) "
        "select 'x' || i, 'failed', '', 'gone', '1', now() - make_interval(days => i * 50) from "
        "generate_series(1, 4) i",
        "insert into registry_auditlogevent (id, event_type, timestamp) select 'a' || i, 'x', "
        "now() "
        "- make_interval(days => i * 50) from generate_series(1, 4) i",
        "insert into registry_jobstatusevent (job_name, job_version, to_status, reason, timestamp) "
        "select 'kept', '1', 'running', '', now() - make_interval(days => i * 50) from "
        "generate_series(1, 4) i",
        "update registry_job set image_name = 'h/r:t7', image_digest = 'sha256:7', source_digest = "
        "'sha256:s7' where name = 'kept'"};
    add_job("kept", "1", "running");
    must(trk_pg_query(conn, NULL, &err, "delete from registry_jobstatusevent", ""));
    must(trk_pg_query(conn, NULL, &err, "delete from registry_auditlogevent", ""));
    for (size_t i = 0; i < TRK_COUNT(rows); i++) {
        must(trk_pg_query(conn, NULL, &err, rows[i], ""));
    }
    const struct retention_limits limits = {.deployments_per_job = 4,
                                            .build_logs_per_job = 2,
                                            .deployment_days = 120,
                                            .audit_days = 0,
                                            .status_event_days = 120};
    must(retention_store_clean(conn, &limits, &err));
    ck_assert_int_eq(
        number("select count(*) as n from registry_deployment where job_name = 'kept'"),
        6); /* under way, four, the one of what runs */
    ck_assert_int_eq(
        number("select count(*) as n from registry_deployment where id in ('d0', 'd1', "
               "'d4', 'd7')"),
        4);
    ck_assert_int_eq(number("select count(*) as n from registry_deployment where job_name = 'kept' "
                            "and build_logs <> ''"),
                     3);
    ck_assert_int_eq(
        number("select count(*) as n from registry_deployment where job_name = 'gone'"), 2);
    ck_assert_int_eq(number("select count(*) as n from registry_auditlogevent"), 4);
    ck_assert_int_eq(number("select count(*) as n from registry_jobstatusevent"), 2);
    json_auto_t *in_use = NULL;
    must(retention_store_in_use(conn, &in_use, &err));
    json_auto_t *wanted = json_pack("{s:[s,s], s:[s,s]}", "images", "h/r:t0@sha256:0",
                                    "h/r:t7@sha256:7", "sources", "sha256:s0", "sha256:s7");
    trk_autofree char *is = trk_json_text(in_use);
    ck_assert_msg(json_equal(in_use, wanted), "%s", is);
}
END_TEST

START_TEST(audit_events_are_filtered)
{
    json_auto_t *properties = json_pack("{s:s}", "why", "because");
    must(audit_store_add(conn, "job_deleted", "alice", NULL, "audited", "1.0.0", properties, &err));
    must(audit_store_add(conn, "job_deployed", "bob", "alice", "audited", "2.0.0", NULL, &err));
    must(audit_store_add(conn, "job_deployed", "bob", NULL, "audited", "3.0.0", NULL, &err));
    struct audit_event *events;
    size_t count;
    const struct audit_filter by_alice = {.related_to = "alice", .limit = 10};
    must(audit_store_list(conn, mem, &by_alice, &events, &count, &err));
    ck_assert_uint_eq(count, 2);
    const struct audit_filter one = {.job_name = "audited", .job_version = "1.0.0", .limit = 10};
    must(audit_store_list(conn, mem, &one, &events, &count, &err));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(events[0].properties, "{\"why\":\"because\"}");
}
END_TEST

int main(void)
{
    cluster = pg_cluster_start();
    struct trk_pg_options options = {
        .conninfo = pg_cluster_conninfo(cluster), .schema = "racetrack", .size = 8};
    pool = trk_pg_pool_new(&options);
    if (migrations_run(pool, NULL, &err) < 0) {
        trk_die("%s", err.text);
    }
    Suite *suite = suite_create("store");
    TCase *tcase = tcase_create("store");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, a_job_is_saved_changed_and_found);
    tcase_add_test(tcase, aliases_are_resolved_among_live_jobs);
    tcase_add_test(tcase, a_status_leaves_its_reason_and_an_event);
    tcase_add_test(tcase, deleting_keeps_a_record_and_is_repeatable);
    tcase_add_test(tcase, a_family_comes_with_a_token_of_its_own);
    tcase_add_test(tcase, tokens_are_known_revoked_or_expired);
    tcase_add_test(tcase, permissions_come_with_what_they_are_on);
    tcase_add_test(tcase, a_call_target_says_what_a_decision_needs);
    tcase_add_test(tcase, a_name_is_taken_once);
    tcase_add_test(tcase, events_become_visible_in_order);
    tcase_add_test(tcase, cleaning_keeps_the_newest_event);
    tcase_add_test(tcase, retention_keeps_what_is_needed);
    tcase_add_test(tcase, audit_events_are_filtered);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* one pool, one server */
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    trk_pg_pool_free(pool);
    pg_cluster_stop(cluster);
    return failures > 0 ? 1 : 0;
}
