#include "image_builder/api/uploads.h"

#include <pthread.h>

#include "libtrack/base/mem.h"

struct uploads {
    struct store *store;
    pthread_mutex_t lock;
    struct upload *list;
    unsigned count;
};

struct uploads *uploads_new(struct store *store)
{
    struct uploads *uploads = trk_xcalloc(1, sizeof(*uploads));
    uploads->store = store;
    (void)pthread_mutex_init(&uploads->lock, NULL);
    return uploads;
}

static void upload_free(struct upload *upload)
{
    store_temp_free(upload->temp);
    free(upload);
}

void uploads_free(struct uploads *uploads)
{
    if (uploads == NULL) {
        return;
    }
    for (struct upload *next, *u = uploads->list; u != NULL; u = next) {
        next = u->next;
        upload_free(u);
    }
    (void)pthread_mutex_destroy(&uploads->lock);
    free(uploads);
}

int uploads_start(struct uploads *uploads, const char *repository, struct upload **ret,
                  struct trk_err *err)
{
    uploads_expire(uploads, UPLOAD_IDLE_NS);
    struct store_temp *temp;
    int rc = store_temp_new(uploads->store, &temp, err);
    if (rc < 0) {
        return rc;
    }
    struct upload *upload = trk_xcalloc(1, sizeof(*upload));
    trk_uuid4(upload->id);
    (void)snprintf(upload->repository, sizeof(upload->repository), "%s", repository);
    upload->owner = uploads;
    upload->temp = temp;
    upload->is_taken = true;
    upload->used_ns = trk_now_ns();
    (void)pthread_mutex_lock(&uploads->lock);
    bool is_full = uploads->count == UPLOADS_MAX;
    if (!is_full) {
        upload->next = uploads->list;
        uploads->list = upload;
        uploads->count++;
    }
    (void)pthread_mutex_unlock(&uploads->lock);
    if (is_full) {
        upload_free(upload);
        return trk_err_set(err, TRK_TOO_MANY, "%u uploads are open: end some of them first",
                           UPLOADS_MAX);
    }
    *ret = upload;
    return 0;
}

int uploads_take(struct uploads *uploads, const char *id, const char *repository,
                 struct upload **ret, struct trk_err *err)
{
    int rc = trk_err_set(err, TRK_NOT_FOUND, "there is no upload %.40s: begin again", id);
    (void)pthread_mutex_lock(&uploads->lock);
    for (struct upload *u = uploads->list; u != NULL; u = u->next) {
        if (strcmp(u->id, id) != 0 || strcmp(u->repository, repository) != 0) {
            continue;
        }
        if (u->is_taken) {
            rc = trk_err_set(err, TRK_CONFLICT, "another request is writing to the upload %s", id);
        } else {
            u->is_taken = true;
            *ret = u;
            rc = 0;
        }
        break;
    }
    (void)pthread_mutex_unlock(&uploads->lock);
    return rc;
}

void uploads_release(struct uploads *uploads, struct upload *upload)
{
    (void)pthread_mutex_lock(&uploads->lock);
    upload->used_ns = trk_now_ns();
    upload->is_taken = false;
    (void)pthread_mutex_unlock(&uploads->lock);
}

static void unlink_upload(struct uploads *uploads, struct upload *upload)
{
    struct upload **at = &uploads->list;
    while (*at != upload) {
        at = &(*at)->next;
    }
    *at = upload->next;
    uploads->count--;
}

void uploads_end(struct uploads *uploads, struct upload *upload)
{
    (void)pthread_mutex_lock(&uploads->lock);
    unlink_upload(uploads, upload);
    (void)pthread_mutex_unlock(&uploads->lock);
    upload_free(upload);
}

void uploads_expire(struct uploads *uploads, int64_t idle_ns)
{
    struct upload *ended = NULL;
    (void)pthread_mutex_lock(&uploads->lock);
    int64_t before = trk_now_ns() - idle_ns;
    for (struct upload *next, *u = uploads->list; u != NULL; u = next) {
        next = u->next;
        if (!u->is_taken && u->used_ns <= before) {
            unlink_upload(uploads, u);
            u->next = ended;
            ended = u;
        }
    }
    (void)pthread_mutex_unlock(&uploads->lock);
    for (struct upload *next; ended != NULL; ended = next) {
        next = ended->next;
        upload_free(ended);
    }
}
