/*
 * schema.h - JSON Schema (draft 2020-12), the subset that our routes and the manifest use.
 *
 * Known keywords: type (one or a list), properties, required, additionalProperties (false or a
 * schema), items, enum, const, pattern (POSIX extended), minLength, maxLength, minimum, maximum,
 * exclusiveMinimum, minItems, maxItems, maxProperties, oneOf, anyOf, $ref ("#/…" within the same
 * document), $defs, and the annotations title, description, default, examples, format, deprecated.
 * Stricter than the standard: 1.0 is no integer. Our own annotations: x-hint (what to write
 * instead, the text of a pattern or type fault), x-elsewhere (key -> where it belongs). Values of
 * `format: password` are not shown. An unknown keyword is a programming error and aborts when the
 * schema is compiled. All faults are reported at once, each with its path (`git.remote`,
 * `public_endpoints[2]`). Compiled schemas are immutable: any thread.
 */
#ifndef LIBTRACK_SCHEMA_H
#define LIBTRACK_SCHEMA_H

#include <jansson.h>

#include "libtrack/base/err.h"

struct trk_schema;

/* Compiles schema text; aborts on a fault in it (schemas are ours). Returns owned. */
struct trk_schema *trk_schema_new(const char *json_text);
void trk_schema_free(struct trk_schema *schema);

struct trk_fault {
    char path[256]; /* "git.remote"; "" for the whole document */
    char text[512]; /* "must be a string, is 5" */
    char keyword[32];
    unsigned line; /* in the document's text, counted from 1; 0 when not known */
};
#define TRK_FAULTS_MAX 64
struct trk_faults {
    size_t count; /* may exceed TRK_FAULTS_MAX: the rest was counted, not kept */
    struct trk_fault list[TRK_FAULTS_MAX];
};
void trk_faults_add(struct trk_faults *faults, const char *path, const char *keyword,
                    const char *fmt, ...) TRK_PRINTF(4, 5);

/* Adds every fault of `value` to `faults` (not reset here). Returns 0 when it added none, else
 * TRK_SCHEMA. */
int trk_schema_check(const struct trk_schema *schema, const json_t *value,
                     struct trk_faults *faults);
/* Fills `line` of the faults from trk_yaml_parse_lines' answer; what is missing gets the line of
 * what it is missing in. Sorts the faults by line. */
void trk_faults_set_lines(struct trk_faults *faults, const json_t *lines);
/* All faults as one text, a line each: "<what>:\n  git.remote: must start with https:// (line 4)";
 * `what` may be NULL. Sets err with `code`. */
int trk_faults_to_err(const struct trk_faults *faults, enum trk_code code, const char *what,
                      struct trk_err *err);

#endif
