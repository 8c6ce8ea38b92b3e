#include "wrapper/front.h"

#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

/* JSON Schema of a Python annotation as the worker spells it; {} when it says nothing. */
static json_t *schema_of(const char *type)
{
    static const struct {
        const char *prefix, *schema;
    } known[] = {
        {"int", "integer"}, {"float", "number"},   {"str", "string"},          {"bool", "boolean"},
        {"list", "array"},  {"List", "array"},     {"tuple", "array"},         {"Tuple", "array"},
        {"set", "array"},   {"Sequence", "array"}, {"Iterable", "array"},      {"dict", "object"},
        {"Dict", "object"}, {"Mapping", "object"}, {"numpy.ndarray", "array"},
    };
    json_t *schema = json_object();
    for (size_t i = 0; type != NULL && i < TRK_COUNT(known); i++) {
        size_t len = strlen(known[i].prefix);
        if (strncmp(type, known[i].prefix, len) == 0 && (type[len] == '\0' || type[len] == '[')) {
            (void)json_object_set_new(schema, "type", json_string(known[i].schema));
            break;
        }
    }
    if (type != NULL) {
        (void)json_object_set_new(schema, "title", json_string(type));
    }
    return schema;
}

static json_t *parameter_schema(const json_t *parameter)
{
    json_t *schema = schema_of(trk_json_string_or(parameter, "type", NULL));
    json_t *value = json_object_get(parameter, "default_value");
    if (value != NULL) {
        (void)json_object_set(schema, "default", value);
    }
    return schema;
}

static json_t *body_of(const json_t *parameters, const json_t *example)
{
    json_t *properties = json_object(), *required = json_array(), *schema = json_object();
    size_t i;
    const json_t *p;
    json_array_foreach (parameters, i, p) {
        const char *name = trk_json_string_or(p, "name", "");
        (void)json_object_set_new(properties, name, parameter_schema(p));
        if (json_object_get(p, "default_value") == NULL) {
            (void)json_array_append_new(required, json_string(name));
        }
    }
    (void)json_object_set_new(schema, "type", json_string("object"));
    (void)json_object_set_new(schema, "properties", properties);
    bool has_required = json_array_size(required) > 0;
    (void)json_object_set_new(schema, "required", required);
    json_t *media = json_object(), *content = json_object(), *body = json_object();
    (void)json_object_set_new(media, "schema", schema);
    if (json_is_object(example)) {
        (void)json_object_set_new(media, "example", json_deep_copy(example));
    }
    (void)json_object_set_new(content, "application/json", media);
    (void)json_object_set_new(body, "required", json_boolean(has_required));
    (void)json_object_set_new(body, "content", content);
    return body;
}

static json_t *query_of(const json_t *parameters)
{
    json_t *list = json_array();
    size_t i;
    const json_t *p;
    json_array_foreach (parameters, i, p) {
        json_t *item = json_object();
        (void)json_object_set_new(item, "name", json_string(trk_json_string_or(p, "name", "")));
        (void)json_object_set_new(item, "in", json_string("query"));
        (void)json_object_set_new(item, "required",
                                  json_boolean(json_object_get(p, "default_value") == NULL));
        (void)json_object_set_new(item, "schema", parameter_schema(p));
        (void)json_array_append_new(list, item);
    }
    return list;
}

static json_t *responses(const char *first, const char *type)
{
    json_t *all = json_object(), *ok = json_object(), *content = json_object();
    (void)json_object_set_new(ok, "description", json_string(first));
    (void)json_object_set_new(content, type, json_object());
    (void)json_object_set_new(ok, "content", content);
    (void)json_object_set_new(all, "200", ok);
    return all;
}

static void add_failures(json_t *all)
{
    static const struct {
        const char *status, *text;
    } failures[] = {
        {"400", "a value was refused, or the arguments do not fit"},
        {"422", "the body is missing or not a JSON object"},
        {"429", "too many requests wait already"},
        {"500", "the job's code failed"},
    };
    for (size_t i = 0; i < TRK_COUNT(failures); i++) {
        json_t *item = json_object();
        (void)json_object_set_new(item, "description", json_string(failures[i].text));
        (void)json_object_set_new(all, failures[i].status, item);
    }
}

static json_t *operation(const char *tag, const char *summary, json_t *takes_responses)
{
    json_t *op = json_object(), *tags = json_array();
    (void)json_array_append_new(tags, json_string(tag));
    (void)json_object_set_new(op, "tags", tags);
    (void)json_object_set_new(op, "summary", json_string(summary));
    (void)json_object_set_new(op, "responses", takes_responses);
    return op;
}

static void add_operation(json_t *paths, const char *path, const char *method, json_t *takes)
{
    trk_autofree char *lower = trk_xstrdup(method);
    for (char *c = lower; *c != '\0'; c++) {
        *c = (char)(*c | 0x20);
    }
    json_t *item = json_object_get(paths, path);
    if (item == NULL) {
        item = json_object();
        (void)json_object_set_new(paths, path, item);
    }
    (void)json_object_set_new(item, lower, takes);
}

static void add_endpoint(json_t *paths, const json_t *endpoint)
{
    const char *path = trk_json_string_or(endpoint, "path", "");
    const char *method = trk_json_string_or(endpoint, "method", "POST");
    const char *doc = trk_json_string_or(endpoint, "doc", "");
    const json_t *parameters = json_object_get(endpoint, "parameters");
    json_t *all = responses("the result", "application/json");
    add_failures(all);
    json_t *op = operation("job", *doc != '\0' ? doc : path + 1, all);
    if (strcmp(method, "GET") == 0 || strcmp(method, "DELETE") == 0) {
        (void)json_object_set_new(op, "parameters", query_of(parameters));
    } else {
        (void)json_object_set_new(op, "requestBody",
                                  body_of(parameters, json_object_get(endpoint, "example")));
    }
    trk_autofree char *full = trk_xasprintf("/api/v1%s", path);
    add_operation(paths, full, method, op);
}

static void add_static(json_t *paths, const json_t *entry)
{
    trk_autofree char *path = trk_xasprintf("/api/v1%s", trk_json_string_or(entry, "path", "/"));
    const char *mime = trk_json_string_or(entry, "mime", "");
    const char *file = trk_json_string_or(entry, "file", "");
    bool is_directory = trk_json_bool_or(entry, "directory", false);
    add_operation(paths, path, "GET",
                  operation("files", is_directory ? "Files of a folder" : "A file",
                            responses("the file", *mime != '\0' ? mime : static_mime(file))));
}

static void add_own(json_t *paths)
{
    static const struct {
        const char *path, *summary, *type;
    } own[] = {
        {"/api/v1/parameters", "Parameters of perform", "application/json"},
        {"/health", "State of the job", "application/json"},
        {"/live", "Is the job alive?", "application/json"},
        {"/ready", "Does the job take calls?", "application/json"},
        {"/metrics", "Prometheus metrics", "text/plain"},
    };
    for (size_t i = 0; i < TRK_COUNT(own); i++) {
        add_operation(paths, own[i].path, "GET",
                      operation("state", own[i].summary, responses("answer", own[i].type)));
    }
}

char *job_openapi(const struct wrapper_options *o, const json_t *announcement)
{
    json_auto_t *root = json_object();
    json_t *info = json_object(), *servers = json_array(), *server = json_object();
    json_t *paths = json_object();
    size_t i;
    const json_t *item;
    const char *doc = trk_json_string_or(announcement, "doc", "");
    trk_autofree char *title = trk_xasprintf("Job %s", *o->job_name != '\0' ? o->job_name
                                                                            : o->entrypoint_path);
    (void)json_object_set_new(info, "title", json_string(title));
    (void)json_object_set_new(info, "version",
                              json_string(*o->job_version != '\0' ? o->job_version : "0.0.1"));
    if (*doc != '\0') {
        (void)json_object_set_new(info, "description", json_string(doc));
    }
    (void)json_object_set_new(root, "openapi", json_string("3.1.0"));
    (void)json_object_set_new(root, "info", info);
    /* Relative to this document, so that it holds under every mount. */
    (void)json_object_set_new(server, "url", json_string("."));
    (void)json_array_append_new(servers, server);
    (void)json_object_set_new(root, "servers", servers);
    json_array_foreach (json_object_get(announcement, "endpoints"), i, item) {
        add_endpoint(paths, item);
    }
    json_array_foreach (json_object_get(announcement, "statics"), i, item) {
        add_static(paths, item);
    }
    add_own(paths);
    (void)json_object_set_new(root, "paths", paths);
    return trk_json_text(root);
}
