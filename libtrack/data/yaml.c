#include "libtrack/data/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <yaml.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define PATH_MAX_BYTES 256

struct level {
    json_t *container; /* borrows: owned by the level above, the first one by the loader */
    char *key;         /* mapping: the key whose value comes next (owned), or NULL */
    unsigned key_line;
    size_t path_len; /* of the container's own path */
};

struct loader {
    const char *name;
    yaml_parser_t parser;
    struct level stack[TRK_YAML_DEPTH_MAX];
    int depth;
    json_t *root;  /* owned */
    json_t *lines; /* owned, or NULL: path -> line */
    char path[PATH_MAX_BYTES];
    struct trk_err *err;
};

static int fault(struct loader *loader, yaml_mark_t mark, const char *fmt, ...) TRK_PRINTF(3, 4);
static int fault(struct loader *loader, yaml_mark_t mark, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return trk_err_set(loader->err, TRK_INVALID, "%s: line %zu column %zu: %s", loader->name,
                       mark.line + 1, mark.column + 1, text);
}

/* ---- scalars: YAML 1.2.2 §10.3 core schema, decimal only ---- */

static bool is_one_of(const char *s, const char *a, const char *b, const char *c)
{
    return strcmp(s, a) == 0 || strcmp(s, b) == 0 || strcmp(s, c) == 0;
}

static const char *skip_digits(const char *s)
{
    return s + strspn(s, "0123456789");
}

enum plain { PLAIN_STRING, PLAIN_NULL, PLAIN_TRUE, PLAIN_FALSE, PLAIN_INT, PLAIN_REAL, PLAIN_INF };

static enum plain plain_kind(const char *s)
{
    if (s[0] == '\0' || strcmp(s, "~") == 0 || is_one_of(s, "null", "Null", "NULL")) {
        return PLAIN_NULL;
    }
    if (is_one_of(s, "true", "True", "TRUE")) {
        return PLAIN_TRUE;
    }
    if (is_one_of(s, "false", "False", "FALSE")) {
        return PLAIN_FALSE;
    }
    const char *p = s + (s[0] == '-' || s[0] == '+');
    if (is_one_of(p, ".inf", ".Inf", ".INF") || is_one_of(s, ".nan", ".NaN", ".NAN")) {
        return PLAIN_INF;
    }
    const char *after_whole = skip_digits(p);
    if (after_whole > p && *after_whole == '\0') {
        return PLAIN_INT;
    }
    const char *end = after_whole;
    bool has_digits = after_whole > p;
    if (*end == '.') {
        const char *fraction = end + 1;
        end = skip_digits(fraction);
        has_digits = has_digits || end > fraction;
    }
    if (has_digits && (*end == 'e' || *end == 'E')) {
        const char *exponent = end + 1 + (end[1] == '-' || end[1] == '+');
        end = skip_digits(exponent);
        has_digits = end > exponent;
    }
    return has_digits && *end == '\0' ? PLAIN_REAL : PLAIN_STRING;
}

bool trk_yaml_is_plain_string(const char *s)
{
    return plain_kind(s) == PLAIN_STRING;
}

static int number_from(struct loader *loader, const yaml_event_t *event, const char *text,
                       enum plain kind, json_t **ret)
{
    if (kind == PLAIN_INT) {
        int64_t value;
        if (trk_parse_int64(text + (text[0] == '+'), INT64_MIN, INT64_MAX, &value, NULL) < 0) {
            return fault(loader, event->start_mark,
                         "the number %.40s… is too large; if it is a text, write it in quotes",
                         text);
        }
        *ret = json_integer(value);
        return 0;
    }
    double value = kind == PLAIN_INF ? HUGE_VAL : strtod(text, NULL);
    if (!isfinite(value)) {
        return fault(loader, event->start_mark,
                     "%.40s is not a number that JSON knows; if it is a text, write it in quotes",
                     text);
    }
    *ret = json_real(value);
    return 0;
}

static int scalar_from(struct loader *loader, const yaml_event_t *event, json_t **ret)
{
    const char *text = (const char *)event->data.scalar.value;
    size_t len = event->data.scalar.length;
    if (memchr(text, '\0', len) != NULL) {
        return fault(loader, event->start_mark, "a NUL character is not allowed");
    }
    enum plain kind = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_kind(text)
                                                                          : PLAIN_STRING;
    switch (kind) {
    case PLAIN_STRING:
        *ret = json_stringn(text, len);
        break;
    case PLAIN_NULL:
        *ret = json_null();
        break;
    case PLAIN_TRUE:
    case PLAIN_FALSE:
        *ret = json_boolean(kind == PLAIN_TRUE);
        break;
    case PLAIN_INT:
    case PLAIN_REAL:
    case PLAIN_INF:
        return number_from(loader, event, text, kind, ret);
    }
    if (*ret == NULL) {
        return fault(loader, event->start_mark, "the text is not valid Unicode");
    }
    return 0;
}

/* ---- building the value ---- */

/* Writes the path of what is added next to the innermost container into loader->path ("a.b[2]");
 * returns its length. */
static size_t next_path(struct loader *loader)
{
    if (loader->depth == 0) {
        loader->path[0] = '\0';
        return 0;
    }
    const struct level *top = &loader->stack[loader->depth - 1];
    size_t room = sizeof(loader->path) - top->path_len;
    char *end = loader->path + top->path_len;
    if (top->key != NULL) {
        (void)snprintf(end, room, "%s%s", top->path_len > 0 ? "." : "", top->key);
    } else {
        (void)snprintf(end, room, "[%zu]", json_array_size(top->container));
    }
    return strlen(loader->path);
}

static void note_line(struct loader *loader, unsigned line)
{
    if (loader->lines != NULL) {
        /* a path cut inside a character is no key: it has no line then */
        (void)json_object_set_new(loader->lines, loader->path, json_integer(line));
    }
}

/* Adds `value` (taken) to the innermost container, or makes it the root. */
static void add_value(struct loader *loader, json_t *value, unsigned line)
{
    if (loader->depth == 0) {
        loader->root = value;
        return;
    }
    struct level *top = &loader->stack[loader->depth - 1];
    (void)next_path(loader);
    if (top->key == NULL) {
        note_line(loader, line);
        (void)json_array_append_new(top->container, value);
        return;
    }
    note_line(loader, top->key_line);
    (void)json_object_set_new_nocheck(top->container, top->key, value);
    free(top->key);
    top->key = NULL;
}

static bool expects_key(const struct loader *loader)
{
    const struct level *top = loader->depth > 0 ? &loader->stack[loader->depth - 1] : NULL;
    return top != NULL && json_is_object(top->container) && top->key == NULL;
}

static int on_key(struct loader *loader, const yaml_event_t *event)
{
    struct level *top = &loader->stack[loader->depth - 1];
    json_auto_t *key = NULL;
    int rc = scalar_from(loader, event, &key);
    if (rc < 0) {
        return rc;
    }
    const char *text = (const char *)event->data.scalar.value;
    if (!json_is_string(key)) {
        return fault(loader, event->start_mark,
                     "a key must be a text, '%.40s' is not: write it in quotes", text);
    }
    if (json_object_get(top->container, text) != NULL) {
        return fault(loader, event->start_mark, "the key '%.80s' is there twice: keep one of them",
                     text);
    }
    top->key = trk_xstrdup(text);
    top->key_line = (unsigned)event->start_mark.line + 1;
    return 0;
}

static int on_scalar(struct loader *loader, const yaml_event_t *event)
{
    if (expects_key(loader)) {
        return on_key(loader, event);
    }
    json_t *value = NULL;
    int rc = scalar_from(loader, event, &value);
    if (rc == 0) {
        add_value(loader, value, (unsigned)event->start_mark.line + 1);
    }
    return rc;
}

static int on_start(struct loader *loader, const yaml_event_t *event, json_t *container)
{
    if (expects_key(loader)) {
        json_decref(container);
        return fault(loader, event->start_mark,
                     "a key must be a text, not a list or a mapping (a text that begins with { or "
                     "[ must be in quotes)");
    }
    if (loader->depth == TRK_YAML_DEPTH_MAX) {
        json_decref(container);
        return fault(loader, event->start_mark, "nested deeper than %d levels", TRK_YAML_DEPTH_MAX);
    }
    size_t path_len = next_path(loader);
    add_value(loader, container, (unsigned)event->start_mark.line + 1);
    loader->stack[loader->depth++] = (struct level){.container = container, .path_len = path_len};
    return 0;
}

/* Anchors and tags are refused wherever they may stand. */
static int check_decoration(struct loader *loader, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL;
    const yaml_char_t *tag = NULL;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor != NULL) {
        return fault(loader, event->start_mark,
                     "anchors (&%.40s) are not supported: write the value where it is needed; a "
                     "text that begins with & must be in quotes",
                     (const char *)anchor);
    }
    if (tag != NULL) {
        return fault(loader, event->start_mark,
                     "tags (%.40s) are not supported: leave it out; a text that begins with ! must "
                     "be in quotes",
                     (const char *)tag);
    }
    return 0;
}

static int on_event(struct loader *loader, const yaml_event_t *event)
{
    int rc = check_decoration(loader, event);
    if (rc < 0) {
        return rc;
    }
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return fault(loader, event->start_mark,
                     "aliases (*%.40s) are not supported: write the value where it is needed; a "
                     "text that begins with * must be in quotes",
                     (const char *)event->data.alias.anchor);
    case YAML_SCALAR_EVENT:
        return on_scalar(loader, event);
    case YAML_SEQUENCE_START_EVENT:
        return on_start(loader, event, json_array());
    case YAML_MAPPING_START_EVENT:
        return on_start(loader, event, json_object());
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        loader->depth--;
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        if (loader->root != NULL) {
            return fault(loader, event->start_mark,
                         "there is a second document: remove the '---' line and what follows");
        }
        return 0;
    default:
        return 0;
    }
}

static int syntax_fault(struct loader *loader)
{
    const yaml_parser_t *parser = &loader->parser;
    const char *problem = parser->problem != NULL ? parser->problem : "cannot be read";
    if (parser->error == YAML_READER_ERROR) {
        return trk_err_set(loader->err, TRK_INVALID, "%s: byte %zu: %s", loader->name,
                           parser->problem_offset + 1, problem);
    }
    const char *hint = "";
    if (strstr(problem, "cannot start any token") != NULL) {
        hint = "; indent with spaces, not tabs, and put texts that begin with @, ` or % in quotes";
    } else if (strstr(problem, "mapping values are not allowed") != NULL) {
        hint = "; check the indentation, and put a text that holds ': ' in quotes";
    }
    return fault(loader, parser->problem_mark, "%s%s%s%s", problem,
                 parser->context != NULL ? " " : "", parser->context != NULL ? parser->context : "",
                 hint);
}

static int run(struct loader *loader)
{
    for (bool is_done = false; !is_done;) {
        yaml_event_t event;
        if (yaml_parser_parse(&loader->parser, &event) == 0) {
            trk_assert(loader->parser.error != YAML_MEMORY_ERROR);
            return syntax_fault(loader);
        }
        is_done = event.type == YAML_STREAM_END_EVENT;
        int rc = on_event(loader, &event);
        yaml_event_delete(&event);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int check_bytes(const char *bytes, size_t len, const char *name, struct trk_err *err)
{
    if (len > TRK_YAML_BYTES_MAX) {
        return trk_err_set(err, TRK_INVALID, "%s: has %zu bytes, at most %d are allowed", name, len,
                           TRK_YAML_BYTES_MAX);
    }
    size_t line = 1;
    for (const char *p = bytes, *end = bytes + len; p < end; line++) {
        const char *line_break = memchr(p, '\n', (size_t)(end - p));
        const char *line_end = line_break != NULL ? line_break : end;
        if (!trk_utf8_is_valid(p, (size_t)(line_end - p))) {
            return trk_err_set(err, TRK_INVALID,
                               "%s: line %zu: is not valid UTF-8: save the file as UTF-8", name,
                               line);
        }
        p = line_end + 1;
    }
    return 0;
}

int trk_yaml_parse_lines(const char *bytes, size_t len, const char *name, json_t **ret,
                         json_t **ret_lines, struct trk_err *err)
{
    int rc = check_bytes(bytes, len, name, err);
    if (rc < 0) {
        return rc;
    }
    static const char bom[] = "\xef\xbb\xbf";
    if (len >= 3 && memcmp(bytes, bom, 3) == 0) {
        bytes += 3;
        len -= 3;
    }
    struct loader *loader = trk_xcalloc(1, sizeof(*loader));
    loader->name = name;
    loader->err = err;
    loader->lines = ret_lines != NULL ? json_object() : NULL;
    if (yaml_parser_initialize(&loader->parser) == 0) {
        trk_die("out of memory");
    }
    yaml_parser_set_encoding(&loader->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&loader->parser, (const unsigned char *)bytes, len);
    rc = run(loader);
    yaml_parser_delete(&loader->parser);
    for (int i = 0; i < TRK_YAML_DEPTH_MAX; i++) {
        free(loader->stack[i].key);
        loader->stack[i].key = NULL;
    }
    if (rc == 0) {
        *ret = loader->root != NULL ? TRK_STEAL(loader->root) : json_null();
        if (ret_lines != NULL) {
            *ret_lines = TRK_STEAL(loader->lines);
        }
    }
    json_decref(loader->root);
    json_decref(loader->lines);
    free(loader);
    return rc;
}

int trk_yaml_parse(const char *bytes, size_t len, const char *name, json_t **ret,
                   struct trk_err *err)
{
    return trk_yaml_parse_lines(bytes, len, name, ret, NULL, err);
}
