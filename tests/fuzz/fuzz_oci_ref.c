/* Image references: an accepted one is put together again to a text that parses to the same. */
#include <stdint.h>

#include "libtrack/base/mem.h"
#include "libtrack/oci/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    trk_autofree char *text = trk_xstrndup((const char *)data, size);
    struct trk_err err = {0};
    struct trk_oci_ref ref, again;
    if (trk_oci_ref_parse(text, &ref, &err) < 0) {
        return 0;
    }
    trk_autofree char *whole = trk_xasprintf("%s/%s%c%s", ref.registry, ref.repository,
                                             trk_digest_is_valid(ref.reference) ? '@' : ':',
                                             ref.reference);
    trk_assert(trk_oci_ref_parse(whole, &again, &err) == 0);
    trk_assert(strcmp(ref.registry, again.registry) == 0);
    trk_assert(strcmp(ref.repository, again.repository) == 0);
    trk_assert(strcmp(ref.reference, again.reference) == 0);
    return 0;
}
