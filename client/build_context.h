/*
 * build_context.h - the folder of a job as a tar.gz to upload (libtrack/source/pack.h).
 */
#ifndef CLIENT_BUILD_CONTEXT_H
#define CLIENT_BUILD_CONTEXT_H

#include <jansson.h>
#include <stddef.h>

#include "libtrack/base/err.h"

/* What a deployment's request may carry is 96 MiB as base64 JSON (lifecycle's limit). */
#define BUILD_CONTEXT_BYTES_MAX ((size_t)70 << 20)

struct build_context {
    char *bytes; /* owned: tar.gz */
    size_t len;
    size_t file_count;
};
/* Without the files of secrets that the manifest names: their content is sent apart. TRK_TOO_LARGE
 * names the largest files and what to do. */
int build_context_pack(const char *folder, const json_t *manifest, struct build_context *ret,
                       struct trk_err *err) TRK_MUST_CHECK;
void build_context_fini(struct build_context *context);

#endif
