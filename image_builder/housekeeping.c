#include "image_builder/housekeeping.h"

#include <pthread.h>
#include <sys/stat.h>

#include "image_builder/api/uploads.h"
#include "image_builder/build/queue.h"
#include "image_builder/build/sandbox.h"
#include "image_builder/store/internal.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"

struct housekeeping {
    struct image_builder *ib;
    bool is_stopping;
    pthread_t thread;
    pthread_mutex_t lock;
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

static int prune_logs(const char *folder, struct trk_err *err)
{
    json_auto_t *names = NULL;
    int rc = store_list(folder, &names, err);
    size_t count = json_array_size(names);
    if (rc < 0 || count <= BUILD_LOGS_MAX) {
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
        if (i >= BUILD_LOGS_MAX) {
            (void)unlink(files[i].path);
        }
        free(files[i].path);
    }
    free(files);
    return 0;
}

int housekeeping_round(struct image_builder *ib, int64_t grace_s, struct store_gc_result *ret,
                       struct trk_err *err)
{
    json_auto_t *roots = NULL;
    uploads_expire(ib->uploads, UPLOAD_IDLE_NS);
    int rc = prune_logs(ib->logs_dir, err);
    if (rc == 0) {
        rc = build_cache_prune(ib, ib->config->build_cache_retention_hours, &roots, err);
    }
    return rc < 0 ? rc : store_gc(ib->store, roots, grace_s, ret, err);
}

static void run_round(struct image_builder *ib)
{
    struct store_gc_result result = {0};
    struct trk_err err = {0};
    if (housekeeping_round(ib, BLOB_GRACE_S, &result, &err) < 0) {
        trk_log_warn("cleaning up the image store failed", "error", err.text, NULL);
    } else if (result.removed > 0) {
        char count[24], bytes[24];
        (void)snprintf(count, sizeof(count), "%llu", (unsigned long long)result.removed);
        (void)snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)result.removed_bytes);
        trk_log_info("unused blobs removed", "count", count, "bytes", bytes, NULL);
    }
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
        while (rc == 0 && !keeping->is_stopping) {
            rc = pthread_cond_timedwait(&keeping->changed, &keeping->lock, &until);
        }
        if (!keeping->is_stopping) {
            (void)pthread_mutex_unlock(&keeping->lock);
            run_round(keeping->ib);
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
    free(keeping);
}
