/*
 * json_split.h - takes one long string out of a JSON object that comes in pieces, so that it need
 * not be in memory: a request that carries a file as base64.
 *
 * The characters of the top object's member go to on_value as they come, escapes undone (those
 * beyond ASCII are TRK_INVALID); everything else goes to on_text as it is, with an empty string in
 * the member's place, to be parsed afterwards by whoever parses JSON. What is no JSON is not
 * noticed here, but stays wrong in the text. A member whose name is written with escapes, or whose
 * value is no string, is left where it is; one that comes twice is TRK_INVALID. Not for two threads
 * at once.
 *
 *     struct trk_json_split split = {.member = "build_context", .on_text = keep, .on_value =
 * store}; while (...) rc = trk_json_split_feed(&split, bytes, len, err); if (split.is_found) ... //
 * text now has "build_context": ""
 */
#ifndef LIBTRACK_JSON_SPLIT_H
#define LIBTRACK_JSON_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/err.h"

struct trk_json_split {
    const char *member; /* 31 bytes at most */
    int (*on_text)(void *ctx, const char *bytes, size_t len, struct trk_err *err);
    int (*on_value)(void *ctx, const char *bytes, size_t len, struct trk_err *err);
    void *ctx;
    bool is_found;
    /* its own */
    int state;
    int64_t depth;
    bool is_object, is_key, is_next;
    char key[32], hex[5];
    size_t key_len, hex_len;
};
/* Fails with what a callback returned, or TRK_INVALID. */
int trk_json_split_feed(struct trk_json_split *split, const char *bytes, size_t len,
                        struct trk_err *err) TRK_MUST_CHECK;

#endif
