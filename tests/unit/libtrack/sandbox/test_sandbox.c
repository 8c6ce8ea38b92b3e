/* The sandbox's argv, and what a command in it sees where bubblewrap works. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libtrack/base/mem.h"
#include "libtrack/sandbox/sandbox.h"
#include "libtrack/sandbox/userns.h"

static struct trk_err err;

/* Where the words `a`, `b`, … stand one after the other; -1 when they do not. */
static int find(const struct trk_args *args, const char *const *words)
{
    for (size_t i = 0; i < args->count; i++) {
        size_t n = 0;
        while (words[n] != NULL && i + n < args->count &&
               strcmp(args->items[i + n], words[n]) == 0) {
            n++;
        }
        if (words[n] == NULL) {
            return (int)i;
        }
    }
    return -1;
}
#define FIND(args, ...) find(args, (const char *const[]){__VA_ARGS__, NULL})

START_TEST(arguments_grow_and_go)
{
    struct trk_args args = {0};
    for (int i = 0; i < 1000; i++) {
        trk_args_addf(&args, "%d", i);
    }
    TRK_ARGS_ADD(&args, "a", "b");
    ck_assert_uint_eq(args.count, 1002);
    ck_assert_str_eq(args.items[999], "999");
    ck_assert_str_eq(args.items[1001], "b");
    ck_assert_ptr_null(args.items[1002]);
    trk_args_fini(&args);
    ck_assert_ptr_null(args.items);
}
END_TEST

START_TEST(folders_above_a_mount_are_open_to_all)
{
    TRK_ARGS_AUTO(args);
    trk_sandbox_show(&args, "/srv/x", "/a/b/c", true);
    ck_assert_int_eq(FIND(&args, "--perms", "0755", "--dir", "/a"), 0);
    ck_assert_int_eq(FIND(&args, "--perms", "0755", "--dir", "/a/b"), 4);
    ck_assert_int_eq(FIND(&args, "--bind", "/srv/x", "/a/b/c"), 8);
    ck_assert_uint_eq(args.count, 11);
}
END_TEST

START_TEST(what_is_not_there_is_not_shown)
{
    TRK_ARGS_AUTO(args);
    trk_sandbox_show_if_there(&args, "/no/such/file");
    ck_assert_uint_eq(args.count, 0);
}
END_TEST

START_TEST(options_are_what_they_say)
{
    TRK_ARGS_AUTO(plain);
    TRK_ARGS_AUTO(all);
    const struct trk_sandbox none = {0};
    const struct trk_sandbox sandbox = {.hidden = "/usr/lib",
                                        .with_opt = true,
                                        .own_user = true,
                                        .no_network = true,
                                        .outer_proc = true,
                                        .may_change_user = true,
                                        .tmp_bytes_max = 4096,
                                        .status_fd = 7};
    trk_sandbox_begin(&none, &plain);
    trk_sandbox_begin(&sandbox, &all);
    ck_assert_int_eq(FIND(&plain, "bwrap"), 0);
    ck_assert_int_ge(FIND(&plain, "--proc", "/proc"), 0);
    ck_assert_int_ge(FIND(&plain, "--cap-drop", "ALL"), 0);
    static const char *const only_if_asked[] = {
        "--unshare-user", "--unshare-net", "--userns",         "--cap-add",
        "--size",         "/opt",          "--json-status-fd", "/sys/devices/system"};
    for (size_t i = 0; i < TRK_COUNT(only_if_asked); i++) {
        ck_assert_msg(FIND(&plain, only_if_asked[i]) < 0, "%s", only_if_asked[i]);
    }
    ck_assert_int_ge(FIND(&all, "--unshare-user"), 0);
    ck_assert_int_ge(FIND(&all, "--unshare-net"), 0);
    ck_assert_int_ge(FIND(&all, "--ro-bind", "/proc", "/proc"), 0);
    ck_assert_int_lt(FIND(&all, "--proc", "/proc"), 0);
    ck_assert_int_ge(FIND(&all, "--json-status-fd", "7"), 0);
    ck_assert_int_ge(FIND(&all, "--perms", "1777", "--size", "4096", "--tmpfs", "/tmp"), 0);
    /* hidden after what would show it */
    ck_assert_int_gt(FIND(&all, "--tmpfs", "/usr/lib"), FIND(&all, "--ro-bind", "/usr", "/usr"));
    ck_assert_int_gt(FIND(&all, "--cap-add", "CAP_SETUID"), FIND(&all, "--cap-drop", "ALL"));
}
END_TEST

static int probe(const struct trk_sandbox *sandbox, const char *const *command)
{
    TRK_ARGS_AUTO(args);
    trk_sandbox_begin(sandbox, &args);
    trk_args_add(&args, "--");
    trk_args_add_all(&args, command);
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = (const char *const *)args.items;
    options.cwd = "/";
    return trk_sandbox_probe(&options, &err);
}

START_TEST(inside_there_is_only_what_was_shown)
{
    const struct trk_sandbox sandbox = {.own_user = geteuid() != 0, .no_network = true};
    if (probe(&sandbox, (const char *const[]){"/usr/bin/true", NULL}) < 0) {
        ck_assert_int_eq(err.code, TRK_UNAVAILABLE);
        ck_assert_str_ne(err.text, "");
        return; /* bubblewrap does not work here, and it says why */
    }
    const char *const script = "test ! -e /var && test ! -e /root && test ! -e /home && "
                               "test ! -e /sys && test -r /etc/passwd && test -w /tmp && "
                               "test $(ls -d /proc/[0-9]* | wc -l) -lt 8 && "
                               "! touch /usr/x 2>/dev/null";
    ck_assert_msg(probe(&sandbox, (const char *const[]){"/bin/sh", "-c", script, NULL}) == 0, "%s",
                  err.text);
}
END_TEST

START_TEST(why_it_does_not_work_is_said)
{
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    const char *const missing[] = {"no-such-bwrap", NULL};
    options.argv = missing;
    ck_assert_int_eq(trk_sandbox_probe(&options, &err), TRK_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "apt-get install bubblewrap"));
    const char *const refused[] = {
        "/bin/sh", "-c", "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1",
        NULL};
    options.argv = refused;
    ck_assert_int_eq(trk_sandbox_probe(&options, &err), TRK_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "No permissions to create a new namespace"));
    ck_assert_ptr_nonnull(strstr(err.text, "seccomp=unconfined"));
}
END_TEST

static void *make_namespaces(void *result)
{
    struct trk_err mine = {0};
    int *rc = result;
    for (int i = 0; i < 20 && *rc == 0; i++) {
        trk_autoclose int fd = -1;
        *rc = trk_userns_new(65534, 65534, &fd, &mine);
    }
    return NULL;
}

/* Each stand-in holds copies of what the others wait for. */
START_TEST(namespaces_are_made_side_by_side)
{
    trk_autoclose int fd = -1;
    if (geteuid() != 0 || trk_userns_new(65534, 65534, &fd, &err) < 0) {
        return; /* refused here: what needs them says so */
    }
    pthread_t threads[6];
    int results[TRK_COUNT(threads)] = {0};
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, make_namespaces, &results[i]), 0);
    }
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        (void)pthread_join(threads[i], NULL);
        ck_assert_int_eq(results[i], 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sandbox");
    TCase *tc = tcase_create("sandbox");
    tcase_add_test(tc, namespaces_are_made_side_by_side);
    tcase_add_test(tc, arguments_grow_and_go);
    tcase_add_test(tc, folders_above_a_mount_are_open_to_all);
    tcase_add_test(tc, what_is_not_there_is_not_shown);
    tcase_add_test(tc, options_are_what_they_say);
    tcase_add_test(tc, inside_there_is_only_what_was_shown);
    tcase_add_test(tc, why_it_does_not_work_is_said);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
