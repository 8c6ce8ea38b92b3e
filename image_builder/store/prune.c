/* Tags and manifests that nobody wants any more. What they alone referred to is the collector's. */
#include <unistd.h>

#include "image_builder/store/internal.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

struct prune {
    struct store *store;
    const struct store_wanted *wanted;
    int64_t before_s;
    uint64_t removed;
};

/* Under the lock that a file comes into its place under: one that was just written anew stays. */
static void remove_old(struct prune *p, const char *path)
{
    struct stat st;
    (void)pthread_mutex_lock(&p->store->lock);
    bool is_removed = stat(path, &st) == 0 && st.st_mtim.tv_sec <= p->before_s && unlink(path) == 0;
    (void)pthread_mutex_unlock(&p->store->lock);
    p->removed += is_removed ? 1 : 0;
}

static int prune_folder(struct prune *p, const char *repository, const char *folder,
                        const char *key_prefix, const json_t *wanted, struct trk_err *err)
{
    trk_autofree char *path = store_path(p->store, "repositories/%s/%s", repository, folder);
    json_auto_t *names = NULL;
    int rc = store_list(path, &names, err);
    size_t i;
    json_t *name;
    json_array_foreach (names, i, name) {
        trk_autofree char *key = trk_xasprintf("%s%s", key_prefix, json_string_value(name));
        if (json_object_get(wanted, key) == NULL) {
            trk_autofree char *file = trk_xasprintf("%s/%s", path, json_string_value(name));
            remove_old(p, file);
        }
    }
    (void)rmdir(path); /* when it is empty now */
    return rc;
}

static int prune_repository(void *ctx, const char *repository, struct trk_err *err)
{
    struct prune *p = ctx;
    if (!trk_str_has_prefix(repository, p->wanted->prefix)) {
        return 0;
    }
    trk_autofree char *path = store_path(p->store, "repositories/%s", repository);
    trk_autofree char *tag_prefix = trk_xasprintf("%s:", repository);
    int rc = prune_folder(p, repository, "_tags", tag_prefix, p->wanted->tags, err);
    rc = rc == 0 ? prune_folder(p, repository, "_manifests", "sha256:", p->wanted->digests, err)
                 : rc;
    (void)rmdir(path);
    return rc;
}

int store_prune(struct store *store, const struct store_wanted *wanted, int64_t grace_s,
                uint64_t *ret_removed, struct trk_err *err)
{
    struct prune p = {.store = store, .wanted = wanted, .before_s = trk_wall_s() - grace_s};
    int rc = store_walk_repositories(store, prune_repository, &p, err);
    *ret_removed = p.removed;
    return rc < 0 ? trk_err_wrap(err, "removing images that nobody wants") : 0;
}
