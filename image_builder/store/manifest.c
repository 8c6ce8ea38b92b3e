#include <dirent.h>
#include <errno.h>

#include "image_builder/store/internal.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"

#define INDEX_DEPTH_MAX 4
#define WALK_DEPTH_MAX  64

static char *link_path(const struct store *store, const char *repository, const char *digest)
{
    return store_path(store, "repositories/%s/_manifests/%s", repository, digest + 7);
}

static char *tag_path(const struct store *store, const char *repository, const char *tag)
{
    return store_path(store, "repositories/%s/_tags/%s", repository, tag);
}

/* ---- writing ---- */

static int check_blobs(struct store *store, const struct trk_oci_image *image, struct trk_err *err)
{
    for (size_t i = 0; i <= image->layer_count; i++) {
        const struct trk_oci_descriptor *d = i == 0 ? &image->config : &image->layers[i - 1];
        int64_t size;
        if (d->digest[0] == '\0') {
            continue; /* an index has no config */
        }
        if (!store_blob_has(store, d->digest, &size)) {
            return trk_err_set(err, TRK_NOT_FOUND,
                               "the manifest refers to the blob %s, which is "
                               "not here: upload it first",
                               d->digest);
        }
        if (size != d->size_bytes) {
            return trk_err_set(err, TRK_INVALID,
                               "the manifest says that %s has %lld bytes; it has "
                               "%lld",
                               d->digest, (long long)d->size_bytes, (long long)size);
        }
    }
    return 0;
}

/* Files that are to appear together. */
struct batch {
    struct store *store;
    struct store_temp *temps[STORE_IMAGE_TEMPS_MAX + 4];
    bool is_owned[STORE_IMAGE_TEMPS_MAX + 4];
    char *paths[STORE_IMAGE_TEMPS_MAX + 4];
    char digests[STORE_IMAGE_TEMPS_MAX + 4][TRK_DIGEST_SIZE]; /* of blobs; "" for other files */
    size_t count;
};

static void batch_fini(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->is_owned[i]) {
            store_temp_free(batch->temps[i]);
        }
        free(batch->paths[i]);
    }
}

static void batch_add(struct batch *batch, struct store_temp *temp, bool is_owned, char *path,
                      const char *digest)
{
    trk_assert(batch->count < TRK_COUNT(batch->temps));
    size_t i = batch->count++;
    batch->temps[i] = temp;
    batch->is_owned[i] = is_owned;
    batch->paths[i] = path;
    (void)snprintf(batch->digests[i], sizeof(batch->digests[i]), "%s", digest);
}

/* Takes path. */
static int batch_add_bytes(struct batch *batch, char *path, const char *digest, const void *bytes,
                           size_t len, struct trk_err *err)
{
    struct store_temp *temp = NULL;
    int rc = store_temp_new(batch->store, &temp, err);
    if (rc < 0) {
        free(path);
        return rc;
    }
    batch_add(batch, temp, true, path, digest);
    rc = store_temp_add(temp, bytes, len, err);
    if (rc == 0 && digest[0] != '\0') {
        rc = store_temp_seal(temp, (int64_t)len, err);
    }
    return rc;
}

static int batch_add_blob(struct batch *batch, const void *bytes, size_t len,
                          char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    trk_digest(bytes, len, ret_digest);
    if (store_blob_has(batch->store, ret_digest, NULL)) {
        return 0;
    }
    return batch_add_bytes(batch, store_blob_path(batch->store, ret_digest), ret_digest, bytes, len,
                           err);
}

static int batch_commit(struct batch *batch, struct trk_err *err)
{
    struct store_pending pending[TRK_COUNT(batch->temps)];
    for (size_t i = 0; i < batch->count; i++) {
        pending[i] = store_temp_pending(batch->temps[i], batch->paths[i]);
    }
    int rc = store_publish(batch->store, pending, batch->count, err);
    for (size_t i = 0; i < batch->count; i++) {
        if (pending[i].is_done) {
            store_temp_done(batch->temps[i],
                            batch->digests[i][0] != '\0' ? batch->digests[i] : NULL);
        }
    }
    return rc;
}

/* The manifest, its link and its tag. */
static int batch_add_manifest(struct batch *batch, const char *repository, const char *tag,
                              const char *media_type, const char *bytes, size_t len,
                              char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    int rc = batch_add_blob(batch, bytes, len, ret_digest, err);
    if (rc == 0) {
        rc = batch_add_bytes(batch, link_path(batch->store, repository, ret_digest), "", media_type,
                             strlen(media_type), err);
    }
    if (rc == 0 && tag != NULL) {
        rc = batch_add_bytes(batch, tag_path(batch->store, repository, tag), "", ret_digest,
                             strlen(ret_digest), err);
    }
    return rc;
}

int store_manifest_put(struct store *store, const char *repository, const char *tag,
                       const char *media_type, const char *bytes, size_t len,
                       char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    trk_autofree struct trk_oci_image *image = trk_xcalloc(1, sizeof(*image));
    struct batch batch = {.store = store};
    char digest[TRK_DIGEST_SIZE];
    int rc = trk_oci_manifest_parse(bytes, len, image, err);
    if (rc == 0) {
        rc = check_blobs(store, image, err); /* also marks them as just used: see store_gc */
    }
    if (rc == 0) {
        rc = batch_add_manifest(&batch, repository, tag, media_type, bytes, len, digest, err);
    }
    if (rc == 0) {
        rc = batch_commit(&batch, err);
    }
    if (rc == 0) {
        memcpy(ret_digest, digest, sizeof(digest));
    }
    batch_fini(&batch);
    return rc;
}

static int batch_add_image(struct batch *batch, const struct store_image *image,
                           char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    char config_digest[TRK_DIGEST_SIZE];
    trk_assert(image->count <= STORE_IMAGE_TEMPS_MAX);
    for (size_t i = 0; i < image->count; i++) {
        const struct trk_oci_descriptor *d = &image->descriptors[i];
        if (store_blob_has(batch->store, d->digest, NULL)) {
            continue;
        }
        int rc = store_temp_seal(image->temps[i], d->size_bytes, err);
        if (rc < 0) {
            return rc;
        }
        batch_add(batch, image->temps[i], false, store_blob_path(batch->store, d->digest),
                  d->digest);
    }
    int rc = batch_add_blob(batch, image->config, strlen(image->config), config_digest, err);
    return rc < 0 ? rc
                  : batch_add_manifest(batch, image->repository, image->tag, TRK_OCI_MANIFEST_TYPE,
                                       image->manifest, strlen(image->manifest), ret_digest, err);
}

int store_image_put(struct store *store, const struct store_image *image,
                    char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    struct batch batch = {.store = store};
    char digest[TRK_DIGEST_SIZE];
    int rc = batch_add_image(&batch, image, digest, err);
    if (rc == 0) {
        rc = batch_commit(&batch, err);
    }
    if (rc == 0) {
        memcpy(ret_digest, digest, sizeof(digest));
    }
    batch_fini(&batch);
    return rc;
}

/* ---- reading ---- */

static int read_tag(struct store *store, const char *repository, const char *tag,
                    char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    trk_autofree char *path = tag_path(store, repository, tag);
    trk_autofree char *text = NULL;
    size_t len;
    int rc = trk_file_read(path, TRK_DIGEST_SIZE, &text, &len, err);
    if (rc == TRK_NOT_FOUND) {
        return trk_err_set(err, TRK_NOT_FOUND, "%s has no tag %s", repository, tag);
    }
    if (rc < 0) {
        return rc;
    }
    if (!trk_digest_is_valid(text)) {
        return trk_err_set(err, TRK_INTERNAL, "%s holds no digest", path);
    }
    memcpy(ret_digest, text, TRK_DIGEST_SIZE);
    return 0;
}

int store_manifest_get(struct store *store, const char *repository, const char *reference,
                       char **ret_bytes, size_t *ret_len, char **ret_type,
                       char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    char digest[TRK_DIGEST_SIZE];
    int rc = 0;
    if (trk_digest_is_valid(reference)) {
        memcpy(digest, reference, sizeof(digest));
    } else {
        rc = read_tag(store, repository, reference, digest, err);
    }
    if (rc < 0) {
        return rc;
    }
    trk_autofree char *link = link_path(store, repository, digest);
    trk_autofree char *type = NULL;
    size_t type_len;
    rc = trk_file_read(link, 256, &type, &type_len, err);
    if (rc == TRK_NOT_FOUND) {
        return trk_err_set(err, TRK_NOT_FOUND, "%s has no manifest %s", repository, digest);
    }
    if (rc == 0) {
        rc = store_blob_read(store, digest, STORE_MANIFEST_MAX, ret_bytes, ret_len, err);
    }
    if (rc == 0) {
        *ret_type = TRK_STEAL(type);
        memcpy(ret_digest, digest, sizeof(digest));
    }
    return rc;
}

static bool has_repository(struct store *store, const char *repository)
{
    trk_autofree char *path = store_path(store, "repositories/%s/_manifests", repository);
    return trk_path_exists(path);
}

int store_tags(struct store *store, const char *repository, json_t **ret, struct trk_err *err)
{
    if (!has_repository(store, repository)) {
        return trk_err_set(err, TRK_NOT_FOUND, "there is no repository %s", repository);
    }
    trk_autofree char *path = store_path(store, "repositories/%s/_tags", repository);
    return store_list(path, ret, err);
}

/* ---- deleting ---- */

static int remove_file(const char *path, const char *what, struct trk_err *err)
{
    if (unlink(path) < 0) {
        return errno == ENOENT ? trk_err_set(err, TRK_NOT_FOUND, "there is no %s", what)
                               : trk_err_errno(err, errno, "deleting %s", what);
    }
    return store_fsync_parent(path, err);
}

static int remove_tags_on(struct store *store, const char *repository, const char *digest,
                          struct trk_err *err)
{
    json_auto_t *tags = NULL;
    int rc = store_tags(store, repository, &tags, err);
    size_t i;
    json_t *tag;
    json_array_foreach (tags, i, tag) {
        char is[TRK_DIGEST_SIZE];
        const char *name = json_string_value(tag);
        if (rc == 0 && read_tag(store, repository, name, is, err) == 0 && strcmp(is, digest) == 0) {
            trk_autofree char *path = tag_path(store, repository, name);
            rc = remove_file(path, "tag", err);
        }
    }
    return rc;
}

int store_manifest_delete(struct store *store, const char *repository, const char *reference,
                          struct trk_err *err)
{
    if (!trk_digest_is_valid(reference)) {
        trk_autofree char *path = tag_path(store, repository, reference);
        return remove_file(path, "such tag", err);
    }
    trk_autofree char *link = link_path(store, repository, reference);
    if (!trk_path_exists(link)) {
        return trk_err_set(err, TRK_NOT_FOUND, "%s has no manifest %s", repository, reference);
    }
    /* tags first: one that points nowhere would be worse than a manifest without a tag */
    int rc = remove_tags_on(store, repository, reference, err);
    return rc < 0 ? rc : remove_file(link, "such manifest", err);
}

/* ---- walking ---- */

static int walk(struct store *store, const char *name, unsigned depth,
                int (*fn)(void *ctx, const char *repository, struct trk_err *err), void *ctx,
                struct trk_err *err)
{
    trk_autofree char *path = store_path(store, "repositories%s%s", name[0] != '\0' ? "/" : "",
                                         name);
    json_auto_t *names = NULL;
    int rc = depth < WALK_DEPTH_MAX ? store_list(path, &names, err) : 0;
    if (rc == 0 && name[0] != '\0' && has_repository(store, name)) {
        rc = fn(ctx, name, err);
    }
    size_t i;
    json_t *sub;
    json_array_foreach (names, i, sub) {
        if (rc == 0 && json_string_value(sub)[0] != '_') {
            trk_autofree char *below = trk_xasprintf("%s%s%s", name, name[0] != '\0' ? "/" : "",
                                                     json_string_value(sub));
            rc = walk(store, below, depth + 1, fn, ctx, err);
        }
    }
    return rc;
}

int store_walk_repositories(struct store *store,
                            int (*fn)(void *ctx, const char *repository, struct trk_err *err),
                            void *ctx, struct trk_err *err)
{
    return walk(store, "", 0, fn, ctx, err);
}

static int add_name(void *ctx, const char *repository, struct trk_err *err)
{
    (void)err;
    (void)json_array_append_new(ctx, json_string(repository));
    return 0;
}

int store_repositories(struct store *store, json_t **ret, struct trk_err *err)
{
    json_auto_t *list = json_array();
    int rc = store_walk_repositories(store, add_name, list, err);
    if (rc == 0) {
        *ret = TRK_STEAL(list);
    }
    return rc;
}

/* ---- marking ---- */

static int mark(struct store *store, const char *digest, unsigned depth, json_t *set,
                struct trk_err *err)
{
    trk_autofree char *bytes = NULL;
    trk_autofree struct trk_oci_image *image = trk_xcalloc(1, sizeof(*image));
    size_t len;
    int rc = store_blob_read(store, digest, STORE_MANIFEST_MAX, &bytes, &len, err);
    if (rc == 0) {
        rc = trk_oci_manifest_parse(bytes, len, image, err);
    }
    if (rc == TRK_NOT_FOUND || rc == TRK_INVALID || rc == TRK_TOO_LARGE) {
        /* damaged: it can not be served either, so nothing hangs on what it named */
        trk_log_warn("a manifest of the image store is missing or damaged", "digest", digest,
                     "error", err->text, NULL);
        *err = (struct trk_err){0};
        return 0;
    }
    if (rc < 0) {
        return rc;
    }
    (void)json_object_set_new(set, digest, json_true());
    bool is_index = image->config.digest[0] == '\0';
    if (!is_index) {
        (void)json_object_set_new(set, image->config.digest, json_true());
    }
    for (size_t i = 0; rc == 0 && i < image->layer_count; i++) {
        (void)json_object_set_new(set, image->layers[i].digest, json_true());
        if (is_index && depth < INDEX_DEPTH_MAX) {
            rc = mark(store, image->layers[i].digest, depth + 1, set, err);
        }
    }
    return rc;
}

int store_mark_manifest(struct store *store, const char *digest, json_t *set, struct trk_err *err)
{
    return mark(store, digest, 0, set, err);
}

struct mark_all {
    struct store *store;
    json_t *set;
};

static int mark_repository(void *ctx, const char *repository, struct trk_err *err)
{
    struct mark_all *m = ctx;
    trk_autofree char *path = store_path(m->store, "repositories/%s/_manifests", repository);
    json_auto_t *list = NULL;
    int rc = store_list(path, &list, err);
    size_t i;
    json_t *hex;
    json_array_foreach (list, i, hex) {
        char digest[TRK_DIGEST_SIZE];
        (void)snprintf(digest, sizeof(digest), "sha256:%s", json_string_value(hex));
        if (rc == 0 && trk_digest_is_valid(digest)) {
            rc = store_mark_manifest(m->store, digest, m->set, err);
        }
    }
    return rc;
}

int store_mark_all(struct store *store, json_t *set, struct trk_err *err)
{
    struct mark_all m = {store, set};
    return store_walk_repositories(store, mark_repository, &m, err);
}
