/* Build contexts that come in: none of the manifest's secrets stays in one. */
#include <check.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/oci/oci.h"
#include "lifecycle/deploy/context.h"
#include "tests/unit/libtrack/oci/tar_helper.h"

static struct trk_err err;
static struct trk_buf warnings;
static const char *state;

static const struct tar_item items[] = {
    {"./adder.py", '0', 0, NULL, "class Adder: pass\n"},
    {"./conf", '5', 0755, NULL, NULL},
    {"./conf/run.env", '0', 0, NULL, "TOKEN=hunter2\n"},
    {"./same.env", '1', 0, "./conf/run.env", NULL},
    {"./link.env", '2', 0, "conf/run.env", NULL},
    {"./build.env", '0', 0, NULL, "PIP=hunter3\n"},
};

static struct context make(void)
{
    struct trk_buf tar;
    struct context context = CONTEXT_NONE;
    trk_buf_init(&tar, 1 << 20);
    for (size_t i = 0; i < TRK_COUNT(items); i++) {
        tar_add(&tar, &items[i]);
    }
    tar_end(&tar);
    ck_assert_int_eq(context_begin(state, &context, &err), 0);
    ck_assert_int_eq(context_add(&context, tar.data, 100, 1 << 20, &err), 0);
    ck_assert_int_eq(context_add(&context, tar.data + 100, tar.len - 100, 1 << 20, &err), 0);
    context_end(&context);
    ck_assert_int_eq(context.size_bytes, (int64_t)tar.len);
    trk_buf_fini(&tar);
    return context;
}

/* Where the context's files lie now. */
static int unpack(const struct context *context)
{
    char is[TRK_DIGEST_SIZE];
    trk_autofree char *folder = trk_xasprintf("%s/out", state);
    trk_autofree char *bytes = trk_xmalloc((size_t)context->size_bytes);
    const struct trk_unpack_limits limits = {0};
    ck_assert_int_eq(pread(context->fd, bytes, (size_t)context->size_bytes, 0),
                     context->size_bytes);
    trk_digest(bytes, (size_t)context->size_bytes, is);
    ck_assert_str_eq(context->digest, is);
    ck_assert_int_eq(trk_rm_rf(folder, &err), 0);
    ck_assert_int_eq(trk_mkdir_p(folder, 0755, &err), 0);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_msg(trk_unpack(bytes, (size_t)context->size_bytes, -1, fd, NULL, &limits, &err) == 0,
                  "%s", err.text);
    return fd;
}

static bool has(int dirfd, const char *name)
{
    return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void assert_no_folder_is_left(void)
{
    trk_autofree char *tmp = trk_xasprintf("%s/tmp", state);
    ck_assert_int_eq(rmdir(tmp), 0); /* only an empty one can be removed */
}

static void setup(void)
{
    state = getenv("TEST_TMP");
    trk_buf_init(&warnings, 4096);
    err = (struct trk_err){0};
}

static void teardown(void)
{
    trk_buf_fini(&warnings);
}

START_TEST(secrets_that_came_sealed_are_taken_out)
{
    context_auto struct context context = make();
    json_auto_t *manifest = json_pack("{s:s, s:s}", "secret_runtime_env_file",
                                      "conf/../conf/run.env", "secret_build_env_file", "build.env");
    json_auto_t *vars = json_pack("{s:{}, s:{s:s}}", "build_env", "runtime_env", "TOKEN",
                                  "hunter2");
    int rc = context_take_out_secrets(&context, state, manifest, vars, &warnings, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    trk_autoclose int fd = unpack(&context);
    ck_assert(has(fd, "adder.py"));
    ck_assert(has(fd, "conf"));
    ck_assert(!has(fd, "conf/run.env"));
    ck_assert(!has(fd, "same.env")); /* the same file under another name */
    ck_assert(!has(fd, "build.env"));
    ck_assert_ptr_nonnull(strstr(warnings.data, "conf/run.env"));
    ck_assert_ptr_nonnull(strstr(warnings.data, ".gitignore"));
    ck_assert_ptr_null(strstr(warnings.data, "hunter"));
    assert_no_folder_is_left();
}
END_TEST

START_TEST(the_target_of_a_named_link_is_taken_out)
{
    context_auto struct context context = make();
    json_auto_t *manifest = json_pack("{s:s}", "secret_runtime_env_file", "link.env");
    json_auto_t *vars = json_pack("{s:{s:s}}", "runtime_env", "TOKEN", "hunter2");
    ck_assert_int_eq(context_take_out_secrets(&context, state, manifest, vars, &warnings, &err), 0);
    trk_autoclose int fd = unpack(&context);
    ck_assert(!has(fd, "conf/run.env") && !has(fd, "link.env") && has(fd, "build.env"));
}
END_TEST

START_TEST(secrets_that_came_in_the_clear_only_are_refused)
{
    context_auto struct context context = make();
    json_auto_t *manifest = json_pack("{s:s}", "secret_build_env_file", "build.env");
    json_auto_t *vars = json_pack("{s:{}, s:n}", "runtime_env", "build_env");
    for (int i = 0; i < 2; i++) {
        int rc = context_take_out_secrets(&context, state, manifest, i == 0 ? vars : NULL,
                                          &warnings, &err);
        ck_assert_int_eq(rc, TRK_INVALID);
        ck_assert_ptr_nonnull(strstr(err.text, "'build.env'"));
        ck_assert_ptr_nonnull(strstr(err.text, "secret_vars.build_env"));
    }
    assert_no_folder_is_left();
}
END_TEST

START_TEST(a_context_without_them_is_not_touched)
{
    static const char *const paths[] = {"gone.env", "/etc/passwd", "../x", "conf", ""};
    context_auto struct context context = make();
    char before[TRK_DIGEST_SIZE];
    memcpy(before, context.digest, sizeof(before));
    json_auto_t *manifest = json_pack("{s:s}", "secret_build_env_file", paths[_i]);
    ck_assert_int_eq(context_take_out_secrets(&context, state, manifest, NULL, &warnings, &err), 0);
    ck_assert_str_eq(context.digest, before);
    ck_assert_uint_eq(warnings.len, 0);
}
END_TEST

START_TEST(what_a_killed_process_left_is_swept)
{
    trk_autofree char *left = trk_xasprintf("%s/tmp/context-left/conf", state);
    trk_autofree char *used = trk_xasprintf("%s/tmp/context-used", state);
    trk_autofree char *other = trk_xasprintf("%s/tmp/other", state);
    ck_assert_int_eq(trk_mkdir_p(left, 0755, &err), 0);
    ck_assert_int_eq(trk_mkdir_p(used, 0755, &err), 0);
    ck_assert_int_eq(trk_mkdir_p(other, 0755, &err), 0);
    trk_autoclose int fd = open(used, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    context_sweep(state);
    ck_assert(trk_path_exists(used) && trk_path_exists(other) && !trk_path_exists(left));
    ck_assert_int_eq(rmdir(used), 0);
    ck_assert_int_eq(rmdir(other), 0);
    assert_no_folder_is_left();
}
END_TEST

START_TEST(all_contexts_together_have_a_limit)
{
    struct context first = make();
    context_auto struct context second = CONTEXT_NONE;
    int64_t limit = first.size_bytes + 10;
    ck_assert_int_eq(context_begin(state, &second, &err), 0);
    ck_assert_int_eq(context_add(&second, "0123456789", 10, limit, &err), 0);
    ck_assert_int_eq(context_add(&second, "0", 1, limit, &err), TRK_UNAVAILABLE);
    context_fini(&first);
    context_fini(&second);
    ck_assert_int_eq(context_begin(state, &second, &err), 0);
    ck_assert_int_eq(context_add(&second, "0123456789", 10, limit, &err), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lifecycle/context");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, secrets_that_came_sealed_are_taken_out);
    tcase_add_test(tc, the_target_of_a_named_link_is_taken_out);
    tcase_add_test(tc, secrets_that_came_in_the_clear_only_are_refused);
    tcase_add_loop_test(tc, a_context_without_them_is_not_touched, 0, 5);
    tcase_add_test(tc, what_a_killed_process_left_is_swept);
    tcase_add_test(tc, all_contexts_together_have_a_limit);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
