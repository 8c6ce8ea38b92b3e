/* Chunked transfer coding (RFC 9112 §7.1), the other half of h1.h. */
#include <string.h>

#include "libtrack/base/str.h"
#include "libtrack/http/h1.h"

/* Caps on what is not payload: a size line with its extensions, the whole trailer section. */
#define LINE_MAX_BYTES    4096
#define TRAILER_MAX_BYTES 8192

enum state {
    SIZE_FIRST, /* at least one digit must come */
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_LINE_FIRST,
    TRAILER_NAME,
    TRAILER_LINE,
    TRAILER_LF,
    LAST_LF,
    DONE
};

void trk_h1_chunked_init(struct trk_h1_chunked *c)
{
    *c = (struct trk_h1_chunked){.state = SIZE_FIRST};
}

bool trk_h1_chunked_in_trailer(const struct trk_h1_chunked *c)
{
    return c->state >= TRAILER_LINE_FIRST;
}

bool trk_h1_chunked_in_extension(const struct trk_h1_chunked *c)
{
    return c->state == EXTENSION;
}

static bool is_text(char ch)
{
    unsigned char u = (unsigned char)ch;
    return u == '\t' || (u >= 0x20 && u != 0x7F);
}

static bool is_token(char ch)
{
    return (ch >= '0' && ch <= '9') || ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'z') ||
           (ch != '\0' && strchr("!#$%&'*+-.^_`|~", ch) != NULL);
}

/* A byte of a size line. 0 or -400. */
static int next_in_size_line(struct trk_h1_chunked *c, char ch)
{
    if (++c->line_len > LINE_MAX_BYTES) {
        return -400;
    }
    switch (c->state) {
    case SIZE_FIRST:
    case SIZE: {
        int digit = trk_hex_value(ch);
        if (digit >= 0) {
            if (c->left >> 59 != 0) { /* stays below 2^63 */
                return -400;
            }
            c->left = c->left << 4 | (uint64_t)digit;
            c->state = SIZE;
        } else if (c->state == SIZE_FIRST) {
            return -400;
        } else if (ch == ';') {
            c->state = EXTENSION;
        } else if (ch == '\r') {
            c->state = SIZE_LF;
        } else {
            return -400;
        }
        return 0;
    }
    case EXTENSION:
        if (ch == '\r') {
            c->state = SIZE_LF;
        } else if (!is_text(ch) || (unsigned char)ch >= 0x80) {
            return -400;
        }
        return 0;
    default: /* SIZE_LF */
        if (ch != '\n') {
            return -400;
        }
        c->line_len = 0;
        c->state = c->left > 0 ? DATA : TRAILER_LINE_FIRST;
        return 0;
    }
}

/* A byte of the trailer section. 1 at its end, 0 or -400. */
static int next_in_trailer(struct trk_h1_chunked *c, char ch)
{
    if (++c->trailer_bytes > TRAILER_MAX_BYTES) {
        return -400;
    }
    switch (c->state) {
    case TRAILER_LINE_FIRST:
        if (ch == '\r') {
            c->state = LAST_LF;
            return 0;
        }
        c->state = TRAILER_NAME;
        return is_token(ch) ? 0 : -400;
    case TRAILER_NAME:
        if (ch == ':') {
            c->state = TRAILER_LINE;
            return 0;
        }
        return is_token(ch) ? 0 : -400;
    case TRAILER_LINE:
        if (ch == '\r') {
            c->state = TRAILER_LF;
            return 0;
        }
        return is_text(ch) ? 0 : -400;
    case TRAILER_LF:
        c->state = TRAILER_LINE_FIRST;
        return ch == '\n' ? 0 : -400;
    default: /* LAST_LF */
        c->state = DONE;
        return ch == '\n' ? 1 : -400;
    }
}

int trk_h1_chunked_next(struct trk_h1_chunked *c, const char *bytes, size_t len, size_t *ret_used,
                        struct trk_h1_slice *ret_data)
{
    size_t i = 0;
    int n = 0;
    ret_data->at = bytes;
    ret_data->len = 0;
    bool was_in_trailer = trk_h1_chunked_in_trailer(c);
    bool was_in_extension = trk_h1_chunked_in_extension(c);
    while (i < len && n == 0) {
        if (c->state == DATA) {
            size_t piece = len - i;
            if (piece > c->left) {
                piece = (size_t)c->left;
            }
            ret_data->at = bytes + i;
            ret_data->len = piece;
            c->left -= piece;
            if (c->left == 0) {
                c->state = DATA_CR;
            }
            i += piece;
            break;
        }
        char ch = bytes[i++];
        if (c->state < DATA) {
            n = next_in_size_line(c, ch);
            if ((!was_in_trailer && trk_h1_chunked_in_trailer(c)) ||
                was_in_extension != trk_h1_chunked_in_extension(c)) {
                break;
            }
        } else if (c->state == DATA_CR || c->state == DATA_LF) {
            n = ch == (c->state == DATA_CR ? '\r' : '\n') ? 0 : -400;
            c->state = c->state == DATA_CR ? DATA_LF : SIZE_FIRST;
        } else if (c->state == DONE) {
            i--;
            n = 1;
        } else {
            n = next_in_trailer(c, ch);
        }
    }
    *ret_used = i;
    return n;
}
