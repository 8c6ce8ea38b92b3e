#include <check.h>

#include "image_builder/build/log.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"

static char *path;
static struct trk_err err;
static struct build_secrets secrets;
static unsigned lines_seen;

static void setup(void)
{
    path = trk_xasprintf("%s/log-%d", getenv("TEST_TMP"), (int)getpid());
    lines_seen = 0;
}
static void teardown(void)
{
    build_secrets_fini(&secrets);
    (void)unlink(path);
    free(path);
}

static void on_line(void *ctx, const char *line)
{
    (void)ctx;
    ck_assert_ptr_null(strstr(line, "hunter22"));
    lines_seen++;
}

static struct build_log *open_log(size_t max_bytes)
{
    struct build_log *log;
    ck_assert_msg(build_log_open(path, max_bytes, &secrets, on_line, NULL, &log, &err) == 0, "%s",
                  err.text);
    return log;
}

static char *file_text(void)
{
    char *text;
    size_t len;
    ck_assert_int_eq(trk_file_read(path, 1 << 20, &text, &len, &err), 0);
    return text;
}

static void add(struct build_log *log, const char *text)
{
    build_log_add(log, text, strlen(text));
}

START_TEST(secrets_are_hidden_wherever_a_read_ends)
{
    build_secrets_add(&secrets, "hunter22");
    build_secrets_add(&secrets, "first-line\nsecond-line\n");
    build_secrets_add(&secrets, "abc"); /* too short to be hidden */
    struct build_log *log = open_log(65536);
    add(log, "password is hun");
    add(log, "ter22!\nand first-line, abc\nsecond-line");
    build_log_printf(log, "https://user:pass@host/x http://host/@ ftp://a b@c %s", "hunter22");
    trk_autofree char *text = build_log_text(log);
    ck_assert_str_eq(text, "password is ***!\nand ***, abc\n***\n"
                           "https://***@host/x http://host/@ ftp://a b@c ***\n");
    build_log_close(log);
    trk_autofree char *file = file_text();
    ck_assert_str_eq(file, text);
    ck_assert_uint_eq(lines_seen, 4);
}
END_TEST

START_TEST(what_a_terminal_would_interpret_goes)
{
    struct build_log *log = open_log(65536);
    build_log_add(log, "\x1b[31mred\x1b[0m\r\n\0x\xff\n", 19);
    trk_autofree char *text = build_log_text(log);
    ck_assert_ptr_null(strchr(text, '\x1b'));
    ck_assert_ptr_null(strchr(text, '\r'));
    ck_assert_ptr_nonnull(strstr(text, "red\n"));
    ck_assert_ptr_null(strstr(text, "\xff"));
    build_log_close(log);
}
END_TEST

START_TEST(long_log_keeps_its_beginning_and_its_end)
{
    struct build_log *log = open_log(4096);
    for (unsigned i = 0; i < 10000; i++) {
        build_log_printf(log, "line %u", i);
    }
    trk_autofree char *text = build_log_text(log);
    build_log_close(log);
    trk_autofree char *file = file_text();
    ck_assert_str_eq(file, text);
    ck_assert_uint_lt(strlen(text), 4096 + 100);
    ck_assert_int_eq(strncmp(text, "line 0\nline 1\n", 14), 0);
    ck_assert_ptr_nonnull(strstr(text, "bytes left out"));
    ck_assert_ptr_nonnull(strstr(text, "line 9998\nline 9999\n"));
}
END_TEST

START_TEST(one_endless_line_is_bounded)
{
    struct build_log *log = open_log(16384);
    trk_autofree char *big = trk_xmalloc(1 << 20);
    memset(big, 'x', 1 << 20);
    build_log_add(log, big, 1 << 20);
    trk_autofree char *text = build_log_text(log);
    ck_assert_uint_lt(strlen(text), 16384 + 8192 + 100);
    build_log_close(log);
}
END_TEST

START_TEST(tail_is_of_the_step)
{
    struct build_log *log = open_log(65536);
    struct trk_buf out;
    trk_buf_init(&out, 4096);
    add(log, "before\n");
    build_log_begin_step(log);
    add(log, "one\ntwo\nthree\n");
    build_log_tail(log, 10, 1000, &out);
    ck_assert_str_eq(out.data, "one\ntwo\nthree\n");
    trk_buf_reset(&out);
    build_log_tail(log, 2, 1000, &out);
    ck_assert_str_eq(out.data, "two\nthree\n");
    trk_buf_reset(&out);
    build_log_tail(log, 3, 8, &out);
    ck_assert_str_eq(out.data, "three\n");
    trk_buf_fini(&out);
    build_log_close(log);
}
END_TEST

START_TEST(secrets_are_found_in_bytes)
{
    build_secrets_add(&secrets, "longer-secret");
    build_secrets_add(&secrets, "short");
    ck_assert(build_secrets_occur(&secrets, "a\0longer-secret\0", 16));
    ck_assert(!build_secrets_occur(&secrets, "short longer-secre", 18));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("build_log");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, secrets_are_hidden_wherever_a_read_ends);
    tcase_add_test(tc, what_a_terminal_would_interpret_goes);
    tcase_add_test(tc, long_log_keeps_its_beginning_and_its_end);
    tcase_add_test(tc, one_endless_line_is_bounded);
    tcase_add_test(tc, tail_is_of_the_step);
    tcase_add_test(tc, secrets_are_found_in_bytes);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
