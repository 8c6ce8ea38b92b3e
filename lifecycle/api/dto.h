/*
 * dto.h - what the API shows and takes, declared once: a table of fields (name, type, where it lies
 * in a struct) from which come the JSON text, the OpenAPI schema and the reading of bodies.
 *
 *     static const struct dto_field fields[] = {
 *         {"id", DTO_TEXT, DTO_AT(struct esc, id)},
 *         {"expiry_time", DTO_TIME, DTO_AT(struct esc, expiry), .is_nullable = true},
 *     };
 *     const struct dto api_esc_dto = DTO("Esc", fields);
 *     ...
 *     return api_reply_dto(req, &api_esc_dto, esc);
 *
 * Tables are constant; any thread. A table must be in `all` of server.c to have a schema: routes
 * name it with API_REF("Esc").
 */
#ifndef LIFECYCLE_API_DTO_H
#define LIFECYCLE_API_DTO_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "libtrack/base/buf.h"
#include "libtrack/http/http_server.h"

enum dto_type {
    DTO_TEXT,    /* const char * */
    DTO_INTEGER, /* int64_t */
    DTO_TIME,    /* int64_t, Unix seconds; null for 0 when nullable */
    DTO_BOOLEAN, /* bool */
    DTO_JSON,    /* const char *: the text of an object */
    DTO_NAMES,   /* const char *: names with commas between; shown as a list */
    DTO_OBJECT,  /* const struct X *, described by `of` */
    DTO_LIST,    /* const struct X *, described by `of`; size_t at `count` says how many */
};
struct dto;
struct dto_field {
    const char *name;
    enum dto_type type;
    size_t offset;
    bool is_nullable;   /* NULL and 0 are null; else NULL is "", {} or [] */
    bool is_required;   /* in a body */
    const char *schema; /* more keywords of JSON Schema: "\"maxLength\":5" */
    const struct dto *of;
    size_t count;
    /* Shows a value that lies nowhere; ctx is the request's (struct lifecycle). */
    void (*write)(struct trk_buf *out, const void *object, const void *ctx);
};
struct dto {
    const char *name; /* of the schema */
    const struct dto_field *fields;
    size_t field_count, size;
};
#define DTO_AT(type, member) .offset = offsetof(type, member)
#define DTO(schema_name, struct_type, list)                                                        \
    {                                                                                              \
        .name = schema_name, .fields = list, .field_count = TRK_COUNT(list),                       \
        .size = sizeof(struct_type)                                                                \
    }

/* An object of one text; what it describes is a `const char *`. */
#define DTO_ONE_TEXT(variable, schema_name, key)                                                   \
    static const struct dto_field variable##_fields[] = {{key, DTO_TEXT, .offset = 0}};            \
    const struct dto variable = DTO(schema_name, const char *, variable##_fields)

/* Appends JSON text. `object` NULL: null. */
void dto_write(struct trk_buf *out, const struct dto *dto, const void *object, const void *ctx);
/* The same as a value. Returns owned. */
json_t *dto_json(const struct dto *dto, const void *object, const void *ctx);
/* Fills `object` from a body that has passed its schema; what is missing or null becomes NULL, 0,
 * false. Texts borrow from `body`. Flat DTOs only. */
void dto_read(const struct dto *dto, const json_t *body, void *object);
/* Components of OpenAPI: a JSON object's text. Returns owned. */
char *dto_schemas(const struct dto *const *all, size_t count);

/* Answers 200 with an object, or a list of `count` objects. */
int api_reply_dto(struct trk_request *req, const struct dto *dto, const void *object);
int api_reply_dtos(struct trk_request *req, const struct dto *dto, const void *objects,
                   size_t count);

#endif
