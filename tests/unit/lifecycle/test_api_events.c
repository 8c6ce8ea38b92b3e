/* The event stream: at once, in order, resumable, honest about what was missed. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/store/event.h"
#include "tests/unit/support/lifecycle_api.h"

struct listening {
    pthread_mutex_t lock;
    char text[1 << 18];
    size_t len;
    atomic_bool stop;
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

static void announce(const char *name)
{
    trk_pg_auto struct trk_pg *conn = acquire();
    must(trk_pg_query(conn, NULL, &api.err,
                      "select registry_event_write('job_changed', jsonb_build_object('job_name', "
                      "$1::text, 'job_version', '1.0.0'))",
                      "s", name));
}

static int64_t newest_event(void)
{
    trk_pg_auto struct trk_pg *conn = acquire();
    int64_t first, last;
    must(event_store_range(conn, &first, &last, &api.err));
    return last;
}

static pthread_t listen_to(struct listening *l, const char *path, const char *token,
                           const char *last_id, const char *first)
{
    *l = (struct listening){.lock = PTHREAD_MUTEX_INITIALIZER, .last_id = last_id, .token = token};
    l->url = talloc_asprintf(api.mem, "http://127.0.0.1:%d%s", trk_http_server_port(api.server),
                             path);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_stream, l), 0);
    ck_assert(heard(l, first));
    return thread;
}

static pthread_t listen_from(struct listening *l, const char *last_id)
{
    return listen_to(l, "/api/v1/events/stream", internal_token(SCOPE_FULL_ACCESS), last_id,
                     "event: hello\n");
}

static pthread_t listen_as_gateway(struct listening *l, const char *last_id, const char *first)
{
    return listen_to(l, "/api/v1/gateway/stream", internal_token(SCOPE_FULL_ACCESS), last_id,
                     first);
}

static void stop_listening(struct listening *l, pthread_t thread)
{
    atomic_store(&l->stop, true);
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

    const char *seen = talloc_asprintf(api.mem, "%lld", (long long)newest_event());
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

/* -- the gateway's stream -- */

static const char *digest_of(const char *token)
{
    char digest[TRK_DIGEST_SIZE];
    trk_digest(token, strlen(token), digest);
    return talloc_strdup(api.mem, digest + strlen("sha256:"));
}

START_TEST(a_gateway_gets_the_whole_picture_then_changes)
{
    const char *subject;
    new_job("seen", "1.0.0", JOB_RUNNING);
    const char *token = new_esc("watched", &subject);
    grant(subject, SCOPE_CALL_JOB, "seen", NULL);
    struct listening l;
    pthread_t thread = listen_as_gateway(&l, NULL, "event: snapshot_end\n");
    ck_assert_ptr_nonnull(strstr(l.text, "event: snapshot\ndata: {\"id\":"));
    ck_assert_ptr_nonnull(strstr(l.text, "\"name\": \"seen\", \"public\": [], \"status\": "
                                         "\"running\", \"version\": \"1.0.0\", \"replicas\": "
                                         "[{\"address\": \"127.0.0.1:4000\"}]"));
    ck_assert_ptr_nonnull(strstr(l.text, digest_of(token)));
    ck_assert_ptr_nonnull(strstr(l.text, "{\"job\": null, \"family\": \"seen\", \"endpoint\": "
                                         "null}"));
    ck_assert_ptr_nonnull(strstr(l.text, "event: settings\ndata: {\"maintenance\":false}\n"));
    ck_assert_ptr_null(strstr(l.text, token));

    size_t before = l.len;
    sql("update registry_authtoken set active = false where auth_subject_id = (select id from "
        "registry_authsubject where esc_id = 'watched')");
    ck_assert(heard(&l, "event: seen\n"));
    const char *change = strstr(l.text + before, "event: subject\n");
    ck_assert_ptr_nonnull(change);
    ck_assert_ptr_null(strstr(change, digest_of(token)));
    sql("delete from registry_esc where id = 'watched'");
    ck_assert(heard(&l, "event: subject_removed\ndata: [{\"id\":"));
    sql("delete from registry_job where name = 'seen'");
    ck_assert(heard(&l, "event: job_removed\ndata: [{\"id\":"));
    sql("insert into registry_setting values ('maintenance_mode', 'true')");
    ck_assert(heard(&l, "{\"maintenance\":true}"));
    sql("delete from registry_setting");
    stop_listening(&l, thread);
}
END_TEST

START_TEST(a_gateway_resumes_with_what_it_missed)
{
    struct listening l;
    new_job("before", "1.0.0", JOB_RUNNING);
    const char *seen = talloc_asprintf(api.mem, "%lld", (long long)newest_event());
    new_job("missed", "1.0.0", JOB_STARTING);
    pthread_t thread = listen_as_gateway(&l, seen, "event: resumed\n");
    ck_assert(heard(&l, "\"missed\""));
    ck_assert_ptr_null(strstr(l.text, "snapshot"));
    ck_assert_ptr_null(strstr(l.text, "\"before\""));
    ck_assert_ptr_nonnull(strstr(l.text, "\"replicas\": []")); /* it starts: not to be called */
    stop_listening(&l, thread);
    sql("delete from registry_event where id < (select max(id) from registry_event)");
    thread = listen_as_gateway(&l, "1", "event: snapshot_end\n");
    stop_listening(&l, thread);
}
END_TEST

/* Whoever changes what a gateway must know, be it by hand, the gateway hears of it. */
START_TEST(every_change_reaches_the_gateway)
{
    static const struct {
        const char *sql, *event;
    } changes[] = {
        {"update auth_user set is_active = false where username = 'admin'", "\"active\": false"},
        {"update auth_user set is_active = true where username = 'admin'", "\"active\": true"},
        {"update registry_job set status = 'lost'", "\"status\": \"lost\""},
        {"update registry_job set status = 'running'", "\"status\": \"running\""},
        {"insert into registry_jobreplica (generation_id, replica, state, address) select "
         "generation_id, 1, 'running', '127.0.0.1:10' from registry_job",
         "[{\"address\": \"127.0.0.1:4000\"}, {\"address\": \"127.0.0.1:10\"}]"},
        {"update registry_jobreplica set state = 'error' where replica = 0",
         "[{\"address\": \"127.0.0.1:10\"}]"},
        {"delete from registry_jobreplica where replica = 1",
         "[{\"address\": \"127.0.0.1:4000\"}]"},
        {"update registry_job set generation_id = 'g-1'", "\"secret\": \""},
        {"insert into registry_publicendpointrequest (id, job_id, endpoint, active) select 'e-1', "
         "id, '/open', true from registry_job",
         "\"public\": [\"/open\"]"},
        {"update registry_publicendpointrequest set active = false", "\"public\": []"},
        {"update registry_esc set name = 'renamed'", "\"ESC renamed\""},
        {"update registry_authtoken set expiry_time = '2199-01-01' where auth_subject_id in "
         "(select id from registry_authsubject where esc_id = 'e-one')",
         "\"e\": 7226582400"},
    };
    const char *subject;
    sql("delete from registry_job");
    new_job("changing", "1.0.0", JOB_RUNNING);
    (void)new_esc("e-one", &subject);
    struct listening l;
    pthread_t thread = listen_as_gateway(&l, NULL, "event: snapshot_end\n");
    for (size_t i = 0; i < TRK_COUNT(changes); i++) {
        (void)pthread_mutex_lock(&l.lock);
        memset(l.text, 0, sizeof(l.text));
        l.len = 0;
        (void)pthread_mutex_unlock(&l.lock);
        sql(changes[i].sql);
        ck_assert_msg(heard(&l, changes[i].event), "%s: no %s in %s", changes[i].sql,
                      changes[i].event, l.text);
    }
    stop_listening(&l, thread);
}
END_TEST

START_TEST(what_gateways_report_is_kept)
{
    const char *subject;
    new_job("reported", "1.0.0", JOB_RUNNING);
    const char *token = new_esc("reporting", &subject);
    json_t *body = json_pack("{s:[{s:s,s:I}],s:[{s:s,s:s,s:I,s:i}]}", "tokens", "d",
                             digest_of(token), "t", (json_int_t)1700000000, "jobs", "name",
                             "reported", "version", "1.0.0", "t", (json_int_t)1700000001, "calls",
                             7);
    json_incref(body);
    const char *own = internal_token(SCOPE_FULL_ACCESS);
    ck_assert_int_eq(status_of("POST", "/api/v1/gateway/report", own, body), 200);
    (void)json_object_set_new(json_array_get(json_object_get(body, "jobs"), 0), "t",
                              json_integer(1600000000)); /* an older one, late */
    ck_assert_int_eq(status_of("POST", "/api/v1/gateway/report", own, body), 200);
    trk_pg_auto struct trk_pg *conn = acquire();
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    must(trk_pg_query(conn, &res, &api.err,
                      "select extract(epoch from last_call_time)::bigint as called, call_count, "
                      "(select extract(epoch from last_use_time)::bigint from registry_authtoken "
                      "where token = $1) as used from registry_job where name = 'reported'",
                      "s", token));
    ck_assert_int_eq(trk_pg_int(res, 0, "called"), 1700000001);
    ck_assert_int_eq(trk_pg_int(res, 0, "call_count"), 14);
    ck_assert_int_eq(trk_pg_int(res, 0, "used"), 1700000000);
    json_t *bad = json_pack("{s:[{s:s}]}", "tokens", "d", "x");
    ck_assert_int_eq(status_of("POST", "/api/v1/gateway/report", own, bad), 422);
}
END_TEST

START_TEST(users_follow_what_they_may_read)
{
    const char *subject;
    new_job("mine", "1.0.0", JOB_RUNNING);
    new_job("theirs", "1.0.0", JOB_RUNNING);
    const char *token = new_esc("follower", &subject);
    grant(subject, SCOPE_READ_JOB, "mine", NULL);
    struct listening l;
    pthread_t thread = listen_to(&l, "/api/v1/events/stream", token, NULL, "event: hello\n");
    sql("update registry_job set status = 'error' where name in ('mine', 'theirs')");
    sql("insert into registry_deployment (id, status, manifest, job_name, job_version, phase) "
        "values ('d-1', 'in_progress', '', 'mine', '1.0.0', 'building image')");
    ck_assert(heard(&l, "event: deployment_changed\ndata: {"));
    ck_assert_ptr_nonnull(strstr(l.text, "building image"));
    ck_assert_ptr_nonnull(strstr(l.text, "\"job_name\": \"mine\""));
    ck_assert_ptr_null(strstr(l.text, "theirs"));
    ck_assert_ptr_null(strstr(l.text, "subject_changed"));
    sql("update registry_authtoken set active = false where auth_subject_id = (select id from "
        "registry_authsubject where esc_id = 'follower')");
    (void)pthread_join(thread, NULL); /* ends by itself: the token was revoked */
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_test(tcase, the_stream_tells_at_once_and_resumes);
    tcase_add_test(tcase, a_reader_that_missed_events_is_told);
    tcase_add_test(tcase, a_gateway_gets_the_whole_picture_then_changes);
    tcase_add_test(tcase, a_gateway_resumes_with_what_it_missed);
    tcase_add_test(tcase, every_change_reaches_the_gateway);
    tcase_add_test(tcase, what_gateways_report_is_kept);
    tcase_add_test(tcase, users_follow_what_they_may_read);
}

int main(void)
{
    return api_fixture_run("api_events", add_tests);
}
