#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

static char dir[512];

static void setup(void)
{
    const char *scratch = getenv("TEST_TMP");
    (void)snprintf(dir, sizeof(dir), "%s/file-XXXXXX", scratch != NULL ? scratch : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    struct trk_err err = {0};
    ck_assert_msg(trk_rm_rf(dir, &err) == 0, "%s", err.text);
}

/* A path below the scratch folder; four may be in use at once. */
static const char *in(const char *name)
{
    static char paths[4][1024];
    static unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text)
{
    struct trk_err err = {0};
    ck_assert_msg(trk_file_write(in(name), text, strlen(text), 0600, &err) == 0, "%s", err.text);
}

START_TEST(folders_are_made)
{
    struct stat st;
    ck_assert_int_eq(trk_mkdir_p(in("a/b//c"), 0750, NULL), 0);
    ck_assert_int_eq(stat(in("a/b/c"), &st), 0);
    ck_assert(S_ISDIR(st.st_mode));
    ck_assert_int_eq(chmod(in("a/b"), 0700), 0);
    ck_assert_int_eq(trk_mkdir_p(in("a/b/d/"), 0755, NULL), 0);
    ck_assert_int_eq(stat(in("a/b"), &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700); /* an existing one keeps its mode */
}
END_TEST

START_TEST(a_file_in_the_way_is_named)
{
    struct trk_err err = {0};
    put("file", "x");
    ck_assert_int_lt(trk_mkdir_p(in("file/inner"), 0755, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "/file"));
    ck_assert_int_lt(trk_mkdir_p(in("file"), 0755, &err), 0);
}
END_TEST

START_TEST(a_tree_is_removed_whole)
{
    ck_assert_int_eq(trk_mkdir_p(in("t/a/b"), 0755, NULL), 0);
    put("t/a/file", "x");
    ck_assert_int_eq(symlink("nowhere", in("t/dangling")), 0);
    ck_assert_int_eq(mkfifo(in("t/fifo"), 0600), 0);
    ck_assert_int_eq(chmod(in("t/a/b"), 0), 0);
    ck_assert_int_eq(chmod(in("t/a"), 0500), 0);
    ck_assert_int_eq(trk_rm_rf(in("t"), NULL), 0);
    ck_assert(!trk_path_exists(in("t")));
    ck_assert_int_eq(trk_rm_rf(in("t"), NULL), 0); /* a missing one is fine */
    ck_assert_int_eq(trk_rm_rf(in("no/such/path"), NULL), 0);
}
END_TEST

START_TEST(links_are_not_followed)
{
    ck_assert_int_eq(trk_mkdir_p(in("t"), 0755, NULL), 0);
    ck_assert_int_eq(trk_mkdir_p(in("outside"), 0755, NULL), 0);
    put("outside/keep", "x");
    ck_assert_int_eq(symlink("../outside", in("t/link")), 0);
    ck_assert_int_eq(trk_rm_rf(in("t"), NULL), 0);
    ck_assert(trk_path_exists(in("outside/keep")));
    ck_assert_int_eq(symlink("outside", in("link")), 0);
    ck_assert_int_eq(trk_rm_rf(in("link/"), NULL), 0);
    ck_assert(!trk_path_exists(in("link")));
    ck_assert(trk_path_exists(in("outside/keep")));
}
END_TEST

START_TEST(a_deep_tree_is_removed)
{
    enum { LEVELS = 3000 };
    trk_autoclose int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < LEVELS; i++) {
        ck_assert_int_eq(mkdirat(at, "deeper", 0755), 0);
        int next = openat(at, "deeper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert_int_ge(next, 0);
        (void)close(at);
        at = next;
    }
    struct trk_err err = {0};
    struct rlimit kept;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &kept), 0);
    const struct rlimit few = {.rlim_cur = 128, .rlim_max = kept.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    int rc = trk_rm_rf(in("deeper"), &err);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &kept), 0);
    ck_assert_msg(rc == 0, "%s", err.text);
    ck_assert(!trk_path_exists(in("deeper")));
}
END_TEST

START_TEST(a_wide_tree_is_removed)
{
    ck_assert_int_eq(trk_mkdir_p(in("wide"), 0755, NULL), 0);
    for (int i = 0; i < 3000; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "wide/%d", i);
        ck_assert_int_eq(close(open(in(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
    }
    ck_assert_int_eq(trk_rm_rf(in("wide"), NULL), 0);
    ck_assert(!trk_path_exists(in("wide")));
}
END_TEST

START_TEST(a_file_is_read_up_to_the_cap)
{
    trk_autofree char *text = NULL;
    size_t len = 0;
    struct trk_err err = {0};
    put("f", "12345");
    ck_assert_int_eq(trk_file_read(in("f"), 5, &text, &len, &err), 0);
    ck_assert_uint_eq(len, 5);
    ck_assert_str_eq(text, "12345");
    char *none = NULL;
    ck_assert_int_eq(trk_file_read(in("f"), 4, &none, &len, &err), TRK_TOO_LARGE);
    ck_assert_ptr_null(none);
    ck_assert_int_eq(trk_file_read(in("missing"), 4, &none, &len, &err), TRK_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "missing"));
    put("empty", "");
    ck_assert_int_eq(trk_file_read(in("empty"), 0, &none, NULL, &err), 0);
    ck_assert_str_eq(none, "");
    free(none);
    /* a file whose size is not known before */
    ck_assert_int_eq(trk_file_read("/proc/self/status", 10, &text, &len, &err), TRK_TOO_LARGE);
}
END_TEST

START_TEST(writing_replaces_whole_files)
{
    struct stat st;
    trk_autofree char *text = NULL;
    put("f", "old");
    int before = open(in("f"), O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(trk_file_write(in("f"), "new", 3, 0640, NULL), 0);
    ck_assert_int_eq(trk_file_read(in("f"), 10, &text, NULL, NULL), 0);
    ck_assert_str_eq(text, "new");
    ck_assert_int_eq(stat(in("f"), &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0640);
    char old[4] = {0};
    ck_assert_int_eq(read(before, old, 3), 3); /* who had it open keeps the old content */
    ck_assert_str_eq(old, "old");
    (void)close(before);
}
END_TEST

START_TEST(failed_writing_leaves_nothing_behind)
{
    struct trk_err err = {0};
    ck_assert_int_eq(trk_mkdir_p(in("d/f"), 0755, NULL), 0);
    ck_assert_int_lt(trk_file_write(in("d/f"), "x", 1, 0600, &err), 0); /* a folder is there */
    ck_assert_ptr_nonnull(strstr(err.text, "d/f"));
    ck_assert_int_eq(rmdir(in("d/f")), 0);
    ck_assert_int_eq(rmdir(in("d")), 0); /* no temporary file is left in it */
    ck_assert_int_eq(trk_file_write(in("no/f"), "x", 1, 0600, &err), TRK_NOT_FOUND);
}
END_TEST

START_TEST(a_full_disk_is_no_space)
{
    struct trk_err err = {0};
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(trk_write_all(fd, "x", 1, &err), TRK_NO_SPACE);
    (void)close(fd);
}
END_TEST

static const struct {
    const char *content;
    size_t lines, cap_bytes;
    const char *tail;
} tails[] = {
    {"a\nb\nc\n", 2, 100, "b\nc\n"},
    {"a\nb\nc", 2, 100, "b\nc"},
    {"a\nb\nc\n", 3, 100, "a\nb\nc\n"},
    {"a\nb\nc\n", 9, 100, "a\nb\nc\n"},
    {"a\nb\nc\n", 0, 100, "a\nb\nc\n"},
    {"a\nb\nc\n", 1, 100, "c\n"},
    {"a\n\n\n", 2, 100, "\n\n"},
    {"", 5, 100, ""},
    {"\n", 1, 100, "\n"},
    {"first\nsecond\nthird\n", 0, 8, "third\n"}, /* cut on a line */
    {"first\nsecond\nthird\n", 9, 8, "third\n"},
    {"first\nsecond\nthird\n", 0, 6, "third\n"},
    {"one very long line", 0, 4, "line"}, /* better a part than nothing */
    {"one very long line\n", 1, 5, "line\n"},
};
START_TEST(tail_is_the_last_lines)
{
    struct trk_buf buf;
    struct trk_err err = {0};
    trk_buf_init(&buf, 1000);
    put("f", tails[_i].content);
    ck_assert_int_eq(trk_file_tail(in("f"), tails[_i].lines, tails[_i].cap_bytes, &buf, &err), 0);
    ck_assert_str_eq(buf.data, tails[_i].tail);
    trk_buf_fini(&buf);
}
END_TEST

START_TEST(tail_of_a_large_file)
{
    struct trk_buf content;
    struct trk_buf buf;
    struct trk_err err = {0};
    trk_buf_init(&content, 10 << 20);
    trk_buf_init(&buf, 1 << 20);
    for (int i = 0; i < 100000; i++) {
        (void)trk_buf_addf(&content, "line %d of many\n", i);
    }
    put("f", content.data);
    ck_assert_int_eq(trk_file_tail(in("f"), 20000, 1 << 20, &buf, &err), 0);
    ck_assert(trk_str_has_prefix(buf.data, "line 80000 of many\n"));
    ck_assert(trk_str_has_suffix(buf.data, "line 99999 of many\n"));
    trk_buf_reset(&buf);
    ck_assert_int_eq(trk_file_tail(in("missing"), 5, 100, &buf, &err), 0);
    ck_assert_uint_eq(buf.len, 0);
    trk_buf_fini(&buf);
    trk_buf_fini(&content);
}
END_TEST

static void make_confined(void)
{
    ck_assert_int_eq(trk_mkdir_p(in("root/sub"), 0755, NULL), 0);
    put("root/sub/file", "inside");
    put("secret", "outside");
    ck_assert_int_eq(symlink("../secret", in("root/up")), 0);
    ck_assert_int_eq(symlink("/etc", in("root/etc")), 0);
    ck_assert_int_eq(symlink("/proc/self/root", in("root/magic")), 0);
}

static const char *const escapes[] = {
    "../secret",  "/etc/passwd",      "sub/../../secret",         "up",
    "etc/passwd", "magic/etc/passwd", "sub/../../root/../secret",
};

typedef int open_beneath(int, const char *, int, mode_t, int *, struct trk_err *);
static open_beneath *const openers[] = {trk_open_beneath, trk_open_beneath_walk};

START_TEST(confined_opening_never_leaves)
{
    open_beneath *opener = openers[_i];
    make_confined();
    trk_autoclose int root = open(in("root"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < TRK_COUNT(escapes); i++) {
        int fd = -1;
        struct trk_err err = {0};
        int rc = opener(root, escapes[i], O_RDONLY, 0, &fd, &err);
        ck_assert_msg(rc == TRK_INVALID, "%s: %d %s", escapes[i], rc, err.text);
        ck_assert_int_eq(fd, -1);
    }
}
END_TEST

START_TEST(confined_opening_finds_what_is_inside)
{
    static const char *const paths[] = {"sub/file", "./sub//file", "sub/./file"};
    open_beneath *opener = openers[_i];
    make_confined();
    trk_autoclose int root = open(in("root"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < TRK_COUNT(paths); i++) {
        int fd = -1;
        char text[7] = {0};
        struct trk_err err = {0};
        ck_assert_msg(opener(root, paths[i], O_RDONLY, 0, &fd, &err) == 0, "%s: %s", paths[i],
                      err.text);
        ck_assert_int_eq(read(fd, text, 6), 6);
        ck_assert_str_eq(text, "inside");
        ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
        (void)close(fd);
    }
    int fd = -1;
    struct stat st;
    ck_assert_int_eq(opener(root, "sub/new", O_CREAT | O_EXCL | O_WRONLY, 0640, &fd, NULL), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0640, 0640);
    (void)close(fd);
    ck_assert_int_eq(opener(root, "sub/none", O_RDONLY, 0, &fd, NULL), TRK_NOT_FOUND);
    ck_assert_int_lt(opener(root, "sub/file/", O_RDONLY, 0, &fd, NULL), 0);
    ck_assert_int_lt(opener(root, "", O_RDONLY, 0, &fd, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file");
    TCase *tc = tcase_create("file");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, folders_are_made);
    tcase_add_test(tc, a_file_in_the_way_is_named);
    tcase_add_test(tc, a_tree_is_removed_whole);
    tcase_add_test(tc, links_are_not_followed);
    tcase_add_test(tc, a_deep_tree_is_removed);
    tcase_add_test(tc, a_wide_tree_is_removed);
    tcase_add_test(tc, a_file_is_read_up_to_the_cap);
    tcase_add_test(tc, writing_replaces_whole_files);
    tcase_add_test(tc, failed_writing_leaves_nothing_behind);
    tcase_add_test(tc, a_full_disk_is_no_space);
    tcase_add_loop_test(tc, tail_is_the_last_lines, 0, TRK_COUNT(tails));
    tcase_add_test(tc, tail_of_a_large_file);
    tcase_add_loop_test(tc, confined_opening_never_leaves, 0, TRK_COUNT(openers));
    tcase_add_loop_test(tc, confined_opening_finds_what_is_inside, 0, TRK_COUNT(openers));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
