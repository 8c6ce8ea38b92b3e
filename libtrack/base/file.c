#include "libtrack/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libtrack/base/mem.h"

int trk_mkdir_p(const char *path, mode_t mode, struct trk_err *err)
{
    trk_autofree char *partial = trk_xstrdup(path);
    for (char *slash = strchr(partial + (partial[0] == '/'), '/');;
         slash = strchr(slash + 1, '/')) {
        if (slash != NULL) {
            *slash = '\0';
        }
        if (partial[0] != '\0' && mkdir(partial, mode) < 0) {
            int errnum = errno;
            struct stat st;
            /* another process may have made it meanwhile; a read-only parent answers EROFS first */
            if (stat(partial, &st) < 0 || !S_ISDIR(st.st_mode)) {
                return trk_err_errno(err, errnum == EEXIST ? ENOTDIR : errnum, "making folder %s",
                                     partial);
            }
        }
        if (slash == NULL) {
            return 0;
        }
        *slash = '/';
    }
}

/* ---- rm -rf ---- */

#define RM_DEPTH_MAX 32 /* deeper folders are moved up first: bounded descriptors and stack */

struct rm {
    const char *path; /* for errors */
    int root_fd;
    dev_t device;
    unsigned moved;
    struct trk_err *err;
};

static int open_folder(struct rm *rm, int parent_fd, const char *name)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(parent_fd, name, flags);
    if (fd < 0 && errno == EACCES && fchmodat(parent_fd, name, 0700, AT_SYMLINK_NOFOLLOW) == 0) {
        fd = openat(parent_fd, name, flags);
    }
    if (fd < 0) {
        return fd;
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        int errnum = errno;
        (void)close(fd);
        errno = errnum;
        return -1;
    }
    if ((st.st_mode & 0700) != 0700) {
        (void)fchmod(fd, 0700); /* entries cannot be unlinked from a read-only folder */
    }
    if (rm->device == 0) {
        rm->device = st.st_dev;
    } else if (st.st_dev != rm->device) {
        (void)close(fd);
        errno = EXDEV; /* something is mounted here: leave it */
        return -1;
    }
    return fd;
}

static int remove_content(struct rm *rm, int dir_fd, int depth);

static int remove_folder(struct rm *rm, int dir_fd, const char *name, int depth)
{
    if (depth >= RM_DEPTH_MAX) {
        char moved[64];
        (void)snprintf(moved, sizeof(moved), ".removing-%d-%u", (int)getpid(), rm->moved++);
        if (renameat(dir_fd, name, rm->root_fd, moved) == 0) {
            return 0;
        }
        return trk_err_errno(rm->err, errno, "removing %s (in it: %s)", rm->path, name);
    }
    trk_autoclose int fd = open_folder(rm, dir_fd, name);
    if (fd < 0) {
        return errno == ENOENT
                   ? 0
                   : trk_err_errno(rm->err, errno, "removing %s (in it: %s)", rm->path, name);
    }
    int rc = remove_content(rm, fd, depth + 1);
    if (rc < 0) {
        return rc;
    }
    if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
        return trk_err_errno(rm->err, errno, "removing %s (in it: %s)", rm->path, name);
    }
    return 0;
}

static int remove_entry(struct rm *rm, int dir_fd, const char *name, int depth)
{
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    int errnum = errno;
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
        return remove_folder(rm, dir_fd, name, depth);
    }
    return trk_err_errno(rm->err, errnum, "removing %s (in it: %s)", rm->path, name);
}

/* Repeats until a pass finds nothing: what deeper levels moved to the root comes by again, and so
 * does what readdir skipped while entries went. */
static int remove_content(struct rm *rm, int dir_fd, int depth)
{
    int copy = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    if (dir == NULL) {
        int errnum = errno;
        if (copy >= 0) {
            (void)close(copy);
        }
        return trk_err_errno(rm->err, errnum, "removing %s", rm->path);
    }
    int rc = 0;
    size_t seen;
    do {
        seen = 0;
        rewinddir(dir);
        const struct dirent *entry;
        while (rc == 0 && (entry = readdir(dir)) != NULL) {
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
                seen++;
                rc = remove_entry(rm, dir_fd, entry->d_name, depth);
            }
        }
    } while (rc == 0 && seen > 0);
    (void)closedir(dir);
    return rc;
}

int trk_rm_rf(const char *path, struct trk_err *err)
{
    trk_autofree char *name = trk_xstrdup(path);
    for (size_t len = strlen(name); len > 1 && name[len - 1] == '/'; len--) {
        name[len - 1] = '\0'; /* "link/" would follow the link */
    }
    if (unlink(name) == 0 || errno == ENOENT || errno == ENOTDIR) {
        return 0;
    }
    int unlink_errnum = errno;
    struct rm rm = {.path = path, .err = err};
    trk_autoclose int fd = open_folder(&rm, AT_FDCWD, name);
    if (fd < 0) {
        return trk_err_errno(err, errno == ENOTDIR ? unlink_errnum : errno, "removing %s", path);
    }
    rm.root_fd = fd;
    int rc = remove_content(&rm, fd, 1);
    if (rc == 0 && rmdir(name) < 0 && errno != ENOENT) {
        return trk_err_errno(err, errno, "removing %s", path);
    }
    return rc;
}

/* ---- reading and writing ---- */

int trk_file_read(const char *path, size_t cap_bytes, char **ret, size_t *ret_len,
                  struct trk_err *err)
{
    trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return trk_err_errno(err, errno, "opening %s", path);
    }
    struct trk_buf buf;
    trk_buf_init(&buf, cap_bytes > 0 ? cap_bytes : 1);
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        if ((uintmax_t)st.st_size > cap_bytes) {
            return trk_err_set(err, TRK_TOO_LARGE, "%s has %jd bytes, at most %zu are allowed",
                               path, (intmax_t)st.st_size, cap_bytes);
        }
        (void)trk_buf_reserve(&buf, (size_t)st.st_size);
    }
    int rc = trk_buf_read_fd(&buf, fd, err);
    if (rc == 0 && buf.len > cap_bytes) {
        rc = trk_err_set(err, TRK_TOO_LARGE, "more than %zu bytes", cap_bytes);
    }
    if (rc < 0) {
        trk_buf_fini(&buf);
        return trk_err_wrap(err, "reading %s", path);
    }
    size_t len;
    *ret = trk_buf_steal(&buf, &len);
    if (ret_len != NULL) {
        *ret_len = len;
    }
    return 0;
}

int trk_write_all(int fd, const void *bytes, size_t len, struct trk_err *err)
{
    const char *p = bytes;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return trk_err_errno(err, errno, "writing");
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* "dir" of "dir/name", "." of "name", "/" of "/name". */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return trk_xstrdup(".");
    }
    return trk_xstrndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int trk_file_write(const char *path, const void *bytes, size_t len, mode_t mode,
                   struct trk_err *err)
{
    trk_autofree char *folder = folder_of(path);
    trk_autofree char *temporary = trk_xasprintf("%s.XXXXXX", path);
    trk_autoclose int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        return trk_err_errno(err, errno, "writing %s", path);
    }
    int rc = 0;
    if (fchmod(fd, mode) < 0) {
        rc = trk_err_errno(err, errno, "writing %s", path);
    } else if (trk_write_all(fd, bytes, len, err) < 0) {
        rc = trk_err_wrap(err, "writing %s", path);
    } else if (fsync(fd) < 0 || rename(temporary, path) < 0) {
        rc = trk_err_errno(err, errno, "writing %s", path);
    }
    if (rc < 0) {
        (void)unlink(temporary);
        return rc;
    }
    trk_autoclose int folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd < 0 || fsync(folder_fd) < 0) {
        return trk_err_errno(err, errno, "writing %s: syncing its folder", path);
    }
    return 0;
}

bool trk_path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static ssize_t read_at(int fd, char *out, size_t len, off_t offset)
{
    ssize_t n;
    do {
        n = pread(fd, out, len, offset);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* Offset where the last `lines` lines of [from, end) begin; -1 and errno on a read error. */
static off_t tail_start(int fd, off_t from, off_t end, size_t lines)
{
    char block[16384];
    size_t seen = 0;
    off_t at = end;
    while (at > from) {
        size_t want = (size_t)(at - from) < sizeof(block) ? (size_t)(at - from) : sizeof(block);
        ssize_t n = read_at(fd, block, want, at - (off_t)want);
        if (n < 0) {
            return -1;
        }
        for (ssize_t i = n - 1; i >= 0; i--) {
            off_t position = at - (off_t)want + i;
            /* the line break that ends the last line does not begin another one */
            if (block[i] == '\n' && position != end - 1 && ++seen == lines) {
                return position + 1;
            }
        }
        at -= (off_t)want;
    }
    return from;
}

/* Is `offset` inside a line? Then returns the next line's start, unless there is none. */
static off_t skip_cut_line(int fd, off_t offset, off_t end)
{
    char block[4096];
    char before = '\n';
    if (offset == 0 || (read_at(fd, &before, 1, offset - 1) == 1 && before == '\n')) {
        return offset;
    }
    for (off_t at = offset; at < end;) {
        ssize_t n = read_at(fd, block, sizeof(block), at);
        if (n <= 0) {
            break;
        }
        const char *line_break = memchr(block, '\n', (size_t)n);
        if (line_break != NULL) {
            off_t next = at + (line_break - block) + 1;
            return next < end ? next : offset;
        }
        at += n;
    }
    return offset;
}

int trk_file_tail(const char *path, size_t lines, size_t cap_bytes, struct trk_buf *buf,
                  struct trk_err *err)
{
    trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? 0 : trk_err_errno(err, errno, "opening %s", path);
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return trk_err_errno(err, errno, "reading %s", path);
    }
    off_t start = (uintmax_t)st.st_size > cap_bytes ? st.st_size - (off_t)cap_bytes : 0;
    if (lines > 0) {
        start = tail_start(fd, start, st.st_size, lines);
        if (start < 0) {
            return trk_err_errno(err, errno, "reading %s", path);
        }
    }
    start = skip_cut_line(fd, start, st.st_size);
    while (start < st.st_size) {
        size_t want = st.st_size - start < 65536 ? (size_t)(st.st_size - start) : 65536;
        char *room = trk_buf_reserve(buf, want);
        if (room == NULL) {
            return trk_err_set(err, TRK_TOO_LARGE, "%s does not fit in %zu bytes", path,
                               buf->cap_bytes);
        }
        ssize_t n = read_at(fd, room, want, start);
        if (n < 0) {
            return trk_err_errno(err, errno, "reading %s", path);
        }
        if (n == 0) {
            break; /* truncated meanwhile */
        }
        trk_buf_commit(buf, (size_t)n);
        start += n;
    }
    return 0;
}

/* ---- confined opening ---- */

static int escape_error(const char *path, struct trk_err *err)
{
    return trk_err_set(err, TRK_INVALID, "path '%s' leads out of its folder", path);
}

int trk_open_beneath_walk(int dirfd, const char *path, int flags, mode_t mode, int *ret_fd,
                          struct trk_err *err)
{
    if (path[0] == '/') {
        return escape_error(path, err);
    }
    trk_autoclose int folder = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    if (folder < 0) {
        return trk_err_errno(err, errno, "opening %s", path);
    }
    trk_autofree char *copy = trk_xstrdup(path);
    char *rest = copy;
    for (;;) {
        char *name = strsep(&rest, "/");
        if (strcmp(name, "..") == 0) {
            return escape_error(path, err);
        }
        const char *more = rest != NULL ? rest + strspn(rest, "/") : "";
        bool is_last = more[0] == '\0';
        const char *step = name[0] == '\0' && path[0] != '\0' ? "." : name; /* "a//b" */
        int next_flags = is_last ? flags | (rest != NULL ? O_DIRECTORY : 0) : O_PATH | O_DIRECTORY;
        int next = openat(folder, step, next_flags | O_NOFOLLOW | O_CLOEXEC, mode);
        if (next < 0) {
            struct stat st;
            int errnum = errno;
            bool is_link = fstatat(folder, step, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                           S_ISLNK(st.st_mode);
            return is_link ? escape_error(path, err)
                           : trk_err_errno(err, errnum, "opening %s", path);
        }
        (void)close(folder);
        folder = next;
        if (is_last) {
            *ret_fd = TRK_STEAL_FD(folder);
            return 0;
        }
    }
}

int trk_open_beneath(int dirfd, const char *path, int flags, mode_t mode, int *ret_fd,
                     struct trk_err *err)
{
    bool makes_file = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
    struct open_how how = {
        .flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
        .mode = makes_file ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;
    for (int attempt = 0; attempt < 16; attempt++) {
        fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) {
            break; /* EAGAIN: something was renamed while the kernel walked */
        }
    }
    if (fd >= 0) {
        *ret_fd = (int)fd;
        return 0;
    }
    if (errno == ENOSYS || errno == EPERM) {
        return trk_open_beneath_walk(dirfd, path, flags, makes_file ? mode : 0, ret_fd, err);
    }
    if (errno == EXDEV || errno == ELOOP) {
        return escape_error(path, err);
    }
    return trk_err_errno(err, errno, "opening %s", path);
}
