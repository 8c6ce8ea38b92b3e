/*
 * json.h - jansson with the limits that outside bytes need.
 *
 * Parsing refuses duplicate keys, NUL in strings, nesting deeper than 64, invalid UTF-8 and
 * trailing bytes; every refusal is TRK_INVALID with line and column. The getters read an object
 * member and name the member in the error. Any thread (call trk_json_init once before the first
 * thread starts).
 *
 *     json_auto_t *body = NULL;
 *     const char *name;
 *     if (trk_json_parse(bytes, len, &body, err) < 0) ...
 *     if (trk_json_string(body, "name", &name, err) < 0) ...   // borrows, valid until body goes
 */
#ifndef LIBTRACK_JSON_H
#define LIBTRACK_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

#define TRK_JSON_DEPTH_MAX 64

void trk_json_init(void);
/* *ret owned. Any value at the top. */
int trk_json_parse(const char *bytes, size_t len, json_t **ret, struct trk_err *err) TRK_MUST_CHECK;
/* Compact, UTF-8, keys in insertion order. Appends; TRK_TOO_LARGE past the buffer's cap. */
int trk_json_dump(const json_t *value, struct trk_buf *buf);
/* Appends a quoted string; `s` must be UTF-8. */
int trk_json_add_string(struct trk_buf *buf, const char *s, size_t len);
/* Compact; returns owned text; never NULL. */
char *trk_json_text(const json_t *value);

/* Required members: TRK_SCHEMA when missing or of another type. */
int trk_json_string(const json_t *object, const char *key, const char **ret,
                    struct trk_err *err) TRK_MUST_CHECK;
int trk_json_int(const json_t *object, const char *key, int64_t *ret,
                 struct trk_err *err) TRK_MUST_CHECK;
/* Optional members: the default when missing, null or of another type. */
const char *trk_json_string_or(const json_t *object, const char *key, const char *otherwise);
int64_t trk_json_int_or(const json_t *object, const char *key, int64_t otherwise);
bool trk_json_bool_or(const json_t *object, const char *key, bool otherwise);
/* json_string(s), or json_null() for NULL. Returns owned. */
json_t *trk_json_string_or_null(const char *s);

#endif
