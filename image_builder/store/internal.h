/*
 * internal.h - what the files of the store share. Only for image_builder/store/.
 */
#ifndef IMAGE_BUILDER_STORE_INTERNAL_H
#define IMAGE_BUILDER_STORE_INTERNAL_H

#include <pthread.h>
#include <sys/stat.h>

#include "image_builder/store/store.h"

#define VERIFIED_SLOTS 4096

/* A file whose content was found to have the digest that its name says. */
struct verified {
    ino_t ino;
    off_t size;
    struct timespec mtime;
    char hex[65];
};

struct store {
    char *root;
    int lock_fd;
    /* Guards: verified; a blob's time of last use against its removal by the collector; manifests
     * and tags against each other. Held for file operations of microseconds. */
    pthread_mutex_t lock;
    struct verified verified[VERIFIED_SLOTS];
};

/* A file in tmp/ that is to appear at `path`. */
struct store_pending {
    int fd; /* borrows */
    const char *temp_path, *path;
    bool is_done; /* it has appeared */
};
/* Makes all of them appear, in this order, each whole. What costs is waiting for the disk, and a
 * file system commits what was begun together together: so first all are written out, then all are
 * renamed, then each folder is synced once. After a failure those not done are still in tmp/. */
int store_publish(struct store *store, struct store_pending *pending, size_t count,
                  struct trk_err *err) TRK_MUST_CHECK;
/* Makes a small file appear at `path` whole. */
int store_write_file(struct store *store, const char *path, const void *bytes, size_t len,
                     struct trk_err *err) TRK_MUST_CHECK;
int store_fsync_parent(const char *path, struct trk_err *err) TRK_MUST_CHECK;
/* For a batch: where a temp lies, that it has become the blob (or need not). */
struct store_pending store_temp_pending(const struct store_temp *temp, const char *path);
/* Read-only from here on; checks that it has the size that its writer reported. */
int store_temp_seal(struct store_temp *temp, int64_t size_bytes,
                    struct trk_err *err) TRK_MUST_CHECK;
void store_temp_done(struct store_temp *temp, const char *digest);
/* Returns owned. */
char *store_path(const struct store *store, const char *fmt, ...) TRK_PRINTF(2, 3);
char *store_blob_path(const struct store *store, const char *digest);

/* Adds the digests that the manifest refers to (and those of its children) as keys of `set`. */
int store_mark_manifest(struct store *store, const char *digest, json_t *set,
                        struct trk_err *err) TRK_MUST_CHECK;
/* Calls fn for each repository with a manifest or tag; a code from fn ends it. */
int store_walk_repositories(struct store *store,
                            int (*fn)(void *ctx, const char *repository, struct trk_err *err),
                            void *ctx, struct trk_err *err) TRK_MUST_CHECK;
/* Sorted names in a folder; a missing folder is empty. *ret owned. */
int store_list(const char *path, json_t **ret, struct trk_err *err) TRK_MUST_CHECK;
/* Marks what all manifests of all repositories refer to. */
int store_mark_all(struct store *store, json_t *set, struct trk_err *err) TRK_MUST_CHECK;

#endif
