#include "client/log_overlap.h"

#include <string.h>

#include "libtrack/base/mem.h"

/* Knuth-Morris-Pratt: how far the beginning of `now` agrees with what ends at each byte of
 * `before`; linear. */
size_t log_overlap(const char *before, const char *now)
{
    size_t now_len = strlen(now);
    if (now_len == 0) {
        return 0;
    }
    trk_autofree size_t *border = trk_xcalloc(now_len + 1, sizeof(*border));
    for (size_t i = 1, k = 0; i < now_len; i++) {
        while (k > 0 && now[i] != now[k]) {
            k = border[k];
        }
        k += now[i] == now[k] ? 1 : 0;
        border[i + 1] = k;
    }
    size_t matched = 0;
    for (const char *p = before; *p != '\0'; p++) {
        while (matched > 0 && (matched == now_len || now[matched] != *p)) {
            matched = border[matched];
        }
        matched += now[matched] == *p ? 1 : 0;
    }
    /* A match must begin where a line of `before` begins. */
    size_t before_len = strlen(before);
    while (matched > 0 && matched < before_len && before[before_len - matched - 1] != '\n') {
        matched = border[matched];
    }
    return matched;
}
