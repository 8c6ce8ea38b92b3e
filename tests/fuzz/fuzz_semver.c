/* Versions: two texts, separated by a line break. Ordering is a total order that agrees with itself
 * both ways round, patterns and versions exclude each other, resource names tell jobs apart. */
#include <stdint.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/semver.h"
#include "libtrack/manifest/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int sign(int n)
{
    return (n > 0) - (n < 0);
}

static void check_names(const char *a, const char *b)
{
    struct trk_buf first;
    struct trk_buf second;
    trk_buf_init(&first, 64);
    trk_buf_init(&second, 64);
    trk_assert(trk_manifest_resource_name("job", a, &first) == 0 && first.len <= 63);
    trk_assert(trk_manifest_resource_name("job", b, &second) == 0 && second.len <= 63);
    trk_assert((strcmp(first.data, second.data) == 0) == (strcmp(a, b) == 0));
    trk_buf_fini(&first);
    trk_buf_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    trk_autofree char *a = trk_xstrndup((const char *)data, size);
    char *b = strchr(a, '\n');
    struct trk_semver va, vb;
    if (b == NULL) {
        return 0;
    }
    *b++ = '\0';
    bool a_is_version = trk_semver_parse(a, &va, NULL) == 0;
    trk_assert(!(a_is_version && trk_semver_is_wildcard(a)));
    if (!a_is_version) {
        return 0;
    }
    trk_assert(trk_semver_compare(&va, &va) == 0);
    (void)trk_semver_matches(&va, b);
    if (trk_semver_parse(b, &vb, NULL) == 0) {
        trk_assert(sign(trk_semver_compare(&va, &vb)) == -sign(trk_semver_compare(&vb, &va)));
        check_names(a, b);
    }
    return 0;
}
