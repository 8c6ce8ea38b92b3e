/* The event stream: at once, in order, resumable, honest about what was missed. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/event.h"
#include "tests/unit/support/lifecycle_api.h"

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
    must(trk_pg_transaction(api.lc.pool, add_event, (void *)(uintptr_t)name, &api.err));
}

static int64_t newest_event(void)
{
    trk_pg_auto struct trk_pg *conn = acquire();
    int64_t first, last;
    must(event_store_range(conn, &first, &last, &api.err));
    return last;
}

static pthread_t listen_from(struct listening *l, const char *last_id)
{
    *l = (struct listening){.lock = PTHREAD_MUTEX_INITIALIZER, .last_id = last_id};
    l->url = talloc_asprintf(api.mem, "http://127.0.0.1:%d/api/v1/events/stream",
                             trk_http_server_port(api.server));
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

static void add_tests(TCase *tcase)
{
    tcase_add_test(tcase, the_stream_tells_at_once_and_resumes);
    tcase_add_test(tcase, a_reader_that_missed_events_is_told);
}

int main(void)
{
    return api_fixture_run("api_events", add_tests);
}
