/*
 * log_overlap.h - what is new in the second of two looks at the end of a growing log.
 */
#ifndef CLIENT_LOG_OVERLAP_H
#define CLIENT_LOG_OVERLAP_H

#include <stddef.h>

/* `before` and `now` are the last lines of the log at two moments. Returns how many bytes at the
 * beginning of `now` were in `before` already: the longest end of `before` that `now` begins with,
 * at the beginning of a line. 0 when they share nothing. */
size_t log_overlap(const char *before, const char *now);

#endif
