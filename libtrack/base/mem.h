/*
 * mem.h - cleanup attributes and allocations that cannot fail silently.
 *
 * trk_autofree / trk_autoclose / json_auto_t release at the end of the scope; TRK_STEAL hands over.
 * trk_xmalloc & co. abort when memory is exhausted: sizes are bounded by the callers' caps before.
 *
 *     trk_autofree char *path = trk_xasprintf("%s/%s", dir, name);
 *     trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
 *     *ret_fd = TRK_STEAL_FD(fd);
 */
#ifndef LIBTRACK_MEM_H
#define LIBTRACK_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/err.h"

static inline void trk_cleanup_free(void *p)
{
    free(*(void **)p);
}
static inline void trk_cleanup_close(const int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
}
static inline void trk_cleanup_fclose(FILE **f)
{
    if (*f != NULL) {
        (void)fclose(*f);
    }
}
#define trk_autofree   __attribute__((cleanup(trk_cleanup_free)))
#define trk_autoclose  __attribute__((cleanup(trk_cleanup_close)))
#define trk_autofclose __attribute__((cleanup(trk_cleanup_fclose)))

#define TRK_STEAL(p)                                                                               \
    ({                                                                                             \
        __typeof__(p) stolen_ = (p);                                                               \
        (p) = NULL;                                                                                \
        stolen_;                                                                                   \
    })
#define TRK_STEAL_FD(fd)                                                                           \
    ({                                                                                             \
        int stolen_ = (fd);                                                                        \
        (fd) = -1;                                                                                 \
        stolen_;                                                                                   \
    })
#define TRK_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* All return owned memory (free()), never NULL. */
void *trk_xmalloc(size_t size_bytes) __attribute__((malloc, returns_nonnull));
void *trk_xcalloc(size_t count, size_t size_bytes) __attribute__((malloc, returns_nonnull));
void *trk_xrealloc(void *p, size_t size_bytes) __attribute__((returns_nonnull));
char *trk_xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *trk_xstrndup(const char *s, size_t len) __attribute__((malloc, returns_nonnull));
char *trk_xasprintf(const char *fmt, ...) TRK_PRINTF(1, 2) __attribute__((returns_nonnull));

#endif
