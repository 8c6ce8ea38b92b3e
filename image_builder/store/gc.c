/* Mark and sweep. A blob that a push or a build has just asked for, or brought, is not yet
 * referred to by a manifest: what was used within the grace time stays. That also closes the gap
 * between marking and sweeping: whoever puts a manifest in between uses its blobs first. */
#include <errno.h>

#include "image_builder/store/internal.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"

static int64_t last_use(const struct stat *st)
{
    return st->st_atim.tv_sec > st->st_mtim.tv_sec ? st->st_atim.tv_sec : st->st_mtim.tv_sec;
}

static void sweep_blob(struct store *store, const char *digest, const json_t *used,
                       int64_t before_s, struct store_gc_result *ret)
{
    trk_autofree char *path = store_blob_path(store, digest);
    if (json_object_get(used, digest) != NULL) {
        ret->kept++;
        return;
    }
    struct stat st;
    (void)pthread_mutex_lock(&store->lock);
    bool is_old = stat(path, &st) == 0 && last_use(&st) <= before_s;
    bool is_removed = is_old && unlink(path) == 0;
    (void)pthread_mutex_unlock(&store->lock);
    if (is_removed) {
        ret->removed++;
        ret->removed_bytes += (uint64_t)st.st_size;
    } else {
        ret->kept++;
    }
}

static int sweep(struct store *store, const json_t *used, int64_t before_s,
                 struct store_gc_result *ret, struct trk_err *err)
{
    trk_autofree char *folder = store_path(store, "blobs/sha256");
    json_auto_t *names = NULL;
    int rc = store_list(folder, &names, err);
    size_t i;
    json_t *name;
    json_array_foreach (names, i, name) {
        char digest[TRK_DIGEST_SIZE];
        (void)snprintf(digest, sizeof(digest), "sha256:%s", json_string_value(name));
        if (trk_digest_is_valid(digest)) {
            sweep_blob(store, digest, used, before_s, ret);
        }
    }
    return rc;
}

int store_gc(struct store *store, const json_t *more_roots, int64_t grace_s,
             struct store_gc_result *ret, struct trk_err *err)
{
    struct store_gc_result result = {0};
    int64_t before_s = trk_wall_s() - grace_s;
    json_auto_t *used = json_object();
    int rc = store_mark_all(store, used, err);
    size_t i;
    json_t *root;
    json_array_foreach (more_roots, i, root) {
        (void)json_object_set_new(used, json_string_value(root), json_true());
    }
    if (rc == 0) {
        rc = sweep(store, used, before_s, &result, err);
    }
    if (rc == 0) {
        *ret = result;
    }
    return rc < 0 ? trk_err_wrap(err, "collecting unused blobs") : 0;
}
