#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/schema_impl.h"

#define PATTERN_SUBJECT_MAX 8192 /* longer texts are not given to regexec */
#define REF_DEPTH_MAX       256
#define SUGGESTED_KEYS_MAX  200 /* in larger objects nobody's misspelling is searched for */

struct check {
    const struct trk_schema *schema;
    struct trk_faults *faults;
    char path[sizeof(((struct trk_fault *)NULL)->path)];
    int ref_depth;
};

static void check_value(struct check *check, const json_t *node, const json_t *value);

/* A value as it may stand in a fault: short, and nothing of a password. */
static const char *shown(const json_t *node, const json_t *value, char *out, size_t size)
{
    const char *format = trk_json_string_or(node, "format", "");
    if (strcmp(format, "password") == 0) {
        return "not shown";
    }
    if (json_is_object(value)) {
        return "a mapping";
    }
    if (json_is_array(value)) {
        return "a list";
    }
    trk_autofree char *text = trk_json_text(value);
    size_t len = strlen(text);
    size_t cut = len;
    if (len >= size) {
        for (cut = size - 4; cut > 0 && ((unsigned char)text[cut] & 0xC0) == 0x80;) {
            cut--;
        }
    }
    (void)snprintf(out, size, "%.*s%s", (int)cut, text, cut < len ? "…" : "");
    return out;
}

static void add(struct check *check, const char *keyword, const char *fmt, ...) TRK_PRINTF(3, 4);
static void add(struct check *check, const char *keyword, const char *fmt, ...)
{
    char text[sizeof(((struct trk_fault *)NULL)->text)];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    trk_faults_add(check->faults, check->path, keyword, "%s", text);
}

static bool has_type(const json_t *value, const char *type)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return strcmp(type, "object") == 0;
    case JSON_ARRAY:
        return strcmp(type, "array") == 0;
    case JSON_STRING:
        return strcmp(type, "string") == 0;
    case JSON_INTEGER:
        return strcmp(type, "integer") == 0 || strcmp(type, "number") == 0;
    case JSON_REAL:
        return strcmp(type, "number") == 0;
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(type, "boolean") == 0;
    case JSON_NULL:
        break;
    }
    return strcmp(type, "null") == 0;
}

static const char *type_text(const char *type)
{
    static const struct {
        const char *type, *text;
    } texts[] = {
        {"object", "a mapping"}, {"array", "a list"},
        {"string", "a string"},  {"integer", "a whole number"},
        {"number", "a number"},  {"boolean", "true or false"},
        {"null", "null"},
    };
    for (size_t i = 0; i < TRK_COUNT(texts); i++) {
        if (strcmp(type, texts[i].type) == 0) {
            return texts[i].text;
        }
    }
    trk_die("schema: unknown type %s", type);
}

static void check_type(struct check *check, const json_t *node, const json_t *wanted,
                       const json_t *value)
{
    char names[160] = "";
    char given[80];
    bool takes_string = false;
    size_t count = json_is_array(wanted) ? json_array_size(wanted) : 1;
    for (size_t i = 0; i < count; i++) {
        const char *type = json_string_value(json_is_array(wanted) ? json_array_get(wanted, i)
                                                                   : wanted);
        if (has_type(value, type)) {
            return;
        }
        takes_string = takes_string || strcmp(type, "string") == 0;
        size_t len = strlen(names);
        (void)snprintf(names + len, sizeof(names) - len, "%s%s", i > 0 ? " or " : "",
                       type_text(type));
    }
    const char *hint = trk_json_string_or(node, "x-hint", NULL);
    const char *value_text = shown(node, value, given, sizeof(given));
    if (takes_string && (json_is_number(value) || json_is_boolean(value))) {
        add(check, "type", "must be %s, is %s: write it in quotes", names, value_text);
    } else if (hint != NULL) {
        add(check, "type", "must be %s (%s), is %s", names, hint, value_text);
    } else {
        add(check, "type", "must be %s, is %s", names, value_text);
    }
}

static void check_enum(struct check *check, const json_t *node, const json_t *wanted,
                       const json_t *value)
{
    struct trk_buf buf;
    char given[80];
    trk_buf_init(&buf, 400);
    for (size_t i = 0; i < json_array_size(wanted); i++) {
        if (json_equal(json_array_get(wanted, i), value)) {
            trk_buf_fini(&buf);
            return;
        }
        trk_autofree char *one = trk_json_text(json_array_get(wanted, i));
        (void)trk_buf_addf(&buf, "%s%s", i > 0 ? ", " : "", one);
    }
    add(check, "enum", "must be %s%s, is %s", json_array_size(wanted) > 1 ? "one of " : "",
        buf.data, shown(node, value, given, sizeof(given)));
    trk_buf_fini(&buf);
}

static void check_const(struct check *check, const json_t *node, const json_t *wanted,
                        const json_t *value)
{
    char given[80];
    if (!json_equal(wanted, value)) {
        trk_autofree char *text = trk_json_text(wanted);
        add(check, "const", "must be %.200s, is %s", text,
            shown(node, value, given, sizeof(given)));
    }
}

static bool pattern_matches(const struct trk_schema *schema, const char *pattern,
                            const json_t *value)
{
    const char *text = json_string_value(value);
    if (json_string_length(value) > PATTERN_SUBJECT_MAX ||
        strlen(text) != json_string_length(value)) {
        return false;
    }
    for (size_t i = 0; i < schema->pattern_count; i++) {
        if (schema->patterns[i].text == pattern) {
            return regexec(&schema->patterns[i].regex, text, 0, NULL, 0) == 0;
        }
    }
    trk_die("schema: pattern %s was not compiled", pattern);
}

static void check_pattern(struct check *check, const json_t *node, const json_t *wanted,
                          const json_t *value)
{
    char given[80];
    const char *pattern = json_string_value(wanted);
    if (!json_is_string(value) || pattern_matches(check->schema, pattern, value)) {
        return;
    }
    const char *hint = trk_json_string_or(node, "x-hint", NULL);
    const json_t *example = json_array_get(json_object_get(node, "examples"), 0);
    const char *value_text = shown(node, value, given, sizeof(given));
    if (hint != NULL) {
        add(check, "pattern", "%s, is %s", hint, value_text);
    } else if (json_is_string(example)) {
        add(check, "pattern", "must look like \"%s\", is %s", json_string_value(example),
            value_text);
    } else {
        add(check, "pattern", "must match %s, is %s", pattern, value_text);
    }
}

static size_t character_count(const json_t *value)
{
    const char *text = json_string_value(value);
    size_t count = 0;
    for (size_t i = 0; i < json_string_length(value); i++) {
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    }
    return count;
}

static void check_size(struct check *check, const char *keyword, json_int_t limit,
                       const json_t *value)
{
    bool is_min = keyword[1] == 'i';
    const char *unit;
    size_t size;
    if (json_is_string(value) && trk_str_has_suffix(keyword, "Length")) {
        size = character_count(value);
        unit = "characters";
    } else if (json_is_array(value) && trk_str_has_suffix(keyword, "Items")) {
        size = json_array_size(value);
        unit = "items";
    } else if (json_is_object(value) && trk_str_has_suffix(keyword, "Properties")) {
        size = json_object_size(value);
        unit = "keys";
    } else {
        return;
    }
    if (is_min && size < (size_t)limit) {
        if (size == 0 && limit == 1) {
            add(check, keyword, "must not be empty");
        } else {
            add(check, keyword, "must have at least %lld %s, has %zu", (long long)limit, unit,
                size);
        }
    } else if (!is_min && size > (size_t)limit) {
        add(check, keyword, "must have at most %lld %s, has %zu", (long long)limit, unit, size);
    }
}

static void check_range(struct check *check, const char *keyword, const json_t *node,
                        const json_t *limit, const json_t *value)
{
    char given[80];
    if (!json_is_number(value)) {
        return;
    }
    double number = json_number_value(value);
    double bound = json_number_value(limit);
    const char *relation = NULL;
    if (strcmp(keyword, "minimum") == 0 && number < bound) {
        relation = "at least";
    } else if (strcmp(keyword, "maximum") == 0 && number > bound) {
        relation = "at most";
    } else if (strcmp(keyword, "exclusiveMinimum") == 0 && number <= bound) {
        relation = "more than";
    }
    if (relation != NULL) {
        trk_autofree char *bound_text = trk_json_text(limit);
        add(check, keyword, "must be %s %s, is %s", relation, bound_text,
            shown(node, value, given, sizeof(given)));
    }
}

/* ---- members and items ---- */

/* Appends ".key" or "[index]" to the path; returns what to cut it back to. */
static size_t enter(struct check *check, const char *key, size_t index)
{
    size_t len = strlen(check->path);
    char *end = check->path + len;
    size_t room = sizeof(check->path) - len;
    if (key == NULL) {
        (void)snprintf(end, room, "[%zu]", index);
    } else {
        (void)snprintf(end, room, "%s%s", len > 0 ? "." : "", key);
    }
    return len;
}

/* The known key that `key` is a misspelling of, or NULL. Borrows from the schema. */
static const char *near_key(const json_t *node, const char *key)
{
    json_t *properties = json_object_get(node, "properties");
    size_t count = json_object_size(properties);
    trk_autofree const char **names = trk_xcalloc(count, sizeof(*names));
    size_t i = 0;
    const char *name;
    json_t *member;
    json_object_foreach (properties, name, member) {
        names[i++] = name;
    }
    return trk_str_nearest(key, names, count);
}

/* Is a key there that will be reported as a misspelling of `wanted`? One mistake, one fault. */
static bool has_misspelling(const json_t *node, const json_t *value, const char *wanted)
{
    const json_t *properties = json_object_get(node, "properties");
    const char *key;
    json_t *member;
    if (!json_is_false(json_object_get(node, "additionalProperties")) ||
        json_object_size(value) > SUGGESTED_KEYS_MAX) {
        return false;
    }
    json_object_foreach ((json_t *)(uintptr_t)value, key, member) {
        const char *near = json_object_get(properties, key) == NULL ? near_key(node, key) : NULL;
        if (near != NULL && strcmp(near, wanted) == 0) {
            return true;
        }
    }
    return false;
}

static void check_required(struct check *check, const json_t *node, const json_t *wanted,
                           const json_t *value)
{
    for (size_t i = 0; i < json_array_size(wanted); i++) {
        const char *key = json_string_value(json_array_get(wanted, i));
        if (!json_is_object(value) || json_object_get(value, key) != NULL ||
            has_misspelling(node, value, key)) {
            continue;
        }
        const json_t *member = json_object_get(json_object_get(node, "properties"), key);
        const char *meaning = trk_json_string_or(member, "description", NULL);
        size_t len = enter(check, key, 0);
        add(check, "required", "is required%s%s", meaning != NULL ? ": " : "",
            meaning != NULL ? meaning : "");
        check->path[len] = '\0';
    }
}

static void add_unknown(struct check *check, const json_t *node, const char *key)
{
    json_t *properties = json_object_get(node, "properties");
    const char *elsewhere = trk_json_string_or(json_object_get(node, "x-elsewhere"), key, NULL);
    bool is_kept = check->faults->count < TRK_FAULTS_MAX;
    const char *near = is_kept ? near_key(node, key) : NULL;
    if (elsewhere != NULL) {
        add(check, "additionalProperties", "is not known here: write it under '%s'", elsewhere);
    } else if (near != NULL) {
        add(check, "additionalProperties", "is not a known key: did you mean '%s'?", near);
    } else if (json_object_size(properties) == 0) {
        add(check, "additionalProperties", "is not a known key: no keys are known here");
    } else {
        struct trk_buf buf;
        const char *name;
        json_t *member;
        trk_buf_init(&buf, 400);
        json_object_foreach (properties, name, member) {
            (void)trk_buf_addf(&buf, "%s%s", buf.len > 0 ? ", " : "", name);
        }
        add(check, "additionalProperties", "is not a known key: known are %s%s", buf.data,
            buf.failed ? "…" : "");
        trk_buf_fini(&buf);
    }
}

static void check_members(struct check *check, const json_t *node, const json_t *value)
{
    const json_t *properties = json_object_get(node, "properties");
    const json_t *others = json_object_get(node, "additionalProperties");
    const char *key;
    json_t *member;
    json_object_foreach ((json_t *)(uintptr_t)value, key, member) {
        const json_t *known = json_object_get(properties, key);
        const json_t *schema = known != NULL ? known : others;
        size_t len = enter(check, key, 0);
        if (known == NULL && json_is_false(others)) {
            add_unknown(check, node, key);
        } else if (schema != NULL) {
            check_value(check, schema, member);
        }
        check->path[len] = '\0';
    }
}

static void check_items(struct check *check, const json_t *items, const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        size_t len = enter(check, NULL, i);
        check_value(check, items, json_array_get(value, i));
        check->path[len] = '\0';
    }
}

/* ---- alternatives ---- */

static void check_alternatives(struct check *check, const char *keyword, const json_t *list,
                               const json_t *value)
{
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    struct trk_fault first = {0};
    size_t matches = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct check alternative = *check;
        faults->count = 0;
        alternative.faults = faults;
        check_value(&alternative, json_array_get(list, i), value);
        if (faults->count == 0) {
            matches++;
        } else if (first.text[0] == '\0') {
            first = faults->list[0];
        }
    }
    if (matches == 0) {
        bool is_deeper = strcmp(first.path, check->path) != 0;
        add(check, keyword, "has none of the %zu allowed forms; for the first: %s%s%.300s",
            json_array_size(list), is_deeper ? first.path : "", is_deeper ? " " : "", first.text);
    } else if (matches > 1 && strcmp(keyword, "oneOf") == 0) {
        add(check, keyword, "must have one of the allowed forms, has %zu at once", matches);
    }
}

static void check_keyword(struct check *check, const json_t *node, const char *keyword,
                          const json_t *argument, const json_t *value)
{
    if (strcmp(keyword, "enum") == 0) {
        check_enum(check, node, argument, value);
    } else if (strcmp(keyword, "const") == 0) {
        check_const(check, node, argument, value);
    } else if (strcmp(keyword, "pattern") == 0) {
        check_pattern(check, node, argument, value);
    } else if (strcmp(keyword, "required") == 0) {
        check_required(check, node, argument, value);
    } else if (strcmp(keyword, "items") == 0) {
        check_items(check, argument, value);
    } else if (strcmp(keyword, "oneOf") == 0 || strcmp(keyword, "anyOf") == 0) {
        check_alternatives(check, keyword, argument, value);
    } else if (trk_str_has_suffix(keyword, "imum")) {
        check_range(check, keyword, node, argument, value);
    } else if (trk_str_has_suffix(keyword, "Length") || trk_str_has_suffix(keyword, "Items") ||
               strcmp(keyword, "maxProperties") == 0) {
        check_size(check, keyword, json_integer_value(argument), value);
    }
}

static void check_value(struct check *check, const json_t *node, const json_t *value)
{
    if (json_is_true(node)) {
        return;
    }
    if (json_is_false(node)) {
        add(check, "false", "is not allowed");
        return;
    }
    const char *ref = trk_json_string_or(node, "$ref", NULL);
    if (ref != NULL) {
        if (++check->ref_depth > REF_DEPTH_MAX) {
            trk_die("schema: %s leads in a circle", ref);
        }
        check_value(check, trk_schema_resolve(check->schema, ref), value);
        check->ref_depth--;
    }
    const json_t *type = json_object_get(node, "type");
    if (type != NULL) {
        size_t before = check->faults->count;
        check_type(check, node, type, value);
        if (check->faults->count > before) {
            return; /* what else is wrong follows from it */
        }
    }
    const char *keyword;
    json_t *argument;
    json_object_foreach ((json_t *)(uintptr_t)node, keyword, argument) {
        check_keyword(check, node, keyword, argument, value);
    }
    if (json_is_object(value)) {
        check_members(check, node, value);
    }
}

int trk_schema_check(const struct trk_schema *schema, const json_t *value,
                     struct trk_faults *faults)
{
    struct check check = {.schema = schema, .faults = faults};
    size_t before = faults->count;
    check_value(&check, schema->document, value);
    return faults->count > before ? TRK_SCHEMA : 0;
}
