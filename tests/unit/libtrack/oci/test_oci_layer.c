#include <check.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/proc.h"
#include "libtrack/oci/oci.h"

static char *base;
static struct trk_err err;

static void setup(void)
{
    base = trk_xasprintf("%s/layer-%d", getenv("TEST_TMP"), (int)getpid());
    err = (struct trk_err){0};
    ck_assert_int_eq(trk_mkdir_p(base, 0755, &err), 0);
}
static void teardown(void)
{
    ck_assert_int_eq(trk_rm_rf(base, &err), 0);
    free(base);
}

static char *in_base(const char *name)
{
    return trk_xasprintf("%s/%s", base, name);
}

static int open_folder(const char *name)
{
    trk_autofree char *path = in_base(name);
    int rc = trk_mkdir_p(path, 0755, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void put(int dirfd, const char *name, const char *text, mode_t mode)
{
    trk_autofree char *copy = trk_xstrdup(name);
    for (char *p = copy; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        (void)mkdirat(dirfd, copy, 0700);
        *p = '/';
    }
    trk_autoclose int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    ck_assert_msg(fd >= 0, "%s", name);
    ck_assert_int_eq(fchmod(fd, mode), 0);
    ck_assert_int_eq(trk_write_all(fd, text, strlen(text), &err), 0);
}

/* Packs into base/<name>.tgz; returns the code. */
static int pack(int dirfd, const char *prefix, const char *name, struct trk_oci_descriptor *ret)
{
    trk_autofree char *path = trk_xasprintf("%s/%s.tgz", base, name);
    trk_autoclose int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    return trk_oci_layer_write(dirfd, prefix, fd, 6, ret, &err);
}

static const char *const names[] = {
    "b.py", "a.py", "sub/x.py", "sub/deep/y", "Z", "a-b/c", "a/c", "a.b", "zażółć/gęś",
};

START_TEST(same_tree_same_digest)
{
    trk_autoclose int one = open_folder("one");
    trk_autoclose int two = open_folder("two");
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        put(one, names[i], names[i], 0644);
    }
    for (size_t i = TRK_COUNT(names); i-- > 0;) {
        put(two, names[i], names[i], 0600); /* another mode with the same meaning */
    }
    ck_assert_int_eq(symlinkat("a.py", one, "link"), 0);
    ck_assert_int_eq(symlinkat("a.py", two, "link"), 0);
    struct timespec times[2] = {{1000, 5}, {2000, 7}};
    ck_assert_int_eq(utimensat(two, "sub/x.py", times, 0), 0);
    ck_assert_int_eq(utimensat(two, "sub", times, 0), 0);
    if (geteuid() == 0) {
        ck_assert_int_eq(fchownat(two, "b.py", 1234, 5678, 0), 0);
    }
    /* what never goes in */
    put(two, ".git/config", "secret", 0644);
    put(two, "sub/__pycache__/x.cpython-311.pyc", "cache", 0644);
    put(two, "old.pyc", "cache", 0644);
    struct trk_oci_descriptor a, b, c;
    ck_assert_msg(pack(one, "src/job", "one", &a) == 0, "%s", err.text);
    ck_assert_msg(pack(two, "src/job", "two", &b) == 0, "%s", err.text);
    ck_assert_str_eq(a.digest, b.digest);
    ck_assert_str_eq(a.diff_id, b.diff_id);
    ck_assert_str_ne(a.digest, a.diff_id);
    ck_assert_str_eq(a.media_type, TRK_OCI_LAYER_TYPE);
    /* and each of these does make a difference */
    ck_assert_int_eq(fchmodat(two, "b.py", 0755, 0), 0);
    ck_assert_int_eq(pack(two, "src/job", "two", &c), 0);
    ck_assert_str_ne(a.diff_id, c.diff_id);
    ck_assert_int_eq(fchmodat(two, "b.py", 0644, 0), 0);
    ck_assert_int_eq(pack(two, "src/other", "two", &c), 0);
    ck_assert_str_ne(a.diff_id, c.diff_id);
}
END_TEST

/* The bytes are what the descriptor says, and their digest is the one that every machine gets. */
START_TEST(digest_size_and_diff_id_are_true)
{
    trk_autoclose int dir = open_folder("one");
    put(dir, "adder.py", "class A: pass\n", 0644);
    struct trk_oci_descriptor d;
    ck_assert_int_eq(pack(dir, "src/job", "one", &d), 0);
    trk_autofree char *path = in_base("one.tgz");
    trk_autofree char *bytes = NULL;
    size_t len;
    ck_assert_int_eq(trk_file_read(path, 1 << 20, &bytes, &len, &err), 0);
    char digest[TRK_DIGEST_SIZE];
    trk_digest(bytes, len, digest);
    ck_assert_str_eq(digest, d.digest);
    ck_assert_int_eq((int64_t)len, d.size_bytes);
    ck_assert_str_eq(d.diff_id,
                     "sha256:77338a33ea7cd38534ddf6378d20e903e4a92365e81f9a916da05d1c7f523400");
}
END_TEST

static void list_with_gnu_tar(const char *archive, struct trk_buf *out)
{
    const char *const argv[] = {"tar", "-tvzf", archive, "--numeric-owner", "--full-time", NULL};
    static const char *const env[] = {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", NULL};
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = argv;
    options.env = env;
    int status;
    int rc = trk_proc_run(&options, NULL, 0, 20000, out, NULL, NULL, NULL, &status, &err);
    ck_assert_msg(rc == 0 && status == 0, "%s %s", err.text, out->data);
}

START_TEST(gnu_tar_reads_it_sorted_without_time_and_owner)
{
    trk_autoclose int dir = open_folder("one");
    char segment[121], link_target[140];
    memset(segment, 's', 120);
    segment[120] = '\0';
    snprintf(link_target, sizeof(link_target), "%s/%s", segment, "t");
    trk_autofree char *fits = trk_xasprintf("%s/%.60s", segment, segment); /* prefix + name */
    trk_autofree char *too_long = trk_xasprintf("%s/%s/%s", segment, segment, segment); /* pax */
    put(dir, fits, "1", 0644);
    put(dir, too_long, "2", 0644);
    put(dir, "run.sh", "3", 0755);
    put(dir, "ü", "4", 0644);
    ck_assert_int_eq(symlinkat(link_target, dir, "l"), 0);
    struct trk_oci_descriptor d;
    ck_assert_msg(pack(dir, "src/job", "one", &d) == 0, "%s", err.text);
    trk_autofree char *archive = in_base("one.tgz");
    struct trk_buf out;
    trk_buf_init(&out, 1 << 20);
    list_with_gnu_tar(archive, &out);
    trk_autofree char *want = trk_xasprintf(
        "drwxr-xr-x 0/0               0 1970-01-01 00:00:00 src/\n"
        "drwxr-xr-x 0/0               0 1970-01-01 00:00:00 src/job/\n"
        "lrwxrwxrwx 0/0               0 1970-01-01 00:00:00 src/job/l -> %s\n"
        "-rwxr-xr-x 0/0               1 1970-01-01 00:00:00 src/job/run.sh\n"
        "drwxr-xr-x 0/0               0 1970-01-01 00:00:00 src/job/%s/\n"
        "-rw-r--r-- 0/0               1 1970-01-01 00:00:00 src/job/%s\n"
        "drwxr-xr-x 0/0               0 1970-01-01 00:00:00 src/job/%s/%s/\n"
        "-rw-r--r-- 0/0               1 1970-01-01 00:00:00 src/job/%s\n"
        "-rw-r--r-- 0/0               1 1970-01-01 00:00:00 src/job/ü\n",
        link_target, segment, fits, segment, segment, too_long);
    ck_assert_str_eq(out.data, want);
    trk_buf_fini(&out);
}
END_TEST

START_TEST(what_is_packed_unpacks_the_same)
{
    trk_autoclose int dir = open_folder("one");
    trk_autoclose int copy = open_folder("copy");
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        put(dir, names[i], names[i], i % 2 == 0 ? 0644 : 0755);
    }
    trk_autofree char *big = trk_xcalloc(1, 300001);
    for (size_t i = 0; i < 300000; i++) {
        big[i] = (char)('a' + (i * i / 3 + i) % 23);
    }
    put(dir, "big", big, 0644);
    ck_assert_int_eq(symlinkat("../a.py", dir, "sub/up"), 0);
    ck_assert_int_eq(mkdirat(dir, "void", 0755), 0);
    struct trk_oci_descriptor a, b;
    ck_assert_int_eq(pack(dir, "src/job", "one", &a), 0);
    trk_autofree char *path = in_base("one.tgz");
    trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_msg(trk_unpack(NULL, 0, fd, copy, "src/job", NULL, &err) == 0, "%s", err.text);
    ck_assert_int_eq(pack(copy, "src/job", "copy", &b), 0);
    ck_assert_str_eq(a.digest, b.digest);
}
END_TEST

/* More entries than an upload may have; a layer of packages does. */
START_TEST(a_large_layer_that_packs_also_unpacks)
{
    enum { COUNT = 101000 };
    trk_autoclose int dir = open_folder("many");
    trk_autoclose int copy = open_folder("many-copy");
    char name[32];
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "%d", i);
        ck_assert_int_eq(symlinkat("x", dir, name), 0);
    }
    put(dir, "x", "x", 0644);
    struct trk_oci_descriptor d;
    ck_assert_msg(pack(dir, "src/packages", "many", &d) == 0, "%s", err.text);
    trk_autofree char *path = in_base("many.tgz");
    trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_msg(trk_unpack(NULL, 0, fd, copy, NULL, &trk_layer_limits, &err) == 0, "%s",
                  err.text);
    snprintf(name, sizeof(name), "src/packages/%d", COUNT - 1);
    ck_assert_int_eq(faccessat(copy, name, F_OK, 0), 0);
}
END_TEST

START_TEST(what_would_not_unpack_is_not_packed)
{
    trk_autoclose int dir = open_folder("limits");
    trk_autoclose int out = openat(dir, "../limits.tgz", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct trk_oci_descriptor d;
    put(dir, "a", "a", 0644);
    put(dir, "b", "b", 0644);
    struct trk_oci_pack_options options = {.prefix = "", .level = 1, .entries_max = 2};
    ck_assert_msg(trk_oci_layer_pack(dir, &options, out, &d, &err) == 0, "%s", err.text);
    put(dir, "c", "c", 0644);
    ck_assert_int_eq(trk_oci_layer_pack(dir, &options, out, &d, &err), TRK_TOO_LARGE);
    ck_assert_ptr_nonnull(strstr(err.text, "more than 2 files"));
    /* sparse files: more than a layer, and than one of its files, may have */
    trk_autoclose int sparse = openat(dir, "c", O_WRONLY | O_CLOEXEC);
    ck_assert_int_eq(ftruncate(sparse, (off_t)trk_layer_limits.file_bytes_max + 1), 0);
    ck_assert_int_eq(trk_oci_layer_write(dir, "", out, 1, &d, &err), TRK_TOO_LARGE);
    ck_assert_uint_le(trk_layer_limits.file_bytes_max, trk_layer_limits.total_bytes_max);
}
END_TEST

START_TEST(what_can_not_be_in_an_image_is_named)
{
    static const struct {
        const char *name, *target;
    } links[] = {{"l", "/etc/passwd"}, {"sub/l", "../../x"}, {"l", "../job/x"}, {"l", "a/../b"}};
    struct trk_oci_descriptor d;
    for (size_t i = 0; i < TRK_COUNT(links); i++) {
        char folder[16];
        snprintf(folder, sizeof(folder), "links%zu", i);
        trk_autoclose int dir = open_folder(folder);
        put(dir, "sub/a", "a", 0644);
        ck_assert_int_eq(symlinkat(links[i].target, dir, links[i].name), 0);
        ck_assert_int_eq(pack(dir, "src/job", "out", &d), TRK_INVALID);
        ck_assert_msg(strncmp(err.text, links[i].name, strlen(links[i].name)) == 0, "%s", err.text);
    }
    trk_autoclose int fifos = open_folder("fifos");
    ck_assert_int_eq(mkfifoat(fifos, "pipe", 0600), 0);
    ck_assert_int_eq(pack(fifos, "", "out", &d), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "pipe"));
    trk_autoclose int bytes = open_folder("bytes");
    put(bytes, "\xff\xfe", "x", 0644);
    ck_assert_int_eq(pack(bytes, "", "out", &d), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "UTF-8"));
}
END_TEST

START_TEST(full_disk_is_said)
{
    trk_autoclose int dir = open_folder("one");
    put(dir, "a", "a", 0644);
    trk_autoclose int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    struct trk_oci_descriptor d;
    ck_assert_int_eq(trk_oci_layer_write(dir, "", full, 6, &d, &err), TRK_NO_SPACE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("oci_layer");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, same_tree_same_digest);
    tcase_add_test(tc, digest_size_and_diff_id_are_true);
    tcase_add_test(tc, gnu_tar_reads_it_sorted_without_time_and_owner);
    tcase_add_test(tc, what_is_packed_unpacks_the_same);
    tcase_add_test(tc, a_large_layer_that_packs_also_unpacks);
    tcase_add_test(tc, what_would_not_unpack_is_not_packed);
    tcase_add_test(tc, what_can_not_be_in_an_image_is_named);
    tcase_add_test(tc, full_disk_is_said);
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 240); /* a hundred thousand files, on a busy machine under sanitizers */
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
