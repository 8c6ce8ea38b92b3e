/* The stream's events in the table, the copy, and what is reported back. */
#include <check.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_client.h"
#include "pub/picture.h"
#include "pub/report.h"

static struct pub_readers readers;
static struct pub_picture picture;

static void setup(void)
{
    pub_readers_init(&readers, 1);
    picture = (struct pub_picture){.table = pub_table_new(&readers, NULL, NULL), .position = -1};
}

static void teardown(void)
{
    pub_table_free(picture.table);
}

static int event(const char *name, const char *id, const char *data)
{
    struct trk_err err = {0};
    int code = pub_picture_event(&picture, name, id, data, &err);
    ck_assert(code == 0 || err.text[0] != '\0');
    pub_table_publish(picture.table);
    return code;
}

static enum pub_verdict call(const char *token, struct pub_finding *f)
{
    struct pub_question q = {.job = {"adder", 5},
                             .version = {"latest", 6},
                             .endpoint = "/x",
                             .token = {token, strlen(token)},
                             .now_s = 1000};
    return pub_table_decide(picture.table, &q, f);
}

/* The SHA-256 of "abc". */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void whole(void)
{
    ck_assert_int_eq(event("snapshot", "", "{\"id\":7}"), 0);
    ck_assert_int_eq(
        event("job", "",
              "[{\"id\":\"j1\",\"name\":\"adder\",\"version\":\"1.0.0\",\"status\":"
              "\"running\",\"public\":[],\"replicas\":[{\"address\":\"127.0.0.1:7000\"}"
              "],\"secret\":\"s\"}]"),
        0);
    ck_assert_int_eq(event("subject", "",
                           "[{\"id\":\"s1\",\"type\":\"esc\",\"name\":\"ESC a\",\"active\":true,"
                           "\"tokens\":[{\"d\":\"" ABC
                           "\",\"e\":null}],\"grants\":[{\"family\":null,"
                           "\"job\":null,\"endpoint\":null}]}]"),
                     0);
    ck_assert_int_eq(event("settings", "", "{\"maintenance\":false}"), 0);
    ck_assert_int_eq(event("snapshot_end", "7", "{\"jobs\":1,\"subjects\":1}"), 0);
}

START_TEST(place_moves_when_all_before_it_is_there)
{
    struct pub_finding f;
    ck_assert_int_eq(event("snapshot", "", "{\"id\":7}"), 0);
    ck_assert(picture.is_in_picture && !picture.is_in_sync);
    ck_assert_int_eq(event("seen", "6", "{}"), 0);
    ck_assert_int_eq(picture.position, -1);
    whole();
    ck_assert(!picture.is_in_picture && picture.is_in_sync && picture.is_changed);
    ck_assert_int_eq(picture.position, 7);
    ck_assert_int_eq(call("abc", &f), PUB_MAY_CALL);
    picture.is_changed = false;
    ck_assert_int_eq(event("weather", "", "no JSON"), 0);
    ck_assert_int_eq(event("seen", "9", "{}"), 0);
    ck_assert(!picture.is_changed);
    ck_assert_int_eq(picture.position, 9);
    picture.is_in_sync = false; /* another stream */
    ck_assert_int_eq(event("resumed", "", "{\"id\":12}"), 0);
    ck_assert(picture.is_in_sync);
    ck_assert_int_eq(event("settings", "", "{\"maintenance\":true}"), 0);
    ck_assert_int_eq(event("seen", "12", "{}"), 0);
    ck_assert_int_eq(picture.position, 12);
    ck_assert_int_eq(call("abc", &f), PUB_MAINTENANCE);
}
END_TEST

static const char *const damaged[][2] = {
    {"settings", "{"},
    {"settings", "{\"maintenance\":1}"},
    {"snapshot_end", "{}"},
    {"subject", "[{\"id\":\"s1\",\"name\":\"a\",\"active\":true,\"grants\":[{}]}]"},
};

START_TEST(damage_loses_the_place_and_nothing_else)
{
    struct pub_finding f;
    whole();
    ck_assert_int_lt(event(damaged[_i][0], "8", damaged[_i][1]), 0);
    ck_assert_int_eq(picture.position, -1);
    ck_assert_int_eq(call("abc", &f), PUB_MAY_CALL);
}
END_TEST

static int on_event(void *ctx, const char *name, const char *id, const char *data,
                    struct trk_err *err)
{
    return pub_picture_event(ctx, name, id, data, err);
}

START_TEST(copy_gives_the_same_table)
{
    struct pub_finding f;
    struct trk_err err = {0};
    struct trk_buf buf;
    trk_buf_init(&buf, 1 << 24);
    whole();
    ck_assert_int_eq(event("settings", "", "{\"maintenance\":true}"), 0);
    for (int i = 0; i < 2500; i++) { /* several events */
        trk_autofree char *data = trk_xasprintf(
            "[{\"id\":\"t%d\",\"type\":\"user\",\"name\":\"User %d\",\"active\":true,\"tokens\":[],"
            "\"grants\":[]}]",
            i, i);
        ck_assert_int_eq(event("subject", "", data), 0);
    }
    pub_picture_write(picture.table, &buf);
    teardown();
    setup();
    struct trk_sse *sse = trk_sse_new(on_event, &picture);
    ck_assert_int_eq(trk_sse_feed(sse, buf.data, buf.len, &err), 0);
    trk_sse_free(sse);
    trk_buf_fini(&buf);
    ck_assert(picture.is_in_sync);
    ck_assert_int_eq(call("abc", &f), PUB_MAINTENANCE);
    pub_table_set_maintenance(picture.table, false);
    ck_assert_int_eq(call("abc", &f), PUB_MAY_CALL);
    ck_assert_str_eq(f.job->secret, "s");
    struct pub_table_counts counts;
    pub_table_count(picture.table, &counts);
    ck_assert_uint_eq(counts.subjects, 2501);
    ck_assert_uint_eq(counts.jobs, 1);
}
END_TEST

START_TEST(reports_take_what_was_noted_once)
{
    struct pub_finding f;
    bool has_more;
    whole();
    ck_assert_ptr_null(pub_report_take(picture.table, &has_more));
    ck_assert_int_eq(call("abc", &f), PUB_MAY_CALL);
    pub_note(&((struct pub_token *)(uintptr_t)f.token)->last_s, 1000);
    pub_note(&f.job->id->last_s, 1001);
    (void)atomic_fetch_add(&f.job->id->calls, 3);
    json_auto_t *report = pub_report_take(picture.table, &has_more);
    trk_autofree char *text = trk_json_text(report);
    ck_assert_str_eq(text,
                     "{\"tokens\":[{\"d\":\"" ABC "\",\"t\":1000}],\"jobs\":[{\"name\":\"adder\","
                     "\"version\":\"1.0.0\",\"t\":1001,\"calls\":3}]}");
    ck_assert(!has_more);
    ck_assert_ptr_null(pub_report_take(picture.table, &has_more));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("picture");
    TCase *tcase = tcase_create("picture");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, place_moves_when_all_before_it_is_there);
    tcase_add_loop_test(tcase, damage_loses_the_place_and_nothing_else, 0, (int)TRK_COUNT(damaged));
    tcase_add_test(tcase, copy_gives_the_same_table);
    tcase_add_test(tcase, reports_take_what_was_noted_once);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures > 0 ? 1 : 0;
}
