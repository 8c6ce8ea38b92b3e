#include "libtrack/base/buf.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/mem.h"

static char empty[1]; /* what `data` points to before the first byte; never written */

void trk_buf_init(struct trk_buf *buf, size_t cap_bytes)
{
    trk_assert(cap_bytes > 0 && cap_bytes < SIZE_MAX / 2);
    *buf = (struct trk_buf){.data = empty, .cap_bytes = cap_bytes};
}

void trk_buf_fini(struct trk_buf *buf)
{
    if (buf->size > 0) {
        free(buf->data);
    }
    *buf = (struct trk_buf){.data = empty, .cap_bytes = buf->cap_bytes};
}

void trk_buf_reset(struct trk_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
    if (buf->size > 0) {
        buf->data[0] = '\0';
    }
}

char *trk_buf_reserve(struct trk_buf *buf, size_t len)
{
    size_t need;
    if (buf->failed || __builtin_add_overflow(buf->len, len, &need) || need > buf->cap_bytes) {
        buf->failed = true;
        return NULL;
    }
    if (need + 1 > buf->size) {
        size_t size = buf->size > 0 ? buf->size : 64;
        while (size < need + 1) {
            size *= 2;
        }
        if (size > buf->cap_bytes + 1) {
            size = buf->cap_bytes + 1;
        }
        buf->data = trk_xrealloc(buf->size > 0 ? buf->data : NULL, size);
        buf->size = size;
        buf->data[buf->len] = '\0';
    }
    return buf->data + buf->len;
}

void trk_buf_commit(struct trk_buf *buf, size_t len)
{
    if (len == 0) {
        return;
    }
    trk_assert(buf->len + len < buf->size);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

int trk_buf_add(struct trk_buf *buf, const void *bytes, size_t len)
{
    char *room = trk_buf_reserve(buf, len);
    if (room == NULL) {
        return TRK_TOO_LARGE;
    }
    if (len > 0) {
        memcpy(room, bytes, len);
        trk_buf_commit(buf, len);
    }
    return 0;
}

int trk_buf_adds(struct trk_buf *buf, const char *s)
{
    return trk_buf_add(buf, s, strlen(s));
}

int trk_buf_addc(struct trk_buf *buf, char c)
{
    return trk_buf_add(buf, &c, 1);
}

int trk_buf_vaddf(struct trk_buf *buf, const char *fmt, va_list args)
{
    char small[256];
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(small, sizeof(small), fmt, args);
    int rc = TRK_INTERNAL;
    if (n >= 0 && (size_t)n < sizeof(small)) {
        rc = trk_buf_add(buf, small, (size_t)n);
    } else if (n >= 0) {
        /* vsnprintf writes a NUL behind the text: reserve() keeps room for it */
        char *room = trk_buf_reserve(buf, (size_t)n);
        rc = room == NULL ? TRK_TOO_LARGE : 0;
        if (room != NULL) {
            (void)vsnprintf(room, (size_t)n + 1, fmt, again);
            trk_buf_commit(buf, (size_t)n);
        }
    }
    va_end(again);
    return rc;
}

int trk_buf_addf(struct trk_buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = trk_buf_vaddf(buf, fmt, args);
    va_end(args);
    return rc;
}

void trk_buf_consume(struct trk_buf *buf, size_t len)
{
    trk_assert(len <= buf->len);
    if (len == 0) {
        return;
    }
    memmove(buf->data, buf->data + len, buf->len - len);
    buf->len -= len;
    buf->data[buf->len] = '\0';
}

char *trk_buf_steal(struct trk_buf *buf, size_t *ret_len)
{
    char *data = buf->size > 0 ? buf->data : trk_xstrdup("");
    if (ret_len != NULL) {
        *ret_len = buf->len;
    }
    *buf = (struct trk_buf){.data = empty, .cap_bytes = buf->cap_bytes};
    return data;
}

int trk_buf_read_fd(struct trk_buf *buf, int fd, struct trk_err *err)
{
    for (;;) {
        size_t want = buf->cap_bytes - buf->len < 65536 ? buf->cap_bytes - buf->len : 65536;
        char spill = 0;
        char *room = want > 0 ? trk_buf_reserve(buf, want) : &spill;
        if (room == NULL) {
            return trk_err_set(err, TRK_TOO_LARGE, "more than %zu bytes", buf->cap_bytes);
        }
        ssize_t n = read(fd, room, want > 0 ? want : 1);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return trk_err_errno(err, errno, "reading");
        }
        if (n == 0) {
            return 0;
        }
        if (want == 0) {
            buf->failed = true;
            return trk_err_set(err, TRK_TOO_LARGE, "more than %zu bytes", buf->cap_bytes);
        }
        trk_buf_commit(buf, (size_t)n);
    }
}
