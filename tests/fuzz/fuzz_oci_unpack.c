/* Unpacking: whatever the bytes are, nothing appears beside the destination, and what was unpacked
 * without a fault can be packed again (so no device, no link out, no name that is not text). */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/oci/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned count_entries(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    trk_assert(dir != NULL);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(dir);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct trk_unpack_limits limits = {
        .entries_max = 200, .total_bytes_max = 1 << 20, .file_bytes_max = 1 << 19};
    const char *scratch = getenv("TEST_TMP");
    trk_autofree char *base = trk_xasprintf("%s/fuzz-unpack-XXXXXX",
                                            scratch != NULL ? scratch : "/tmp");
    trk_assert(mkdtemp(base) != NULL);
    trk_autofree char *dest = trk_xasprintf("%s/d", base);
    struct trk_err err = {0};
    trk_assert(trk_mkdir_p(dest, 0700, &err) == 0);
    {
        trk_autoclose int dirfd = open(dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        trk_assert(dirfd >= 0);
        int rc = trk_unpack(data, size, -1, dirfd, NULL, &limits, &err);
        trk_assert(rc == 0 || err.text[0] != '\0');
        if (rc == 0) {
            trk_autoclose int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
            struct trk_oci_descriptor layer;
            rc = trk_oci_layer_write(dirfd, "", null, 1, &layer, &err);
            if (rc < 0) {
                trk_die("packing again: %s", err.text);
            }
        }
    }
    trk_assert(count_entries(base) == 1);
    trk_assert(trk_rm_rf(base, &err) == 0);
    return 0;
}
