/* The depot of builds that run beside the stores. */
#include "image_builder/store/depot.h"

#include "image_builder/store/store.h"
#include "libtrack/base/mem.h"

struct depot {
    struct store *images, *sources;
};
struct depot_layer {
    struct depot *depot;
    struct store_temp *temp;
};

struct depot *depot_new(struct store *images, struct store *sources)
{
    struct depot *depot = trk_xcalloc(1, sizeof(*depot));
    *depot = (struct depot){images, sources};
    return depot;
}

void depot_free(struct depot *depot)
{
    free(depot);
}

int depot_open_source(struct depot *depot, const char *digest, int *ret_fd, int64_t *ret_size,
                      struct trk_err *err)
{
    return store_blob_open(depot->sources, digest, ret_fd, ret_size, err);
}

int depot_layer_new(struct depot *depot, struct depot_layer **ret, struct trk_err *err)
{
    struct store_temp *temp;
    int rc = store_temp_new(depot->images, &temp, err);
    if (rc == 0) {
        *ret = trk_xcalloc(1, sizeof(**ret));
        **ret = (struct depot_layer){depot, temp};
    }
    return rc;
}

int depot_layer_fd(const struct depot_layer *layer)
{
    return store_temp_fd(layer->temp);
}

void depot_layer_free(struct depot_layer *layer)
{
    if (layer != NULL) {
        store_temp_free(layer->temp);
        free(layer);
    }
}

int depot_layer_put(struct depot_layer *layer, const char *key,
                    const struct trk_oci_descriptor *descriptor, struct trk_err *err)
{
    int rc = store_temp_commit_as(layer->temp, descriptor->digest, descriptor->size_bytes, err);
    return rc < 0 ? rc : store_cache_put(layer->depot->images, key, descriptor, err);
}

bool depot_layer_find(struct depot *depot, const char *key, struct trk_oci_descriptor *ret)
{
    return store_cache_get(depot->images, key, ret);
}

int depot_image_put(struct depot *depot, const struct depot_image *image,
                    char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    const struct store_image whole = {.repository = image->repository,
                                      .tag = image->tag,
                                      .config = image->config,
                                      .manifest = image->manifest,
                                      .temps = &image->layer->temp,
                                      .descriptors = image->descriptor,
                                      .count = 1};
    return store_image_put(depot->images, &whole, ret_digest, err);
}
