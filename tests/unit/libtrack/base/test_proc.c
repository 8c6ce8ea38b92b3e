#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/proc.h"

static const char *scratch(const char *name)
{
    static char path[4096];
    const char *dir = getenv("TEST_TMP");
    snprintf(path, sizeof(path), "%s/%s", dir != NULL ? dir : "/tmp", name);
    return path;
}

static int run(const char *const *argv, const char *input, int64_t timeout_ms, struct trk_buf *out,
               int *ret_code, struct trk_err *err)
{
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = argv;
    return trk_proc_run(&options, input, input != NULL ? strlen(input) : 0, timeout_ms, out, NULL,
                        NULL, NULL, ret_code, err);
}

START_TEST(test_run_gives_output_and_exit_code)
{
    struct trk_err err = {0};
    struct trk_buf out;
    trk_buf_init(&out, 1000);
    int code = -1;
    const char *const argv[] = {"sh", "-c", "cat; echo to-stderr >&2; exit 3", NULL};
    ck_assert_int_eq(run(argv, "hello ", 10000, &out, &code, &err), 0);
    ck_assert_int_eq(code, 3);
    ck_assert_str_eq(out.data, "hello to-stderr\n");
    trk_buf_fini(&out);
}
END_TEST

START_TEST(test_run_caps_output_and_goes_on)
{
    struct trk_err err = {0};
    struct trk_buf out;
    trk_buf_init(&out, 1000);
    int code = -1;
    const char *const argv[] = {"sh", "-c", "head -c 500000 /dev/zero | tr '\\0' x; exit 7", NULL};
    ck_assert_int_eq(run(argv, NULL, 20000, &out, &code, &err), 0);
    ck_assert_int_eq(code, 7);
    ck_assert_uint_eq(out.len, 1000);
    trk_buf_fini(&out);
}
END_TEST

START_TEST(test_run_names_a_missing_program)
{
    struct trk_err err = {0};
    int code = -1;
    const char *const argv[] = {"no-such-program-here", NULL};
    ck_assert_int_eq(run(argv, NULL, 1000, NULL, &code, &err), TRK_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "no-such-program-here"));
}
END_TEST

START_TEST(test_exec_failure_is_reported_by_spawn)
{
    struct trk_err err = {0};
    const char *path = scratch("broken");
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    ck_assert_int_eq(write(fd, "#!/no/such/interpreter\n", 23), 23);
    (void)close(fd);
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    const char *const argv[] = {path, NULL};
    options.argv = argv;
    struct trk_proc proc;
    ck_assert_int_lt(trk_proc_spawn(&options, &proc, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "executing"));
    options.cwd = "/no/such/folder";
    const char *const true_argv[] = {"true", NULL};
    options.argv = true_argv;
    ck_assert_int_eq(trk_proc_spawn(&options, &proc, &err), TRK_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "/no/such/folder"));
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1); /* no zombie left */
    ck_assert_int_eq(errno, ECHILD);
}
END_TEST

START_TEST(test_timeout_kills_the_whole_group)
{
    struct trk_err err = {0};
    struct trk_buf out;
    trk_buf_init(&out, 1000);
    int code = -1;
    const char *const argv[] = {"sh", "-c", "sleep 1000 & echo $!; sleep 1000", NULL};
    int64_t start = trk_now_ns();
    ck_assert_int_eq(run(argv, NULL, 500, &out, &code, &err), TRK_TIMEOUT);
    ck_assert_int_lt(trk_now_ns() - start, 20 * TRK_NS_PER_S);
    pid_t background = atoi(out.data);
    ck_assert_int_gt(background, 1);
    int64_t deadline = trk_now_ns() + 10 * TRK_NS_PER_S;
    bool gone = false;
    while (!gone && trk_now_ns() < deadline) {
        char path[64], text[256] = "";
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)background);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            ssize_t n = read(fd, text, sizeof(text) - 1);
            (void)n;
            (void)close(fd);
        }
        gone = fd < 0 || strstr(text, ") Z ") != NULL;
    }
    ck_assert(gone);
    trk_buf_fini(&out);
}
END_TEST

START_TEST(test_background_child_holding_the_output_does_not_hang_run)
{
    struct trk_err err = {0};
    struct trk_buf out;
    trk_buf_init(&out, 1000);
    int code = -1;
    const char *const argv[] = {"sh", "-c", "sleep 1000 & echo done", NULL};
    int64_t start = trk_now_ns();
    ck_assert_int_eq(run(argv, NULL, 100000, &out, &code, &err), 0);
    ck_assert_int_lt(trk_now_ns() - start, 30 * TRK_NS_PER_S);
    ck_assert_str_eq(out.data, "done\n");
    trk_buf_fini(&out);
}
END_TEST

static atomic_bool cancelled;
static void cancel_on_output(void *ctx, const char *bytes, size_t len)
{
    (void)ctx, (void)bytes, (void)len;
    cancelled = true;
}

START_TEST(test_cancel)
{
    struct trk_err err = {0};
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    const char *const argv[] = {"sh", "-c", "echo go; sleep 1000", NULL};
    options.argv = argv;
    int code = -1;
    cancelled = false;
    ck_assert_int_eq(trk_proc_run(&options, NULL, 0, 60000, NULL, cancel_on_output, NULL,
                                  &cancelled, &code, &err),
                     TRK_CANCELLED);
}
END_TEST

START_TEST(test_closed_descriptors_and_environment)
{
    struct trk_err err = {0};
    /* No CLOEXEC: must still not get through. */
    int leak = open(scratch("leaked-file"), O_RDWR | O_CREAT, 0600);
    ck_assert_int_ge(leak, 0);
    int given = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(setenv("SECRET_KEY", "do-not-pass-on", 1), 0);
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    const char *const argv[] = {
        "sh", "-c", "for f in /proc/$$/fd/*; do echo ${f##*/}=$(readlink $f); done; env", NULL};
    const struct trk_proc_fd fds[] = {{given, 7}};
    options.argv = argv;
    options.fds = fds;
    options.fd_count = 1;
    struct trk_buf out;
    trk_buf_init(&out, 10000);
    int code = -1;
    ck_assert_int_eq(trk_proc_run(&options, NULL, 0, 10000, &out, NULL, NULL, NULL, &code, &err),
                     0);
    ck_assert_ptr_nonnull(strstr(out.data, "7=/dev/zero"));
    ck_assert_ptr_nonnull(strstr(out.data, "0=/dev/null"));
    ck_assert_ptr_null(strstr(out.data, "leaked-file"));
    ck_assert_ptr_null(strstr(out.data, "do-not-pass-on"));
    (void)close(leak);
    (void)close(given);
    trk_buf_fini(&out);
}
END_TEST

START_TEST(test_descriptor_numbers_may_be_swapped)
{
    struct trk_err err = {0};
    int a = open("/dev/null", O_RDONLY | O_CLOEXEC), b = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    char script[200];
    snprintf(script, sizeof(script), "readlink /proc/$$/fd/%d; readlink /proc/$$/fd/%d", a, b);
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct trk_proc_fd fds[] = {{a, b}, {b, a}};
    options.argv = argv;
    options.fds = fds;
    options.fd_count = 2;
    struct trk_buf out;
    trk_buf_init(&out, 1000);
    int code = -1;
    ck_assert_int_eq(trk_proc_run(&options, NULL, 0, 10000, &out, NULL, NULL, NULL, &code, &err),
                     0);
    ck_assert_str_eq(out.data, "/dev/zero\n/dev/null\n");
    trk_buf_fini(&out);
}
END_TEST

START_TEST(test_gate_holds_exec_and_eof_ends_the_child)
{
    struct trk_err err = {0};
    for (int opened = 0; opened < 2; opened++) {
        int gate[2];
        ck_assert_int_eq(pipe2(gate, O_CLOEXEC), 0);
        const char *mark = scratch(opened ? "mark-open" : "mark-eof");
        struct trk_proc_options options;
        trk_proc_options_init(&options);
        const char *const argv[] = {"touch", mark, NULL};
        options.argv = argv;
        options.gate_fd = gate[0];
        struct trk_proc proc;
        ck_assert_int_eq(trk_proc_spawn(&options, &proc, &err), 0);
        (void)close(gate[0]);
        ck_assert(trk_proc_is_alive(&proc));
        ck_assert(access(mark, F_OK) < 0);
        if (opened) {
            ck_assert_int_eq(write(gate[1], "x", 1), 1);
        }
        (void)close(gate[1]);
        int status = 0;
        ck_assert_int_eq(trk_proc_wait(&proc, 20000, &status, &err), 0);
        ck_assert_int_eq(access(mark, F_OK) == 0, opened);
        trk_proc_fini(&proc);
    }
}
END_TEST

START_TEST(test_identity_survives_and_is_not_confused)
{
    struct trk_err err = {0};
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    const char *const argv[] = {"sleep", "1000", NULL};
    options.argv = argv;
    struct trk_proc proc, adopted;
    ck_assert_int_eq(trk_proc_spawn(&options, &proc, &err), 0);
    ck_assert_int_eq(trk_proc_adopt(proc.pid, proc.start_ticks + 1, &adopted, &err), TRK_NOT_FOUND);
    ck_assert_int_eq(trk_proc_adopt(proc.pid, proc.start_ticks, &adopted, &err), 0);
    ck_assert(trk_proc_is_alive(&adopted));
    int status;
    ck_assert_int_eq(trk_proc_wait(&adopted, 1, &status, &err), TRK_TIMEOUT);
    ck_assert_int_eq(trk_proc_signal(&adopted, SIGTERM, &err), 0);
    ck_assert_int_eq(trk_proc_wait(&proc, 20000, &status, &err), 0);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    ck_assert(!trk_proc_is_alive(&adopted));
    ck_assert_int_eq(trk_proc_signal(&adopted, SIGTERM, &err), TRK_NOT_FOUND);
    ck_assert_int_eq(trk_proc_adopt(proc.pid, proc.start_ticks, &adopted, &err), TRK_NOT_FOUND);
    trk_proc_fini(&proc);
}
END_TEST

static void *run_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        struct trk_err err = {0};
        struct trk_buf out;
        trk_buf_init(&out, 100);
        int code = -1;
        const char *const argv[] = {"echo", "ok", NULL};
        if (run(argv, NULL, 20000, &out, &code, &err) < 0 || code != 0 ||
            strcmp(out.data, "ok\n") != 0) {
            return out.data; /* anything but NULL */
        }
        trk_buf_fini(&out);
    }
    return NULL;
}

START_TEST(test_many_threads)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_many, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        ck_assert_ptr_null(result);
    }
}
END_TEST

START_TEST(test_dies_with_parent)
{
    /* A middle process starts a child that must die with it, and is killed. */
    int fds[2];
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    pid_t middle = fork();
    ck_assert_int_ge(middle, 0);
    if (middle == 0) {
        struct trk_proc_options options;
        trk_proc_options_init(&options);
        const char *const argv[] = {"sleep", "1000", NULL};
        options.argv = argv;
        options.die_with_parent = true;
        struct trk_proc proc;
        if (trk_proc_spawn(&options, &proc, NULL) < 0 ||
            write(fds[1], &proc, sizeof(proc)) != (ssize_t)sizeof(proc)) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    struct trk_proc proc, adopted;
    ck_assert_int_eq(read(fds[0], &proc, sizeof(proc)), sizeof(proc));
    struct trk_err err = {0};
    ck_assert_int_eq(trk_proc_adopt(proc.pid, proc.start_ticks, &adopted, &err), 0);
    ck_assert_int_eq(kill(middle, SIGKILL), 0);
    ck_assert_int_eq(trk_proc_wait(&adopted, 20000, NULL, &err), 0);
    ck_assert_int_eq(waitpid(middle, NULL, 0), middle);
    trk_proc_fini(&adopted);
}
END_TEST

static int count_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

START_TEST(test_a_failed_fork_leaks_nothing)
{
    struct rlimit some, none;
    ck_assert_int_eq(getrlimit(RLIMIT_NPROC, &some), 0);
    none = (struct rlimit){0, some.rlim_max};
    const char *const argv[] = {"true", NULL};
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = argv;
    ck_assert_int_eq(setresuid(65534, 65534, 65534), 0); /* root may fork whatever the limit is */
    ck_assert_int_eq(setrlimit(RLIMIT_NPROC, &none), 0);
    int before = count_descriptors();
    for (int i = 0; i < 5; i++) {
        struct trk_err err = {0};
        struct trk_proc proc;
        ck_assert_int_lt(trk_proc_spawn(&options, &proc, &err), 0);
        ck_assert_ptr_nonnull(strstr(err.text, "fork"));
    }
    ck_assert_int_eq(count_descriptors(), before);
    /* What a leak checker needs at the end. */
    ck_assert_int_eq(setrlimit(RLIMIT_NPROC, &some), 0);
    ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 1), 0);
}
END_TEST

START_TEST(test_detached_child_is_not_ours_but_known)
{
    struct trk_err err = {0};
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    const char *const argv[] = {"sleep", "1000", NULL};
    options.argv = argv;
    options.detach = true;
    options.new_session = true;
    struct trk_proc proc;
    ck_assert_int_eq(trk_proc_spawn(&options, &proc, &err), 0);
    ck_assert(trk_proc_is_alive(&proc));
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
    ck_assert_int_eq(errno, ECHILD);
    ck_assert_int_eq(trk_proc_signal(&proc, SIGKILL, &err), 0);
    int status = 0;
    ck_assert_int_eq(trk_proc_wait(&proc, 20000, &status, &err), 0);
    ck_assert_int_eq(status, -1);
    trk_proc_fini(&proc);
    options.cwd = "/no/such/folder";
    ck_assert_int_eq(trk_proc_spawn(&options, &proc, &err), TRK_NOT_FOUND);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("proc");
    TCase *tcase = tcase_create("proc");
    tcase_add_test(tcase, test_run_gives_output_and_exit_code);
    tcase_add_test(tcase, test_run_caps_output_and_goes_on);
    tcase_add_test(tcase, test_run_names_a_missing_program);
    tcase_add_test(tcase, test_exec_failure_is_reported_by_spawn);
    tcase_add_test(tcase, test_timeout_kills_the_whole_group);
    tcase_add_test(tcase, test_background_child_holding_the_output_does_not_hang_run);
    tcase_add_test(tcase, test_cancel);
    tcase_add_test(tcase, test_closed_descriptors_and_environment);
    tcase_add_test(tcase, test_descriptor_numbers_may_be_swapped);
    tcase_add_test(tcase, test_gate_holds_exec_and_eof_ends_the_child);
    tcase_add_test(tcase, test_identity_survives_and_is_not_confused);
    tcase_add_test(tcase, test_many_threads);
    tcase_add_test(tcase, test_dies_with_parent);
    tcase_add_test(tcase, test_a_failed_fork_leaks_nothing);
    tcase_add_test(tcase, test_detached_child_is_not_ours_but_known);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
