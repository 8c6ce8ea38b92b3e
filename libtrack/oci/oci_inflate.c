#include "libtrack/oci/oci_inflate.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define CHUNK      65536
#define RATIO_FREE (UINT64_C(16) << 20)

enum kind { KIND_UNKNOWN, KIND_TAR, KIND_GZIP };

struct oci_inflate {
    const unsigned char *bytes; /* the packed input, or NULL */
    size_t len;
    int fd;
    unsigned ratio_max;
    uint64_t stream_max, packed, unpacked, content_end;
    enum kind kind;
    z_stream z;
    bool is_member_open, is_padding, is_ended;
    size_t held; /* bytes in `in` that are not yet used (raw tar: given out at once) */
    unsigned char in[CHUNK], out[CHUNK];
};

struct oci_inflate *oci_inflate_new(const void *bytes, size_t len, int fd, unsigned ratio_max,
                                    uint64_t stream_max)
{
    struct oci_inflate *in = trk_xcalloc(1, sizeof(*in));
    in->bytes = bytes;
    in->len = len;
    in->fd = fd;
    in->ratio_max = ratio_max;
    in->stream_max = stream_max;
    return in;
}

void oci_inflate_free(struct oci_inflate *in)
{
    if (in != NULL && in->kind == KIND_GZIP) {
        (void)inflateEnd(&in->z);
    }
    free(in);
}

/* Fills in->in from its `held` bytes on. *ret_more is false at the end of the input. */
static int fill(struct oci_inflate *in, bool *ret_more, struct trk_err *err)
{
    size_t room = sizeof(in->in) - in->held;
    size_t got = 0;
    if (in->fd >= 0) {
        ssize_t n;
        do {
            n = read(in->fd, in->in + in->held, room);
        } while (n < 0 && errno == EINTR);
        if (n < 0) {
            return trk_err_errno(err, errno, "reading the archive");
        }
        got = (size_t)n;
    } else {
        got = in->len < room ? in->len : room;
        if (got > 0) {
            memcpy(in->in + in->held, in->bytes, got);
            in->bytes += got;
            in->len -= got;
        }
    }
    in->held += got;
    in->packed += got;
    *ret_more = got > 0;
    return 0;
}

/* Looks at the first two bytes (RFC 1952 §2.3.1). */
static int detect(struct oci_inflate *in, struct trk_err *err)
{
    bool has_more = true;
    while (in->held < 2 && has_more) {
        int rc = fill(in, &has_more, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (in->held < 2 || in->in[0] != 0x1f || in->in[1] != 0x8b) {
        in->kind = KIND_TAR;
        return 0;
    }
    if (inflateInit2(&in->z, 15 + 16) != Z_OK) {
        return trk_err_set(err, TRK_INTERNAL, "zlib could not be started");
    }
    in->kind = KIND_GZIP;
    in->is_member_open = true;
    return 0;
}

static int account(struct oci_inflate *in, const unsigned char *bytes, size_t len,
                   struct trk_err *err)
{
    for (size_t i = len; i > 0; i--) {
        if (bytes[i - 1] != 0) {
            in->content_end = in->unpacked + i;
            break;
        }
    }
    in->unpacked += len;
    if (in->unpacked > in->stream_max) {
        return trk_err_set(err, TRK_TOO_LARGE, "the archive unpacks to more than the allowed %s",
                           trk_size_text(in->stream_max).text);
    }
    if (in->unpacked > RATIO_FREE && in->unpacked / in->ratio_max > in->packed) {
        return trk_err_set(err, TRK_TOO_LARGE,
                           "the archive unpacks to more than %u times its size: it looks like a "
                           "decompression bomb",
                           in->ratio_max);
    }
    return 0;
}

/* Between members: another one, zero padding (which gzip allows too), or the end. */
static int next_member(struct oci_inflate *in, bool has_more, struct trk_err *err)
{
    size_t zeros = 0;
    while (zeros < in->held && in->in[zeros] == 0) {
        zeros++;
    }
    if (zeros > 0) {
        in->is_padding = true;
        in->held -= zeros;
        memmove(in->in, in->in + zeros, in->held);
    }
    if (in->held == 0) {
        in->is_ended = !has_more;
        return 0;
    }
    if (in->held == 1 && has_more && in->in[0] == 0x1f) {
        return 0;
    }
    if (in->is_padding || in->held < 2 || in->in[0] != 0x1f || in->in[1] != 0x8b) {
        return trk_err_set(err, TRK_INVALID, "the archive has other bytes behind its end");
    }
    (void)inflateReset(&in->z);
    in->is_member_open = true;
    return 0;
}

/* Undoes gzip for what is held. Returns the number of tar bytes made (0 is fine) or a code. */
static ssize_t inflate_some(struct oci_inflate *in, bool has_more, struct trk_err *err)
{
    in->z.next_in = in->in;
    in->z.avail_in = (uInt)in->held;
    in->z.next_out = in->out;
    in->z.avail_out = sizeof(in->out);
    int zrc = inflate(&in->z, Z_NO_FLUSH);
    size_t used = in->held - in->z.avail_in;
    size_t made = sizeof(in->out) - in->z.avail_out;
    in->held -= used;
    memmove(in->in, in->in + used, in->held);
    if (zrc == Z_STREAM_END) {
        in->is_member_open = false;
    } else if (zrc != Z_OK && zrc != Z_BUF_ERROR) {
        return trk_err_set(err, TRK_INVALID, "the archive is damaged: gzip says %s",
                           in->z.msg != NULL ? in->z.msg : "bad data");
    } else if (made == 0 && used == 0 && !has_more) {
        return trk_err_set(err, TRK_INVALID,
                           "the archive is cut off: its compressed data has no end");
    }
    return (ssize_t)made;
}

static ssize_t next_gzip(struct oci_inflate *in, struct trk_err *err)
{
    while (!in->is_ended) {
        bool has_more = true;
        int rc = in->held < sizeof(in->in) ? fill(in, &has_more, err) : 0;
        if (rc == 0 && !in->is_member_open) {
            rc = next_member(in, has_more, err);
        }
        if (rc < 0) {
            return rc;
        }
        if (in->is_member_open) {
            ssize_t made = inflate_some(in, has_more, err);
            if (made != 0) {
                return made;
            }
        }
    }
    return 0;
}

ssize_t oci_inflate_next(struct oci_inflate *in, const void **ret_bytes, struct trk_err *err)
{
    int rc = in->kind == KIND_UNKNOWN ? detect(in, err) : 0;
    if (rc < 0) {
        return rc;
    }
    ssize_t n;
    const unsigned char *bytes = in->out;
    if (in->kind == KIND_GZIP) {
        n = next_gzip(in, err);
    } else {
        bool has_more;
        bytes = in->in;
        rc = in->held == 0 ? fill(in, &has_more, err) : 0;
        n = rc < 0 ? rc : (ssize_t)in->held;
        in->held = 0;
    }
    if (n > 0) {
        rc = account(in, bytes, (size_t)n, err);
        *ret_bytes = bytes;
    }
    return rc < 0 ? rc : n;
}

uint64_t oci_inflate_content_end(const struct oci_inflate *in)
{
    return in->content_end;
}
