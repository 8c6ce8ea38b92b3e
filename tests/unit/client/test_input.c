/* What the client reads of the user's files: secret variables, the build context; and how it finds
 * new lines of a log. */
#include <check.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "client/build_context.h"
#include "client/log_overlap.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/oci/oci.h"
#include "libtrack/source/pack.h"
#include "libtrack/source/secret_file.h"

static struct trk_err err;

START_TEST(secret_lines_are_read_as_the_original_does)
{
    json_auto_t *secrets = NULL;
    ck_assert_int_eq(
        trk_secret_lines_parse("# comment\n; too\n\n[section]\nTOKEN=abc\n"
                               "  Spaced_Key =  some words \r\nQUOTED=\"a b\"\n"
                               "SINGLE='x'\nEMPTY=\nURL=http://h:1/?a=b\nHALF=\"open\n",
                               "f", &secrets, &err),
        0);
    json_auto_t *expected = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "TOKEN", "abc",
                                      "Spaced_Key", "some words", "QUOTED", "a b", "SINGLE", "x",
                                      "EMPTY", "", "URL", "http://h:1/?a=b", "HALF", "\"open");
    ck_assert_msg(json_equal(secrets, expected), "%s", json_dumps(secrets, 0));
}
END_TEST

START_TEST(a_bad_secret_line_is_named_without_its_content)
{
    static const char *const bad[] = {"A=1\nhunter2\n", "A=1\n=hunter2\n", "A=1\nB=hunter2\xff\n"};
    json_t *secrets = NULL;
    ck_assert_int_eq(trk_secret_lines_parse(bad[_i], "secrets.env", &secrets, &err), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "secrets.env, line 2"));
    ck_assert_ptr_null(strstr(err.text, "hunter2"));
}
END_TEST

START_TEST(overlap_of_two_looks_at_a_log)
{
    static const struct {
        const char *before, *now, *fresh;
    } cases[] = {
        {"", "a\n", "a\n"},
        {"a\nb\n", "a\nb\n", ""},
        {"a\nb\n", "a\nb\nc\n", "c\n"},
        {"a\nb\nc\n", "b\nc\nd\n", "d\n"},
        {"a\nb\n", "x\ny\n", "x\ny\n"},
        {"xa\n", "a\nb\n", "a\nb\n"}, /* no line of before begins with "a" */
        {"a\na\n", "a\na\na\n", "a\n"},
        {"a\npart", "a\npart of it\n", " of it\n"},
        {"a\n", "", ""},
    };
    size_t known = log_overlap(cases[_i].before, cases[_i].now);
    ck_assert_str_eq(cases[_i].now + known, cases[_i].fresh);
}
END_TEST

static char *folder;

static void put(const char *path, const char *text)
{
    trk_autofree char *full = trk_xasprintf("%s/%s", folder, path);
    trk_autofree char *parent = trk_xstrndup(full, (size_t)(strrchr(full, '/') - full));
    ck_assert_int_eq(trk_mkdir_p(parent, 0755, &err), 0);
    ck_assert_int_eq(trk_file_write(full, text, strlen(text), 0644, &err), 0);
}

static void make_folder(void)
{
    folder = trk_xasprintf("%s/job-%d", getenv("TEST_TMP"), (int)getpid());
    ck_assert_int_eq(trk_rm_rf(folder, &err), 0);
    put("job.yaml", "name: x\n");
    put("model.py", "class A: pass\n");
    put(".gitignore", "*.tmp\n/cache/\n");
    put("junk.tmp", "x");
    put("cache/big", "x");
    put("sub/cache", "kept: only the top one is meant");
    put("sub/.gitignore", "!wanted.tmp\nunwanted\n");
    put("sub/wanted.tmp", "x");
    put("sub/unwanted/deep", "x");
    put(".git/config", "x");
    put("sub/__pycache__/a.pyc", "x");
    put("model.zip", "x");
}

START_TEST(context_holds_what_gitignore_leaves)
{
    make_folder();
    struct build_context context = {0};
    ck_assert_msg(build_context_pack(folder, NULL, &context, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(context.file_count, 4);
    trk_autofree char *out = trk_xasprintf("%s-out", folder);
    ck_assert_int_eq(trk_rm_rf(out, &err), 0);
    ck_assert_int_eq(trk_mkdir_p(out, 0755, &err), 0);
    trk_autoclose int fd = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct trk_unpack_limits limits = {0};
    ck_assert_int_eq(trk_unpack(context.bytes, context.len, -1, fd, NULL, &limits, &err), 0);
    static const char *const in[] = {"job.yaml", "model.py", "sub/cache", "sub/wanted.tmp"};
    static const char *const left_out[] = {"junk.tmp",        "cache",      ".git",
                                           "sub/__pycache__", ".gitignore", "sub/.gitignore",
                                           "sub/unwanted",    "model.zip"};
    for (size_t i = 0; i < TRK_COUNT(in); i++) {
        ck_assert_msg(faccessat(fd, in[i], F_OK, 0) == 0, "%s is missing", in[i]);
    }
    for (size_t i = 0; i < TRK_COUNT(left_out); i++) {
        ck_assert_msg(faccessat(fd, left_out[i], F_OK, 0) != 0, "%s is there", left_out[i]);
    }
    build_context_fini(&context);
    free(folder);
}
END_TEST

START_TEST(unchanged_files_give_unchanged_bytes)
{
    make_folder();
    struct build_context first = {0}, second = {0};
    ck_assert_int_eq(build_context_pack(folder, NULL, &first, &err), 0);
    trk_autofree char *file = trk_xasprintf("%s/model.py", folder);
    static const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    ck_assert_int_eq(utimensat(AT_FDCWD, file, times, 0), 0);
    put("junk2.tmp", "ignored");
    ck_assert_int_eq(build_context_pack(folder, NULL, &second, &err), 0);
    ck_assert_uint_eq(first.len, second.len);
    ck_assert_mem_eq(first.bytes, second.bytes, first.len);
    build_context_fini(&first);
    build_context_fini(&second);
    free(folder);
}
END_TEST

START_TEST(files_of_secrets_are_left_out)
{
    make_folder();
    put("conf/run.env", "TOKEN=hunter2\n");
    put("build.env", "TOKEN=hunter2\n");
    trk_autofree char *real = trk_xasprintf("%s/conf/run.env", folder);
    trk_autofree char *hard = trk_xasprintf("%s/copy.txt", folder);
    trk_autofree char *soft = trk_xasprintf("%s/link.env", folder);
    (void)unlink(hard);
    (void)unlink(soft);
    ck_assert_int_eq(link(real, hard), 0);
    ck_assert_int_eq(symlink("build.env", soft), 0);
    json_auto_t *manifest = json_pack("{s:s, s:s}", "secret_runtime_env_file",
                                      "sub/../conf/run.env", "secret_build_env_file", "link.env");
    struct build_context context = {0};
    ck_assert_msg(build_context_pack(folder, manifest, &context, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(context.file_count, 4); /* those of every folder of this test */
    build_context_fini(&context);
    ck_assert_msg(build_context_pack(folder, NULL, &context, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(context.file_count, 8);
    build_context_fini(&context);
    free(folder);
}
END_TEST

START_TEST(too_large_names_the_largest_files)
{
    make_folder();
    trk_autofree char *big = trk_xasprintf("%s/weights.bin", folder);
    trk_autoclose int fd = open(big, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    ck_assert_int_eq(ftruncate(fd, (off_t)TRK_SOURCE_UNPACKED_BYTES_MAX + 1), 0);
    struct build_context context = {0};
    ck_assert_int_eq(build_context_pack(folder, NULL, &context, &err), TRK_TOO_LARGE);
    ck_assert_ptr_nonnull(strstr(err.text, "weights.bin"));
    ck_assert_ptr_nonnull(strstr(err.text, ".gitignore"));
    ck_assert_int_eq(unlink(big), 0);
    free(folder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client/input");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, secret_lines_are_read_as_the_original_does);
    tcase_add_loop_test(tc, a_bad_secret_line_is_named_without_its_content, 0, 3);
    tcase_add_loop_test(tc, overlap_of_two_looks_at_a_log, 0, 9);
    tcase_add_test(tc, context_holds_what_gitignore_leaves);
    tcase_add_test(tc, unchanged_files_give_unchanged_bytes);
    tcase_add_test(tc, files_of_secrets_are_left_out);
    tcase_add_test(tc, too_large_names_the_largest_files);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
