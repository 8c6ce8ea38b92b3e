#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/manifest/manifest.h"

__extension__ typedef unsigned __int128 wide;

#define DIGITS_MAX 19 /* of 64 bits */

static const struct {
    const char *suffix;
    unsigned base, exponent;   /* base ^ exponent thousandths */
    unsigned divisor_exponent; /* … / 10 ^ divisor_exponent */
} suffixes[] = {
    {"", 10, 3, 0},   {"m", 10, 0, 0},  {"u", 10, 0, 3},  {"n", 10, 0, 6},  {"p", 10, 0, 9},
    {"k", 10, 6, 0},  {"M", 10, 9, 0},  {"G", 10, 12, 0}, {"T", 10, 15, 0}, {"P", 10, 18, 0},
    {"E", 10, 21, 0}, {"Ki", 2, 10, 0}, {"Mi", 2, 20, 0}, {"Gi", 2, 30, 0}, {"Ti", 2, 40, 0},
    {"Pi", 2, 50, 0}, {"Ei", 2, 60, 0},
};

static wide power(unsigned base, unsigned exponent)
{
    wide result = 1;
    for (unsigned i = 0; i < exponent; i++) {
        result *= base;
    }
    return result;
}

/* "\d+(\.\d+)?" into digits / 10^decimals; returns where the suffix begins, or NULL. */
static const char *parse_number(const char *text, uint64_t *ret_digits, unsigned *ret_decimals)
{
    const char *p = text;
    uint64_t digits = 0;
    unsigned count = 0;
    unsigned decimals = 0;
    bool seen_dot = false;
    for (;; p++) {
        if (*p >= '0' && *p <= '9') {
            if (digits > 0 || *p != '0') {
                count++;
            }
            decimals += seen_dot;
            if (count > DIGITS_MAX || decimals > DIGITS_MAX) {
                return NULL;
            }
            digits = digits * 10 + (uint64_t)(*p - '0');
        } else if (*p == '.' && !seen_dot && p > text) {
            seen_dot = true;
        } else {
            break;
        }
    }
    if (p == text || p[-1] == '.') {
        return NULL;
    }
    *ret_digits = digits;
    *ret_decimals = decimals;
    return p;
}

int trk_quantity_parse(const char *text, int64_t *ret_milli, struct trk_err *err)
{
    uint64_t digits;
    unsigned decimals;
    const char *suffix = parse_number(text, &digits, &decimals);
    size_t at = 0;
    while (suffix != NULL && at < TRK_COUNT(suffixes) && strcmp(suffix, suffixes[at].suffix) != 0) {
        at++;
    }
    if (suffix == NULL || at == TRK_COUNT(suffixes)) {
        return trk_err_set(err, TRK_INVALID,
                           "'%.64s' is not a quantity: write a number with an optional suffix such "
                           "as 256Mi, 1Gi, 500m or 1.5",
                           text);
    }
    wide value = digits;
    wide multiplier = power(suffixes[at].base, suffixes[at].exponent);
    if (suffixes[at].base == 2) {
        multiplier *= 1000;
    }
    wide divisor = power(10, decimals + suffixes[at].divisor_exponent);
    /* rounded up, so that a small quantity never becomes none */
    if (__builtin_mul_overflow(value, multiplier, &value) ||
        __builtin_add_overflow(value, divisor - 1, &value) || value / divisor > INT64_MAX) {
        return trk_err_set(err, TRK_INVALID, "the quantity '%.64s' is too large", text);
    }
    *ret_milli = (int64_t)(value / divisor);
    return 0;
}
