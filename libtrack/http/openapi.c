/* OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0) made from the route tables. */
#include <ctype.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_internal.h"

static const char error_schema[] =
    "{\"type\":\"object\",\"required\":[\"error\",\"type\"],\"properties\":{"
    "\"error\":{\"type\":\"string\",\"description\":\"what went wrong and what to do\"},"
    "\"type\":{\"type\":\"string\"},"
    "\"tracing_id\":{\"type\":\"string\",\"description\":\"with a 5xx: find it in the log\"},"
    "\"detail\":{\"description\":\"with a 422: the faults, each with its place\"}}}";

/* Schema text of our own tables. Returns owned. */
static json_t *parse_ours(const char *text)
{
    json_t *value = NULL;
    struct trk_err err = {0};
    if (trk_json_parse(text, strlen(text), &value, &err) < 0) {
        trk_die("schema %s: %s", text, err.text);
    }
    return value;
}

/* "/a/{rest:path}" as OpenAPI writes it: "/a/{rest}". Returns owned. */
static char *openapi_path(const char *path)
{
    char *out = trk_xstrdup(path);
    char *suffix = strstr(out, ":path}");
    if (suffix != NULL) {
        memmove(suffix, suffix + strlen(":path"), strlen(suffix) - strlen(":path") + 1);
    }
    return out;
}

/* "get_api_v1_job_name": unique, since method and path are. Returns owned. */
static json_t *operation_id(const char *method, const char *path)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 1024);
    (void)trk_buf_adds(&buf, method);
    for (const char *p = path; *p != '\0'; p++) {
        if (isalnum((unsigned char)*p)) {
            (void)trk_buf_addc(&buf, *p);
        } else if (buf.data[buf.len - 1] != '_') {
            (void)trk_buf_addc(&buf, '_');
        }
    }
    while (buf.data[buf.len - 1] == '_') {
        buf.data[--buf.len] = '\0';
    }
    json_t *id = json_string(buf.data);
    trk_buf_fini(&buf);
    return id;
}

static void add_path_parameters(json_t *list, const char *path)
{
    for (const char *at = strchr(path, '{'); at != NULL; at = strchr(at + 1, '{')) {
        size_t len = strcspn(at + 1, ":}");
        (void)json_array_append_new(list, json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", at + 1,
                                                    len, "in", "path", "required", 1, "schema",
                                                    "type", "string"));
    }
}

static json_t *query_schema(const struct http_query *query)
{
    bool is_int = strcmp(query->type, "int") == 0;
    bool is_bool = strcmp(query->type, "bool") == 0;
    json_t *schema = json_pack("{s:s}", "type",
                               is_int    ? "integer"
                               : is_bool ? "boolean"
                                         : "string");
    if (query->otherwise[0] != '\0') {
        json_t *value = is_int    ? json_integer(strtoll(query->otherwise, NULL, 10))
                        : is_bool ? json_boolean(strcmp(query->otherwise, "true") == 0)
                                  : json_string(query->otherwise);
        (void)json_object_set_new(schema, "default", value);
    }
    return schema;
}

static void add_query_parameters(json_t *list, const char *text)
{
    size_t count = 0;
    struct http_query *query = http_query_parse(text, &count);
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(list,
                                    json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", query[i].name,
                                              "in", "query", "required", 0, "description",
                                              query[i].help, "schema", query_schema(&query[i])));
    }
    http_query_free(query, count);
}

static json_t *json_content(json_t *schema)
{
    return json_pack("{s:{s:o}}", "application/json", "schema", schema);
}

static json_t *error_answer(const char *description)
{
    return json_pack("{s:s, s:o}", "description", description, "content",
                     json_content(json_pack("{s:s}", "$ref", "#/components/schemas/Error")));
}

static json_t *answers(const struct trk_route *route)
{
    json_t *success = json_pack("{s:s}", "description", "success");
    if (route->response_schema != NULL) {
        (void)json_object_set_new(success, "content",
                                  json_content(parse_ours(route->response_schema)));
    }
    json_t *list = json_pack("{s:o}", "200", success);
    if (strcmp(route->access, "public") != 0) {
        (void)json_object_set_new(list, "401", error_answer("no token, or not a valid one"));
        (void)json_object_set_new(list, "403", error_answer("the permission is missing"));
    }
    if (route->request_schema != NULL || route->query != NULL) {
        (void)json_object_set_new(list, "422", error_answer("body or query do not fit"));
    }
    (void)json_object_set_new(list, "default", error_answer("error"));
    return list;
}

static json_t *request_body(const struct trk_route *route)
{
    bool raw = (route->flags & TRK_ROUTE_RAW_BODY) != 0 ||
               ((route->flags & TRK_ROUTE_STREAM_BODY) != 0 && route->request_schema == NULL);
    json_t *schema = route->request_schema != NULL ? parse_ours(route->request_schema)
                                                   : json_object();
    return json_pack("{s:b, s:{s:{s:o}}}", "required", !raw, "content",
                     raw ? "application/octet-stream" : "application/json", "schema", schema);
}

static json_t *operation(const struct trk_route *route, const char *tag)
{
    json_t *parameters = json_array();
    trk_autofree char *path = openapi_path(route->path);
    trk_autofree char *method = trk_xstrdup(route->method);
    for (char *p = method; *p != '\0'; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
    add_path_parameters(parameters, route->path);
    add_query_parameters(parameters, route->query);
    json_t *op = json_pack("{s:[s], s:s, s:o, s:s, s:o}", "tags", tag, "summary",
                           route->help != NULL ? route->help : "", "operationId",
                           operation_id(method, path), "x-access", route->access, "parameters",
                           parameters);
    if (route->request_schema != NULL ||
        (route->flags & (TRK_ROUTE_RAW_BODY | TRK_ROUTE_STREAM_BODY)) != 0) {
        (void)json_object_set_new(op, "requestBody", request_body(route));
    }
    (void)json_object_set_new(op, "responses", answers(route));
    if (strcmp(route->access, "public") != 0) {
        (void)json_object_set_new(op, "security", json_pack("[{s:[]}]", "token"));
    }
    if ((route->flags & TRK_ROUTE_DEPRECATED) != 0) {
        (void)json_object_set_new(op, "deprecated", json_true());
    }
    return op;
}

static void add_operation(json_t *paths, const struct trk_route *route, const char *tag)
{
    trk_autofree char *path = openapi_path(route->path);
    json_t *item = json_object_get(paths, path);
    if (item == NULL) {
        item = json_object();
        (void)json_object_set_new(paths, path, item);
    }
    trk_autofree char *method = trk_xstrdup(route->method);
    for (char *p = method; *p != '\0'; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
    (void)json_object_set_new(item, method, operation(route, tag));
}

json_t *trk_http_openapi(const struct trk_http_options *options)
{
    json_t *schemas = options->component_schemas != NULL ? parse_ours(options->component_schemas)
                                                         : json_object();
    if (json_object_get(schemas, "Error") == NULL) {
        (void)json_object_set_new(schemas, "Error", parse_ours(error_schema));
    }
    json_t *paths = json_object();
    json_t *tags = json_array();
    for (size_t i = 0; i < options->table_count; i++) {
        const struct trk_route_table *table = &options->tables[i];
        bool is_shown = false;
        for (size_t k = 0; k < table->count; k++) {
            if ((table->routes[k].flags & TRK_ROUTE_HIDDEN) == 0) {
                add_operation(paths, &table->routes[k], table->tag);
                is_shown = true;
            }
        }
        if (is_shown) {
            (void)json_array_append_new(tags, json_pack("{s:s}", "name", table->tag));
        }
    }
    return json_pack("{s:s, s:{s:s, s:s}, s:o, s:o, s:{s:o, s:{s:{s:s, s:s, s:s}}}}", "openapi",
                     "3.1.0", "info", "title", options->title, "version", options->version, "tags",
                     tags, "paths", paths, "components", "schemas", schemas, "securitySchemes",
                     "token", "type", "apiKey", "in", "header", "name", "X-Racetrack-Auth");
}
