#include "pub/text.h"

#include "libtrack/base/str.h"

static const char hex[] = "0123456789abcdef";

void pub_text_u64(struct pub_text *t, uint64_t n)
{
    char digits[20];
    size_t i = sizeof(digits);
    do {
        digits[--i] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    pub_text_add(t, digits + i, sizeof(digits) - i);
}

/* Length of the UTF-8 sequence at s, 0 when there is none. */
static size_t utf8_len(const char *s, size_t len)
{
    unsigned char c = (unsigned char)s[0];
    size_t n = c < 0x80 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    return n <= len && trk_utf8_is_valid(s, n) ? n : 0;
}

static void json_char(struct pub_text *t, char c)
{
    if (c == '"' || c == '\\') {
        char escaped[2] = {'\\', c};
        pub_text_add(t, escaped, 2);
    } else if ((unsigned char)c < 0x20) {
        char escaped[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        pub_text_add(t, escaped, 6);
    } else {
        pub_text_add(t, &c, 1);
    }
}

void pub_text_json(struct pub_text *t, const char *s, size_t len)
{
    if (s == NULL) {
        pub_text_adds(t, "null");
        return;
    }
    pub_text_adds(t, "\"");
    while (len > 0) {
        size_t n = utf8_len(s, len);
        if (n == 1) {
            json_char(t, *s);
        } else if (n > 1) {
            pub_text_add(t, s, n);
        } else {
            pub_text_adds(t, "\\ufffd");
            n = 1;
        }
        s += n;
        len -= n;
    }
    pub_text_adds(t, "\"");
}

void pub_text_url(struct pub_text *t, const char *s, size_t len, bool keep_slash)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
            c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slash)) {
            pub_text_add(t, s + i, 1);
        } else {
            char escaped[3] = {'%', hex[c >> 4], hex[c & 15]};
            pub_text_add(t, escaped, 3);
        }
    }
}
