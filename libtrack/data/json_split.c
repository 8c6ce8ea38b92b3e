#include "libtrack/data/json_split.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT, STRING, STRING_ESCAPE, VALUE, VALUE_ESCAPE, VALUE_HEX };

/* A string of the top object that may be its member's name ends. */
static void end_key(struct trk_json_split *split)
{
    split->is_next = split->is_key && split->key_len == strlen(split->member) &&
                     memcmp(split->key, split->member, split->key_len) == 0;
}

static void add_key(struct trk_json_split *split, char c)
{
    if (split->key_len < sizeof(split->key)) {
        split->key[split->key_len++] = c;
    }
}

/* Between strings. Is it the quote that begins the member's value? */
static bool step_text(struct trk_json_split *split, char c)
{
    switch (c) {
    case '"':
        if (split->is_next && !split->is_key) {
            split->state = VALUE;
            return true;
        }
        split->key_len = 0;
        split->state = STRING;
        break;
    case '{':
    case '[':
        split->depth++;
        split->is_object = split->depth == 1 ? c == '{' : split->is_object;
        split->is_key = split->depth == 1 && c == '{';
        split->is_next = false;
        break;
    case '}':
    case ']':
        split->depth--;
        split->is_key = split->is_next = false;
        break;
    case ',':
        split->is_key = split->depth == 1 && split->is_object;
        split->is_next = false;
        break;
    case ':':
        split->is_key = false;
        break;
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        break;
    default:
        split->is_next = false;
    }
    return false;
}

/* Moves over text until the member's value begins; *at ends behind its quote. */
static void skip_text(struct trk_json_split *split, const char **at, const char *end)
{
    while (*at < end) {
        char c = *(*at)++;
        if (split->state == STRING_ESCAPE) {
            split->state = STRING;
        } else if (split->state == STRING && c == '\\') {
            split->key_len = sizeof(split->key); /* unlike any name */
            split->state = STRING_ESCAPE;
        } else if (split->state == STRING && c == '"') {
            end_key(split);
            split->state = TEXT;
        } else if (split->state == STRING) {
            add_key(split, c);
        } else if (step_text(split, c)) {
            return;
        }
    }
}

static int add_escaped(struct trk_json_split *split, char c, struct trk_err *err)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found = c != '\0' ? strchr(from, c) : NULL;
    if (c == 'u') {
        split->hex_len = 0;
        split->state = VALUE_HEX;
        return 0;
    }
    if (found == NULL) {
        return trk_err_set(err, TRK_INVALID, "%s: not a valid escape", split->member);
    }
    split->state = VALUE;
    return split->on_value(split->ctx, &to[found - from], 1, err);
}

static int add_hex(struct trk_json_split *split, char c, struct trk_err *err)
{
    split->hex[split->hex_len++] = c;
    if (split->hex_len < 4) {
        return 0;
    }
    split->hex[4] = '\0';
    bool is_hex = strspn(split->hex, "0123456789abcdefABCDEF") == 4;
    unsigned long code = strtoul(split->hex, NULL, 16);
    if (!is_hex || code > 0x7F) {
        return trk_err_set(err, TRK_INVALID, "%s: a character beyond ASCII", split->member);
    }
    char plain = (char)code;
    split->state = VALUE;
    return split->on_value(split->ctx, &plain, 1, err);
}

static size_t run_length(const char *begin, const char *end)
{
    const char *at = begin;
    while (at < end && *at != '"' && *at != '\\') {
        at++;
    }
    return (size_t)(at - begin);
}

/* Takes of the value what there is, and the quote that ends it. */
static int take_value(struct trk_json_split *split, const char **at, const char *end,
                      struct trk_err *err)
{
    int rc = 0;
    while (rc == 0 && *at < end && split->state >= VALUE) {
        size_t run = split->state == VALUE ? run_length(*at, end) : 0;
        if (run > 0) {
            rc = split->on_value(split->ctx, *at, run, err);
            *at += run;
            continue;
        }
        char c = *(*at)++;
        if (split->state == VALUE_ESCAPE) {
            rc = add_escaped(split, c, err);
        } else if (split->state == VALUE_HEX) {
            rc = add_hex(split, c, err);
        } else if (c == '\\') {
            split->state = VALUE_ESCAPE;
        } else {
            split->is_next = false;
            split->state = TEXT;
            rc = split->on_text(split->ctx, "\"", 1, err);
        }
    }
    return rc;
}

int trk_json_split_feed(struct trk_json_split *split, const char *bytes, size_t len,
                        struct trk_err *err)
{
    const char *at = bytes, *end = bytes + len;
    int rc = take_value(split, &at, end, err);
    while (rc == 0 && at < end) {
        const char *begin = at;
        skip_text(split, &at, end);
        rc = split->on_text(split->ctx, begin, (size_t)(at - begin), err);
        if (rc == 0 && split->state == VALUE) {
            if (split->is_found) {
                return trk_err_set(err, TRK_INVALID, "%s comes twice", split->member);
            }
            split->is_found = true;
            rc = take_value(split, &at, end, err);
        }
    }
    return rc;
}
