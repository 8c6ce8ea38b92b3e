/*
 * schema_impl.h - a compiled schema, for schema.c (compiles) and schema_check.c (checks) only.
 */
#ifndef LIBTRACK_SCHEMA_IMPL_H
#define LIBTRACK_SCHEMA_IMPL_H

#include <regex.h>

#include "libtrack/data/schema.h"

struct trk_schema_pattern {
    const char *text; /* borrows from the document */
    regex_t regex;
};
struct trk_schema {
    json_t *document;
    struct trk_schema_pattern *patterns;
    size_t pattern_count;
};

/* What "$ref" points to, or NULL. Borrows. */
const json_t *trk_schema_resolve(const struct trk_schema *schema, const char *ref);

#endif
