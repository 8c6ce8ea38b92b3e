/*
 * depot.h - all that builds have to do with the stores: a source by its digest, layers that were
 * made before by a key, new layers, the image. Nothing here names a path of theirs, so that a
 * builder on another machine can do the same over HTTP (GET of a source, GET and PUT of a key, an
 * upload of a blob, PUT of a manifest); build/ includes nothing of store/. Any thread; a layer
 * belongs to one.
 */
#ifndef IMAGE_BUILDER_BUILD_DEPOT_H
#define IMAGE_BUILDER_BUILD_DEPOT_H

#include <stdbool.h>

#include "libtrack/oci/oci.h"

struct depot;

/* TRK_NOT_FOUND when it is not kept (any more). */
int depot_open_source(struct depot *depot, const char *digest, int *ret_fd, int64_t *ret_size,
                      struct trk_err *err) TRK_MUST_CHECK;

/* A layer while it is written; what is not put goes with it. */
struct depot_layer;
int depot_layer_new(struct depot *depot, struct depot_layer **ret,
                    struct trk_err *err) TRK_MUST_CHECK;
int depot_layer_fd(const struct depot_layer *layer);
void depot_layer_free(struct depot_layer *layer); /* takes NULL */
/* Keeps what was written to the descriptor, as `descriptor` says, and remembers it by the key. */
int depot_layer_put(struct depot_layer *layer, const char *key,
                    const struct trk_oci_descriptor *descriptor,
                    struct trk_err *err) TRK_MUST_CHECK;
/* What was put with the key; false when there is none (any more). */
bool depot_layer_find(struct depot *depot, const char *key, struct trk_oci_descriptor *ret);

/* Keeps an image at once: its new layer, its configuration, its manifest, its tag. The manifest's
 * other layers are kept already. */
struct depot_image {
    const char *repository, *tag;
    const char *config, *manifest; /* JSON texts */
    struct depot_layer *layer;
    const struct trk_oci_descriptor *descriptor; /* of the layer */
};
int depot_image_put(struct depot *depot, const struct depot_image *image,
                    char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err) TRK_MUST_CHECK;

#endif
