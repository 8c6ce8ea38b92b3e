/*
 * oci_inflate.h - a .tar or .tar.gz as a stream of tar bytes, with its own caps. Only for
 * libtrack/oci_*.c.
 *
 * libarchive could undo gzip as well, but then nothing of what is checked here could be: the ratio
 * while it grows, a cut-off member, bytes behind the last one. One reader, one thread.
 */
#ifndef LIBTRACK_OCI_INFLATE_H
#define LIBTRACK_OCI_INFLATE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "libtrack/base/err.h"

struct oci_inflate;

/* Exactly one of bytes and fd (>= 0) is given; both are borrowed, the descriptor is read from where
 * it stands. ratio_max: unpacked : packed past the first 16 MiB; stream_max: tar bytes at most. */
struct oci_inflate *oci_inflate_new(const void *bytes, size_t len, int fd, unsigned ratio_max,
                                    uint64_t stream_max);
void oci_inflate_free(struct oci_inflate *in);
/* The next tar bytes: their number (valid until the next call), 0 at the end, or a negative code.
 */
ssize_t oci_inflate_next(struct oci_inflate *in, const void **ret_bytes, struct trk_err *err);
/* Position behind the last tar byte so far that is not zero: what lies behind an archive's end must
 * be zeros. */
uint64_t oci_inflate_content_end(const struct oci_inflate *in);

#endif
