#include "libtrack/data/schema.h"

#include <stdint.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/schema_impl.h"

/* ---- compiling: our own schema texts, so that faults in them abort ---- */

static const char *const known_keywords[] = {
    "$schema", "$id",        "$comment", "$defs",         "$ref",
    "type",    "properties", "required", "items",         "additionalProperties",
    "enum",    "const",      "pattern",  "minLength",     "maxLength",
    "minimum", "maximum",    "minItems", "maxItems",      "exclusiveMinimum",
    "oneOf",   "anyOf",      "title",    "maxProperties", "description",
    "default", "examples",   "format",   "deprecated",
};

static bool is_known_keyword(const char *keyword)
{
    for (size_t i = 0; i < TRK_COUNT(known_keywords); i++) {
        if (strcmp(keyword, known_keywords[i]) == 0) {
            return true;
        }
    }
    return trk_str_has_prefix(keyword, "x-");
}

const json_t *trk_schema_resolve(const struct trk_schema *schema, const char *ref)
{
    const json_t *found = schema->document;
    if (strcmp(ref, "#") == 0) {
        return found;
    }
    trk_autofree char *copy = trk_xstrdup(ref);
    char *rest = copy;
    const char *step = strsep(&rest, "/");
    if (strcmp(step, "#") != 0) {
        return NULL;
    }
    while (rest != NULL) {
        step = strsep(&rest, "/");
        found = json_object_get(found, step);
    }
    return found;
}

static void compile(struct trk_schema *schema, const json_t *node);

static void compile_members(struct trk_schema *schema, const json_t *members)
{
    const char *key;
    json_t *member;
    json_object_foreach ((json_t *)(uintptr_t)members, key, member) {
        compile(schema, member);
    }
}

static void compile_list(struct trk_schema *schema, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        compile(schema, json_array_get(list, i));
    }
}

static void compile_pattern(struct trk_schema *schema, const char *text)
{
    size_t count = schema->pattern_count;
    schema->patterns = trk_xrealloc(schema->patterns, (count + 1) * sizeof(*schema->patterns));
    if (regcomp(&schema->patterns[count].regex, text, REG_EXTENDED | REG_NOSUB) != 0) {
        trk_die("schema: bad pattern %s", text);
    }
    schema->patterns[count].text = text;
    schema->pattern_count++;
}

static void compile(struct trk_schema *schema, const json_t *node)
{
    const char *key;
    json_t *value;
    if (json_is_boolean(node)) {
        return;
    }
    if (!json_is_object(node)) {
        trk_die("schema: a schema must be an object or a boolean");
    }
    json_object_foreach ((json_t *)(uintptr_t)node, key, value) {
        if (!is_known_keyword(key)) {
            trk_die("schema: unknown keyword %s", key);
        } else if (strcmp(key, "properties") == 0 || strcmp(key, "$defs") == 0) {
            compile_members(schema, value);
        } else if (strcmp(key, "items") == 0 || strcmp(key, "additionalProperties") == 0) {
            compile(schema, value);
        } else if (strcmp(key, "oneOf") == 0 || strcmp(key, "anyOf") == 0) {
            compile_list(schema, value);
        } else if (strcmp(key, "pattern") == 0) {
            compile_pattern(schema, json_string_value(value));
        } else if (strcmp(key, "$ref") == 0 &&
                   trk_schema_resolve(schema, json_string_value(value)) == NULL) {
            trk_die("schema: nothing at %s", json_string_value(value));
        }
    }
}

struct trk_schema *trk_schema_new(const char *json_text)
{
    struct trk_schema *schema = trk_xcalloc(1, sizeof(*schema));
    struct trk_err err = {0};
    if (trk_json_parse(json_text, strlen(json_text), &schema->document, &err) < 0) {
        trk_die("schema: %s", err.text);
    }
    compile(schema, schema->document);
    return schema;
}

void trk_schema_free(struct trk_schema *schema)
{
    if (schema == NULL) {
        return;
    }
    for (size_t i = 0; i < schema->pattern_count; i++) {
        regfree(&schema->patterns[i].regex);
    }
    free(schema->patterns);
    json_decref(schema->document);
    free(schema);
}
