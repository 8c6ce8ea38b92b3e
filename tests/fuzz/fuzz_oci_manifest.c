/* Image manifests: an accepted one has valid digests and sizes only. */
#include <stdint.h>

#include "libtrack/base/mem.h"
#include "libtrack/oci/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trk_err err = {0};
    trk_autofree struct trk_oci_image *image = trk_xcalloc(1, sizeof(*image));
    if (trk_oci_manifest_parse((const char *)data, size, image, &err) < 0) {
        trk_assert(err.text[0] != '\0');
        return 0;
    }
    trk_assert(image->config.digest[0] == '\0' || trk_digest_is_valid(image->config.digest));
    trk_assert(image->layer_count <= TRK_COUNT(image->layers));
    for (size_t i = 0; i < image->layer_count; i++) {
        trk_assert(trk_digest_is_valid(image->layers[i].digest));
        trk_assert(image->layers[i].size_bytes >= 0);
    }
    return 0;
}
