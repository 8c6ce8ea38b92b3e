/*
 * file.h - files and folders. Any thread.
 *
 * Errors carry the path and the system's reason; a full disk is TRK_NO_SPACE (507).
 */
#ifndef LIBTRACK_FILE_H
#define LIBTRACK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

/* mkdir -p. Existing folders are fine and keep their mode. */
int trk_mkdir_p(const char *path, mode_t mode, struct trk_err *err) TRK_MUST_CHECK;
/* rm -rf that does not follow links and does not leave the tree; a missing path is fine. Makes
 * read-only folders writable first. */
int trk_rm_rf(const char *path, struct trk_err *err) TRK_MUST_CHECK;
/* Whole file, at most `cap_bytes` (TRK_TOO_LARGE). *ret owned, terminated. */
int trk_file_read(const char *path, size_t cap_bytes, char **ret, size_t *ret_len,
                  struct trk_err *err) TRK_MUST_CHECK;
/* Replaces `path` atomically: temporary file in the same folder, fsync, rename, fsync of the
 * folder. */
int trk_file_write(const char *path, const void *bytes, size_t len, mode_t mode,
                   struct trk_err *err) TRK_MUST_CHECK;
/* Writes all of it, restarting after short writes and signals. */
int trk_write_all(int fd, const void *bytes, size_t len, struct trk_err *err) TRK_MUST_CHECK;
bool trk_path_exists(const char *path);
/* Last `lines` lines of a file (0: all, then at most the last `cap_bytes`). Appends to `buf`. A
 * missing file is empty. */
int trk_file_tail(const char *path, size_t lines, size_t cap_bytes, struct trk_buf *buf,
                  struct trk_err *err) TRK_MUST_CHECK;

/* Opens `path` below `dirfd` so that no component leaves it: openat2(RESOLVE_BENEATH |
 * RESOLVE_NO_MAGICLINKS), a walk with O_NOFOLLOW where the kernel lacks openat2. Escapes are
 * TRK_INVALID. */
int trk_open_beneath(int dirfd, const char *path, int flags, mode_t mode, int *ret_fd,
                     struct trk_err *err) TRK_MUST_CHECK;
/* That walk: refuses every symbolic link and "..". */
int trk_open_beneath_walk(int dirfd, const char *path, int flags, mode_t mode, int *ret_fd,
                          struct trk_err *err) TRK_MUST_CHECK;

#endif
