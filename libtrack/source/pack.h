/*
 * pack.h - the folder of a job as a deterministic tar.gz.
 *
 * Honours .gitignore (gitignore.h). The same files give the same bytes, so whoever gets them sees
 * that nothing has changed.
 */
#ifndef LIBTRACK_SOURCE_PACK_H
#define LIBTRACK_SOURCE_PACK_H

#include <jansson.h>

#include "libtrack/oci/oci.h"

#define TRK_SOURCE_UNPACKED_BYTES_MAX ((int64_t)2 << 30)

/* Writes it to out_fd, an empty file: digest and size_bytes of *ret are the tar.gz's. Without the
 * files of secrets that the manifest names: their content goes another way. TRK_TOO_LARGE (above
 * bytes_max packed, 0: as much as there is, or above TRK_SOURCE_UNPACKED_BYTES_MAX) names the
 * largest files and what to do. ret_count (files) may be NULL. */
int trk_source_pack(const char *folder, const json_t *manifest, int64_t bytes_max, int out_fd,
                    struct trk_oci_descriptor *ret, size_t *ret_count,
                    struct trk_err *err) TRK_MUST_CHECK;

#endif
