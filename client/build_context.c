#include "client/build_context.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/gitignore.h"
#include "libtrack/base/buf.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/manifest/secret_files.h"
#include "libtrack/oci/oci.h"

#define IGNORE_FILE_MAX ((size_t)1 << 20)
#define LARGEST         3

struct large_file {
    int64_t size_bytes;
    char *path;
};
struct walk {
    struct gitignore *rules;
    struct trk_secret_files secrets;
    size_t file_count;
    struct large_file largest[LARGEST]; /* descending */
};

static void load_rules(struct walk *walk, int dirfd, const char *file, const char *folder)
{
    struct trk_err ignored = {0};
    struct trk_buf buf;
    trk_buf_init(&buf, IGNORE_FILE_MAX);
    trk_autoclose int fd = openat(dirfd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        trk_buf_read_fd(&buf, fd, &ignored) == 0) {
        gitignore_add_lines(walk->rules, folder, buf.data);
    }
    trk_buf_fini(&buf);
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static void note_size(struct walk *walk, int dirfd, const char *path)
{
    struct stat st;
    walk->file_count++;
    if (fstatat(dirfd, last_part(path), &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        st.st_size <= walk->largest[LARGEST - 1].size_bytes) {
        return;
    }
    size_t at = LARGEST - 1;
    free(walk->largest[at].path);
    for (; at > 0 && walk->largest[at - 1].size_bytes < st.st_size; at--) {
        walk->largest[at] = walk->largest[at - 1];
    }
    walk->largest[at] = (struct large_file){st.st_size, trk_xstrdup(path)};
}

static bool is_left_out(void *ctx, int dirfd, const char *path, bool is_folder)
{
    struct walk *walk = ctx;
    if (gitignore_is_ignored(walk->rules, path, is_folder) ||
        trk_secret_files_has(&walk->secrets, dirfd, last_part(path))) {
        return true;
    }
    if (is_folder) {
        trk_autofree char *file = trk_xasprintf("%s/.gitignore", last_part(path));
        load_rules(walk, dirfd, file, path);
    } else {
        note_size(walk, dirfd, path);
    }
    return false;
}

static int too_large(const struct walk *walk, const char *folder, struct trk_err *err)
{
    (void)trk_err_set(
        err, TRK_TOO_LARGE,
        "the files of %s are too large to upload: at most %zu MiB compressed, %zu MiB "
        "in all. The largest:",
        folder, BUILD_CONTEXT_BYTES_MAX >> 20, BUILD_CONTEXT_UNPACKED_BYTES_MAX >> 20);
    for (size_t i = 0; i < LARGEST && walk->largest[i].path != NULL; i++) {
        (void)trk_err_append(err, "\n  %lld MiB  %s",
                             (long long)(walk->largest[i].size_bytes >> 20), walk->largest[i].path);
    }
    return trk_err_append(err, "\nWrite what the job does not need into %s/.gitignore", folder);
}

static int pack_into(int dirfd, int out_fd, struct walk *walk, struct trk_err *err)
{
    const struct trk_oci_pack_options options = {
        .prefix = "",
        .level = 6,
        .tar_bytes_max = (int64_t)BUILD_CONTEXT_UNPACKED_BYTES_MAX,
        .is_left_out = is_left_out,
        .ctx = walk};
    struct trk_oci_descriptor packed;
    load_rules(walk, dirfd, ".gitignore", "");
    return trk_oci_layer_pack(dirfd, &options, out_fd, &packed, err);
}

static int read_back(int fd, struct build_context *ret, struct trk_err *err)
{
    struct trk_buf buf;
    trk_buf_init(&buf, BUILD_CONTEXT_BYTES_MAX);
    if (lseek(fd, 0, SEEK_SET) < 0) {
        trk_buf_fini(&buf);
        return trk_err_errno(err, errno, "reading the packed files");
    }
    int rc = trk_buf_read_fd(&buf, fd, err);
    if (rc == 0) {
        ret->bytes = trk_buf_steal(&buf, &ret->len);
    }
    trk_buf_fini(&buf);
    return rc;
}

/* Packed through a file without a name, so that a large folder does not sit in memory. */
static int temporary_file(int *ret, struct trk_err *err)
{
    const char *tmp = getenv("TMPDIR");
    int fd = open(tmp != NULL ? tmp : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        trk_autofree char *path = trk_xasprintf("%s/racetrack-XXXXXX", tmp != NULL ? tmp : "/tmp");
        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0) {
            return trk_err_errno(err, errno, "making a temporary file");
        }
        (void)unlink(path);
    }
    *ret = fd;
    return 0;
}

int build_context_pack(const char *folder, const json_t *manifest, struct build_context *ret,
                       struct trk_err *err)
{
    trk_autoclose int dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    trk_autoclose int fd = -1;
    if (dirfd < 0) {
        return trk_err_errno(err, errno, "%s", folder);
    }
    int rc = temporary_file(&fd, err);
    if (rc < 0) {
        return rc;
    }
    struct walk walk = {.rules = gitignore_new()};
    struct build_context context = {0};
    trk_secret_files_find(&walk.secrets, dirfd, manifest);
    rc = pack_into(dirfd, fd, &walk, err);
    if (rc == 0) {
        rc = read_back(fd, &context, err);
    }
    if (rc == TRK_TOO_LARGE) {
        rc = too_large(&walk, folder, err);
    } else if (rc < 0) {
        rc = trk_err_wrap(err, "packing %s", folder);
    } else {
        context.file_count = walk.file_count;
        *ret = context;
    }
    for (size_t i = 0; i < LARGEST; i++) {
        free(walk.largest[i].path);
    }
    gitignore_free(walk.rules);
    return rc;
}

void build_context_fini(struct build_context *context)
{
    free(context->bytes);
    *context = (struct build_context){0};
}
