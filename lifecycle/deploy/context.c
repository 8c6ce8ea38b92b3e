#include "lifecycle/deploy/context.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>

#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/manifest/secret_files.h"
#include "libtrack/oci/oci.h"

#define PACK_LEVEL     6
#define CONTEXT_PREFIX "context-"

/* Bytes of all contexts of this process. */
static atomic_llong spooled;

static void close_file(struct context *context)
{
    if (context->fd >= 0) {
        (void)close(context->fd);
        (void)atomic_fetch_sub(&spooled, context->size_bytes);
    }
}

void context_fini(struct context *context)
{
    close_file(context);
    trk_sha256_free(context->sha);
    *context = CONTEXT_NONE;
}

/* Where contexts are worked on: on the state's disk, not in a /tmp that may be memory. */
static int work_folder(const char *state_dir, char **ret, struct trk_err *err)
{
    trk_autofree char *path = trk_xasprintf("%s/tmp", state_dir);
    int rc = trk_mkdir_p(path, 0700, err);
    if (rc == 0) {
        *ret = TRK_STEAL(path);
    }
    return rc;
}

static int nameless_file(const char *folder, int *ret, struct trk_err *err)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) { /* a file system without O_TMPFILE */
        trk_autofree char *path = trk_xasprintf("%s/" CONTEXT_PREFIX "XXXXXX", folder);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0) {
            return trk_err_errno(err, errno, "making a file in %s", folder);
        }
        (void)unlink(path);
    }
    *ret = fd;
    return 0;
}

static int not_kept(int rc, struct trk_err *err)
{
    return rc == TRK_NO_SPACE
               ? trk_err_set(err, TRK_NO_SPACE,
                             "keeping the build context: the disk of the platform is full; when "
                             "whoever runs the platform has made room there, deploy again")
               : trk_err_wrap(err, "keeping the build context");
}

int context_begin(const char *state_dir, struct context *ret, struct trk_err *err)
{
    trk_autofree char *folder = NULL;
    int fd = -1;
    int rc = work_folder(state_dir, &folder, err);
    rc = rc == 0 ? nameless_file(folder, &fd, err) : rc;
    if (rc < 0) {
        return not_kept(rc, err);
    }
    *ret = (struct context){.fd = fd, .sha = trk_sha256_new()};
    return 0;
}

int context_add(struct context *context, const void *bytes, size_t len, int64_t spool_max_bytes,
                struct trk_err *err)
{
    long long all = atomic_fetch_add(&spooled, (long long)len) + (long long)len;
    context->size_bytes += (int64_t)len;
    if (all > spool_max_bytes) {
        return trk_err_set(err, TRK_UNAVAILABLE,
                           "too many build contexts are being uploaded: try again later");
    }
    int rc = trk_write_all(context->fd, bytes, len, err);
    if (rc < 0) {
        return not_kept(rc, err);
    }
    trk_sha256_update(context->sha, bytes, len);
    return 0;
}

void context_end(struct context *context)
{
    unsigned char sum[TRK_SHA256_SIZE];
    trk_sha256_final(context->sha, sum);
    memcpy(context->digest, "sha256:", 7);
    trk_hex(sum, sizeof(sum), context->digest + 7);
}

/* -- secrets -- */

static bool names_secrets(const json_t *manifest)
{
    for (size_t i = 0; i < TRK_SECRET_FILES; i++) {
        if (trk_secret_path(manifest, &trk_secret_fields[i]) != NULL) {
            return true;
        }
    }
    return false;
}

static int check_secret(int dirfd, const char *path, const struct trk_secret_field *field,
                        const json_t *secret_vars, struct trk_buf *warnings, struct trk_err *err)
{
    trk_autoclose int fd = -1;
    struct trk_err none = {0};
    struct stat st;
    if (path == NULL || trk_open_beneath(dirfd, path, O_PATH, 0, &fd, &none) < 0 ||
        fstat(fd, &st) < 0 || S_ISDIR(st.st_mode)) {
        return 0; /* not in it, or led out: nothing that could be packed */
    }
    if (!json_is_object(json_object_get(secret_vars, field->key))) {
        return trk_err_set(err, TRK_INVALID,
                           "build_context holds '%.200s', which the manifest names as %s: secrets "
                           "do not travel in the build context. Leave the file out of it and send "
                           "its variables as secret_vars.%s (racetrack deploy does so)",
                           path, field->field, field->key);
    }
    (void)trk_buf_addf(warnings,
                       "%s'%.200s' (%s) was taken out of the uploaded files: its variables are "
                       "kept sealed. Add it to .gitignore, so that it is not uploaded",
                       warnings->len > 0 ? "\n" : "", path, field->field);
    return 0;
}

struct leaving_out {
    struct trk_secret_files secrets;
};

static bool is_left_out(void *ctx, int dirfd, const char *path, bool is_folder)
{
    const struct leaving_out *leaving = ctx;
    const char *slash = strrchr(path, '/');
    return !is_folder &&
           trk_secret_files_has(&leaving->secrets, dirfd, slash != NULL ? slash + 1 : path);
}

static int pack_without(struct context *context, const char *folder, int dirfd,
                        const json_t *manifest, struct trk_err *err)
{
    struct leaving_out leaving;
    const struct trk_oci_pack_options options = {
        .prefix = "", .level = PACK_LEVEL, .is_left_out = is_left_out, .ctx = &leaving};
    struct trk_oci_descriptor packed;
    trk_autoclose int fd = -1;
    trk_secret_files_find(&leaving.secrets, dirfd, manifest);
    int rc = nameless_file(folder, &fd, err);
    rc = rc == 0 ? trk_oci_layer_pack(dirfd, &options, fd, &packed, err) : rc;
    if (rc == 0) {
        close_file(context);
        context->fd = TRK_STEAL_FD(fd);
        context->size_bytes = packed.size_bytes;
        (void)atomic_fetch_add(&spooled, packed.size_bytes);
        memcpy(context->digest, packed.digest, sizeof(packed.digest));
    }
    return rc;
}

/* `into`: an empty folder. */
static int take_out(struct context *context, const char *into, const char *folder,
                    const json_t *manifest, const json_t *secret_vars, struct trk_buf *warnings,
                    struct trk_err *err)
{
    static const struct trk_unpack_limits limits = {0};
    trk_autoclose int dirfd = open(into, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0 || flock(dirfd, LOCK_EX) < 0 || lseek(context->fd, 0, SEEK_SET) < 0) {
        return trk_err_errno(err, errno, "opening %s", into);
    }
    int rc = trk_unpack(NULL, 0, context->fd, dirfd, NULL, &limits, err);
    size_t before = warnings->len;
    for (size_t i = 0; rc == 0 && i < TRK_SECRET_FILES; i++) {
        const struct trk_secret_field *field = &trk_secret_fields[i];
        rc = check_secret(dirfd, trk_secret_path(manifest, field), field, secret_vars, warnings,
                          err);
    }
    return rc == 0 && warnings->len > before ? pack_without(context, folder, dirfd, manifest, err)
                                             : rc;
}

int context_take_out_secrets(struct context *context, const char *state_dir, const json_t *manifest,
                             const json_t *secret_vars, struct trk_buf *warnings,
                             struct trk_err *err)
{
    trk_autofree char *folder = NULL;
    if (context->fd < 0 || !names_secrets(manifest)) {
        return 0;
    }
    int rc = work_folder(state_dir, &folder, err);
    if (rc < 0) {
        return rc;
    }
    trk_autofree char *into = trk_xasprintf("%s/" CONTEXT_PREFIX "XXXXXX", folder);
    if (mkdtemp(into) == NULL) {
        return trk_err_errno(err, errno, "making a folder in %s", folder);
    }
    /* one at a time: unpacked it may have 2 GiB, which is not what uploads are limited to */
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    (void)pthread_mutex_lock(&one);
    rc = take_out(context, into, folder, manifest, secret_vars, warnings, err);
    struct trk_err ignored = {0};
    int removed = trk_rm_rf(into, &ignored);
    (void)pthread_mutex_unlock(&one);
    if (rc == 0 && removed < 0) { /* it holds the secrets */
        rc = trk_err_set(err, TRK_INTERNAL, "%s", ignored.text);
    }
    return rc < 0 ? trk_err_wrap(err, "build_context") : 0;
}

void context_sweep(const char *state_dir)
{
    trk_autofree char *folder = trk_xasprintf("%s/tmp", state_dir);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        struct trk_err err = {0};
        trk_autoclose int fd = -1;
        if (strncmp(e->d_name, CONTEXT_PREFIX, strlen(CONTEXT_PREFIX)) != 0) {
            continue;
        }
        fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
            trk_autofree char *path = trk_xasprintf("%s/%s", folder, e->d_name);
            if (trk_rm_rf(path, &err) < 0) {
                trk_log_warn("what an upload left behind remains", "error", err.text, NULL);
            }
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}
