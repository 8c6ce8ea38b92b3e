#include "image_builder/housekeeping.h"

#include <pthread.h>
#include <sys/stat.h>

#include "image_builder/api/uploads.h"
#include "image_builder/build/build.h"
#include "image_builder/build/sandbox.h"
#include "image_builder/store/internal.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"

struct housekeeping {
    struct image_builder *ib;
    bool is_stopping;
    json_t *in_use; /* NULL: not told yet; only the thread looks inside */
    json_t *news;   /* its successor */
    pthread_t thread;
    pthread_mutex_t lock; /* guards is_stopping, news */
    pthread_cond_t changed;
};

struct log_file {
    char *path;
    int64_t time_s;
};

static int newest_first(const void *a, const void *b)
{
    const struct log_file *x = a, *y = b;
    return x->time_s < y->time_s ? 1 : x->time_s > y->time_s ? -1 : 0;
}

static int prune_logs(const char *folder, size_t max, struct trk_err *err)
{
    json_auto_t *names = NULL;
    int rc = store_list(folder, &names, err);
    size_t count = json_array_size(names);
    if (rc < 0 || count <= max) {
        return rc;
    }
    struct log_file *files = trk_xcalloc(count, sizeof(*files));
    for (size_t i = 0; i < count; i++) {
        struct stat st;
        files[i].path = trk_xasprintf("%s/%s", folder, json_string_value(json_array_get(names, i)));
        files[i].time_s = stat(files[i].path, &st) == 0 ? st.st_mtime : 0;
    }
    qsort(files, count, sizeof(*files), newest_first);
    for (size_t i = 0; i < count; i++) {
        if (i >= max) {
            (void)unlink(files[i].path);
        }
        free(files[i].path);
    }
    free(files);
    return 0;
}

/* "<host>/<repository>:<tag>@<digest>" as keys of the two sets; what is no such text names nothing
 * that lies here. */
static void add_wanted(const char *image, json_t *tags, json_t *digests)
{
    const char *at = strchr(image, '@');
    struct trk_oci_ref ref;
    struct trk_err ignored;
    if (at == NULL || !trk_digest_is_valid(at + 1)) {
        return;
    }
    (void)json_object_set_new(digests, at + 1, json_true());
    trk_autofree char *name = trk_xstrndup(image, (size_t)(at - image));
    if (trk_oci_ref_parse(name, &ref, &ignored) == 0) {
        trk_autofree char *tag = trk_xasprintf("%s:%s", ref.repository, ref.reference);
        (void)json_object_set_new(tags, tag, json_true());
    }
}

static int prune_images(struct image_builder *ib, const json_t *images, int64_t grace_s,
                        struct trk_err *err)
{
    json_auto_t *tags = json_object();
    json_auto_t *digests = json_object();
    trk_autofree char *prefix = trk_xasprintf("%s/" BUILD_REPOSITORIES "/",
                                              ib->config->docker_registry_namespace);
    const struct store_wanted wanted = {.prefix = prefix, .tags = tags, .digests = digests};
    uint64_t removed = 0;
    size_t i;
    json_t *image;
    json_array_foreach (images, i, image) {
        add_wanted(json_string_value(image), tags, digests);
    }
    int rc = store_prune(ib->store, &wanted, grace_s, &removed, err);
    if (removed > 0) {
        char count[24];
        (void)snprintf(count, sizeof(count), "%llu", (unsigned long long)removed);
        trk_log_info("tags and manifests that no job uses removed", "count", count, NULL);
    }
    return rc;
}

int housekeeping_round(struct image_builder *ib, const json_t *in_use, int64_t grace_s,
                       struct store_gc_result *ret, struct trk_err *err)
{
    json_auto_t *roots = NULL;
    struct store_gc_result images = {0}, sources = {0};
    uploads_expire(ib->uploads, UPLOAD_IDLE_NS);
    int rc = prune_logs(ib->logs_dir, (size_t)ib->config->build_logs_max, err);
    if (rc == 0 && in_use != NULL) {
        rc = prune_images(ib, json_object_get(in_use, "images"), grace_s, err);
    }
    if (rc == 0 && in_use != NULL) {
        rc = store_gc(ib->sources, json_object_get(in_use, "sources"), grace_s, &sources, err);
    }
    int64_t hours = ib->config->build_cache_retention_hours;
    rc = rc == 0 ? build_pip_cache_prune(ib->pip_cache_dir, hours, err) : rc;
    rc = rc == 0 ? store_cache_prune(ib->store, hours, &roots, err) : rc;
    rc = rc == 0 ? store_gc(ib->store, roots, grace_s, &images, err) : rc;
    *ret = (struct store_gc_result){.removed = images.removed + sources.removed,
                                    .removed_bytes = images.removed_bytes + sources.removed_bytes,
                                    .kept = images.kept + sources.kept};
    return rc;
}

static void run_round(const struct housekeeping *keeping)
{
    struct store_gc_result result = {0};
    struct trk_err err = {0};
    if (housekeeping_round(keeping->ib, keeping->in_use, keeping->ib->config->unused_retention_s,
                           &result, &err) < 0) {
        trk_log_warn("cleaning up the image store failed", "error", err.text, NULL);
    } else if (result.removed > 0) {
        char count[24], bytes[24];
        (void)snprintf(count, sizeof(count), "%llu", (unsigned long long)result.removed);
        (void)snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)result.removed_bytes);
        trk_log_info("unused blobs removed", "count", count, "bytes", bytes, NULL);
    }
}

void housekeeping_tell(struct housekeeping *keeping, json_t *in_use)
{
    (void)pthread_mutex_lock(&keeping->lock);
    json_t *former = keeping->news;
    keeping->news = in_use;
    (void)pthread_cond_broadcast(&keeping->changed);
    (void)pthread_mutex_unlock(&keeping->lock);
    json_decref(former);
}

static void *keeping_main(void *arg)
{
    struct housekeeping *keeping = arg;
    struct trk_err err = {0};
    if (build_sandbox_check(keeping->ib->config, &err) < 0) {
        trk_log_warn("builds of requirements are refused", "error", err.text, NULL);
    }
    int64_t interval_s = keeping->ib->config->build_cache_prune_interval_m * 60;
    (void)pthread_mutex_lock(&keeping->lock);
    while (!keeping->is_stopping) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += interval_s;
        int rc = 0;
        while (rc == 0 && !keeping->is_stopping && keeping->news == NULL) {
            rc = pthread_cond_timedwait(&keeping->changed, &keeping->lock, &until);
        }
        if (!keeping->is_stopping) {
            json_t *news = TRK_STEAL(keeping->news);
            (void)pthread_mutex_unlock(&keeping->lock);
            if (news != NULL) {
                json_decref(keeping->in_use);
                keeping->in_use = news;
            }
            run_round(keeping);
            (void)pthread_mutex_lock(&keeping->lock);
        }
    }
    (void)pthread_mutex_unlock(&keeping->lock);
    return NULL;
}

struct housekeeping *housekeeping_start(struct image_builder *ib)
{
    struct housekeeping *keeping = trk_xcalloc(1, sizeof(*keeping));
    keeping->ib = ib;
    (void)pthread_mutex_init(&keeping->lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&keeping->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    if (pthread_create(&keeping->thread, NULL, keeping_main, keeping) != 0) {
        trk_die("starting a thread failed");
    }
    return keeping;
}

void housekeeping_stop(struct housekeeping *keeping)
{
    if (keeping == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&keeping->lock);
    keeping->is_stopping = true;
    (void)pthread_cond_broadcast(&keeping->changed);
    (void)pthread_mutex_unlock(&keeping->lock);
    (void)pthread_join(keeping->thread, NULL);
    (void)pthread_cond_destroy(&keeping->changed);
    (void)pthread_mutex_destroy(&keeping->lock);
    json_decref(keeping->in_use);
    json_decref(keeping->news);
    free(keeping);
}
