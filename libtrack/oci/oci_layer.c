/* Deterministic layers: POSIX ustar (IEEE 1003.1 pax "ustar Interchange Format") with pax records
 * where a name needs them, through zlib's gzip. Written by hand because libarchive adds time
 * records. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <zlib.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/oci/oci.h"
#include "libtrack/oci/oci_internal.h"

#define BLOCK          512
#define FILE_BYTES_MAX ((INT64_C(1) << 33) - 1) /* eleven octal digits */
#define CHUNK          65536

/* A set of packages like torch with CUDA has 6 GB and 60,000 files. The bytes are bounded, so their
 * ratio to the packed ones need not be: 1032 is the most that deflate can do. */
const struct trk_unpack_limits trk_layer_limits = {.entries_max = 500000,
                                                   .total_bytes_max = UINT64_C(16) << 30,
                                                   .file_bytes_max = (uint64_t)FILE_BYTES_MAX,
                                                   .ratio_max = 1100};

struct layer_writer {
    const struct trk_oci_pack_options *options;
    int fd;
    z_stream z;
    struct trk_sha256_ctx *tar_sha, *gzip_sha;
    int64_t gzip_bytes, tar_bytes;
    uint64_t entries;
    unsigned char out[CHUNK];
    unsigned char in[CHUNK];
    char path[OCI_PATH_MAX]; /* of the current entry in the archive, no trailing slash */
    size_t root_len;         /* length of the prefix in `path` */
};

struct ustar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
    char link[100], magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155];
    char pad[12];
};
_Static_assert(sizeof(struct ustar_header) == BLOCK, "a tar header is one block");

static int flush_gzip(struct layer_writer *w, struct trk_err *err)
{
    size_t len = sizeof(w->out) - w->z.avail_out;
    if (len == 0) {
        return 0;
    }
    trk_sha256_update(w->gzip_sha, w->out, len);
    w->gzip_bytes += (int64_t)len;
    w->z.next_out = w->out;
    w->z.avail_out = sizeof(w->out);
    return trk_write_all(w->fd, w->out, len, err);
}

/* Adds `len` bytes to the tar stream; the last call of a layer says Z_FINISH. */
static int put(struct layer_writer *w, const void *bytes, size_t len, int flush,
               struct trk_err *err)
{
    trk_assert(len <= UINT32_MAX);
    w->tar_bytes += (int64_t)len;
    trk_sha256_update(w->tar_sha, bytes, len);
    w->z.next_in = (z_const Bytef *)(uintptr_t)bytes;
    w->z.avail_in = (uInt)len;
    for (;;) {
        int rc = deflate(&w->z, flush);
        trk_assert(rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR);
        bool is_full = w->z.avail_out == 0;
        int flushed = is_full || rc == Z_STREAM_END ? flush_gzip(w, err) : 0;
        if (flushed < 0) {
            return flushed;
        }
        if (rc == Z_STREAM_END || (flush == Z_NO_FLUSH && w->z.avail_in == 0 && !is_full)) {
            return 0;
        }
    }
}

static int put_padding(struct layer_writer *w, uint64_t size, struct trk_err *err)
{
    static const char zeros[BLOCK];
    size_t rest = (size_t)(size % BLOCK);
    return rest == 0 ? 0 : put(w, zeros, BLOCK - rest, Z_NO_FLUSH, err);
}

static void octal(char *field, size_t size, uint64_t value)
{
    (void)snprintf(field, size, "%0*llo", (int)size - 1, (unsigned long long)value);
}

static int put_header(struct layer_writer *w, char type, mode_t mode, uint64_t size,
                      const char *name, size_t name_len, const char *prefix, size_t prefix_len,
                      const char *link, size_t link_len, struct trk_err *err)
{
    struct ustar_header h = {0};
    memcpy(h.name, name, name_len);
    memcpy(h.prefix, prefix, prefix_len);
    memcpy(h.link, link, link_len);
    octal(h.mode, sizeof(h.mode), mode);
    octal(h.uid, sizeof(h.uid), 0);
    octal(h.gid, sizeof(h.gid), 0);
    octal(h.size, sizeof(h.size), size);
    octal(h.mtime, sizeof(h.mtime), 0);
    octal(h.major, sizeof(h.major), 0);
    octal(h.minor, sizeof(h.minor), 0);
    h.type = type;
    memcpy(h.magic, "ustar", 6);
    memcpy(h.version, "00", 2);
    memset(h.checksum, ' ', sizeof(h.checksum));
    unsigned sum = 0;
    const unsigned char *bytes = (const unsigned char *)&h;
    for (size_t i = 0; i < sizeof(h); i++) {
        sum += bytes[i];
    }
    (void)snprintf(h.checksum, sizeof(h.checksum), "%06o", sum);
    return put(w, &h, sizeof(h), Z_NO_FLUSH, err);
}

static bool is_ascii(const char *s)
{
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s >= 0x80) {
            return false;
        }
    }
    return true;
}

/* "<length> key=value\n" where the length counts itself. */
static void pax_record(struct trk_buf *buf, const char *key, const char *value)
{
    size_t rest = strlen(key) + strlen(value) + 3; /* ' ', '=', '\n' */
    size_t total = rest;
    for (size_t digits = 1;; digits++) {
        char text[24];
        total = rest + digits;
        if ((size_t)snprintf(text, sizeof(text), "%zu", total) == digits) {
            break;
        }
    }
    (void)trk_buf_addf(buf, "%zu %s=%s\n", total, key, value);
}

static int put_pax(struct layer_writer *w, const char *path, const char *link, struct trk_err *err)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 4 * OCI_PATH_MAX);
    if (path != NULL) {
        pax_record(&buf, "path", path);
    }
    if (link != NULL) {
        pax_record(&buf, "linkpath", link);
    }
    trk_assert(!buf.failed); /* both are shorter than OCI_PATH_MAX */
    static const char name[] = "PaxHeaders.0/x";
    int rc = put_header(w, 'x', 0644, buf.len, name, sizeof(name) - 1, "", 0, "", 0, err);
    if (rc == 0) {
        rc = put(w, buf.data, buf.len, Z_NO_FLUSH, err);
    }
    if (rc == 0) {
        rc = put_padding(w, buf.len, err);
    }
    trk_buf_fini(&buf);
    return rc;
}

/* Where to cut a long path into ustar's prefix and name: the position of the slash, 0 when no cut
 * is needed, SIZE_MAX when none fits. */
static size_t cut_position(const char *path, size_t len)
{
    if (len <= sizeof(((struct ustar_header *)0)->name)) {
        return 0;
    }
    for (size_t i = len - 101; i < len && i <= 155; i++) {
        if (path[i] == '/' && i > 0 && i + 1 < len) {
            return i;
        }
    }
    return SIZE_MAX;
}

static int check_room(const struct layer_writer *w, int64_t more_bytes, struct trk_err *err)
{
    int64_t max = w->options->tar_bytes_max;
    if (max > 0 && (more_bytes > max || w->tar_bytes > max - more_bytes)) {
        return trk_err_set(err, TRK_TOO_LARGE, "the folder holds more than %lld MiB",
                           (long long)(max >> 20));
    }
    return 0;
}

/* The header of w->path; `link` is "" but for symbolic links. */
static int put_entry(struct layer_writer *w, char type, mode_t mode, uint64_t size,
                     const char *link, struct trk_err *err)
{
    char path[OCI_PATH_MAX + 1];
    if (w->options->entries_max > 0 && ++w->entries > w->options->entries_max) {
        return trk_err_set(err, TRK_TOO_LARGE, "the folder holds more than %llu files and folders",
                           (unsigned long long)w->options->entries_max);
    }
    int n = snprintf(path, sizeof(path), "%s%s", w->path, type == '5' ? "/" : "");
    size_t len = (size_t)n;
    size_t link_len = strlen(link);
    size_t cut = cut_position(path, len);
    bool has_long_path = cut == SIZE_MAX || !is_ascii(path);
    bool has_long_link = link_len > 100 || !is_ascii(link);
    if (has_long_path || has_long_link) {
        int rc = put_pax(w, has_long_path ? path : NULL, has_long_link ? link : NULL, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (has_long_path) { /* readers take the pax record; the field keeps a hint */
        static const char hint[] = "PaxPath/x";
        return put_header(w, type, mode, size, hint, sizeof(hint) - 1, "", 0, link,
                          has_long_link ? 0 : link_len, err);
    }
    const char *name = cut > 0 ? path + cut + 1 : path;
    return put_header(w, type, mode, size, name, len - (size_t)(name - path), path, cut, link,
                      has_long_link ? 0 : link_len, err);
}

static const char *path_below_root(const struct layer_writer *w)
{
    const char *p = w->path + w->root_len;
    return p[0] == '/' ? p + 1 : p;
}

static int put_file(struct layer_writer *w, int dirfd, const char *name, struct trk_err *err)
{
    trk_autoclose int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return trk_err_errno(err, errno, "reading %s", path_below_root(w));
    }
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX) {
        return trk_err_set(err, TRK_TOO_LARGE, "%s: a file of an image may have 8 GiB at most",
                           path_below_root(w));
    }
    mode_t mode = (st.st_mode & 0100) != 0 ? 0755 : 0644;
    int rc = check_room(w, st.st_size, err);
    if (rc == 0) {
        rc = put_entry(w, '0', mode, (uint64_t)st.st_size, "", err);
    }
    int64_t left = st.st_size;
    while (rc == 0 && left > 0) {
        size_t want = left < (int64_t)sizeof(w->in) ? (size_t)left : sizeof(w->in);
        ssize_t n = read(fd, w->in, want);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return trk_err_errno(err, errno, "reading %s", path_below_root(w));
        }
        if (n == 0) {
            return trk_err_set(err, TRK_CONFLICT, "%s became shorter while it was being read",
                               path_below_root(w));
        }
        left -= n;
        rc = put(w, w->in, (size_t)n, Z_NO_FLUSH, err);
    }
    return rc < 0 ? rc : put_padding(w, (uint64_t)st.st_size, err);
}

static int put_link(struct layer_writer *w, int dirfd, const char *name, size_t depth,
                    struct trk_err *err)
{
    char target[OCI_PATH_MAX];
    ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);
    if (n < 0) {
        return trk_err_errno(err, errno, "reading the link %s", path_below_root(w));
    }
    target[n] = '\0';
    if ((size_t)n >= sizeof(target) - 1 || !trk_utf8_is_valid(target, (size_t)n) ||
        !oci_link_stays_inside(target, depth)) {
        return trk_err_set(err, TRK_INVALID,
                           "%s is a symbolic link that leads out of the folder: remove it, or "
                           "put the file itself there",
                           path_below_root(w));
    }
    return put_entry(w, '2', 0777, 0, target, err);
}

static bool is_left_out(const char *name)
{
    return strcmp(name, ".git") == 0 || strcmp(name, "__pycache__") == 0 ||
           trk_str_has_suffix(name, ".pyc");
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
    char **list;
    size_t count, size;
};
static void names_cleanup(struct names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        free(names->list[i]);
    }
    free(names->list);
}

static int read_names(int dirfd, struct names *names, struct trk_err *err)
{
    int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir == NULL) {
        int saved = errno;
        if (copy >= 0) {
            (void)close(copy);
        }
        return trk_err_errno(err, saved, "listing a folder");
    }
    errno = 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL; errno = 0) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || is_left_out(e->d_name)) {
            continue;
        }
        if (names->count == names->size) {
            names->size = names->size == 0 ? 32 : names->size * 2;
            names->list = trk_xrealloc(names->list, names->size * sizeof(*names->list));
        }
        names->list[names->count++] = trk_xstrdup(e->d_name);
    }
    int saved = errno;
    (void)closedir(dir);
    if (saved != 0) {
        return trk_err_errno(err, saved, "listing a folder");
    }
    if (names->count > 1) {
        qsort(names->list, names->count, sizeof(*names->list), compare_names);
    }
    return 0;
}

static int put_folder(struct layer_writer *w, int dirfd, size_t depth, struct trk_err *err);

static int put_named(struct layer_writer *w, int dirfd, const char *name, size_t depth,
                     struct trk_err *err)
{
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return trk_err_errno(err, errno, "reading %s", path_below_root(w));
    }
    const struct trk_oci_pack_options *options = w->options;
    if (options->is_left_out != NULL &&
        options->is_left_out(options->ctx, dirfd, path_below_root(w), S_ISDIR(st.st_mode))) {
        return 0;
    }
    if (S_ISREG(st.st_mode)) {
        return put_file(w, dirfd, name, err);
    }
    if (S_ISLNK(st.st_mode)) {
        return put_link(w, dirfd, name, depth, err);
    }
    if (!S_ISDIR(st.st_mode)) {
        return trk_err_set(err, TRK_INVALID,
                           "%s is neither a file, a folder nor a symbolic link: it can not be "
                           "part of an image",
                           path_below_root(w));
    }
    trk_autoclose int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return trk_err_errno(err, errno, "opening %s", path_below_root(w));
    }
    int rc = put_entry(w, '5', 0755, 0, "", err);
    return rc < 0 ? rc : put_folder(w, fd, depth + 1, err);
}

static int put_folder(struct layer_writer *w, int dirfd, size_t depth, struct trk_err *err)
{
    if (depth > OCI_DEPTH_MAX) {
        return trk_err_set(err, TRK_INVALID, "%.200s: folders are nested deeper than %d",
                           path_below_root(w), OCI_DEPTH_MAX);
    }
    __attribute__((cleanup(names_cleanup))) struct names names = {0};
    int rc = read_names(dirfd, &names, err);
    size_t path_len = strlen(w->path);
    for (size_t i = 0; rc == 0 && i < names.count; i++) {
        const char *name = names.list[i];
        size_t name_len = strlen(name);
        if (!trk_utf8_is_valid(name, name_len)) {
            return trk_err_set(err, TRK_INVALID,
                               "a file name in the folder '%.200s' is not valid UTF-8: rename it",
                               path_below_root(w));
        }
        if (path_len + name_len + 3 > sizeof(w->path)) {
            return trk_err_set(err, TRK_INVALID, "%.200s…: the path is longer than %d bytes",
                               path_below_root(w), OCI_PATH_MAX);
        }
        (void)snprintf(w->path + path_len, sizeof(w->path) - path_len, "%s%s",
                       path_len > 0 ? "/" : "", name);
        rc = put_named(w, dirfd, name, depth, err);
        w->path[path_len] = '\0';
    }
    return rc;
}

/* Entries for the folders of the prefix: "src", "src/job". */
static int put_prefix(struct layer_writer *w, const char *prefix, struct trk_err *err)
{
    size_t len = strlen(prefix);
    if (len >= sizeof(w->path) / 2 || prefix[0] == '/') {
        return trk_err_set(err, TRK_INVALID, "a layer's prefix is a short relative path");
    }
    for (size_t i = 0; i <= len && len > 0; i++) {
        if (prefix[i] != '/' && prefix[i] != '\0') {
            continue;
        }
        memcpy(w->path, prefix, i);
        w->path[i] = '\0';
        int rc = put_entry(w, '5', 0755, 0, "", err);
        if (rc < 0) {
            return rc;
        }
    }
    w->root_len = len;
    return 0;
}

static void digest_of(struct trk_sha256_ctx *ctx, char out[TRK_DIGEST_SIZE])
{
    unsigned char sum[TRK_SHA256_SIZE];
    trk_sha256_final(ctx, sum);
    memcpy(out, "sha256:", 7);
    trk_hex(sum, sizeof(sum), out + 7);
}

int trk_oci_layer_write(int dirfd, const char *prefix, int out_fd, int level,
                        struct trk_oci_descriptor *ret, struct trk_err *err)
{
    const struct trk_oci_pack_options options = {
        .prefix = prefix,
        .level = level,
        .tar_bytes_max = (int64_t)trk_layer_limits.total_bytes_max,
        .entries_max = trk_layer_limits.entries_max};
    return trk_oci_layer_pack(dirfd, &options, out_fd, ret, err);
}

int trk_oci_layer_pack(int dirfd, const struct trk_oci_pack_options *options, int out_fd,
                       struct trk_oci_descriptor *ret, struct trk_err *err)
{
    static const char end[2 * BLOCK];
    trk_autofree struct layer_writer *w = trk_xcalloc(1, sizeof(*w));
    w->options = options;
    w->fd = out_fd;
    w->z.next_out = w->out;
    w->z.avail_out = sizeof(w->out);
    /* 15 + 16: gzip with a header of zlib's own, which has no time and no name */
    if (deflateInit2(&w->z, options->level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        return trk_err_set(err, TRK_INTERNAL, "zlib could not be started");
    }
    w->tar_sha = trk_sha256_new();
    w->gzip_sha = trk_sha256_new();
    int rc = put_prefix(w, options->prefix, err);
    if (rc == 0) {
        rc = put_folder(w, dirfd, 0, err);
    }
    if (rc == 0) {
        rc = put(w, end, sizeof(end), Z_FINISH, err);
    }
    if (rc == 0) {
        *ret = (struct trk_oci_descriptor){.media_type = TRK_OCI_LAYER_TYPE,
                                           .size_bytes = w->gzip_bytes};
        digest_of(w->gzip_sha, ret->digest);
        digest_of(w->tar_sha, ret->diff_id);
    }
    (void)deflateEnd(&w->z);
    trk_sha256_free(w->tar_sha);
    trk_sha256_free(w->gzip_sha);
    return rc;
}
