/*
 * store.h - the content store: blobs by SHA-256, manifests and tags of repositories.
 *
 * A folder:
 *     blobs/sha256/<digits>                   content; read-only, complete whenever visible
 *     repositories/<name>/_manifests/<digits> media type of a manifest that the repository holds
 *     repositories/<name>/_tags/<tag>         digest of a manifest
 *     cache/                                  what build steps made before (see cache.c)
 *     tmp/                                    what is being written; emptied when the store opens
 * Everything appears by rename after fsync, so that kill -9 at any moment leaves either nothing or
 * the whole. A blob is verified when it comes and again before it is first served after a change of
 * the file (the answer is remembered by inode, size and time); one that fails is put aside in
 * corrupt/ and is as good as missing: pushing or building again heals it. One process owns the
 * folder (lock file). Any thread.
 */
#ifndef IMAGE_BUILDER_STORE_STORE_H
#define IMAGE_BUILDER_STORE_STORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/err.h"
#include "libtrack/oci/oci.h"

struct store;

/* Creates the folder when it is missing. TRK_CONFLICT when another process owns it (waits up to
 * wait_ms for one that is ending). */
int store_open(const char *root, int64_t wait_ms, struct store **ret,
               struct trk_err *err) TRK_MUST_CHECK;
void store_close(struct store *store); /* takes NULL */
const char *store_root(const struct store *store);

/* -- writing a blob -- */
struct store_temp;
int store_temp_new(struct store *store, struct store_temp **ret,
                   struct trk_err *err) TRK_MUST_CHECK;
void store_temp_free(struct store_temp *temp); /* drops what was not committed; takes NULL */
void store_temp_cleanup(struct store_temp **temp);
#define STORE_TEMP_AUTO(name) __attribute__((cleanup(store_temp_cleanup))) struct store_temp *name
int store_temp_fd(const struct store_temp *temp); /* for writers that hash for themselves */
int store_temp_add(struct store_temp *temp, const void *bytes, size_t len,
                   struct trk_err *err) TRK_MUST_CHECK;
int64_t store_temp_size(const struct store_temp *temp); /* bytes added */
/* Makes what was added a blob. TRK_INVALID when `want` (may be NULL) is not its digest. The temp
 * stays to be freed. */
int store_temp_commit(struct store_temp *temp, const char *want, char ret_digest[TRK_DIGEST_SIZE],
                      struct trk_err *err) TRK_MUST_CHECK;
/* The same for what was written to the descriptor by a writer that hashed it. */
int store_temp_commit_as(struct store_temp *temp, const char *digest, int64_t size_bytes,
                         struct trk_err *err) TRK_MUST_CHECK;
int store_put(struct store *store, const void *bytes, size_t len, char ret_digest[TRK_DIGEST_SIZE],
              struct trk_err *err) TRK_MUST_CHECK;

/* -- reading -- */
/* Opens a verified blob; TRK_NOT_FOUND also for a corrupt one. Keeps it from being collected for a
 * while. */
int store_blob_open(struct store *store, const char *digest, int *ret_fd, int64_t *ret_size,
                    struct trk_err *err) TRK_MUST_CHECK;
bool store_blob_has(struct store *store, const char *digest, int64_t *ret_size);
/* Whole, at most cap_bytes; *ret owned, terminated. */
int store_blob_read(struct store *store, const char *digest, size_t cap_bytes, char **ret,
                    size_t *ret_len, struct trk_err *err) TRK_MUST_CHECK;
/* Removes it at once; TRK_NOT_FOUND. TRK_CONFLICT while a manifest refers to it. */
int store_blob_delete(struct store *store, const char *digest, struct trk_err *err) TRK_MUST_CHECK;

/* -- repositories; names and tags were checked by the caller (trk_oci_*_is_valid) -- */
#define STORE_MANIFEST_MAX (4U << 20)
/* Stores a manifest whose blobs must all be there (TRK_NOT_FOUND names the missing one; TRK_INVALID
 * for a document that is none) and, with `tag`, points the tag to it. */
int store_manifest_put(struct store *store, const char *repository, const char *tag,
                       const char *media_type, const char *bytes, size_t len,
                       char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err) TRK_MUST_CHECK;
/* Stores a whole image at once: the blobs that temps hold (each written by a writer that hashed it;
 * descriptors say digest and size), the config, the manifest, the tag. Other blobs of the manifest
 * must be there. The temps stay to be freed. */
struct store_image {
    const char *repository, *tag;
    const char *config, *manifest; /* JSON texts */
    struct store_temp *const *temps;
    const struct trk_oci_descriptor *descriptors;
    size_t count;
};
#define STORE_IMAGE_TEMPS_MAX 8
int store_image_put(struct store *store, const struct store_image *image,
                    char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err) TRK_MUST_CHECK;
/* By tag or digest. *ret_bytes and *ret_type owned. */
int store_manifest_get(struct store *store, const char *repository, const char *reference,
                       char **ret_bytes, size_t *ret_len, char **ret_type,
                       char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err) TRK_MUST_CHECK;
/* A tag: only the tag goes. A digest: the manifest and every tag on it. */
int store_manifest_delete(struct store *store, const char *repository, const char *reference,
                          struct trk_err *err) TRK_MUST_CHECK;
/* Sorted arrays of strings, *ret owned. An unknown repository is TRK_NOT_FOUND. */
int store_tags(struct store *store, const char *repository, json_t **ret,
               struct trk_err *err) TRK_MUST_CHECK;
int store_repositories(struct store *store, json_t **ret, struct trk_err *err) TRK_MUST_CHECK;

/* -- which layer came out of which input: keys are names of files -- */
/* False when there is none (any more). */
bool store_cache_get(struct store *store, const char *key, struct trk_oci_descriptor *ret);
int store_cache_put(struct store *store, const char *key, const struct trk_oci_descriptor *layer,
                    struct trk_err *err) TRK_MUST_CHECK;
/* Drops entries unused for `hours` (0: none); *ret_roots owned: digests of the others. */
int store_cache_prune(struct store *store, int64_t hours, json_t **ret_roots,
                      struct trk_err *err) TRK_MUST_CHECK;

/* Removes the other tags and manifests of the repositories whose name begins with `prefix`, where
 * they are older than grace_s. */
struct store_wanted {
    const char *prefix;
    const json_t *tags;    /* object with keys "<repository>:<tag>" */
    const json_t *digests; /* object with digests of manifests as keys */
};
int store_prune(struct store *store, const struct store_wanted *wanted, int64_t grace_s,
                uint64_t *ret_removed, struct trk_err *err) TRK_MUST_CHECK;

/* -- collecting what nothing refers to -- */
struct store_gc_result {
    uint64_t removed, removed_bytes, kept;
};
/* Removes blobs that no manifest and no digest in `more_roots` (array of strings or NULL) refers to
 * and that nobody used for grace_s. A repository that can not be read ends it before anything is
 * removed. */
int store_gc(struct store *store, const json_t *more_roots, int64_t grace_s,
             struct store_gc_result *ret, struct trk_err *err) TRK_MUST_CHECK;

#endif
