#include "libtrack/source/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/manifest/secret_files.h"
#include "libtrack/source/gitignore.h"

#define IGNORE_FILE_MAX ((size_t)1 << 20)
#define LARGEST         3

struct large_file {
    int64_t size_bytes;
    char *path;
};
struct walk {
    struct trk_gitignore *rules;
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
        trk_gitignore_add_lines(walk->rules, folder, buf.data);
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
    if (trk_gitignore_is_ignored(walk->rules, path, is_folder) ||
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

static int too_large(const struct walk *walk, const char *folder, int64_t bytes_max,
                     struct trk_err *err)
{
    (void)trk_err_set(err, TRK_TOO_LARGE, "the files of %s are too large: at most ", folder);
    if (bytes_max > 0) {
        (void)trk_err_append(err, "%s compressed, ", trk_size_text((uint64_t)bytes_max).text);
    }
    (void)trk_err_append(
        err, "%lld MiB in all. The largest:", (long long)(TRK_SOURCE_UNPACKED_BYTES_MAX >> 20));
    for (size_t i = 0; i < LARGEST && walk->largest[i].path != NULL; i++) {
        (void)trk_err_append(err, "\n  %lld MiB  %s",
                             (long long)(walk->largest[i].size_bytes >> 20), walk->largest[i].path);
    }
    return trk_err_append(err, "\nWrite what the job does not need into %s/.gitignore", folder);
}

int trk_source_pack(const char *folder, const json_t *manifest, int64_t bytes_max, int out_fd,
                    struct trk_oci_descriptor *ret, size_t *ret_count, struct trk_err *err)
{
    trk_autoclose int dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0) {
        return trk_err_errno(err, errno, "%s", folder);
    }
    struct walk walk = {.rules = trk_gitignore_new()};
    const struct trk_oci_pack_options options = {.prefix = "",
                                                 .level = 6,
                                                 .tar_bytes_max = TRK_SOURCE_UNPACKED_BYTES_MAX,
                                                 .is_left_out = is_left_out,
                                                 .ctx = &walk};
    trk_secret_files_find(&walk.secrets, dirfd, manifest);
    load_rules(&walk, dirfd, ".gitignore", "");
    int rc = trk_oci_layer_pack(dirfd, &options, out_fd, ret, err);
    if (rc == TRK_TOO_LARGE || (rc == 0 && bytes_max > 0 && ret->size_bytes > bytes_max)) {
        rc = too_large(&walk, folder, bytes_max, err);
    } else if (rc < 0) {
        rc = trk_err_wrap(err, "packing %s", folder);
    } else if (ret_count != NULL) {
        *ret_count = walk.file_count;
    }
    for (size_t i = 0; i < LARGEST; i++) {
        free(walk.largest[i].path);
    }
    trk_gitignore_free(walk.rules);
    return rc;
}
