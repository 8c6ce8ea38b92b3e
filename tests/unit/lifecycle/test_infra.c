/* What all infrastructure targets share: names of instances, and replicas as one generation. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "lifecycle/infra/registry.h"
#include "lifecycle/infra/target.h"

static char folder[1024];
static struct trk_err err;

static void set_up(void)
{
    char uuid[TRK_UUID_SIZE];
    trk_uuid4(uuid);
    const char *base = getenv("TEST_TMP");
    snprintf(folder, sizeof(folder), "%s/infra-%s", base != NULL ? base : "/tmp", uuid);
    ck_assert_int_eq(trk_mkdir_p(folder, 0755, &err), 0);
}

static void tear_down(void)
{
    ck_assert_int_eq(trk_rm_rf(folder, &err), 0);
}

START_TEST(a_folder_keeps_its_name)
{
    trk_autofree char *first = NULL, *again = NULL, *damaged = NULL;
    trk_autofree char *path = trk_xasprintf("%s/instance", folder);
    ck_assert_msg(infra_instance_of_folder("process", folder, &first, &err) == 0, "%s", err.text);
    ck_assert(strncmp(first, "process:", 8) == 0 && strlen(first) == 8 + 36);
    ck_assert_int_eq(infra_instance_of_folder("process", folder, &again, &err), 0);
    ck_assert_str_eq(again, first);
    /* A new name would leave all its jobs behind: it is not made up. */
    ck_assert_int_eq(trk_file_write(path, "", 0, 0644, &err), 0);
    ck_assert_int_eq(infra_instance_of_folder("process", folder, &damaged, &err), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "target_instance"));
    ck_assert_ptr_null(damaged);
}
END_TEST

START_TEST(targets_are_found_by_name_and_by_instance)
{
    static const struct infra_target near = {.name = "process", .instance = "process:1"};
    static const struct infra_target far = {.name = "docker", .instance = "docker:2"};
    static const struct infra_target *const list[] = {&near, &far};
    const struct infra_registry registry = {.list = list, .count = 2};
    struct trk_buf out;
    trk_buf_init(&out, 100);
    ck_assert_ptr_eq(infra_named(&registry, "docker"), &far);
    ck_assert_ptr_null(infra_named(&registry, "kubernetes"));
    ck_assert_ptr_eq(infra_reached(&registry, "process:1"), &near);
    ck_assert_ptr_null(infra_reached(&registry, "process:3"));
    ck_assert_ptr_null(infra_reached(&registry, NULL));
    trk_autofree char *all = infra_instances(&registry);
    ck_assert_str_eq(all, "process:1\ndocker:2");
    ck_assert_int_eq(infra_logs(&registry, "process:3", "g", 0, &out, &err), TRK_UNAVAILABLE);
    ck_assert_str_eq(err.text, "the job runs on process:3, which this lifecycle does not reach");
    trk_buf_fini(&out);
}
END_TEST

START_TEST(a_generation_is_what_the_best_of_its_replicas_is)
{
    static const enum infra_state order[] = {INFRA_RUNNING, INFRA_STARTING, INFRA_STOPPING,
                                             INFRA_BACKOFF, INFRA_FAILED,   INFRA_GONE};
    for (size_t i = 0; i < TRK_COUNT(order); i++) {
        for (size_t k = 0; k < TRK_COUNT(order); k++) {
            struct infra_observation sum;
            const struct infra_observation list[] = {
                {.state = order[i], .address = "a:1", .restarts = 2},
                {.replica = 1, .state = order[k], .address = "b:2", .restarts = 3, .reason = "x"},
            };
            infra_sum_up(list, 2, &sum);
            ck_assert_int_eq(sum.state, order[i < k ? i : k]);
            ck_assert_str_eq(sum.address, k < i ? "b:2" : "a:1");
            ck_assert_str_eq(sum.reason, "x");
            ck_assert_int_eq(sum.restarts, 5);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("infra");
    TCase *tcase = tcase_create("infra");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, a_folder_keeps_its_name);
    tcase_add_test(tcase, targets_are_found_by_name_and_by_instance);
    tcase_add_test(tcase, a_generation_is_what_the_best_of_its_replicas_is);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
