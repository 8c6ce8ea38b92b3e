#include "libtrack/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "libtrack/base/err.h"

int64_t trk_now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * TRK_NS_PER_S + t.tv_nsec;
}

int64_t trk_wall_s(void)
{
    return time(NULL);
}

int64_t trk_wall_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000 + t.tv_nsec / TRK_NS_PER_MS;
}

void trk_sleep_ms(int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * TRK_NS_PER_MS};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR) {
    }
}

void trk_format_utc(int64_t unix_s, const char *format, char *out, size_t size)
{
    time_t t = unix_s;
    struct tm tm;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* checked at the caller, see the header */
    if (gmtime_r(&t, &tm) == NULL || strftime(out, size, format, &tm) == 0) {
        out[0] = '\0';
    }
#pragma GCC diagnostic pop
}

static void random_bytes(unsigned char *out, size_t len)
{
    while (len > 0) {
        ssize_t n = getrandom(out, len, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            trk_die("getrandom: %s", strerror(errno));
        }
        out += n;
        len -= (size_t)n;
    }
}

static void format_uuid(const unsigned char b[16], char out[TRK_UUID_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    char *p = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *p++ = '-';
        }
        *p++ = hex[b[i] >> 4];
        *p++ = hex[b[i] & 15];
    }
    *p = '\0';
}

void trk_uuid4(char out[TRK_UUID_SIZE])
{
    unsigned char b[16];
    random_bytes(b, sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    format_uuid(b, out);
}

void trk_uuid7(char out[TRK_UUID_SIZE])
{
    unsigned char b[16];
    random_bytes(b, sizeof(b));
    uint64_t ms = (uint64_t)trk_wall_ms();
    for (int i = 0; i < 6; i++) {
        b[i] = (unsigned char)(ms >> (40 - 8 * i));
    }
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x70);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    format_uuid(b, out);
}
