#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "libtrack/base/file.h"
#include "libtrack/oci/oci.h"
#include "libtrack/oci/oci_internal.h"
#include "tests/unit/libtrack/oci/tar_helper.h"

static char *base, *dest;
static int dest_fd;
static struct trk_err err;
static struct trk_buf tar;

static void setup(void)
{
    base = trk_xasprintf("%s/unpack-%d", getenv("TEST_TMP"), (int)getpid());
    dest = trk_xasprintf("%s/dest", base);
    err = (struct trk_err){0};
    ck_assert_int_eq(trk_mkdir_p(dest, 0755, &err), 0);
    trk_autofree char *secret = trk_xasprintf("%s/secret", base);
    ck_assert_int_eq(trk_file_write(secret, "untouched", 9, 0600, &err), 0);
    dest_fd = open(dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(dest_fd, 0);
    trk_buf_init(&tar, 64 << 20);
}

static void teardown(void)
{
    (void)close(dest_fd);
    ck_assert_int_eq(trk_rm_rf(base, &err), 0);
    trk_buf_fini(&tar);
    free(base);
    free(dest);
}

static int unpack(const char *strip)
{
    return trk_unpack(tar.data, tar.len, -1, dest_fd, strip, NULL, &err);
}

static void assert_file(const char *name, const char *want)
{
    trk_autofree char *path = trk_xasprintf("%s/%s", dest, name);
    trk_autofree char *got = NULL;
    size_t len;
    ck_assert_msg(trk_file_read(path, 1 << 20, &got, &len, &err) == 0, "%s", err.text);
    ck_assert_str_eq(got, want);
}

static bool exists(const char *name)
{
    struct stat st;
    return fstatat(dest_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Nothing next to the destination was made or changed. */
static void assert_outside_untouched(void)
{
    trk_autofree char *path = trk_xasprintf("%s/secret", base);
    trk_autofree char *got = NULL;
    size_t len;
    struct stat st;
    ck_assert_int_eq(trk_file_read(path, 100, &got, &len, &err), 0);
    ck_assert_str_eq(got, "untouched");
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_nlink, 1);
    unsigned count = 0;
    DIR *dir = opendir(base);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        count += e->d_name[0] != '.';
    }
    closedir(dir);
    ck_assert_uint_eq(count, 2);
}

static const struct attack {
    const char *what;
    struct tar_item items[4];
    const char *says; /* part of the message */
} attacks[] = {
    {"dotdot", {{"../evil", '0', 0, NULL, "x"}}, "'..'"},
    {"dotdot inside", {{"a/../../evil", '0', 0, NULL, "x"}}, "'..'"},
    {"dotdot at the end", {{"a/..", '5', 0, NULL, NULL}}, "'..'"},
    {"absolute", {{"/tmp/evil", '0', 0, NULL, "x"}}, "absolute"},
    {"absolute folder", {{"//etc", '5', 0, NULL, NULL}}, "absolute"},
    {"symlink up", {{"l", '2', 0, "../secret", NULL}}, "leads out"},
    {"symlink absolute", {{"l", '2', 0, "/etc/passwd", NULL}}, "leads out"},
    {"symlink up deeper", {{"a/b/l", '2', 0, "../../../secret", NULL}}, "leads out"},
    {"symlink climbs through a link",
     {{"d/e/l", '2', 0, "../..", NULL}, {"m", '2', 0, "d/e/l/../secret", NULL}},
     "leads out"},
    {"symlink empty", {{"l", '2', 0, "", NULL}}, ""},
    {"write through a symlink to a folder",
     {{"d", '5', 0755, NULL, NULL}, {"l", '2', 0, "d", NULL}, {"l/x", '0', 0, NULL, "x"}},
     "below what is a link"},
    {"folder through a symlink",
     {{"d", '5', 0755, NULL, NULL}, {"l", '2', 0, "d", NULL}, {"l/x/", '5', 0, NULL, NULL}},
     "below what is a link"},
    {"hard link through a symlink",
     {{"d/f", '0', 0, NULL, "x"}, {"l", '2', 0, "d", NULL}, {"h", '1', 0, "l/f", NULL}},
     "below what is a link"},
    {"file below a file",
     {{"f", '0', 0, NULL, "x"}, {"f/g", '0', 0, NULL, "x"}},
     "below what is a file"},
    {"hard link up", {{"h", '1', 0, "../secret", NULL}}, "'..'"},
    {"hard link absolute", {{"h", '1', 0, "/etc/passwd", NULL}}, "absolute"},
    {"hard link to nothing", {{"h", '1', 0, "missing", NULL}}, "hard link"},
    {"hard link to nothing, deeper", {{"h", '1', 0, "a/b/missing", NULL}}, "before it is there"},
    {"hard link to a symlink",
     {{"f", '0', 0, NULL, "x"}, {"l", '2', 0, "f", NULL}, {"h", '1', 0, "l", NULL}},
     "hard link"},
    {"hard link to a folder",
     {{"d", '5', 0755, NULL, NULL}, {"h", '1', 0, "d", NULL}},
     "hard link"},
    {"hard link to itself", {{"h", '1', 0, "h", NULL}}, "itself"},
    {"character device", {{"null", '3', 0, NULL, NULL}}, "neither"},
    {"block device", {{"sda", '4', 0, NULL, NULL}}, "neither"},
    {"fifo", {{"pipe", '6', 0, NULL, NULL}}, "neither"},
    {"setuid file", {{"su", '0', 04755, NULL, "x"}}, "setuid"},
    {"setgid file", {{"sg", '0', 02755, NULL, "x"}}, "setgid"},
    {"name not UTF-8", {{"a\xff\xfe", '0', 0, NULL, "x"}}, "UTF-8"},
    {"overlong UTF-8 slash",
     {{"..\xc0\xaf..\xc0\xaf"
       "evil",
       '0', 0, NULL, "x"}},
     "UTF-8"},
    {"no name", {{"./", '0', 0, NULL, "x"}}, ""},
    {"file in place of a full folder",
     {{"d/f", '0', 0, NULL, "x"}, {"d", '0', 0, NULL, "x"}},
     "as a folder and as a file"},
};

START_TEST(attack_is_refused)
{
    const struct attack *a = &attacks[_i];
    for (size_t i = 0; i < TRK_COUNT(a->items) && a->items[i].name != NULL; i++) {
        tar_add(&tar, &a->items[i]);
    }
    tar_end(&tar);
    ck_assert_msg(unpack(NULL) == TRK_INVALID, "%s: code %d (%s)", a->what, err.code, err.text);
    ck_assert_msg(strstr(err.text, a->says) != NULL, "%s: %s", a->what, err.text);
    assert_outside_untouched();
}
END_TEST

START_TEST(sound_archive_is_unpacked)
{
    const struct tar_item items[] = {
        {"./", '5', 0755, NULL, NULL},
        {"./job.yaml", '0', 0, NULL, "name: adder"},
        {"bin/run", '0', 0700, NULL, "#!"},
        {"shared", '5', 02775, NULL, NULL}, /* a group's folder: the bit goes, the folder stays */
        {"shared/l", '2', 0, "../bin/run", NULL},
        {"hard", '1', 0, "./bin/run", NULL},
        {"zażółć", '0', 0, NULL, "utf-8"},
        {"empty", '0', 0, NULL, ""},
    };
    for (size_t i = 0; i < TRK_COUNT(items); i++) {
        tar_add(&tar, &items[i]);
    }
    tar_end(&tar);
    struct trk_buf gz;
    trk_buf_init(&gz, 64 << 20);
    gzip_add(&gz, tar.data, tar.len);
    ck_assert_msg(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, NULL, &err) == 0, "%s", err.text);
    trk_buf_fini(&gz);
    assert_file("job.yaml", "name: adder");
    assert_file("bin/run", "#!");
    assert_file("shared/l", "#!");
    assert_file("hard", "#!");
    assert_file("zażółć", "utf-8");
    assert_file("empty", "");
    struct stat st;
    ck_assert_int_eq(fstatat(dest_fd, "bin/run", &st, 0), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0755);
    ck_assert_int_eq(fstatat(dest_fd, "shared", &st, 0), 0);
    ck_assert_uint_eq(st.st_mode & 07000, 0);
}
END_TEST

START_TEST(only_the_prefix_is_unpacked_without_it)
{
    const struct tar_item items[] = {
        {"src/", '5', 0755, NULL, NULL},         {"src/job/", '5', 0755, NULL, NULL},
        {"src/job/a.py", '0', 0, NULL, "a"},     {"src/job/sub/b.py", '0', 0, NULL, "b"},
        {"src/jobless", '0', 0, NULL, "no"},     {"other", '0', 0, NULL, "no"},
        {"src/job/l", '2', 0, "sub/b.py", NULL}, {"src/job/h", '1', 0, "src/job/a.py", NULL},
    };
    for (size_t i = 0; i < TRK_COUNT(items); i++) {
        tar_add(&tar, &items[i]);
    }
    tar_end(&tar);
    ck_assert_msg(unpack("src/job") == 0, "%s", err.text);
    assert_file("a.py", "a");
    assert_file("sub/b.py", "b");
    assert_file("l", "b");
    assert_file("h", "a");
    ck_assert(!exists("src") && !exists("other") && !exists("jobless"));
}
END_TEST

START_TEST(links_are_confined_to_what_is_stripped)
{
    tar_add(&tar, &(struct tar_item){"src/job/l", '2', 0, "../packages", NULL});
    tar_end(&tar);
    ck_assert_int_eq(unpack("src/job"), TRK_INVALID);
    err = (struct trk_err){0};
    ck_assert_msg(unpack(NULL) == 0, "%s", err.text);
    trk_buf_reset(&tar);
    tar_add(&tar, &(struct tar_item){"src/other", '0', 0, NULL, "x"});
    tar_add(&tar, &(struct tar_item){"src/job/h", '1', 0, "src/other", NULL});
    tar_end(&tar);
    ck_assert_int_eq(unpack("src/job"), TRK_INVALID);
}
END_TEST

START_TEST(last_of_equal_names_wins_and_links_are_replaced_not_written_through)
{
    const struct tar_item items[] = {
        {"f", '0', 0, NULL, "first"}, {"h", '1', 0, "f", NULL},     {"f", '0', 0, NULL, "second"},
        {"l", '2', 0, "h", NULL},     {"l", '0', 0, NULL, "third"}, {"d", '5', 0, NULL, NULL},
        {"d", '2', 0, "f", NULL},     {"l", '5', 0, NULL, NULL},    {"l/x", '0', 0, NULL, "x"},
    };
    for (size_t i = 0; i < TRK_COUNT(items); i++) {
        tar_add(&tar, &items[i]);
    }
    tar_end(&tar);
    ck_assert_msg(unpack(NULL) == 0, "%s", err.text);
    assert_file("f", "second");
    assert_file("h", "first");
    assert_file("d", "second");
    assert_file("l/x", "x");
}
END_TEST

START_TEST(long_names_and_targets_of_pax_and_gnu)
{
    char path[300];
    memset(path, 'n', sizeof(path));
    path[150] = '/';
    path[299] = '\0';
    char record[400];
    size_t total = strlen(" path=\n") + strlen(path) + 3;
    snprintf(record, sizeof(record), "%zu path=%s\n", total, path);
    ck_assert_uint_eq(strlen(record), total);
    tar_add_raw(&tar, "PaxHeader", 'x', 0644, NULL, record, total, total);
    tar_add(&tar, &(struct tar_item){"short", '0', 0, NULL, "pax"});
    char gnu[200];
    memset(gnu, 'g', sizeof(gnu));
    gnu[199] = '\0';
    tar_add_raw(&tar, "././@LongLink", 'L', 0644, NULL, gnu, sizeof(gnu), sizeof(gnu));
    tar_add(&tar, &(struct tar_item){"short2", '0', 0, NULL, "gnu"});
    tar_end(&tar);
    ck_assert_msg(unpack(NULL) == 0, "%s", err.text);
    assert_file(path, "pax");
    assert_file(gnu, "gnu");
    ck_assert(!exists("short") && !exists("short2"));
}
END_TEST

START_TEST(pax_path_attacks_are_seen)
{
    const char *const records[] = {"19 path=../../evil\n", "18 path=/tmp/evil\n",
                                   "17 linkpath=/etc\n"};
    for (size_t i = 0; i < TRK_COUNT(records); i++) {
        trk_buf_reset(&tar);
        size_t n = strlen(records[i]);
        tar_add_raw(&tar, "PaxHeader", 'x', 0644, NULL, records[i], n, n);
        tar_add(&tar, &(struct tar_item){"good", i == 2 ? '2' : '0', 0, i == 2 ? "x" : NULL,
                                         i == 2 ? NULL : "x"});
        tar_end(&tar);
        ck_assert_msg(unpack(NULL) == TRK_INVALID, "%zu: %s", i, err.text);
    }
    assert_outside_untouched();
}
END_TEST

START_TEST(huge_and_negative_sizes)
{
    tar_add_raw(&tar, "huge", '0', 0644, NULL, "", 0, (size_t)077777777777);
    ck_assert_int_eq(unpack(NULL), TRK_TOO_LARGE);
    trk_buf_reset(&tar);
    /* base-256 size with the sign bit: negative */
    tar_add_raw(&tar, "neg", '0', 0644, NULL, "", 0, 0);
    memset(tar.data + 124, 0xff, 12);
    memset(tar.data + 148, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < 512; i++) {
        sum += (unsigned char)tar.data[i];
    }
    snprintf(tar.data + 148, 8, "%06o", sum & 0777777);
    tar_end(&tar);
    int rc = unpack(NULL);
    ck_assert_msg(rc == TRK_INVALID || rc == TRK_TOO_LARGE, "%d %s", rc, err.text);
    trk_buf_reset(&tar);
    /* a pax header that says it is 4 GiB long */
    tar_add_raw(&tar, "PaxHeader", 'x', 0644, NULL, "", 0, (size_t)037777777777);
    tar_end(&tar);
    ck_assert_int_eq(unpack(NULL), TRK_INVALID);
    trk_buf_reset(&tar);
    /* a sparse file of 64 GiB with one byte at its end (GNU pax format 1.0) */
    static const char sparse[] = "22 GNU.sparse.major=1\n"
                                 "22 GNU.sparse.minor=0\n"
                                 "26 GNU.sparse.name=sparse\n"
                                 "35 GNU.sparse.realsize=68719476736\n";
    char map[513] = "1\n68719476735\n1\n";
    map[512] = 'x';
    tar_add_raw(&tar, "PaxHeader", 'x', 0644, NULL, sparse, strlen(sparse), strlen(sparse));
    tar_add_raw(&tar, "GNUSparseFile.0/x", '0', 0644, NULL, map, sizeof(map), sizeof(map));
    tar_end(&tar);
    ck_assert_int_eq(unpack(NULL), TRK_TOO_LARGE);
    ck_assert(!exists("sparse"));
}
END_TEST

START_TEST(bombs_end_early)
{
    static char zeros[1 << 20];
    for (unsigned i = 0; i < 24; i++) {
        char name[16];
        snprintf(name, sizeof(name), "z%u", i);
        tar_add_raw(&tar, name, '0', 0644, NULL, zeros, sizeof(zeros), sizeof(zeros));
    }
    tar_end(&tar);
    struct trk_buf gz;
    trk_buf_init(&gz, 64 << 20);
    gzip_add(&gz, tar.data, tar.len);
    ck_assert_int_eq(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, NULL, &err), TRK_TOO_LARGE);
    ck_assert_ptr_nonnull(strstr(err.text, "bomb"));
    ck_assert(!exists("z20"));
    /* the same bytes are fine when they are not packed that tightly */
    struct trk_unpack_limits loose = {.ratio_max = 2000};
    ck_assert_msg(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, &loose, &err) == 0, "%s",
                  err.text);
    struct trk_unpack_limits total = {.ratio_max = 2000, .total_bytes_max = 3 << 20};
    ck_assert_int_eq(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, &total, &err), TRK_TOO_LARGE);
    struct trk_unpack_limits file = {.ratio_max = 2000, .file_bytes_max = 1000};
    ck_assert_int_eq(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, &file, &err), TRK_TOO_LARGE);
    trk_buf_fini(&gz);
}
END_TEST

START_TEST(entries_are_counted)
{
    for (unsigned i = 0; i < 11; i++) {
        tar_add(&tar, &(struct tar_item){"same", '5', 0, NULL, NULL});
    }
    tar_end(&tar);
    struct trk_unpack_limits ten = {.entries_max = 10}, eleven = {.entries_max = 11};
    ck_assert_int_eq(trk_unpack(tar.data, tar.len, -1, dest_fd, NULL, &ten, &err), TRK_TOO_LARGE);
    ck_assert_int_eq(trk_unpack(tar.data, tar.len, -1, dest_fd, NULL, &eleven, &err), 0);
}
END_TEST

START_TEST(too_deep_is_refused)
{
    char path[4000] = "";
    for (unsigned i = 0; i <= OCI_DEPTH_MAX; i++) {
        memcpy(path + 2 * i, "d/", 3);
    }
    char record[4200];
    size_t total = strlen(path) + strlen(" path=\n") + 3;
    snprintf(record, sizeof(record), "%zu path=%s\n", total, path);
    ck_assert_uint_eq(strlen(record), total);
    tar_add_raw(&tar, "PaxHeader", 'x', 0644, NULL, record, total, total);
    tar_add(&tar, &(struct tar_item){"x", '5', 0, NULL, NULL});
    tar_end(&tar);
    ck_assert_int_eq(unpack(NULL), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "too deep"));
}
END_TEST

/* Every cut and every end that is not the archive's own. */
START_TEST(cut_off_and_trailing_bytes)
{
    char noise[5000];
    for (size_t i = 0; i < sizeof(noise) - 1; i++) {
        noise[i] = (char)('a' + (i * i * 31 + i / 7) % 26);
    }
    noise[sizeof(noise) - 1] = '\0';
    tar_add(&tar, &(struct tar_item){"f", '0', 0, NULL, noise});
    tar_end(&tar);
    struct trk_buf gz;
    trk_buf_init(&gz, 64 << 20);
    gzip_add(&gz, tar.data, tar.len);
    for (size_t len = 0; len < gz.len; len += len < 40 || len + 40 > gz.len ? 1 : 97) {
        err = (struct trk_err){0};
        ck_assert_msg(trk_unpack(gz.data, len, -1, dest_fd, NULL, NULL, &err) == TRK_INVALID,
                      "cut at %zu of %zu: %d %s", len, gz.len, err.code, err.text);
    }
    ck_assert_int_eq(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, NULL, &err), 0);
    size_t good = gz.len;
    trk_buf_add(&gz, "\0\0\0\0", 4); /* zero padding is what tapes and some tools leave */
    ck_assert_int_eq(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, NULL, &err), 0);
    gz.len = good;
    trk_buf_add(&gz, "garbage", 7);
    ck_assert_int_eq(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, NULL, &err), TRK_INVALID);
    gz.len = good;
    gz.data[good / 2] ^= 0x55;
    ck_assert_int_eq(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, NULL, &err), TRK_INVALID);
    trk_buf_fini(&gz);
    /* a second archive behind the end of the first, hidden from readers that stop there */
    tar_add(&tar, &(struct tar_item){"hidden", '0', 0, NULL, "x"});
    ck_assert_int_eq(unpack(NULL), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "behind its end"));
    ck_assert(!exists("hidden"));
    trk_buf_reset(&tar);
    ck_assert_int_eq(unpack(NULL), TRK_INVALID);
    trk_buf_adds(&tar, "this is not an archive at all, just some text that someone sent here");
    ck_assert_int_eq(unpack(NULL), TRK_INVALID);
}
END_TEST

START_TEST(members_of_gzip_are_joined)
{
    tar_add(&tar, &(struct tar_item){"f", '0', 0, NULL, "joined"});
    tar_end(&tar);
    struct trk_buf gz;
    trk_buf_init(&gz, 64 << 20);
    gzip_add(&gz, tar.data, 700);
    gzip_add(&gz, tar.data + 700, tar.len - 700);
    ck_assert_msg(trk_unpack(gz.data, gz.len, -1, dest_fd, NULL, NULL, &err) == 0, "%s", err.text);
    assert_file("f", "joined");
    trk_buf_fini(&gz);
}
END_TEST

START_TEST(a_descriptor_is_read_like_bytes)
{
    tar_add(&tar, &(struct tar_item){"f", '0', 0, NULL, "by fd"});
    tar_end(&tar);
    trk_autofree char *path = trk_xasprintf("%s/archive", dest);
    ck_assert_int_eq(trk_file_write(path, tar.data, tar.len, 0600, &err), 0);
    trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_msg(trk_unpack(NULL, 0, fd, dest_fd, NULL, NULL, &err) == 0, "%s", err.text);
    assert_file("f", "by fd");
}
END_TEST

START_TEST(links_that_stay)
{
    static const struct {
        const char *target;
        size_t depth;
        bool stays;
    } table[] = {
        {"a", 0, true},      {"./a", 0, true},    {"a/b", 0, true},         {".", 0, true},
        {"..", 1, true},     {"../a", 1, true},   {"../../a", 2, true},     {"..", 0, false},
        {"../..", 1, false}, {"a/..", 5, false},  {"a/../b", 5, false},     {"/a", 5, false},
        {"", 5, false},      {"./..", 1, true},   {".././..", 1, false},    {"..a", 0, true},
        {"...", 0, true},    {"..//..", 2, true}, {"../a/../..", 9, false},
    };
    for (size_t i = 0; i < TRK_COUNT(table); i++) {
        ck_assert_msg(oci_link_stays_inside(table[i].target, table[i].depth) == table[i].stays,
                      "'%s' at depth %zu", table[i].target, table[i].depth);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("oci_unpack");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, attack_is_refused, 0, TRK_COUNT(attacks));
    tcase_add_test(tc, sound_archive_is_unpacked);
    tcase_add_test(tc, only_the_prefix_is_unpacked_without_it);
    tcase_add_test(tc, links_are_confined_to_what_is_stripped);
    tcase_add_test(tc, last_of_equal_names_wins_and_links_are_replaced_not_written_through);
    tcase_add_test(tc, long_names_and_targets_of_pax_and_gnu);
    tcase_add_test(tc, pax_path_attacks_are_seen);
    tcase_add_test(tc, huge_and_negative_sizes);
    tcase_add_test(tc, bombs_end_early);
    tcase_add_test(tc, entries_are_counted);
    tcase_add_test(tc, too_deep_is_refused);
    tcase_add_test(tc, cut_off_and_trailing_bytes);
    tcase_add_test(tc, members_of_gzip_are_joined);
    tcase_add_test(tc, a_descriptor_is_read_like_bytes);
    tcase_add_test(tc, links_that_stay);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
