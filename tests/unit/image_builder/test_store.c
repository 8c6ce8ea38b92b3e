#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "image_builder/store/store.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"

static char *root;
static struct store *store;
static struct trk_err err;

static void setup(void)
{
    root = trk_xasprintf("%s/store-%d", getenv("TEST_TMP"), (int)getpid());
    err = (struct trk_err){0};
    ck_assert_msg(store_open(root, 0, &store, &err) == 0, "%s", err.text);
}
static void teardown(void)
{
    store_close(store);
    ck_assert_int_eq(trk_rm_rf(root, &err), 0);
    free(root);
}

static unsigned count_in(const char *below)
{
    trk_autofree char *path = trk_xasprintf("%s/%s", root, below);
    unsigned count = 0;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        count += e->d_name[0] != '.';
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

static char *blob_path(const char *digest)
{
    return trk_xasprintf("%s/blobs/sha256/%s", root, digest + 7);
}

static void put(const char *text, char digest[TRK_DIGEST_SIZE])
{
    ck_assert_msg(store_put(store, text, strlen(text), digest, &err) == 0, "%s", err.text);
}

/* A manifest with one layer; returns its digest. */
static void put_image(const char *repository, const char *tag, const char *layer,
                      char digest[TRK_DIGEST_SIZE])
{
    struct trk_oci_descriptor d = {.media_type = TRK_OCI_LAYER_TYPE,
                                   .size_bytes = (int64_t)strlen(layer)};
    trk_autofree char *config = NULL;
    trk_autofree char *manifest = NULL;
    char ignored[TRK_DIGEST_SIZE];
    put(layer, d.digest);
    memcpy(d.diff_id, d.digest, sizeof(d.digest));
    struct trk_oci_image_spec spec = {.layers = &d, .layer_count = 1};
    ck_assert_int_eq(trk_oci_image_make(&spec, &config, &manifest, &err), 0);
    put(config, ignored);
    ck_assert_msg(store_manifest_put(store, repository, tag, TRK_OCI_MANIFEST_TYPE, manifest,
                                     strlen(manifest), digest, &err) == 0,
                  "%s", err.text);
}

START_TEST(blob_comes_back_as_it_was)
{
    char digest[TRK_DIGEST_SIZE], again[TRK_DIGEST_SIZE];
    put("hello", digest);
    put("hello", again);
    ck_assert_str_eq(digest, again);
    char *bytes;
    size_t len;
    ck_assert_int_eq(store_blob_read(store, digest, 100, &bytes, &len, &err), 0);
    ck_assert_str_eq(bytes, "hello");
    free(bytes);
    ck_assert_uint_eq(count_in("tmp"), 0);
    ck_assert_int_eq(store_blob_read(store, digest, 4, &bytes, &len, &err), TRK_TOO_LARGE);
    digest[10] = digest[10] == '0' ? '1' : '0';
    ck_assert_int_eq(store_blob_read(store, digest, 100, &bytes, &len, &err), TRK_NOT_FOUND);
}
END_TEST

START_TEST(wrong_digest_is_not_stored)
{
    char other[TRK_DIGEST_SIZE], digest[TRK_DIGEST_SIZE];
    trk_digest("other", 5, other);
    struct store_temp *temp;
    ck_assert_int_eq(store_temp_new(store, &temp, &err), 0);
    ck_assert_int_eq(store_temp_add(temp, "content", 7, &err), 0);
    ck_assert_int_eq(store_temp_commit(temp, other, digest, &err), TRK_INVALID);
    store_temp_free(temp);
    ck_assert(!store_blob_has(store, other, NULL));
    ck_assert_uint_eq(count_in("tmp"), 0);
    ck_assert_uint_eq(count_in("blobs/sha256"), 0);
}
END_TEST

/* The size that a writer reports must be the file's. */
START_TEST(short_blob_is_not_stored)
{
    char digest[TRK_DIGEST_SIZE];
    trk_digest("content", 7, digest);
    STORE_TEMP_AUTO(temp) = NULL;
    ck_assert_int_eq(store_temp_new(store, &temp, &err), 0);
    ck_assert_int_eq(trk_write_all(store_temp_fd(temp), "cont", 4, &err), 0);
    ck_assert_int_eq(store_temp_commit_as(temp, digest, 7, &err), TRK_INTERNAL);
    ck_assert(!store_blob_has(store, digest, NULL));
}
END_TEST

static void damage(const char *digest)
{
    trk_autofree char *path = blob_path(digest);
    ck_assert_int_eq(chmod(path, 0644), 0);
    trk_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_eq(pwrite(fd, "X", 1, 0), 1);
    /* whatever the clock's grain: the time of the change is another */
    struct timespec times[2] = {{0, UTIME_OMIT}, {trk_wall_s() + 5, 0}};
    ck_assert_int_eq(futimens(fd, times), 0);
}

START_TEST(damaged_blob_is_not_served_and_heals)
{
    char digest[TRK_DIGEST_SIZE];
    int fd;
    int64_t size;
    put("precious", digest);
    ck_assert_int_eq(store_blob_open(store, digest, &fd, &size, &err), 0);
    close(fd);
    damage(digest);
    ck_assert_int_eq(store_blob_open(store, digest, &fd, &size, &err), TRK_NOT_FOUND);
    ck_assert(!store_blob_has(store, digest, NULL));
    ck_assert_uint_eq(count_in("corrupt"), 1);
    put("precious", digest);
    ck_assert(store_blob_has(store, digest, &size));
    ck_assert_int_eq(size, 8);
}
END_TEST

START_TEST(damage_while_the_service_was_down_is_seen)
{
    char digest[TRK_DIGEST_SIZE];
    put("precious", digest);
    store_close(store);
    damage(digest);
    ck_assert_int_eq(store_open(root, 0, &store, &err), 0);
    ck_assert(!store_blob_has(store, digest, NULL));
}
END_TEST

START_TEST(one_process_owns_the_folder)
{
    struct store *second;
    ck_assert_int_eq(store_open(root, 50, &second, &err), TRK_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "RACETRACK_STATE"));
}
END_TEST

/* Killed at any moment of writing blobs: what is visible is whole, what was left over goes. */
START_TEST(kill_leaves_nothing_half_written)
{
    store_close(store);
    for (unsigned round = 0; round < 8; round++) {
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            struct trk_err child_err = {0};
            struct store *child;
            if (store_open(root, 1000, &child, &child_err) < 0) {
                _exit(1);
            }
            static char big[300000];
            for (unsigned i = 0;; i++) {
                char digest[TRK_DIGEST_SIZE];
                memset(big, (int)(i % 251), sizeof(big));
                snprintf(big, sizeof(big), "%u %u", round, i);
                (void)!store_put(child, big, sizeof(big), digest, &child_err);
            }
        }
        int64_t deadline = trk_now_ns() + 10 * TRK_NS_PER_S;
        while (count_in("blobs/sha256") < 3 * (round + 1) && trk_now_ns() < deadline) {
            trk_sleep_ms(1);
        }
        trk_sleep_ms(round);
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        ck_assert(WIFSIGNALED(status));
    }
    ck_assert_int_eq(store_open(root, 1000, &store, &err), 0);
    ck_assert_uint_eq(count_in("tmp"), 0);
    unsigned seen = 0;
    trk_autofree char *folder = trk_xasprintf("%s/blobs/sha256", root);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        if (e->d_name[0] != '.') {
            char digest[TRK_DIGEST_SIZE];
            snprintf(digest, sizeof(digest), "sha256:%.64s", e->d_name);
            ck_assert_msg(store_blob_has(store, digest, NULL), "%s", digest);
            seen++;
        }
    }
    closedir(dir);
    ck_assert_uint_gt(seen, 8);
}
END_TEST

static void tell_kernel(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_msg(fd >= 0 && trk_write_all(fd, text, strlen(text), &err) == 0, "%s: %s", path,
                  text);
    close(fd);
}

/* A user who may mount: root itself, or anybody as root of a namespace that knows just this user
 * (one whom it does not know could make no files). */
static bool become_mounter(void)
{
    if (geteuid() == 0) {
        return unshare(CLONE_NEWNS) == 0;
    }
    char uids[64], gids[64];
    snprintf(uids, sizeof(uids), "0 %u 1", geteuid());
    snprintf(gids, sizeof(gids), "0 %u 1", getegid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
        return false;
    }
    tell_kernel("/proc/self/setgroups", "deny");
    tell_kernel("/proc/self/uid_map", uids);
    tell_kernel("/proc/self/gid_map", gids);
    return true;
}

/* A disk of 256 KiB where the machine lets us mount one, else a limit on a file's size. */
static bool mount_small_disk(void)
{
    if (!become_mounter() || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        return false;
    }
    trk_autofree char *tmp = trk_xasprintf("%s/disk", root);
    (void)mkdir(tmp, 0755);
    return mount("tmpfs", tmp, "tmpfs", 0, "size=256k") == 0;
}

START_TEST(full_disk_leaves_nothing_behind)
{
    bool is_disk = mount_small_disk();
    struct rlimit limit = {100000, 100000};
    trk_autofree char *folder = trk_xasprintf("%s/disk", root);
    struct store *small;
    if (!is_disk) {
        signal(SIGXFSZ, SIG_IGN);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    }
    ck_assert_msg(store_open(folder, 0, &small, &err) == 0, "%s", err.text);
    trk_autofree char *big = trk_xcalloc(1, 400000);
    char digest[TRK_DIGEST_SIZE], expected[TRK_DIGEST_SIZE];
    trk_digest(big, 400000, expected);
    int rc = store_put(small, big, 400000, digest, &err);
    ck_assert_msg(is_disk ? rc == TRK_NO_SPACE : rc < 0, "%d %s", rc, err.text);
    ck_assert(!store_blob_has(small, expected, NULL));
    ck_assert_uint_eq(count_in("disk/tmp"), 0);
    /* and there is room again */
    ck_assert_msg(store_put(small, big, 90000, digest, &err) == 0, "%s", err.text);
    store_close(small);
    if (is_disk) {
        ck_assert_int_eq(umount2(folder, MNT_DETACH), 0);
    }
}
END_TEST

START_TEST(manifests_and_tags)
{
    char one[TRK_DIGEST_SIZE], two[TRK_DIGEST_SIZE], got[TRK_DIGEST_SIZE];
    char *bytes, *type;
    size_t len;
    put_image("a/b", "v1", "layer one", one);
    put_image("a/b", "v2", "layer two", two);
    put_image("a/b", "latest", "layer two", two);
    put_image("a", "x", "layer one", one);
    ck_assert_int_eq(store_manifest_get(store, "a/b", "v1", &bytes, &len, &type, got, &err), 0);
    ck_assert_str_eq(got, one);
    ck_assert_str_eq(type, TRK_OCI_MANIFEST_TYPE);
    free(bytes);
    free(type);
    json_auto_t *tags = NULL;
    json_auto_t *repositories = NULL;
    ck_assert_int_eq(store_tags(store, "a/b", &tags, &err), 0);
    trk_autofree char *tags_text = json_dumps(tags, JSON_COMPACT);
    ck_assert_str_eq(tags_text, "[\"latest\",\"v1\",\"v2\"]");
    ck_assert_int_eq(store_repositories(store, &repositories, &err), 0);
    trk_autofree char *names = json_dumps(repositories, JSON_COMPACT);
    ck_assert_str_eq(names, "[\"a\",\"a/b\"]");
    /* a tag moves */
    put_image("a/b", "v1", "layer two", two);
    ck_assert_int_eq(store_manifest_get(store, "a/b", "v1", &bytes, &len, &type, got, &err), 0);
    ck_assert_str_eq(got, two);
    free(bytes);
    free(type);
    /* by digest: the manifest and its tags go; the other repository keeps its own */
    ck_assert_int_eq(store_manifest_delete(store, "a/b", two, &err), 0);
    ck_assert_int_eq(store_manifest_get(store, "a/b", "latest", &bytes, &len, &type, got, &err),
                     TRK_NOT_FOUND);
    ck_assert_int_eq(store_manifest_delete(store, "a/b", two, &err), TRK_NOT_FOUND);
    ck_assert_int_eq(store_manifest_delete(store, "a", "x", &err), 0);
    ck_assert_int_eq(store_manifest_get(store, "a", one, &bytes, &len, &type, got, &err), 0);
    free(bytes);
    free(type);
    json_auto_t *none = NULL;
    ck_assert_int_eq(store_tags(store, "unknown", &none, &err), TRK_NOT_FOUND);
}
END_TEST

START_TEST(manifest_needs_its_blobs)
{
    char digest[TRK_DIGEST_SIZE];
    static const char missing[] =
        "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/b\",\"size\":1,\"digest\":"
        "\"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"},\"layers\":"
        "[]}";
    ck_assert_int_eq(
        store_manifest_put(store, "r", "t", "a/b", missing, strlen(missing), digest, &err),
        TRK_NOT_FOUND);
    put("test", digest); /* that very digest, but four bytes */
    ck_assert_int_eq(
        store_manifest_put(store, "r", "t", "a/b", missing, strlen(missing), digest, &err),
        TRK_INVALID);
    ck_assert_int_eq(store_manifest_put(store, "r", "t", "a/b", "{", 1, digest, &err), TRK_INVALID);
    json_auto_t *tags = NULL;
    ck_assert_int_eq(store_tags(store, "r", &tags, &err), TRK_NOT_FOUND);
}
END_TEST

START_TEST(collector_removes_what_nothing_refers_to)
{
    char kept[TRK_DIGEST_SIZE], image[TRK_DIGEST_SIZE], gone[TRK_DIGEST_SIZE],
        layer[TRK_DIGEST_SIZE];
    struct store_gc_result result;
    put("cached layer", kept);
    put("rubbish", gone);
    put_image("r", "t", "layer", image);
    trk_digest("layer", 5, layer);
    json_auto_t *roots = json_pack("[s]", kept);
    /* all was used just now */
    ck_assert_int_eq(store_gc(store, roots, 3600, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 0);
    ck_assert_int_eq(store_gc(store, roots, -1, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 1);
    ck_assert_uint_eq(result.removed_bytes, 7);
    ck_assert(!store_blob_has(store, gone, NULL));
    ck_assert(store_blob_has(store, kept, NULL));
    ck_assert(store_blob_has(store, layer, NULL));
    /* without its manifest an image is rubbish too */
    ck_assert_int_eq(store_blob_delete(store, layer, &err), TRK_CONFLICT);
    ck_assert_int_eq(store_manifest_delete(store, "r", image, &err), 0);
    ck_assert_int_eq(store_gc(store, roots, -1, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 3);
    ck_assert_uint_eq(result.kept, 1);
}
END_TEST

START_TEST(use_keeps_a_blob_from_the_collector)
{
    char digest[TRK_DIGEST_SIZE];
    struct store_gc_result result;
    put("old", digest);
    trk_autofree char *path = blob_path(digest);
    struct timespec times[2] = {{1000, 0}, {1000, 0}};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    ck_assert(store_blob_has(store, digest, NULL)); /* a client's HEAD */
    ck_assert_int_eq(store_gc(store, NULL, 60, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 0);
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    ck_assert_int_eq(store_gc(store, NULL, 60, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 1);
}
END_TEST

START_TEST(images_that_nobody_wants_go_when_they_are_old)
{
    char wanted[TRK_DIGEST_SIZE], unwanted[TRK_DIGEST_SIZE], foreign[TRK_DIGEST_SIZE];
    put_image("ns/jobs/a", "1", "one", wanted);
    put_image("ns/jobs/a", "2", "one", wanted); /* the same image under two tags */
    put_image("ns/jobs/a", "3", "two", unwanted);
    put_image("ns/jobs/b/deep", "1", "two", unwanted);
    put_image("ns/other", "1", "three", foreign);
    json_auto_t *tags = json_pack("{s:b}", "ns/jobs/a:2", 1);
    json_auto_t *digests = json_pack("{s:b}", wanted, 1);
    const struct store_wanted all = {"ns/jobs/", tags, digests};
    uint64_t removed;
    ck_assert_int_eq(store_prune(store, &all, 60, &removed, &err), 0);
    ck_assert_uint_eq(removed, 0); /* all are young */
    ck_assert_int_eq(store_prune(store, &all, -1, &removed, &err), 0);
    ck_assert_uint_eq(removed, 5);
    json_auto_t *left = NULL;
    json_auto_t *repositories = NULL;
    ck_assert_int_eq(store_tags(store, "ns/jobs/a", &left, &err), 0);
    ck_assert_uint_eq(json_array_size(left), 1);
    ck_assert_str_eq(json_string_value(json_array_get(left, 0)), "2");
    ck_assert_int_eq(store_repositories(store, &repositories, &err), 0);
    ck_assert_uint_eq(json_array_size(repositories), 2); /* a and the foreign one */
    put_image("ns/jobs/b/deep", "1", "two", unwanted);   /* where the folder has gone */
    struct store_gc_result result;
    ck_assert_int_eq(store_gc(store, NULL, -1, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 0);
    ck_assert_int_eq(store_prune(store, &all, -1, &removed, &err), 0);
    ck_assert_int_eq(store_gc(store, NULL, -1, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 3); /* layer, config, manifest */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, blob_comes_back_as_it_was);
    tcase_add_test(tc, wrong_digest_is_not_stored);
    tcase_add_test(tc, short_blob_is_not_stored);
    tcase_add_test(tc, damaged_blob_is_not_served_and_heals);
    tcase_add_test(tc, damage_while_the_service_was_down_is_seen);
    tcase_add_test(tc, one_process_owns_the_folder);
    tcase_add_test(tc, kill_leaves_nothing_half_written);
    tcase_add_test(tc, manifests_and_tags);
    tcase_add_test(tc, manifest_needs_its_blobs);
    tcase_add_test(tc, collector_removes_what_nothing_refers_to);
    tcase_add_test(tc, use_keeps_a_blob_from_the_collector);
    tcase_add_test(tc, images_that_nobody_wants_go_when_they_are_old);
    tcase_add_test(tc, full_disk_leaves_nothing_behind);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
