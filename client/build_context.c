#include "client/build_context.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/source/pack.h"

static int read_back(int fd, struct build_context *ret, struct trk_err *err)
{
    struct trk_buf buf;
    trk_buf_init(&buf, BUILD_CONTEXT_BYTES_MAX);
    if (lseek(fd, 0, SEEK_SET) < 0) {
        trk_buf_fini(&buf);
        return trk_err_errno(err, errno, "reading the packed files");
    }
    int rc = trk_buf_read_fd(&buf, fd, err);
    if (rc == 0) {
        ret->bytes = trk_buf_steal(&buf, &ret->len);
    }
    trk_buf_fini(&buf);
    return rc;
}

/* Packed through a file without a name, so that a large folder does not sit in memory. */
static int temporary_file(int *ret, struct trk_err *err)
{
    const char *tmp = getenv("TMPDIR");
    int fd = open(tmp != NULL ? tmp : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        trk_autofree char *path = trk_xasprintf("%s/racetrack-XXXXXX", tmp != NULL ? tmp : "/tmp");
        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0) {
            return trk_err_errno(err, errno, "making a temporary file");
        }
        (void)unlink(path);
    }
    *ret = fd;
    return 0;
}

int build_context_pack(const char *folder, const json_t *manifest, struct build_context *ret,
                       struct trk_err *err)
{
    trk_autoclose int fd = -1;
    struct trk_oci_descriptor packed;
    struct build_context context = {0};
    int rc = temporary_file(&fd, err);
    rc = rc == 0 ? trk_source_pack(folder, manifest, BUILD_CONTEXT_BYTES_MAX, fd, &packed,
                                   &context.file_count, err)
                 : rc;
    rc = rc == 0 ? read_back(fd, &context, err) : rc;
    if (rc == 0) {
        *ret = context;
    }
    return rc;
}

void build_context_fini(struct build_context *context)
{
    free(context->bytes);
    *context = (struct build_context){0};
}
