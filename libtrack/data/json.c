#include "libtrack/data/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

void trk_json_init(void)
{
    json_object_seed(0);
}

/* jansson's own depth limit is 2048 and fixed; ours is checked before it sees the bytes. */
static int check_bytes(const char *bytes, size_t len, struct trk_err *err)
{
    int depth = 0;
    bool in_string = false;
    unsigned line = 1;
    size_t line_start = 0;
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '\0') { /* jansson takes it for the end */
            return trk_err_set(err, TRK_INVALID,
                               "invalid JSON: line %u column %zu: a NUL byte is not allowed", line,
                               i - line_start + 1);
        } else if (c == '\n') {
            line++;
            line_start = i + 1;
        } else if (c == '[' || c == '{') {
            if (++depth > TRK_JSON_DEPTH_MAX) {
                return trk_err_set(err, TRK_INVALID,
                                   "invalid JSON: line %u column %zu: nested deeper than %d levels",
                                   line, i - line_start + 1, TRK_JSON_DEPTH_MAX);
            }
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return 0;
}

int trk_json_parse(const char *bytes, size_t len, json_t **ret, struct trk_err *err)
{
    if (check_bytes(bytes, len, err) < 0) {
        return TRK_INVALID;
    }
    json_error_t fault;
    json_t *value = json_loadb(bytes != NULL ? bytes : "", len,
                               JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &fault);
    if (value == NULL) {
        /* the text quotes the input and may be cut inside a character */
        if (!trk_utf8_is_valid(fault.text, strlen(fault.text))) {
            for (char *p = fault.text; *p != '\0'; p++) {
                if ((unsigned char)*p >= 0x80) {
                    *p = '?';
                }
            }
        }
        return trk_err_set(err, TRK_INVALID, "invalid JSON: line %d column %d: %s",
                           fault.line > 0 ? fault.line : 1, fault.column > 0 ? fault.column : 0,
                           fault.text);
    }
    *ret = value;
    return 0;
}

int trk_json_add_string(struct trk_buf *buf, const char *s, size_t len)
{
    int rc = trk_buf_addc(buf, '"');
    size_t start = 0;
    for (size_t i = 0; i < len && rc == 0; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        rc = trk_buf_add(buf, s + start, i - start);
        start = i + 1;
        static const char named[] = "\b\f\n\r\t\"\\";
        static const char letters[] = "bfnrt\"\\";
        const char *at = c != '\0' ? strchr(named, c) : NULL;
        if (at != NULL) {
            char escape[2] = {'\\', letters[at - named]};
            rc = rc == 0 ? trk_buf_add(buf, escape, sizeof(escape)) : rc;
        } else {
            rc = rc == 0 ? trk_buf_addf(buf, "\\u%04x", c) : rc;
        }
    }
    if (rc == 0) {
        rc = trk_buf_add(buf, s + start, len - start);
    }
    return rc == 0 ? trk_buf_addc(buf, '"') : rc;
}

/* The shortest decimal text that reads back as the same double, always with '.' or an exponent. */
static int dump_real(double value, struct trk_buf *buf)
{
    char text[40];
    for (int precision = 15; precision <= 17; precision++) {
        (void)snprintf(text, sizeof(text), "%.*g", precision, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    if (strpbrk(text, ".e") == NULL) {
        (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), ".0");
    }
    return trk_buf_adds(buf, text);
}

static int dump_container(const json_t *value, struct trk_buf *buf)
{
    bool is_object = json_is_object(value);
    int rc = trk_buf_addc(buf, is_object ? '{' : '[');
    if (is_object) {
        /* jansson's iterators take a plain pointer but change nothing */
        json_t *object = (json_t *)(uintptr_t)value;
        for (void *it = json_object_iter(object); it != NULL && rc == 0;) {
            const char *key = json_object_iter_key(it);
            rc = trk_json_add_string(buf, key, strlen(key));
            rc = rc == 0 ? trk_buf_addc(buf, ':') : rc;
            rc = rc == 0 ? trk_json_dump(json_object_iter_value(it), buf) : rc;
            it = json_object_iter_next(object, it);
            rc = rc == 0 && it != NULL ? trk_buf_addc(buf, ',') : rc;
        }
    } else {
        size_t count = json_array_size(value);
        for (size_t i = 0; i < count && rc == 0; i++) {
            rc = i > 0 ? trk_buf_addc(buf, ',') : 0;
            rc = rc == 0 ? trk_json_dump(json_array_get(value, i), buf) : rc;
        }
    }
    return rc == 0 ? trk_buf_addc(buf, is_object ? '}' : ']') : rc;
}

int trk_json_dump(const json_t *value, struct trk_buf *buf)
{
    if (value == NULL) {
        return trk_buf_adds(buf, "null");
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        return dump_container(value, buf);
    case JSON_STRING:
        return trk_json_add_string(buf, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        return trk_buf_addf(buf, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    case JSON_REAL:
        return dump_real(json_real_value(value), buf);
    case JSON_TRUE:
        return trk_buf_adds(buf, "true");
    case JSON_FALSE:
        return trk_buf_adds(buf, "false");
    case JSON_NULL:
        break;
    }
    return trk_buf_adds(buf, "null");
}

char *trk_json_text(const json_t *value)
{
    struct trk_buf buf;
    trk_buf_init(&buf, SIZE_MAX / 4); /* the value itself was bounded when it was made */
    (void)trk_json_dump(value, &buf);
    return trk_buf_steal(&buf, NULL);
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        break;
    }
    return "null";
}

static int wrong_member(const json_t *value, const char *key, const char *wanted,
                        struct trk_err *err)
{
    if (value == NULL) {
        return trk_err_set(err, TRK_SCHEMA, "%s: is required (%s)", key, wanted);
    }
    return trk_err_set(err, TRK_SCHEMA, "%s: must be %s, is %s", key, wanted, type_name(value));
}

int trk_json_string(const json_t *object, const char *key, const char **ret, struct trk_err *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) {
        return wrong_member(value, key, "a string", err);
    }
    *ret = json_string_value(value);
    return 0;
}

int trk_json_int(const json_t *object, const char *key, int64_t *ret, struct trk_err *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) {
        return wrong_member(value, key, "a whole number", err);
    }
    *ret = json_integer_value(value);
    return 0;
}

const char *trk_json_string_or(const json_t *object, const char *key, const char *otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_string(value) ? json_string_value(value) : otherwise;
}

int64_t trk_json_int_or(const json_t *object, const char *key, int64_t otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

bool trk_json_bool_or(const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

json_t *trk_json_string_or_null(const char *s)
{
    return s != NULL ? json_string(s) : json_null();
}
