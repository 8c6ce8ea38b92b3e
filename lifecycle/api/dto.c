#include "lifecycle/api/dto.h"

#include <inttypes.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

#define REPLY_MAX ((size_t)256 << 20)

/* -- writing -- */

static void write_names(struct trk_buf *out, const char *names)
{
    (void)trk_buf_addc(out, '[');
    for (bool first = true; names != NULL && *names != '\0';) {
        size_t len = strcspn(names, ",");
        if (len > 0) {
            (void)trk_buf_adds(out, first ? "" : ",");
            (void)trk_json_add_string(out, names, len);
            first = false;
        }
        names += len + (names[len] == ',');
    }
    (void)trk_buf_addc(out, ']');
}

static void write_list(struct trk_buf *out, const struct dto *dto, const void *objects,
                       size_t count, const void *ctx)
{
    (void)trk_buf_addc(out, '[');
    for (size_t i = 0; i < count; i++) {
        (void)trk_buf_adds(out, i > 0 ? "," : "");
        dto_write(out, dto, (const char *)objects + i * dto->size, ctx);
    }
    (void)trk_buf_addc(out, ']');
}

static void write_text(struct trk_buf *out, const struct dto_field *f, const char *text)
{
    if (text == NULL && f->is_nullable) {
        (void)trk_buf_adds(out, "null");
    } else if (f->type == DTO_JSON) {
        (void)trk_buf_adds(out, text != NULL ? text : "{}");
    } else if (f->type == DTO_NAMES) {
        write_names(out, text);
    } else {
        (void)trk_json_add_string(out, text != NULL ? text : "", text != NULL ? strlen(text) : 0);
    }
}

static void write_value(struct trk_buf *out, const struct dto_field *f, const char *object,
                        const void *ctx)
{
    const void *at = object + f->offset;
    if (f->write != NULL) {
        f->write(out, object, ctx);
        return;
    }
    switch (f->type) {
    case DTO_INTEGER:
    case DTO_TIME: {
        int64_t value = *(const int64_t *)at;
        (void)(value == 0 && f->is_nullable ? trk_buf_adds(out, "null")
                                            : trk_buf_addf(out, "%" PRId64, value));
        return;
    }
    case DTO_BOOLEAN:
        (void)trk_buf_adds(out, *(const bool *)at ? "true" : "false");
        return;
    case DTO_OBJECT:
        dto_write(out, f->of, *(const void *const *)at, ctx);
        return;
    case DTO_LIST:
        write_list(out, f->of, *(const void *const *)at,
                   *(const size_t *)(const void *)(object + f->count), ctx);
        return;
    case DTO_TEXT:
    case DTO_JSON:
    case DTO_NAMES:
        write_text(out, f, *(const char *const *)at);
    }
}

void dto_write(struct trk_buf *out, const struct dto *dto, const void *object, const void *ctx)
{
    if (object == NULL) {
        (void)trk_buf_adds(out, "null");
        return;
    }
    for (size_t i = 0; i < dto->field_count; i++) {
        const struct dto_field *f = &dto->fields[i];
        (void)trk_buf_adds(out, i == 0 ? "{\"" : ",\"");
        (void)trk_buf_adds(out, f->name);
        (void)trk_buf_adds(out, "\":");
        write_value(out, f, object, ctx);
    }
    (void)trk_buf_addc(out, '}');
}

static json_t *parsed(const struct trk_buf *text)
{
    json_t *value = NULL;
    struct trk_err err = {0};
    if (trk_json_parse(text->data, text->len, &value, &err) < 0) {
        trk_die("what a DTO wrote is no JSON: %s", err.text);
    }
    return value;
}

json_t *dto_json(const struct dto *dto, const void *object, const void *ctx)
{
    struct trk_buf buf;
    trk_buf_init(&buf, REPLY_MAX);
    dto_write(&buf, dto, object, ctx);
    json_t *value = parsed(&buf);
    trk_buf_fini(&buf);
    return value;
}

/* -- replies -- */

/* Those of the fatman era are renamed on the way out, which takes a value. */
static int reply(struct trk_request *req, struct trk_buf *out)
{
    trk_assert(!out->failed);
    if (trk_req_is_alias(req)) {
        json_t *value = parsed(out);
        trk_buf_fini(out);
        return trk_reply_json(req, 200, value);
    }
    size_t len;
    char *bytes = trk_buf_steal(out, &len);
    return trk_reply_bytes(req, 200, "application/json", bytes, len);
}

int api_reply_dto(struct trk_request *req, const struct dto *dto, const void *object)
{
    struct trk_buf out;
    trk_buf_init(&out, REPLY_MAX);
    dto_write(&out, dto, object, trk_req_ctx(req));
    return reply(req, &out);
}

int api_reply_dtos(struct trk_request *req, const struct dto *dto, const void *objects,
                   size_t count)
{
    struct trk_buf out;
    trk_buf_init(&out, REPLY_MAX);
    write_list(&out, dto, objects, count, trk_req_ctx(req));
    return reply(req, &out);
}

/* -- reading -- */

void dto_read(const struct dto *dto, const json_t *body, void *object)
{
    memset(object, 0, dto->size);
    for (size_t i = 0; i < dto->field_count; i++) {
        const struct dto_field *f = &dto->fields[i];
        void *at = (char *)object + f->offset;
        switch (f->type) {
        case DTO_TEXT:
            *(const char **)at = trk_json_string_or(body, f->name, NULL);
            break;
        case DTO_INTEGER:
        case DTO_TIME:
            *(int64_t *)at = trk_json_int_or(body, f->name, 0);
            break;
        case DTO_BOOLEAN:
            *(bool *)at = trk_json_bool_or(body, f->name, false);
            break;
        case DTO_JSON:
        case DTO_NAMES:
        case DTO_OBJECT:
        case DTO_LIST:
            trk_die("%s.%s cannot be read", dto->name, f->name);
        }
    }
}

/* -- schemas -- */

static void write_schema_of_field(struct trk_buf *out, const struct dto_field *f)
{
    static const char *const types[] = {
        [DTO_TEXT] = "string",     [DTO_INTEGER] = "integer", [DTO_TIME] = "integer",
        [DTO_BOOLEAN] = "boolean", [DTO_JSON] = "object",     [DTO_NAMES] = "array",
        [DTO_OBJECT] = "object",   [DTO_LIST] = "array",
    };
    if (f->type == DTO_OBJECT && !f->is_nullable) {
        (void)trk_buf_addf(out, "{\"$ref\":\"#/components/schemas/%s\"}", f->of->name);
        return;
    }
    (void)trk_buf_addf(out, f->is_nullable ? "{\"type\":[\"%s\",\"null\"]" : "{\"type\":\"%s\"",
                       types[f->type]);
    if (f->type == DTO_TIME) {
        (void)trk_buf_adds(out, ",\"description\":\"Unix seconds\"");
    } else if (f->type == DTO_NAMES) {
        (void)trk_buf_adds(out, ",\"items\":{\"type\":\"string\"}");
    } else if (f->type == DTO_LIST) {
        (void)trk_buf_addf(out, ",\"items\":{\"$ref\":\"#/components/schemas/%s\"}", f->of->name);
    }
    if (f->schema != NULL) {
        (void)trk_buf_addf(out, ",%s", f->schema);
    }
    (void)trk_buf_addc(out, '}');
}

static void write_schema(struct trk_buf *out, const struct dto *dto)
{
    bool has_required = false;
    (void)trk_buf_addf(out, "\"%s\":{\"type\":\"object\",\"properties\":{", dto->name);
    for (size_t i = 0; i < dto->field_count; i++) {
        (void)trk_buf_addf(out, "%s\"%s\":", i > 0 ? "," : "", dto->fields[i].name);
        write_schema_of_field(out, &dto->fields[i]);
    }
    (void)trk_buf_addc(out, '}');
    for (size_t i = 0; i < dto->field_count; i++) {
        if (dto->fields[i].is_required) {
            (void)trk_buf_addf(out, "%s\"%s\"", has_required ? "," : ",\"required\":[",
                               dto->fields[i].name);
            has_required = true;
        }
    }
    (void)trk_buf_adds(out, has_required ? "]}" : "}");
}

char *dto_schemas(const struct dto *const *all, size_t count)
{
    struct trk_buf out;
    trk_buf_init(&out, 1 << 20);
    (void)trk_buf_addc(&out, '{');
    for (size_t i = 0; i < count; i++) {
        (void)trk_buf_adds(&out, i > 0 ? "," : "");
        write_schema(&out, all[i]);
    }
    (void)trk_buf_addc(&out, '}');
    trk_assert(!out.failed);
    return trk_buf_steal(&out, NULL);
}
