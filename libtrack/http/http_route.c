#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_internal.h"

/* Who sends to a public route has shown no token. */
#define PUBLIC_BODY_MAX ((size_t)64 * 1024)

/*
 * A tree of path segments. Below a node: literal segments (sorted, found by bisection), then one
 * parameter, then a rest parameter; tried in this order, going back when a branch has no route for
 * the method. A trailing slash is an empty last segment.
 */
struct node {
    char *literal;
    struct node **children;
    size_t child_count;
    struct node *param;
    struct node *rest;
    struct http_route **routes; /* that end here: one a method */
    size_t route_count;
};
struct http_routes {
    struct node *root;
    struct http_route *list;
    size_t count;
};

/* -- compiling the table -- */

static int compare_child(const void *key, const void *child)
{
    return strcmp(key, (*(struct node *const *)child)->literal);
}

static struct node *find_child(const struct node *node, const char *literal)
{
    if (node->child_count == 0) {
        return NULL;
    }
    struct node **at = bsearch(literal, node->children, node->child_count, sizeof(struct node *),
                               compare_child);
    return at == NULL ? NULL : *at;
}

static struct node *add_child(struct node *node, const char *literal)
{
    struct node *child = find_child(node, literal);
    if (child != NULL) {
        return child;
    }
    child = trk_xcalloc(1, sizeof(*child));
    child->literal = trk_xstrdup(literal);
    node->children = trk_xrealloc(node->children, (node->child_count + 1) * sizeof(child));
    size_t at = node->child_count++;
    for (; at > 0 && strcmp(node->children[at - 1]->literal, literal) > 0; at--) {
        node->children[at] = node->children[at - 1];
    }
    node->children[at] = child;
    return child;
}

static struct node *add_param(struct node *node, struct http_route *route, const char *text)
{
    size_t len = strlen(text);
    if (len < 3 || text[len - 1] != '}' || route->param_count == HTTP_PARAMS_MAX) {
        trk_die("route %s: bad parameter '%s'", route->decl->path, text);
    }
    char *name = trk_xstrndup(text + 1, len - 2);
    bool rest = trk_str_has_suffix(name, ":path");
    if (rest) {
        name[strlen(name) - strlen(":path")] = '\0';
        route->has_rest = true;
    }
    route->params[route->param_count++] = name;
    struct node **next = rest ? &node->rest : &node->param;
    if (*next == NULL) {
        *next = trk_xcalloc(1, sizeof(**next));
    }
    return *next;
}

static void add_route(struct http_routes *routes, struct http_route *route)
{
    const char *path = route->decl->path;
    if (path[0] != '/') {
        trk_die("route %s: a path starts with '/'", path);
    }
    struct node *node = routes->root;
    for (const char *at = path; *at == '/' && !(at == path && at[1] == '\0');) {
        size_t len = strcspn(at + 1, "/");
        trk_autofree char *segment = trk_xstrndup(at + 1, len);
        if (route->has_rest) {
            trk_die("route %s: {…:path} must be last", path);
        }
        node = segment[0] == '{' ? add_param(node, route, segment) : add_child(node, segment);
        at += 1 + len;
    }
    for (size_t i = 0; i < node->route_count; i++) {
        if (strcmp(node->routes[i]->decl->method, route->decl->method) == 0) {
            trk_die("route %s %s is declared twice", route->decl->method, path);
        }
    }
    node->routes = trk_xrealloc(node->routes, (node->route_count + 1) * sizeof(route));
    node->routes[node->route_count++] = route;
}

struct http_query *http_query_parse(const char *text, size_t *ret_count)
{
    struct http_query *list = NULL;
    size_t count = 0;
    while (text != NULL && *text != '\0') {
        size_t len = strcspn(text, ";");
        trk_autofree char *entry = trk_xstrndup(text, len);
        text += len + (text[len] == ';');
        char *type = strchr(entry, ':');
        char *help = type == NULL ? NULL : strchr(type + 1, ':');
        if (type == NULL) {
            trk_die("query parameter '%s': name:type[=default][:help]", entry);
        }
        *type++ = '\0';
        if (help != NULL) {
            *help++ = '\0';
        }
        char *otherwise = strchr(type, '=');
        if (otherwise != NULL) {
            *otherwise++ = '\0';
        }
        if (strcmp(type, "string") != 0 && strcmp(type, "int") != 0 && strcmp(type, "bool") != 0) {
            trk_die("query parameter '%s': unknown type '%s'", entry, type);
        }
        const char *name = entry + strspn(entry, " \n");
        list = trk_xrealloc(list, (count + 1) * sizeof(*list));
        list[count++] = (struct http_query){
            .name = trk_xstrdup(name),
            .type = trk_xstrdup(type),
            .otherwise = trk_xstrdup(otherwise != NULL ? otherwise : ""),
            .help = trk_xstrdup(help != NULL ? help : ""),
        };
    }
    *ret_count = count;
    return list;
}

void http_query_free(struct http_query *query, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(query[i].name);
        free(query[i].type);
        free(query[i].otherwise);
        free(query[i].help);
    }
    free(query);
}

/* Schema text with OpenAPI's references turned into JSON Schema's own. Returns owned. */
static char *with_local_refs(const char *text)
{
    static const char from[] = "#/components/schemas/";
    static const char to[] = "#/$defs/";
    struct trk_buf buf;
    trk_buf_init(&buf, 1 << 20);
    const char *at;
    while ((at = strstr(text, from)) != NULL) {
        (void)trk_buf_add(&buf, text, (size_t)(at - text));
        (void)trk_buf_adds(&buf, to);
        text = at + strlen(from);
    }
    (void)trk_buf_adds(&buf, text);
    trk_assert(!buf.failed);
    return trk_buf_steal(&buf, NULL);
}

/* A request schema that refers to "#/components/schemas/…" is compiled together with them. */
static struct trk_schema *compile_schema(const struct trk_http_options *options, const char *text)
{
    if (options->component_schemas == NULL || strstr(text, "#/components/") == NULL) {
        return trk_schema_new(text);
    }
    struct trk_err err = {0};
    json_auto_t *schema = NULL;
    json_t *components = NULL;
    if (trk_json_parse(text, strlen(text), &schema, &err) < 0 ||
        trk_json_parse(options->component_schemas, strlen(options->component_schemas), &components,
                       &err) < 0) {
        trk_die("schema %s: %s", text, err.text);
    }
    (void)json_object_set_new(schema, "$defs", components);
    trk_autofree char *joined = trk_json_text(schema);
    trk_autofree char *whole = with_local_refs(joined);
    return trk_schema_new(whole);
}

static void compile_route(struct http_routes *routes, const struct trk_http_options *options,
                          const char *tag, const struct trk_route *decl)
{
    struct http_route *route = &routes->list[routes->count++];
    if (decl->method == NULL || decl->handler == NULL || decl->access == NULL) {
        trk_die("route %s: method, access and handler are required", decl->path);
    }
    if (strcmp(decl->access, "public") != 0 && options->authorize == NULL) {
        trk_die("route %s needs '%s' and there is no authorize()", decl->path, decl->access);
    }
    if ((decl->flags & TRK_ROUTE_STREAM_BODY) != 0 && decl->on_body == NULL) {
        trk_die("route %s streams its body and has no on_body()", decl->path);
    }
    route->decl = decl;
    route->tag = tag;
    route->query = http_query_parse(decl->query, &route->query_count);
    route->body_max_bytes = decl->body_max_bytes > 0              ? decl->body_max_bytes
                            : strcmp(decl->access, "public") == 0 ? PUBLIC_BODY_MAX
                            : options->body_max_bytes > 0         ? options->body_max_bytes
                                                                  : 1 << 20;
    if (decl->request_schema != NULL && (decl->flags & TRK_ROUTE_RAW_BODY) == 0) {
        route->schema = compile_schema(options, decl->request_schema);
    }
    add_route(routes, route);
}

static const struct trk_route openapi_route = {
    .method = "GET",
    .path = "/openapi.json",
    .access = "public",
    .handler = http_get_openapi,
    .help = "The OpenAPI document of this service.",
    .flags = TRK_ROUTE_HIDDEN,
};
static const struct trk_route docs_routes[] = {
    {.method = "GET",
     .path = "/docs",
     .access = "public",
     .handler = http_get_docs,
     .help = "A page that lists every route.",
     .flags = TRK_ROUTE_HIDDEN},
    {.method = "GET",
     .path = "/",
     .access = "public",
     .handler = http_get_docs,
     .help = "A page that lists every route.",
     .flags = TRK_ROUTE_HIDDEN},
};

static bool is_declared(const struct http_routes *routes, const struct trk_route *decl)
{
    for (size_t i = 0; i < routes->count; i++) {
        if (strcmp(routes->list[i].decl->path, decl->path) == 0 &&
            strcmp(routes->list[i].decl->method, decl->method) == 0) {
            return true;
        }
    }
    return false;
}

static void add_built_in(struct http_routes *routes, const struct trk_http_options *options,
                         const struct trk_route *decl)
{
    if (!is_declared(routes, decl)) { /* a service's own page comes first */
        compile_route(routes, options, "service", decl);
    }
}

struct http_routes *http_routes_new(const struct trk_http_options *options)
{
    struct http_routes *routes = trk_xcalloc(1, sizeof(*routes));
    size_t count = 1 + TRK_COUNT(docs_routes);
    for (size_t i = 0; i < options->table_count; i++) {
        count += options->tables[i].count;
    }
    routes->root = trk_xcalloc(1, sizeof(*routes->root));
    routes->list = trk_xcalloc(count, sizeof(*routes->list));
    for (size_t i = 0; i < options->table_count; i++) {
        const struct trk_route_table *table = &options->tables[i];
        for (size_t k = 0; k < table->count; k++) {
            compile_route(routes, options, table->tag, &table->routes[k]);
        }
    }
    add_built_in(routes, options, &openapi_route);
    for (size_t i = 0; i < TRK_COUNT(docs_routes); i++) {
        add_built_in(routes, options, &docs_routes[i]);
    }
    return routes;
}

static void node_free(struct node *node)
{
    if (node == NULL) {
        return;
    }
    for (size_t i = 0; i < node->child_count; i++) {
        node_free(node->children[i]);
    }
    node_free(node->param);
    node_free(node->rest);
    free(node->children);
    free(node->routes);
    free(node->literal);
    free(node);
}

void http_routes_free(struct http_routes *routes)
{
    if (routes == NULL) {
        return;
    }
    node_free(routes->root);
    for (size_t i = 0; i < routes->count; i++) {
        struct http_route *route = &routes->list[i];
        for (size_t k = 0; k < route->param_count; k++) {
            free(route->params[k]);
        }
        http_query_free(route->query, route->query_count);
        trk_schema_free(route->schema);
    }
    free(routes->list);
    free(routes);
}

/* -- finding a route -- */

struct search {
    const char *method;
    char *segments[HTTP_SEGMENTS_MAX];    /* decoded */
    const char *rests[HTTP_SEGMENTS_MAX]; /* the raw path from this segment on */
    size_t count;
    const char *raw_values[HTTP_PARAMS_MAX]; /* a rest parameter's is raw */
    const struct http_route *route;
    bool takes_rest;
    char *allow;
    size_t allow_size;
};

/* Does the node answer the method? Otherwise its methods are noted for Allow. */
static bool take_node(struct search *search, const struct node *node)
{
    for (size_t i = 0; i < node->route_count; i++) {
        const char *method = node->routes[i]->decl->method;
        if (strcmp(method, search->method) == 0 ||
            (strcmp(method, "GET") == 0 && strcmp(search->method, "HEAD") == 0)) {
            search->route = node->routes[i];
            return true;
        }
    }
    for (size_t i = 0; i < node->route_count; i++) {
        const char *method = node->routes[i]->decl->method;
        size_t len = strlen(search->allow);
        if (strstr(search->allow, method) == NULL) {
            (void)snprintf(search->allow + len, search->allow_size - len, "%s%s%s",
                           len > 0 ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
        }
    }
    return false;
}

static bool walk(struct search *search, const struct node *node, size_t at, size_t param)
{
    if (at == search->count) {
        return take_node(search, node);
    }
    const struct node *child = find_child(node, search->segments[at]);
    if (child != NULL && walk(search, child, at + 1, param)) {
        return true;
    }
    if (node->param != NULL && search->segments[at][0] != '\0') {
        search->raw_values[param] = search->segments[at];
        if (walk(search, node->param, at + 1, param + 1)) {
            return true;
        }
    }
    if (node->rest != NULL) {
        search->raw_values[param] = search->rests[at];
        return take_node(search, node->rest);
    }
    return false;
}

static int decode(void *mem, const char *bytes, size_t len, char **ret, struct trk_err *err)
{
    if (memchr(bytes, '%', len) == NULL) {
        *ret = talloc_strndup(mem, bytes, len);
    } else {
        trk_autofree char *text = NULL;
        if (trk_url_decode(bytes, len, &text, err) < 0) {
            return trk_err_wrap(err, "path");
        }
        *ret = talloc_strdup(mem, text);
    }
    if (!trk_utf8_is_valid(*ret, strlen(*ret))) {
        return trk_err_set(err, TRK_INVALID, "path: not valid UTF-8");
    }
    return 0;
}

static bool is_dots(const char *segment, size_t len)
{
    return (len == 1 && segment[0] == '.') || (len == 2 && memcmp(segment, "..", 2) == 0);
}

static int split(struct search *search, void *mem, const char *path, struct trk_err *err)
{
    if (strcmp(path, "/") == 0) {
        return 0;
    }
    const char *at = path;
    while (*at == '/') {
        size_t len = strcspn(at + 1, "/");
        if (search->count == HTTP_SEGMENTS_MAX) {
            return trk_err_set(err, TRK_NOT_FOUND, "the path has more than %d segments",
                               HTTP_SEGMENTS_MAX);
        }
        char **segment = &search->segments[search->count];
        if (decode(mem, at + 1, len, segment, err) < 0) {
            return err->code;
        }
        if (is_dots(*segment, strlen(*segment))) {
            return trk_err_set(err, TRK_INVALID, "path: '.' and '..' segments are not allowed");
        }
        search->rests[search->count++] = at + 1;
        at += 1 + len;
    }
    return 0;
}

/* An encoded '/' must not smuggle a segment into a parameter, nor dots into the rest. */
static int check_values(struct http_match *match, struct trk_err *err)
{
    for (size_t i = 0; i < match->route->param_count; i++) {
        const char *value = match->values[i];
        if (!match->route->has_rest || i + 1 < match->route->param_count) {
            if (strchr(value, '/') != NULL) {
                return trk_err_set(err, TRK_INVALID, "path: %s must not contain an encoded '/'",
                                   match->route->params[i]);
            }
            continue;
        }
        for (const char *at = value; at != NULL; at = strchr(at, '/')) {
            at += *at == '/';
            if (is_dots(at, strcspn(at, "/"))) {
                return trk_err_set(err, TRK_INVALID, "path: '.' and '..' segments are not allowed");
            }
        }
    }
    return 0;
}

int http_routes_find(const struct http_routes *routes, void *mem, const char *method,
                     const char *raw_path, struct http_match *ret, struct trk_err *err)
{
    *ret = (struct http_match){0};
    struct search search = {
        .method = method, .allow = ret->allow, .allow_size = sizeof(ret->allow)};
    if (raw_path[0] != '/') {
        return trk_err_set(err, TRK_INVALID, "path: must start with '/'");
    }
    if (split(&search, mem, raw_path, err) < 0 ||
        decode(mem, raw_path, strlen(raw_path), &ret->path, err) < 0) {
        return err->code;
    }
    if (!walk(&search, routes->root, 0, 0)) {
        return 0;
    }
    ret->route = search.route;
    ret->allow[0] = '\0';
    for (size_t i = 0; i < search.route->param_count; i++) {
        const char *raw = search.raw_values[i];
        bool is_rest = search.route->has_rest && i + 1 == search.route->param_count;
        if (!is_rest) {
            ret->values[i] = talloc_strdup(mem, raw);
        } else if (decode(mem, raw, strlen(raw), &ret->values[i], err) < 0) {
            return err->code;
        }
    }
    return check_values(ret, err);
}
