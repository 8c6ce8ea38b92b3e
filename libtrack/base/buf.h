/*
 * buf.h - a growing byte buffer with a mandatory cap.
 *
 * Caller's memory; not thread-safe. The bytes are always followed by a NUL that is not counted, so
 * `data` is a C string when no NUL was added. Growing past `cap_bytes` fails with TRK_TOO_LARGE,
 * sticks
 * (`failed`), and leaves the content as it was; a chain of appends may be checked once at the end.
 *
 *     struct trk_buf buf;
 *     trk_buf_init(&buf, 1 << 20);
 *     trk_buf_addf(&buf, "%s=%d\n", key, value);
 *     char *owned = trk_buf_steal(&buf, &len);
 */
#ifndef LIBTRACK_BUF_H
#define LIBTRACK_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "libtrack/base/err.h"

struct trk_buf {
    char *data; /* never NULL after init; valid until the next append */
    size_t len;
    size_t size;
    size_t cap_bytes;
    bool failed;
};

void trk_buf_init(struct trk_buf *buf, size_t cap_bytes);
void trk_buf_fini(struct trk_buf *buf);
void trk_buf_reset(struct trk_buf *buf); /* empties, keeps the memory, clears `failed` */

/* 0 or TRK_TOO_LARGE. */
int trk_buf_add(struct trk_buf *buf, const void *bytes, size_t len);
int trk_buf_adds(struct trk_buf *buf, const char *s);
int trk_buf_addc(struct trk_buf *buf, char c);
int trk_buf_addf(struct trk_buf *buf, const char *fmt, ...) TRK_PRINTF(2, 3);
int trk_buf_vaddf(struct trk_buf *buf, const char *fmt, va_list args);

/* Room for `len` more bytes; returns where to write (then trk_buf_commit), or NULL past the cap. */
char *trk_buf_reserve(struct trk_buf *buf, size_t len);
void trk_buf_commit(struct trk_buf *buf, size_t len);
/* Drops the first `len` bytes. */
void trk_buf_consume(struct trk_buf *buf, size_t len);

/* Returns owned bytes (terminated) and resets the buffer to empty. */
char *trk_buf_steal(struct trk_buf *buf, size_t *ret_len);

/* Reads `fd` to its end. TRK_TOO_LARGE past the cap. */
int trk_buf_read_fd(struct trk_buf *buf, int fd, struct trk_err *err) TRK_MUST_CHECK;

#endif
