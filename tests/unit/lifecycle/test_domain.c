#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/domain/subject.h"
#include "lifecycle/domain/throttle.h"

/* -- permissions -- */

static struct subject with(const struct permission *permissions, unsigned count)
{
    return (struct subject){.type = TRK_SUBJECT_ESC,
                            .name = "it",
                            .permissions = permissions,
                            .permission_count = count};
}

START_TEST(one_job_means_name_and_version)
{
    const struct permission row[] = {
        {.scope = SCOPE_DELETE_JOB, .job_name = "adder", .job_version = "1.0.0"}};
    struct subject s = with(row, 1);
    ck_assert(subject_can(&s, SCOPE_DELETE_JOB, "adder", "1.0.0", NULL));
    /* the original's hole: the same version of any other job */
    ck_assert(!subject_can(&s, SCOPE_DELETE_JOB, "other", "1.0.0", NULL));
    ck_assert(!subject_can(&s, SCOPE_DELETE_JOB, "adder", "1.0.1", NULL));
    ck_assert(!subject_can(&s, SCOPE_DELETE_JOB, "adder", NULL, NULL));
    ck_assert(!subject_can(&s, SCOPE_READ_JOB, "adder", "1.0.0", NULL));
    ck_assert(subject_can_somewhere(&s, SCOPE_DELETE_JOB));
    ck_assert(!subject_can_everywhere(&s, SCOPE_DELETE_JOB));
    ck_assert(subject_can_in_family(&s, SCOPE_DELETE_JOB, "adder"));
    ck_assert(!subject_can_in_family(&s, SCOPE_DELETE_JOB, "other"));
}
END_TEST

START_TEST(a_family_covers_all_its_versions)
{
    const struct permission row[] = {{.scope = SCOPE_READ_JOB, .family_name = "adder"}};
    struct subject s = with(row, 1);
    ck_assert(subject_can(&s, SCOPE_READ_JOB, "adder", "7.0.0", NULL));
    ck_assert(subject_can(&s, SCOPE_READ_JOB, "adder", NULL, NULL));
    ck_assert(!subject_can(&s, SCOPE_READ_JOB, "add", "7.0.0", NULL));
}
END_TEST

START_TEST(an_endpoint_is_not_the_job)
{
    const struct permission row[] = {
        {.scope = SCOPE_CALL_JOB, .family_name = "adder", .endpoint = "/api/v1/perform"}};
    struct subject s = with(row, 1);
    ck_assert(subject_can(&s, SCOPE_CALL_JOB, "adder", "1.0.0", "/api/v1/perform"));
    ck_assert(!subject_can(&s, SCOPE_CALL_JOB, "adder", "1.0.0", "/api/v1/perform2"));
    ck_assert(!subject_can(&s, SCOPE_CALL_JOB, "adder", "1.0.0", NULL));
    ck_assert(!subject_can_somewhere(&s, SCOPE_CALL_JOB));
}
END_TEST

START_TEST(full_access_to_one_job_is_not_the_admin_api)
{
    const struct permission one[] = {
        {.scope = SCOPE_FULL_ACCESS, .job_name = "adder", .job_version = "1.0.0"}};
    struct subject s = with(one, 1);
    ck_assert(subject_can(&s, SCOPE_DEPLOY_JOB, "adder", "1.0.0", NULL));
    ck_assert(!subject_can_everywhere(&s, SCOPE_CALL_ADMIN_API));
    const struct permission all[] = {{.scope = SCOPE_FULL_ACCESS}};
    s = with(all, 1);
    ck_assert(subject_can_everywhere(&s, SCOPE_CALL_ADMIN_API));
}
END_TEST

START_TEST(internal_tokens_have_the_scopes_they_name_and_no_others)
{
    struct subject s = {.type = TRK_SUBJECT_INTERNAL, .name = "pub"};
    ck_assert(!subject_can(&s, SCOPE_READ_JOB, "adder", "1.0.0", NULL));
    ck_assert(!subject_can_somewhere(&s, SCOPE_READ_JOB));
    s.claims.scope_count = 1;
    memcpy(s.claims.scopes[0], SCOPE_READ_JOB, sizeof(SCOPE_READ_JOB));
    ck_assert(subject_can(&s, SCOPE_READ_JOB, "adder", "1.0.0", NULL));
    ck_assert(!subject_can(&s, SCOPE_DELETE_JOB, "adder", "1.0.0", NULL));
    memcpy(s.claims.scopes[0], SCOPE_FULL_ACCESS, sizeof(SCOPE_FULL_ACCESS));
    ck_assert(subject_can(&s, SCOPE_DELETE_JOB, "adder", "1.0.0", NULL));
}
END_TEST

START_TEST(both_eras_name_scopes)
{
    ck_assert_str_eq(scope_canonical("call_fatman"), SCOPE_CALL_JOB);
    ck_assert_str_eq(scope_canonical("read_job"), SCOPE_READ_JOB);
    ck_assert_str_eq(scope_canonical("full_access"), SCOPE_FULL_ACCESS);
    ck_assert_ptr_null(scope_canonical("root"));
    ck_assert_ptr_null(scope_canonical(""));
}
END_TEST

#define S TRK_NS_PER_S

START_TEST(who_fails_often_waits)
{
    struct throttle *t = throttle_new(3, 10000);
    int64_t now = 1000 * S;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(throttle_wait_ms(t, "alice", 1, now), 0);
        throttle_note_failure(t, "alice", 1, now);
    }
    ck_assert_int_gt(throttle_wait_ms(t, "alice", 1, now), 9000);
    ck_assert_int_le(throttle_wait_ms(t, "alice", 1, now), 10001);
    ck_assert_int_eq(throttle_wait_ms(t, "bob", 1, now), 0);
    now += 10 * S + 1;
    ck_assert_int_eq(throttle_wait_ms(t, "alice", 1, now), 0); /* once */
    throttle_note_failure(t, "alice", 1, now);
    ck_assert_int_gt(throttle_wait_ms(t, "alice", 1, now), 0);
    now += 30 * S;
    for (int i = 0; i < 30; i++) { /* an address has ten times as many */
        ck_assert_int_eq(throttle_wait_ms(t, "address", 10, now), 0);
        throttle_note_failure(t, "address", 10, now);
    }
    ck_assert_int_gt(throttle_wait_ms(t, "address", 10, now), 0);
    throttle_free(t);
}
END_TEST

START_TEST(a_flood_of_names_makes_nobody_free)
{
    struct throttle *t = throttle_new(3, 10000);
    char name[32];
    for (int i = 0; i < 3; i++) {
        throttle_note_failure(t, "alice", 1, S);
    }
    int waiting = 0;
    for (int i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof(name), "user-%d", i);
        waiting += throttle_wait_ms(t, name, 1, S) > 0;
        throttle_note_failure(t, name, 1, S);
    }
    ck_assert_int_gt(throttle_wait_ms(t, "alice", 1, S), 0);
    ck_assert_int_le(waiting, 5); /* a shared place alone stops nobody */
    throttle_free(t);
}
END_TEST

START_TEST(subjects_are_called_by_kind_and_name)
{
    char text[64];
    struct subject s = {.type = TRK_SUBJECT_JOB_FAMILY, .name = "adder"};
    (void)subject_describe(&s, text, sizeof(text));
    ck_assert_str_eq(text, "Job family adder");
    s.type = TRK_SUBJECT_USER;
    (void)subject_describe(&s, text, sizeof(text));
    ck_assert_str_eq(text, "User adder");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("domain");
    TCase *tcase = tcase_create("domain");
    tcase_add_test(tcase, one_job_means_name_and_version);
    tcase_add_test(tcase, a_family_covers_all_its_versions);
    tcase_add_test(tcase, an_endpoint_is_not_the_job);
    tcase_add_test(tcase, full_access_to_one_job_is_not_the_admin_api);
    tcase_add_test(tcase, internal_tokens_have_the_scopes_they_name_and_no_others);
    tcase_add_test(tcase, both_eras_name_scopes);
    tcase_add_test(tcase, who_fails_often_waits);
    tcase_add_test(tcase, a_flood_of_names_makes_nobody_free);
    tcase_add_test(tcase, subjects_are_called_by_kind_and_name);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures > 0 ? 1 : 0;
}
