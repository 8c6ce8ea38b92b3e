#include "libtrack/base/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "libtrack/base/mem.h"

enum { DEPTH_MAX = 256 };

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* NULL with errno: ENOTDIR or ELOOP when it is no folder. */
static DIR *open_folder(int parent_fd, const char *name)
{
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL && fd >= 0) {
        (void)close(fd);
    }
    return dir;
}

static int chown_below(int parent_fd, const char *name, uid_t uid, gid_t gid, int depth)
{
    if (fchownat(parent_fd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0) {
        return -1;
    }
    DIR *dir = open_folder(parent_fd, name);
    if (dir == NULL) {
        return errno == ENOTDIR || errno == ELOOP ? 0 : -1;
    }
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        bool is_plain = entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN;
        if (is_dots(entry->d_name)) {
            continue;
        }
        if (is_plain) {
            rc = fchownat(dirfd(dir), entry->d_name, uid, gid, AT_SYMLINK_NOFOLLOW);
        } else if (depth < DEPTH_MAX) {
            rc = chown_below(dirfd(dir), entry->d_name, uid, gid, depth + 1);
        } else {
            errno = ENAMETOOLONG;
            rc = -1;
        }
    }
    int errnum = errno;
    (void)closedir(dir);
    errno = errnum;
    return rc;
}

int trk_tree_chown(const char *path, uid_t uid, gid_t gid, struct trk_err *err)
{
    return chown_below(AT_FDCWD, path, uid, gid, 0) < 0
               ? trk_err_errno(err, errno, "giving %s to user %u", path, (unsigned)uid)
               : 0;
}

static int measure_below(int parent_fd, const char *name, struct trk_tree_usage *usage, int depth,
                         struct trk_err *err)
{
    DIR *dir = depth < DEPTH_MAX ? open_folder(parent_fd, name) : NULL;
    if (dir == NULL && depth < DEPTH_MAX &&
        (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
        return trk_err_set(err, TRK_UNAVAILABLE, "looking into a folder: %s", strerror(errno));
    }
    if (dir == NULL) {
        return depth < DEPTH_MAX && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)
                   ? 0
                   : trk_err_set(err, TRK_FORBIDDEN, "a folder is too deep or cannot be read: %s",
                                 name);
    }
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        struct stat st;
        if (is_dots(entry->d_name) ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            continue;
        }
        bool is_folder = S_ISDIR(st.st_mode);
        uint64_t names = is_folder || st.st_nlink == 0 ? 1 : st.st_nlink;
        usage->entries++;
        usage->bytes += (uint64_t)st.st_blocks * 512 / names;
        if (is_folder) {
            rc = measure_below(dirfd(dir), entry->d_name, usage, depth + 1, err);
        }
    }
    (void)closedir(dir);
    return rc;
}

int trk_tree_measure(const char *path, struct trk_tree_usage *usage, struct trk_err *err)
{
    return measure_below(AT_FDCWD, path, usage, 0, err);
}
