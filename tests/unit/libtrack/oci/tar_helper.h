/* Makes tar bytes, sound ones and hostile ones. */
#ifndef TESTS_TAR_HELPER_H
#define TESTS_TAR_HELPER_H

#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"
#include "libtrack/base/mem.h"

struct tar_item {
    const char *name;
    char type;     /* '0' file, '1' hard link, '2' symlink, '5' folder, '3' '4' devices, '6' fifo */
    unsigned mode; /* 0: 0644 */
    const char *link; /* target */
    const char *data;
};

static inline void tar_add_raw(struct trk_buf *tar, const char *name, char type, unsigned mode,
                               const char *link, const void *data, size_t len, size_t said_size)
{
    char h[512] = {0};
    snprintf(h, 101, "%s", name);
    snprintf(h + 100, 8, "%07o", mode & 07777);
    snprintf(h + 108, 8, "%07o", 0);
    snprintf(h + 116, 8, "%07o", 0);
    snprintf(h + 124, 12, "%011zo", said_size & 077777777777);
    snprintf(h + 136, 12, "%011o", 1700000000);
    memset(h + 148, ' ', 8);
    h[156] = type;
    snprintf(h + 157, 101, "%s", link != NULL ? link : "");
    memcpy(h + 257, "ustar", 6);
    memcpy(h + 263, "00", 2);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof(h); i++) {
        sum += (unsigned char)h[i];
    }
    snprintf(h + 148, 8, "%06o", sum & 0777777);
    trk_buf_add(tar, h, sizeof(h));
    trk_buf_add(tar, data, len);
    static const char zeros[512];
    trk_buf_add(tar, zeros, (512 - len % 512) % 512);
}

static inline void tar_add(struct trk_buf *tar, const struct tar_item *item)
{
    size_t len = item->data != NULL ? strlen(item->data) : 0;
    tar_add_raw(tar, item->name, item->type, item->mode != 0 ? item->mode : 0644, item->link,
                item->data, len, len);
}

static inline void tar_end(struct trk_buf *tar)
{
    static const char zeros[1024];
    trk_buf_add(tar, zeros, sizeof(zeros));
}

/* Appends one gzip member. */
static inline void gzip_add(struct trk_buf *out, const void *bytes, size_t len)
{
    z_stream z = {0};
    trk_assert(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    size_t bound = deflateBound(&z, len) + 64;
    char *room = trk_buf_reserve(out, bound);
    trk_assert(room != NULL);
    z.next_in = (z_const Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)len;
    z.next_out = (Bytef *)room;
    z.avail_out = (uInt)bound;
    trk_assert(deflate(&z, Z_FINISH) == Z_STREAM_END);
    trk_buf_commit(out, bound - z.avail_out);
    deflateEnd(&z);
}

#endif
