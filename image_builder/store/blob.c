#include <errno.h>
#include <fcntl.h>

#include "image_builder/store/internal.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

struct store_temp {
    struct store *store;
    char *path;
    int fd;
    struct trk_sha256_ctx *sha;
    int64_t size;
    bool is_committed;
};

static const char *hex_of(const char *digest)
{
    trk_assert(trk_digest_is_valid(digest));
    return digest + strlen("sha256:");
}

char *store_blob_path(const struct store *store, const char *digest)
{
    return store_path(store, "blobs/sha256/%s", hex_of(digest));
}

/* ---- what was verified ---- */

static struct verified *slot_of(struct store *store, const char *hex)
{
    unsigned long n = strtoul((char[]){hex[0], hex[1], hex[2], '\0'}, NULL, 16);
    return &store->verified[n % VERIFIED_SLOTS];
}

static bool is_verified(struct store *store, const char *hex, const struct stat *st)
{
    (void)pthread_mutex_lock(&store->lock);
    const struct verified *v = slot_of(store, hex);
    bool is_same = strcmp(v->hex, hex) == 0 && v->ino == st->st_ino && v->size == st->st_size &&
                   v->mtime.tv_sec == st->st_mtim.tv_sec && v->mtime.tv_nsec == st->st_mtim.tv_nsec;
    (void)pthread_mutex_unlock(&store->lock);
    return is_same;
}

static void remember_verified(struct store *store, const char *hex, const struct stat *st)
{
    (void)pthread_mutex_lock(&store->lock);
    struct verified *v = slot_of(store, hex);
    *v = (struct verified){.ino = st->st_ino, .size = st->st_size, .mtime = st->st_mtim};
    memcpy(v->hex, hex, sizeof(v->hex));
    (void)pthread_mutex_unlock(&store->lock);
}

static int hash_file(int fd, char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    trk_autofree char *chunk = trk_xmalloc(1 << 18);
    struct trk_sha256_ctx *sha = trk_sha256_new();
    off_t at = 0;
    ssize_t n;
    while ((n = pread(fd, chunk, 1 << 18, at)) != 0) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            trk_sha256_free(sha);
            return trk_err_errno(err, errno, "reading a blob");
        }
        trk_sha256_update(sha, chunk, (size_t)n);
        at += n;
    }
    unsigned char sum[TRK_SHA256_SIZE];
    trk_sha256_final(sha, sum);
    trk_sha256_free(sha);
    memcpy(ret_digest, "sha256:", 7);
    trk_hex(sum, sizeof(sum), ret_digest + 7);
    return 0;
}

/* ---- reading ---- */

static int put_aside(struct store *store, const char *path, const char *digest, struct trk_err *err)
{
    trk_autofree char *folder = store_path(store, "corrupt");
    trk_autofree char *aside = trk_xasprintf("%s/%s", folder, hex_of(digest));
    trk_log_error("a blob of the image store is damaged: put aside", "digest", digest, "to", aside,
                  NULL);
    if (trk_mkdir_p(folder, 0755, err) < 0 || rename(path, aside) < 0) {
        (void)unlink(path); /* it must not be taken for the blob, whatever happens */
    }
    return trk_err_set(err, TRK_NOT_FOUND, "blob %s is damaged in the image store", digest);
}

int store_blob_open(struct store *store, const char *digest, int *ret_fd, int64_t *ret_size,
                    struct trk_err *err)
{
    static const struct timespec used_now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    trk_autofree char *path = store_blob_path(store, digest);
    struct stat st;
    /* opening and the time of last use go together: the collector looks and removes under the
     * same lock */
    (void)pthread_mutex_lock(&store->lock);
    trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int errnum = errno;
    if (fd >= 0) {
        (void)futimens(fd, used_now);
    }
    (void)pthread_mutex_unlock(&store->lock);
    if (fd < 0 && errnum == ENOENT) {
        return trk_err_set(err, TRK_NOT_FOUND, "blob %s is not in the image store", digest);
    }
    if (fd < 0 || fstat(fd, &st) < 0) {
        return trk_err_errno(err, fd < 0 ? errnum : errno, "opening blob %s", digest);
    }
    if (!is_verified(store, hex_of(digest), &st)) {
        char is[TRK_DIGEST_SIZE];
        int rc = hash_file(fd, is, err);
        if (rc < 0) {
            return rc;
        }
        if (strcmp(is, digest) != 0) {
            return put_aside(store, path, digest, err);
        }
        remember_verified(store, hex_of(digest), &st);
    }
    *ret_fd = TRK_STEAL_FD(fd);
    *ret_size = st.st_size;
    return 0;
}

bool store_blob_has(struct store *store, const char *digest, int64_t *ret_size)
{
    trk_autoclose int fd = -1;
    struct trk_err err = {0};
    int64_t size;
    if (store_blob_open(store, digest, &fd, &size, &err) < 0) {
        if (err.code != TRK_NOT_FOUND) {
            trk_log_error("looking for a blob failed", "error", err.text, NULL);
        }
        return false;
    }
    if (ret_size != NULL) {
        *ret_size = size;
    }
    return true;
}

int store_blob_read(struct store *store, const char *digest, size_t cap_bytes, char **ret,
                    size_t *ret_len, struct trk_err *err)
{
    trk_autoclose int fd = -1;
    int64_t size;
    int rc = store_blob_open(store, digest, &fd, &size, err);
    if (rc < 0) {
        return rc;
    }
    struct trk_buf buf;
    trk_buf_init(&buf, cap_bytes);
    rc = trk_buf_read_fd(&buf, fd, err);
    if (rc == 0) {
        *ret = trk_buf_steal(&buf, ret_len);
    }
    trk_buf_fini(&buf);
    return rc < 0 ? trk_err_wrap(err, "blob %s", digest) : 0;
}

int store_blob_delete(struct store *store, const char *digest, struct trk_err *err)
{
    json_auto_t *used = json_object();
    int rc = store_mark_all(store, used, err);
    if (rc < 0) {
        return rc;
    }
    if (json_object_get(used, digest) != NULL) {
        return trk_err_set(err, TRK_CONFLICT, "blob %s belongs to an image: delete its manifest",
                           digest);
    }
    trk_autofree char *path = store_blob_path(store, digest);
    if (unlink(path) < 0) {
        return trk_err_errno(err, errno, "deleting blob %s", digest);
    }
    return 0;
}

/* ---- writing ---- */

int store_temp_new(struct store *store, struct store_temp **ret, struct trk_err *err)
{
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    trk_autofree char *path = store_path(store, "tmp/%s", id);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        return trk_err_errno(err, errno, "creating %s", path);
    }
    struct store_temp *temp = trk_xcalloc(1, sizeof(*temp));
    *temp = (struct store_temp){
        .store = store, .path = TRK_STEAL(path), .fd = fd, .sha = trk_sha256_new()};
    *ret = temp;
    return 0;
}

void store_temp_free(struct store_temp *temp)
{
    if (temp == NULL) {
        return;
    }
    if (!temp->is_committed) {
        (void)unlink(temp->path);
    }
    (void)close(temp->fd);
    trk_sha256_free(temp->sha);
    free(temp->path);
    free(temp);
}

void store_temp_cleanup(struct store_temp **temp)
{
    store_temp_free(*temp);
}

int store_temp_fd(const struct store_temp *temp)
{
    return temp->fd;
}

int64_t store_temp_size(const struct store_temp *temp)
{
    return temp->size;
}

int store_temp_add(struct store_temp *temp, const void *bytes, size_t len, struct trk_err *err)
{
    int rc = trk_write_all(temp->fd, bytes, len, err);
    if (rc < 0) {
        return trk_err_wrap(err, "storing a blob");
    }
    trk_sha256_update(temp->sha, bytes, len);
    temp->size += (int64_t)len;
    return 0;
}

struct store_pending store_temp_pending(const struct store_temp *temp, const char *path)
{
    return (struct store_pending){.fd = temp->fd, .temp_path = temp->path, .path = path};
}

void store_temp_done(struct store_temp *temp, const char *digest)
{
    struct stat st;
    temp->is_committed = true;
    if (digest != NULL && fstat(temp->fd, &st) == 0) {
        remember_verified(temp->store, hex_of(digest), &st);
    }
}

int store_temp_seal(struct store_temp *temp, int64_t size_bytes, struct trk_err *err)
{
    struct stat st;
    if (fchmod(temp->fd, 0444) < 0 || fstat(temp->fd, &st) < 0) {
        return trk_err_errno(err, errno, "storing a blob");
    }
    return st.st_size == size_bytes
               ? 0
               : trk_err_set(err, TRK_INTERNAL, "a blob was written with %lld bytes, not %lld",
                             (long long)st.st_size, (long long)size_bytes);
}

int store_temp_commit_as(struct store_temp *temp, const char *digest, int64_t size_bytes,
                         struct trk_err *err)
{
    if (store_blob_has(temp->store, digest, NULL)) {
        return 0; /* and the copy just written goes with the temp */
    }
    trk_autofree char *path = store_blob_path(temp->store, digest);
    struct store_pending pending = store_temp_pending(temp, path);
    int rc = store_temp_seal(temp, size_bytes, err);
    if (rc == 0) {
        rc = store_publish(temp->store, &pending, 1, err);
    }
    if (pending.is_done) {
        store_temp_done(temp, digest);
    }
    return rc;
}

int store_temp_commit(struct store_temp *temp, const char *want, char ret_digest[TRK_DIGEST_SIZE],
                      struct trk_err *err)
{
    unsigned char sum[TRK_SHA256_SIZE];
    char digest[TRK_DIGEST_SIZE] = "sha256:";
    trk_sha256_final(temp->sha, sum);
    trk_hex(sum, sizeof(sum), digest + 7);
    if (want != NULL && strcmp(want, digest) != 0) {
        return trk_err_set(err, TRK_INVALID, "the content has the digest %s, not %.100s", digest,
                           want);
    }
    int rc = store_temp_commit_as(temp, digest, temp->size, err);
    if (rc == 0 && ret_digest != NULL) {
        memcpy(ret_digest, digest, sizeof(digest));
    }
    return rc;
}

int store_put(struct store *store, const void *bytes, size_t len, char ret_digest[TRK_DIGEST_SIZE],
              struct trk_err *err)
{
    char digest[TRK_DIGEST_SIZE];
    trk_digest(bytes, len, digest);
    if (!store_blob_has(store, digest, NULL)) {
        STORE_TEMP_AUTO(temp) = NULL;
        int rc = store_temp_new(store, &temp, err);
        if (rc == 0) {
            rc = store_temp_add(temp, bytes, len, err);
        }
        if (rc == 0) {
            rc = store_temp_commit_as(temp, digest, (int64_t)len, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
    memcpy(ret_digest, digest, sizeof(digest));
    return 0;
}
