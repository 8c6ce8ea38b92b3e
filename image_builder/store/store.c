#include "image_builder/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>

#include "image_builder/store/internal.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"

#define RENAME_ATTEMPTS 3

char *store_path(const struct store *store, const char *fmt, ...)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 8192);
    va_list args;
    (void)trk_buf_addf(&buf, "%s/", store->root);
    va_start(args, fmt);
    (void)trk_buf_vaddf(&buf, fmt, args);
    va_end(args);
    trk_assert(!buf.failed); /* names are checked: far shorter */
    return trk_buf_steal(&buf, NULL);
}

const char *store_root(const struct store *store)
{
    return store->root;
}

static int take_lock(struct store *store, int64_t wait_ms, struct trk_err *err)
{
    trk_autofree char *path = store_path(store, "lock");
    store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0) {
        return trk_err_errno(err, errno, "opening %s", path);
    }
    int64_t deadline = trk_now_ns() + wait_ms * TRK_NS_PER_MS;
    while (flock(store->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return trk_err_errno(err, errno, "locking %s", path);
        }
        if (trk_now_ns() >= deadline) {
            return trk_err_set(err, TRK_CONFLICT,
                               "another image_builder is using the image store %s: stop it, or "
                               "give this one a state folder of its own (RACETRACK_STATE)",
                               store->root);
        }
        trk_sleep_ms(20);
    }
    return 0;
}

static int make_folders(struct store *store, struct trk_err *err)
{
    static const char *const folders[] = {"blobs/sha256", "repositories", "cache", "tmp"};
    trk_autofree char *tmp = store_path(store, "tmp");
    if (trk_rm_rf(tmp, err) < 0) { /* left over by a process that was killed */
        return err->code;
    }
    for (size_t i = 0; i < TRK_COUNT(folders); i++) {
        trk_autofree char *path = store_path(store, "%s", folders[i]);
        if (trk_mkdir_p(path, 0755, err) < 0) {
            return err->code;
        }
    }
    return 0;
}

int store_open(const char *root, int64_t wait_ms, struct store **ret, struct trk_err *err)
{
    struct trk_err local = {0};
    err = err != NULL ? err : &local;
    if (trk_mkdir_p(root, 0755, err) < 0) {
        return err->code;
    }
    struct store *store = trk_xcalloc(1, sizeof(*store));
    store->root = trk_xstrdup(root);
    store->lock_fd = -1;
    (void)pthread_mutex_init(&store->lock, NULL);
    if (take_lock(store, wait_ms, err) < 0 || make_folders(store, err) < 0) {
        store_close(store);
        return err->code;
    }
    *ret = store;
    return 0;
}

void store_close(struct store *store)
{
    if (store == NULL) {
        return;
    }
    if (store->lock_fd >= 0) {
        (void)close(store->lock_fd);
    }
    (void)pthread_mutex_destroy(&store->lock);
    free(store->root);
    free(store);
}

int store_fsync_parent(const char *path, struct trk_err *err)
{
    const char *slash = strrchr(path, '/');
    trk_autofree char *parent = trk_xstrndup(path, (size_t)(slash - path));
    trk_autoclose int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0) {
        return trk_err_errno(err, errno, "syncing %s", parent);
    }
    return 0;
}

static int make_parent(const char *path, struct trk_err *err)
{
    const char *slash = strrchr(path, '/');
    trk_autofree char *parent = trk_xstrndup(path, (size_t)(slash - path));
    int rc = trk_mkdir_p(parent, 0755, err);
    return rc < 0 ? rc : store_fsync_parent(parent, err);
}

static int rename_into_place(struct store *store, const struct store_pending *p,
                             struct trk_err *err)
{
    for (unsigned attempt = 0;; attempt++) {
        (void)pthread_mutex_lock(&store->lock);
        int errnum = rename(p->temp_path, p->path) == 0 ? 0 : errno;
        (void)pthread_mutex_unlock(&store->lock);
        if (errnum == 0) {
            return 0;
        }
        if (errnum != ENOENT || attempt == RENAME_ATTEMPTS) {
            return trk_err_errno(err, errnum, "storing %s", p->path);
        }
        int rc = make_parent(p->path, err); /* a folder that became empty may just be removed */
        if (rc < 0) {
            return rc;
        }
    }
}

static bool has_same_parent(const char *a, const char *b)
{
    size_t n = (size_t)(strrchr(a, '/') - a);
    return n == (size_t)(strrchr(b, '/') - b) && memcmp(a, b, n) == 0;
}

int store_publish(struct store *store, struct store_pending *pending, size_t count,
                  struct trk_err *err)
{
    for (size_t i = 0; i < count; i++) { /* starts the writing of all before waiting for one */
        (void)sync_file_range(pending[i].fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    }
    for (size_t i = 0; i < count; i++) {
        if (fsync(pending[i].fd) < 0) {
            return trk_err_errno(err, errno, "syncing %s", pending[i].temp_path);
        }
    }
    for (size_t i = 0; i < count; i++) {
        int rc = rename_into_place(store, &pending[i], err);
        if (rc < 0) {
            return rc;
        }
        pending[i].is_done = true;
    }
    for (size_t i = 0; i < count; i++) {
        bool is_synced = false;
        for (size_t k = 0; k < i; k++) {
            is_synced = is_synced || has_same_parent(pending[i].path, pending[k].path);
        }
        int rc = is_synced ? 0 : store_fsync_parent(pending[i].path, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

int store_write_file(struct store *store, const char *path, const void *bytes, size_t len,
                     struct trk_err *err)
{
    STORE_TEMP_AUTO(temp) = NULL;
    int rc = store_temp_new(store, &temp, err);
    if (rc == 0) {
        rc = trk_write_all(store_temp_fd(temp), bytes, len, err);
    }
    if (rc < 0) {
        return rc;
    }
    struct store_pending pending = store_temp_pending(temp, path);
    rc = store_publish(store, &pending, 1, err);
    if (pending.is_done) {
        store_temp_done(temp, NULL);
    }
    return rc;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int store_list(const char *path, json_t **ret, struct trk_err *err)
{
    DIR *dir = opendir(path);
    if (dir == NULL && errno != ENOENT) {
        return trk_err_errno(err, errno, "listing %s", path);
    }
    char **names = NULL;
    size_t count = 0;
    errno = 0;
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL; errno = 0) {
        if (e->d_name[0] != '.') {
            names = trk_xrealloc(names, (count + 1) * sizeof(*names));
            names[count++] = trk_xstrdup(e->d_name);
        }
    }
    int rc = dir != NULL && errno != 0 ? trk_err_errno(err, errno, "listing %s", path) : 0;
    if (dir != NULL) {
        (void)closedir(dir);
    }
    if (count > 1) {
        qsort(names, count, sizeof(*names), compare_texts);
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(list, json_string(names[i]));
        free(names[i]);
    }
    free(names);
    if (rc < 0) {
        json_decref(list);
        return rc;
    }
    *ret = list;
    return 0;
}
