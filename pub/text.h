/*
 * text.h - writing into a fixed piece of memory, for heads and small bodies.
 *
 * Past the end nothing is written and `overflow` is set: check once at the end. Any thread.
 */
#ifndef PUB_TEXT_H
#define PUB_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "libtrack/http/h1.h"

struct pub_text {
    char *start, *at, *end;
    bool overflow;
};

static inline void pub_text_init(struct pub_text *t, char *memory, size_t size)
{
    *t = (struct pub_text){.start = memory, .at = memory, .end = memory + size};
}
static inline size_t pub_text_len(const struct pub_text *t)
{
    return (size_t)(t->at - t->start);
}
static inline void pub_text_add(struct pub_text *t, const char *bytes, size_t len)
{
    if (len > (size_t)(t->end - t->at)) {
        t->overflow = true;
        return;
    }
    memcpy(t->at, bytes, len);
    t->at += len;
}
static inline void pub_text_adds(struct pub_text *t, const char *s)
{
    pub_text_add(t, s, strlen(s));
}
static inline void pub_text_slice(struct pub_text *t, struct trk_h1_slice s)
{
    pub_text_add(t, s.at, s.len);
}
void pub_text_u64(struct pub_text *t, uint64_t n);
/* A JSON string with its quotes; what is not valid UTF-8 becomes U+FFFD. NULL: null. */
void pub_text_json(struct pub_text *t, const char *s, size_t len);
/* Percent-encoded, all but unreserved characters and '/' if asked. */
void pub_text_url(struct pub_text *t, const char *s, size_t len, bool keep_slash);

#endif
