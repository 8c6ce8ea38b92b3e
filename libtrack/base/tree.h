/*
 * tree.h - walks over whole folders that somebody else filled. Links are never followed, folders
 * are entered through descriptors, 256 levels at most. Any thread.
 */
#ifndef LIBTRACK_TREE_H
#define LIBTRACK_TREE_H

#include <stdint.h>
#include <sys/types.h>

#include "libtrack/base/err.h"

/* Gives the folder (or file) and all in it to a user. */
int trk_tree_chown(const char *path, uid_t uid, gid_t gid, struct trk_err *err) TRK_MUST_CHECK;

struct trk_tree_usage {
    uint64_t bytes;   /* on disk; a file with several names counts once, spread over them */
    uint64_t entries; /* files, folders and the rest */
};
/* Adds to *usage what lies in the folder. It may change meanwhile: what is gone is not counted. A
 * folder that is too deep or cannot be looked into is TRK_FORBIDDEN; with no descriptors or memory
 * left for looking it is TRK_UNAVAILABLE. */
int trk_tree_measure(const char *path, struct trk_tree_usage *usage,
                     struct trk_err *err) TRK_MUST_CHECK;

#endif
