#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"

/* Words that YAML 1.1 readers (the original's, for one) take for booleans. */
static bool is_old_boolean(const char *s)
{
    static const char *const words[] = {"y", "n", "yes", "no", "on", "off"};
    for (size_t i = 0; i < TRK_COUNT(words); i++) {
        if (strcasecmp(s, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Conservative: what begins with a letter, '/' or '_' and holds nothing that YAML gives a meaning.
 */
static bool needs_no_quotes(const char *s, size_t len)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/_";
    static const char more[] = "0123456789.-+@:# ,()='";
    if (len == 0 || strchr(letters, s[0]) == NULL || s[len - 1] == ' ' || s[len - 1] == ':') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\0' || (strchr(letters, s[i]) == NULL && strchr(more, s[i]) == NULL)) {
            return false;
        }
        if ((s[i] == ':' && s[i + 1] == ' ') || (s[i] == '#' && s[i - 1] == ' ') ||
            (s[i] == ',' && s[i + 1] != ' ')) {
            return false;
        }
    }
    return trk_yaml_is_plain_string(s) && !is_old_boolean(s);
}

static uint32_t code_point(const unsigned char *s, size_t *ret_len)
{
    if (s[0] < 0x80) {
        *ret_len = 1;
        return s[0];
    }
    size_t len = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    uint32_t value = s[0] & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        value = value << 6 | (s[i] & 0x3F);
    }
    *ret_len = len;
    return value;
}

/* Not printable by YAML 1.2 §5.1, or a line break for some reader. */
static bool needs_escape(uint32_t c)
{
    return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0x2028 || c == 0x2029 || c == 0xFEFF ||
           c == 0xFFFE || c == 0xFFFF;
}

static int dump_quoted(const char *s, size_t len, struct trk_buf *buf)
{
    int rc = trk_buf_addc(buf, '"');
    for (size_t i = 0, n; i < len && rc == 0; i += n) {
        uint32_t c = code_point((const unsigned char *)s + i, &n);
        if (c == '"' || c == '\\') {
            char escape[2] = {'\\', (char)c};
            rc = trk_buf_add(buf, escape, sizeof(escape));
        } else if (c == '\n' || c == '\t') {
            rc = trk_buf_adds(buf, c == '\n' ? "\\n" : "\\t");
        } else if (needs_escape(c)) {
            rc = trk_buf_addf(buf, "\\u%04X", (unsigned)c);
        } else {
            rc = trk_buf_add(buf, s + i, n);
        }
    }
    return rc == 0 ? trk_buf_addc(buf, '"') : rc;
}

static int dump_string(const char *s, size_t len, struct trk_buf *buf)
{
    return needs_no_quotes(s, len) ? trk_buf_add(buf, s, len) : dump_quoted(s, len, buf);
}

static bool is_block(const json_t *value)
{
    return (json_is_object(value) && json_object_size(value) > 0) ||
           (json_is_array(value) && json_array_size(value) > 0);
}

static int add_indent(struct trk_buf *buf, int indent)
{
    return trk_buf_addf(buf, "%*s", indent, "");
}

static int dump(const json_t *value, int indent, bool is_inline, struct trk_buf *buf);

/* libyaml wants an explicit '?' before keys of more than 1024 characters; escapes make a key up to
 * six times as long. */
#define SIMPLE_KEY_MAX 128

static int dump_key(const char *key, int indent, struct trk_buf *buf)
{
    size_t len = strlen(key);
    if (len <= SIMPLE_KEY_MAX) {
        return dump_string(key, len, buf);
    }
    int rc = trk_buf_adds(buf, "? ");
    rc = rc == 0 ? dump_string(key, len, buf) : rc;
    return rc == 0 ? trk_buf_addf(buf, "\n%*s", indent, "") : rc;
}

static int dump_object(const json_t *value, int indent, bool is_inline, struct trk_buf *buf)
{
    json_t *object = (json_t *)(uintptr_t)value; /* jansson's iterators change nothing */
    int rc = 0;
    for (void *it = json_object_iter(object); it != NULL && rc == 0;
         it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        const json_t *member = json_object_iter_value(it);
        rc = is_inline ? 0 : add_indent(buf, indent);
        is_inline = false;
        rc = rc == 0 ? dump_key(key, indent, buf) : rc;
        rc = rc == 0 ? trk_buf_adds(buf, is_block(member) ? ":\n" : ": ") : rc;
        rc = rc == 0 ? dump(member, indent + 2, false, buf) : rc;
    }
    return rc;
}

static int dump_array(const json_t *value, int indent, bool is_inline, struct trk_buf *buf)
{
    size_t count = json_array_size(value);
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = is_inline && i == 0 ? 0 : add_indent(buf, indent);
        rc = rc == 0 ? trk_buf_adds(buf, "- ") : rc;
        rc = rc == 0 ? dump(json_array_get(value, i), indent + 2, true, buf) : rc;
    }
    return rc;
}

/* Writes a value and its line break. `is_inline`: its first line was begun by the caller. */
static int dump(const json_t *value, int indent, bool is_inline, struct trk_buf *buf)
{
    int rc;
    if (is_block(value)) {
        return json_is_object(value) ? dump_object(value, indent, is_inline, buf)
                                     : dump_array(value, indent, is_inline, buf);
    }
    if (json_is_string(value)) {
        rc = dump_string(json_string_value(value), json_string_length(value), buf);
    } else {
        rc = trk_json_dump(value, buf); /* numbers, booleans, null, [] and {} read the same */
    }
    return rc == 0 ? trk_buf_addc(buf, '\n') : rc;
}

int trk_yaml_dump(const json_t *value, struct trk_buf *buf)
{
    return dump(value, 0, false, buf);
}
