/*
 * clock.h - time and random ids. Any thread.
 *
 * Monotonic time is int64_t nanoseconds and what durations and deadlines use; wall time only where
 * a person or the API sees it.
 */
#ifndef LIBTRACK_CLOCK_H
#define LIBTRACK_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define TRK_NS_PER_MS INT64_C(1000000)
#define TRK_NS_PER_S  INT64_C(1000000000)

int64_t trk_now_ns(void);      /* CLOCK_MONOTONIC */
int64_t trk_wall_s(void);      /* Unix seconds */
int64_t trk_wall_ms(void);     /* Unix milliseconds */
void trk_sleep_ms(int64_t ms); /* restarts after signals */

/* UTC by strftime format; `size` bytes of room, always terminated. */
void trk_format_utc(int64_t unix_s, const char *format, char *out, size_t size)
    __attribute__((format(strftime, 2, 0)));

#define TRK_UUID_SIZE 37
/* Random UUID version 4, RFC 9562 §5.4, lower case. */
void trk_uuid4(char out[TRK_UUID_SIZE]);
/* Version 7 (time-ordered), RFC 9562 §5.7. */
void trk_uuid7(char out[TRK_UUID_SIZE]);

#endif
