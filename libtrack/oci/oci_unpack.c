/* Unpacking archives nobody vouches for. libarchive reads the tar format; every entry is created
 * here, relative to a descriptor of its real parent folder. */
#include <archive.h>
#include <archive_entry.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/oci/oci.h"
#include "libtrack/oci/oci_inflate.h"
#include "libtrack/oci/oci_internal.h"

/* libarchive brings libxml2 and ICU along: 3.3 MB resident and 1.5 ms of start-up, measured. It is
 * loaded when the first archive comes, so that an idle service does not pay for it. */
#define ARCHIVE_FUNCTIONS(X)                                                                       \
    X(archive_read_new)                                                                            \
    X(archive_read_free)                                                                           \
    X(archive_read_support_format_tar)                                                             \
    X(archive_read_open)                                                                           \
    X(archive_read_next_header)                                                                    \
    X(archive_read_data_block)                                                                     \
    X(archive_error_string)                                                                        \
    X(archive_filter_bytes)                                                                        \
    X(archive_entry_pathname)                                                                      \
    X(archive_entry_pathname_utf8)                                                                 \
    X(archive_entry_hardlink)                                                                      \
    X(archive_entry_hardlink_utf8)                                                                 \
    X(archive_entry_symlink)                                                                       \
    X(archive_entry_symlink_utf8)                                                                  \
    X(archive_entry_filetype)                                                                      \
    X(archive_entry_perm)                                                                          \
    X(archive_entry_size)

static struct {
#define DECLARE(name) __typeof__(name) *name;
    ARCHIVE_FUNCTIONS(DECLARE)
#undef DECLARE
    bool is_loaded;
    char reason[256];
} la;

static void load_libarchive(void)
{
    void *lib = dlopen("libarchive.so.13", RTLD_NOW | RTLD_LOCAL);
    if (lib == NULL) {
        (void)snprintf(la.reason, sizeof(la.reason), "%s", dlerror());
        return;
    }
#define RESOLVE(name)                                                                              \
    *(void **)&la.name = dlsym(lib, #name);                                                        \
    if (la.name == NULL) {                                                                         \
        (void)snprintf(la.reason, sizeof(la.reason), "%s is missing", #name);                      \
        return;                                                                                    \
    }
    ARCHIVE_FUNCTIONS(RESOLVE)
#undef RESOLVE
    la.is_loaded = true;
}

struct unpack {
    struct archive *archive;
    struct oci_inflate *in;
    struct trk_err in_err; /* what reading the input said; libarchive knows only "failed" */
    struct trk_unpack_limits limits;
    uint64_t entries, total_bytes;
    int dirfd;
    char prefix[OCI_PATH_MAX]; /* normalised strip_prefix, "" for none */
    char parent[OCI_PATH_MAX]; /* path of parent_fd below dirfd */
    int parent_fd;
};

struct entry_path {
    char text[OCI_PATH_MAX]; /* relative, no "." or "..", no empty component; "" is the root */
    size_t depth;            /* components */
};

/* What an error shows of a name from the archive. */
struct shown {
    char text[200];
};
static struct shown show(const char *name)
{
    struct shown s;
    size_t n = strnlen(name, sizeof(s.text) - 4);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        s.text[i] = (char)(c < 0x20 || c >= 0x7f ? '?' : c);
    }
    (void)snprintf(s.text + n, sizeof(s.text) - n, "%s", name[n] != '\0' ? "..." : "");
    return s;
}

static int normalise(const char *name, struct entry_path *ret, struct trk_err *err)
{
    size_t len = 0;
    ret->depth = 0;
    if (name[0] == '/') {
        return trk_err_set(err, TRK_INVALID, "the archive has an absolute path: %s",
                           show(name).text);
    }
    if (strlen(name) >= sizeof(ret->text)) {
        return trk_err_set(err, TRK_INVALID, "the archive has a path of more than %d bytes: %s",
                           OCI_PATH_MAX, show(name).text);
    }
    if (!trk_utf8_is_valid(name, strlen(name))) {
        return trk_err_set(err, TRK_INVALID, "the archive has a name that is not UTF-8: %s",
                           show(name).text);
    }
    for (const char *p = name; *p != '\0'; p += strspn(p, "/")) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            return trk_err_set(err, TRK_INVALID, "the archive has a path with '..': %s",
                               show(name).text);
        }
        if (n > NAME_MAX || ret->depth >= OCI_DEPTH_MAX) {
            return trk_err_set(err, TRK_INVALID, "the archive has a path too long or too deep: %s",
                               show(name).text);
        }
        if (n > 1 || p[0] != '.') {
            if (len > 0) {
                ret->text[len++] = '/';
            }
            memcpy(ret->text + len, p, n);
            len += n;
            ret->depth++;
        }
        p += n;
    }
    ret->text[len] = '\0';
    return 0;
}

/* Takes the prefix off. False: not below it. */
static bool strip(const struct unpack *u, struct entry_path *path)
{
    size_t n = strlen(u->prefix);
    if (n == 0) {
        return true;
    }
    if (strncmp(path->text, u->prefix, n) != 0 || path->text[n] != '/') {
        return false;
    }
    memmove(path->text, path->text + n + 1, strlen(path->text + n + 1) + 1);
    for (size_t i = 0; i <= n; i++) {
        path->depth -= i == n || u->prefix[i] == '/' ? 1 : 0;
    }
    return true;
}

static void forget_parent(struct unpack *u)
{
    if (u->parent_fd >= 0) {
        (void)close(u->parent_fd);
    }
    u->parent_fd = -1;
    u->parent[0] = '\0';
}

/* One step down into a real folder, made when `may_make`. Links are never followed, not even ones
 * that stay inside: what an archive says about `a/b` must happen in the folder `a`. */
static int step_down(int fd, const char *name, const char *whole, bool may_make, int *ret_fd,
                     struct trk_err *err)
{
    if (may_make && mkdirat(fd, name, 0755) < 0 && errno != EEXIST) {
        return trk_err_errno(err, errno, "making the folder of %s", show(whole).text);
    }
    struct stat st;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        int saved = errno;
        return saved == ENOENT
                   ? trk_err_set(err, TRK_INVALID, "the archive refers to %s before it is there",
                                 show(whole).text)
                   : trk_err_errno(err, saved, "looking at %s", show(whole).text);
    }
    if (!S_ISDIR(st.st_mode)) {
        return trk_err_set(err, TRK_INVALID, "the archive has %s below what is a %s",
                           show(whole).text, S_ISLNK(st.st_mode) ? "link" : "file");
    }
    return trk_open_beneath(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, ret_fd, err);
}

/* Opens the folder of `path`; *ret_name is its last component. Keeps the last one open: entries of
 * one folder follow each other. */
static int open_parent(struct unpack *u, const char *path, bool may_make, const char **ret_name,
                       struct trk_err *err)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);
    *ret_name = slash == NULL ? path : slash + 1;
    if (u->parent_fd >= 0 && strlen(u->parent) == len && memcmp(u->parent, path, len) == 0) {
        return 0;
    }
    forget_parent(u);
    trk_autoclose int fd = fcntl(u->dirfd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        return trk_err_errno(err, errno, "unpacking");
    }
    char name[NAME_MAX + 1];
    for (const char *p = path; p < path + len;) {
        size_t n = strcspn(p, "/");
        memcpy(name, p, n);
        name[n] = '\0';
        int next;
        int rc = step_down(fd, name, path, may_make, &next, err);
        if (rc < 0) {
            return rc;
        }
        (void)close(fd);
        fd = next;
        p += n + 1;
    }
    memcpy(u->parent, path, len);
    u->parent[len] = '\0';
    u->parent_fd = TRK_STEAL_FD(fd);
    return 0;
}

/* An entry that comes again replaces the former one; a link is replaced, never written through. */
static int clear_way(struct unpack *u, const char *name, const char *path, struct trk_err *err)
{
    if (unlinkat(u->parent_fd, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    if (errno != EISDIR && errno != EPERM) {
        return trk_err_errno(err, errno, "replacing %s", show(path).text);
    }
    if (unlinkat(u->parent_fd, name, AT_REMOVEDIR) < 0) {
        return trk_err_set(err, TRK_INVALID, "the archive has %s as a folder and as a file",
                           show(path).text);
    }
    return 0;
}

static int archive_failed(struct unpack *u, struct trk_err *err)
{
    if (u->in_err.code != TRK_OK) {
        return trk_err_set(err, u->in_err.code, "%s", u->in_err.text);
    }
    const char *text = la.archive_error_string(u->archive);
    return trk_err_set(err, TRK_INVALID, "not a sound tar archive: %s",
                       text != NULL ? show(text).text : "it can not be read");
}

static int copy_data(struct unpack *u, int fd, uint64_t size, const char *path, struct trk_err *err)
{
    uint64_t end = 0;
    for (;;) {
        const void *block;
        size_t len;
        la_int64_t offset;
        int arc = la.archive_read_data_block(u->archive, &block, &len, &offset);
        if (arc == ARCHIVE_EOF) {
            break;
        }
        if (arc != ARCHIVE_OK && arc != ARCHIVE_WARN) {
            return archive_failed(u, err);
        }
        if (offset < 0 || (uint64_t)offset < end || (uint64_t)offset > size ||
            len > size - (uint64_t)offset) {
            return trk_err_set(err, TRK_INVALID, "the archive has more bytes of %s than it says",
                               show(path).text);
        }
        if ((uint64_t)offset > end && lseek(fd, offset, SEEK_SET) < 0) {
            return trk_err_errno(err, errno, "writing %s", show(path).text);
        }
        int rc = trk_write_all(fd, block, len, err);
        if (rc < 0) {
            return rc;
        }
        end = (uint64_t)offset + len;
    }
    if (end < size && ftruncate(fd, (off_t)size) < 0) { /* a hole at the end */
        return trk_err_errno(err, errno, "writing %s", show(path).text);
    }
    return 0;
}

static int make_file(struct unpack *u, struct archive_entry *entry, const char *path,
                     struct trk_err *err)
{
    la_int64_t size = la.archive_entry_size(entry);
    mode_t perm = la.archive_entry_perm(entry);
    if ((perm & (S_ISUID | S_ISGID)) != 0) {
        return trk_err_set(err, TRK_INVALID, "the archive has a setuid or setgid file: %s",
                           show(path).text);
    }
    if (size < 0 || (uint64_t)size > u->limits.file_bytes_max ||
        (uint64_t)size > u->limits.total_bytes_max - u->total_bytes) {
        return trk_err_set(
            err, TRK_TOO_LARGE,
            "the archive unpacks to more than allowed, at %s (at most %s a file, %s in "
            "all)",
            show(path).text, trk_size_text(u->limits.file_bytes_max).text,
            trk_size_text(u->limits.total_bytes_max).text);
    }
    u->total_bytes += (uint64_t)size;
    const char *name;
    int rc = open_parent(u, path, true, &name, err);
    if (rc == 0) {
        rc = clear_way(u, name, path, err);
    }
    if (rc < 0) {
        return rc;
    }
    trk_autoclose int fd = -1;
    rc = trk_open_beneath(u->parent_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW,
                          (perm & 0111) != 0 ? 0755 : 0644, &fd, err);
    return rc < 0 ? rc : copy_data(u, fd, (uint64_t)size, path, err);
}

static int make_folder(struct unpack *u, const char *path, struct trk_err *err)
{
    const char *name;
    int rc = open_parent(u, path, true, &name, err);
    if (rc < 0) {
        return rc;
    }
    struct stat st;
    if (fstatat(u->parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
        return 0;
    }
    rc = clear_way(u, name, path, err);
    if (rc == 0 && mkdirat(u->parent_fd, name, 0755) < 0) {
        rc = trk_err_errno(err, errno, "making the folder %s", show(path).text);
    }
    return rc;
}

static int make_symlink(struct unpack *u, const struct entry_path *path, const char *target,
                        struct trk_err *err)
{
    if (target == NULL || !trk_utf8_is_valid(target, strlen(target)) ||
        !oci_link_stays_inside(target, path->depth - 1)) {
        return trk_err_set(err, TRK_INVALID,
                           "the archive has a symbolic link that leads out of it: %s -> %s",
                           show(path->text).text, show(target == NULL ? "?" : target).text);
    }
    const char *name;
    int rc = open_parent(u, path->text, true, &name, err);
    if (rc == 0) {
        rc = clear_way(u, name, path->text, err);
    }
    if (rc == 0 && symlinkat(target, u->parent_fd, name) < 0) {
        rc = trk_err_errno(err, errno, "making the link %s", show(path->text).text);
    }
    return rc;
}

static int make_hardlink(struct unpack *u, const struct entry_path *path, const char *target,
                         struct trk_err *err)
{
    struct entry_path from;
    int rc = normalise(target, &from, err);
    if (rc < 0) {
        return rc;
    }
    if (!strip(u, &from) || from.depth == 0) {
        return trk_err_set(err, TRK_INVALID, "the archive has a hard link that leads out: %s -> %s",
                           show(path->text).text, show(target).text);
    }
    if (strcmp(from.text, path->text) == 0) {
        return trk_err_set(err, TRK_INVALID, "the archive has a hard link to itself: %s",
                           show(path->text).text);
    }
    const char *name;
    rc = open_parent(u, from.text, false, &name, err);
    if (rc < 0) {
        return rc;
    }
    struct stat st;
    if (fstatat(u->parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode)) {
        return trk_err_set(err, TRK_INVALID,
                           "the archive has a hard link to what is no file before it: %s -> %s",
                           show(path->text).text, show(target).text);
    }
    trk_autoclose int from_fd = fcntl(u->parent_fd, F_DUPFD_CLOEXEC, 0);
    char from_name[NAME_MAX + 1];
    (void)snprintf(from_name, sizeof(from_name), "%s", name);
    rc = open_parent(u, path->text, true, &name, err);
    if (rc == 0) {
        rc = clear_way(u, name, path->text, err);
    }
    if (rc == 0 && linkat(from_fd, from_name, u->parent_fd, name, 0) < 0) {
        rc = trk_err_errno(err, errno, "making the link %s", show(path->text).text);
    }
    return rc;
}

static const char *text_of(const char *utf8, const char *raw)
{
    return utf8 != NULL ? utf8 : raw;
}

static int make_entry(struct unpack *u, struct archive_entry *entry, struct trk_err *err)
{
    const char *name = text_of(la.archive_entry_pathname_utf8(entry),
                               la.archive_entry_pathname(entry));
    struct entry_path path;
    if (name == NULL) {
        return trk_err_set(err, TRK_INVALID, "the archive has a name that is not UTF-8");
    }
    int rc = normalise(name, &path, err);
    if (rc < 0) {
        return rc;
    }
    const char *hardlink = text_of(la.archive_entry_hardlink_utf8(entry),
                                   la.archive_entry_hardlink(entry));
    mode_t type = la.archive_entry_filetype(entry);
    if (hardlink == NULL && type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK) {
        return trk_err_set(err, TRK_INVALID,
                           "the archive has %s, which is neither a file, a folder nor a link",
                           show(name).text);
    }
    if (path.depth == 0 || !strip(u, &path)) {
        return path.depth == 0 && type != AE_IFDIR
                   ? trk_err_set(err, TRK_INVALID, "the archive has an entry without a name")
                   : 0;
    }
    if (hardlink != NULL) {
        return make_hardlink(u, &path, hardlink, err);
    }
    if (type == AE_IFDIR) {
        return make_folder(u, path.text, err);
    }
    if (type == AE_IFLNK) {
        return make_symlink(
            u, &path,
            text_of(la.archive_entry_symlink_utf8(entry), la.archive_entry_symlink(entry)), err);
    }
    return make_file(u, entry, path.text, err);
}

static la_ssize_t on_read(struct archive *archive, void *ctx, const void **ret_bytes)
{
    (void)archive;
    struct unpack *u = ctx;
    *ret_bytes = "";
    ssize_t n = oci_inflate_next(u->in, ret_bytes, &u->in_err);
    return n < 0 ? -1 : n;
}

/* Behind the archive's end there may be padding, and nothing else. */
static int check_end(struct unpack *u, struct trk_err *err)
{
    la_int64_t used = la.archive_filter_bytes(u->archive, 0);
    const void *bytes;
    ssize_t n;
    do {
        n = oci_inflate_next(u->in, &bytes, err);
    } while (n > 0);
    if (n < 0) {
        return (int)n;
    }
    if (used < 0 || oci_inflate_content_end(u->in) > (uint64_t)used) {
        return trk_err_set(err, TRK_INVALID, "the archive has other bytes behind its end");
    }
    return 0;
}

static int unpack_all(struct unpack *u, struct trk_err *err)
{
    if (la.archive_read_support_format_tar(u->archive) != ARCHIVE_OK ||
        la.archive_read_open(u->archive, u, NULL, on_read, NULL) != ARCHIVE_OK) {
        return archive_failed(u, err);
    }
    for (;;) {
        struct archive_entry *entry;
        int arc = la.archive_read_next_header(u->archive, &entry);
        if (arc == ARCHIVE_EOF) {
            return check_end(u, err);
        }
        if (arc != ARCHIVE_OK && arc != ARCHIVE_WARN) {
            return archive_failed(u, err);
        }
        if (++u->entries > u->limits.entries_max) {
            return trk_err_set(err, TRK_TOO_LARGE, "the archive has more than %llu entries",
                               (unsigned long long)u->limits.entries_max);
        }
        int rc = make_entry(u, entry, err);
        if (rc < 0) {
            return rc;
        }
    }
}

static struct trk_unpack_limits effective_limits(const struct trk_unpack_limits *limits)
{
    struct trk_unpack_limits l = limits != NULL ? *limits : (struct trk_unpack_limits){0};
    l.entries_max = l.entries_max != 0 ? l.entries_max : 100000;
    l.total_bytes_max = l.total_bytes_max != 0 ? l.total_bytes_max : UINT64_C(2) << 30;
    l.file_bytes_max = l.file_bytes_max != 0 ? l.file_bytes_max : UINT64_C(1) << 30;
    l.ratio_max = l.ratio_max != 0 ? l.ratio_max : 200;
    return l;
}

int trk_unpack(const void *bytes, size_t len, int fd, int dirfd, const char *strip_prefix,
               const struct trk_unpack_limits *limits, struct trk_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, load_libarchive);
    if (!la.is_loaded) {
        return trk_err_set(err, TRK_INTERNAL, "libarchive (package libarchive13) is needed: %s",
                           la.reason);
    }
    trk_autofree struct unpack *u = trk_xcalloc(1, sizeof(*u));
    u->dirfd = dirfd;
    u->parent_fd = -1;
    u->limits = effective_limits(limits);
    if (strip_prefix != NULL) {
        struct entry_path prefix;
        int rc = normalise(strip_prefix, &prefix, err);
        if (rc < 0) {
            return rc;
        }
        (void)snprintf(u->prefix, sizeof(u->prefix), "%s", prefix.text);
    }
    /* headers and padding of each entry come on top of the files' bytes */
    uint64_t overhead, stream_max;
    if (__builtin_mul_overflow(u->limits.entries_max, 4096, &overhead) ||
        __builtin_add_overflow(u->limits.total_bytes_max, overhead, &stream_max)) {
        stream_max = UINT64_MAX;
    }
    u->in = oci_inflate_new(bytes, len, fd, u->limits.ratio_max, stream_max);
    u->archive = la.archive_read_new();
    if (u->archive == NULL) {
        trk_die("out of memory");
    }
    int rc = unpack_all(u, err);
    (void)la.archive_read_free(u->archive);
    oci_inflate_free(u->in);
    forget_parent(u);
    return rc;
}
