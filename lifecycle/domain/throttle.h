/*
 * throttle.h - how long must who has failed often wait? For logins, by name and by address.
 *
 * Failures of a key fill its bucket, time empties it; while it is full the key waits. Memory is
 * fixed: buckets are chosen by a keyed hash, two for a key, and both must be full, so that keys
 * which happen to share one do not hinder one another, and no flood of other keys makes a bucket
 * forget. Any thread.
 */
#ifndef LIFECYCLE_DOMAIN_THROTTLE_H
#define LIFECYCLE_DOMAIN_THROTTLE_H

#include <stdint.h>

struct throttle;

/* `failures` at once, then one more each `interval_ms`. */
struct throttle *throttle_new(int64_t failures, int64_t interval_ms);
void throttle_free(struct throttle *t); /* takes NULL */
/* Milliseconds until `key` may try again; 0: now. `ease`: this kind of key may fail so many times
 * as often. now_ns: monotonic. */
int64_t throttle_wait_ms(struct throttle *t, const char *key, int64_t ease, int64_t now_ns);
void throttle_note_failure(struct throttle *t, const char *key, int64_t ease, int64_t now_ns);

#endif
