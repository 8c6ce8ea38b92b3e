/*
 * context.h - the build context of a deployment that comes in: a file without a name until it lies
 * in the image store. One thread.
 */
#ifndef LIFECYCLE_DEPLOY_CONTEXT_H
#define LIFECYCLE_DEPLOY_CONTEXT_H

#include <jansson.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/err.h"

struct context {
    int fd; /* tar or tar.gz; -1: none */
    int64_t size_bytes;
    char digest[TRK_DIGEST_SIZE]; /* once it has ended */
    struct trk_sha256_ctx *sha;
};
#define CONTEXT_NONE ((struct context){.fd = -1})
void context_fini(struct context *context);
#define context_auto __attribute__((cleanup(context_fini)))

/* An empty one below the state folder, to be written with context_add, then context_end. */
int context_begin(const char *state_dir, struct context *ret, struct trk_err *err) TRK_MUST_CHECK;
/* All contexts of the process that are being taken in have `spool_max_bytes` together:
 * TRK_UNAVAILABLE beyond it. */
int context_add(struct context *context, const void *bytes, size_t len, int64_t spool_max_bytes,
                struct trk_err *err) TRK_MUST_CHECK;
void context_end(struct context *context);

/* Sees to it that the files of secrets that the manifest names are not in the context: what lies in
 * the store can be read by every builder. Clients of the original put them into both the context
 * and secret_vars; then they are taken out here (the context is packed anew) and `warnings` says
 * so. A client that put them into the context alone is told (TRK_INVALID): that they are secrets
 * would be known too late. */
int context_take_out_secrets(struct context *context, const char *state_dir, const json_t *manifest,
                             const json_t *secret_vars, struct trk_buf *warnings,
                             struct trk_err *err) TRK_MUST_CHECK;

/* Removes what a killed lifecycle left unpacked (secrets may be in it); what another one is at
 * stays. */
void context_sweep(const char *state_dir);

#endif
