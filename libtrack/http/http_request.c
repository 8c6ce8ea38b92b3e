#include <ctype.h>
#include <poll.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/http/http_internal.h"

/* -- head -- */

int64_t http_body_length(struct trk_request *req)
{
    if (trk_req_header(req, "Transfer-Encoding") != NULL) {
        return -1;
    }
    const char *length = trk_req_header(req, "Content-Length");
    return length == NULL ? 0 : strtoll(length, NULL, 10); /* digits only: checked */
}

void http_set_tracing_id(struct trk_request *req)
{
    const char *id = trk_req_header(req, req->server->options.tracing_header);
    size_t len = id == NULL ? 0 : strlen(id);
    bool is_fine = len > 0 && len < sizeof(req->tracing_id);
    for (size_t i = 0; is_fine && i < len; i++) {
        is_fine = isalnum((unsigned char)id[i]) || strchr("-_.:/+=", id[i]) != NULL;
    }
    if (is_fine) {
        memcpy(req->tracing_id, id, len + 1);
    } else {
        trk_uuid4(req->tracing_id);
    }
}

/* -- query -- */

static int decode_form(void *mem, const char *s, size_t len, char **ret, struct trk_err *err)
{
    char *text = talloc_strndup(mem, s, len);
    for (char *p = text; *p != '\0'; p++) {
        *p = *p == '+' ? ' ' : *p;
    }
    trk_autofree char *decoded = NULL;
    if (trk_url_decode(text, len, &decoded, err) < 0) {
        return trk_err_wrap(err, "query");
    }
    if (!trk_utf8_is_valid(decoded, strlen(decoded))) {
        return trk_err_set(err, TRK_INVALID, "query: not valid UTF-8");
    }
    *ret = talloc_strdup(mem, decoded);
    return 0;
}

int http_parse_query(struct trk_request *req, struct trk_err *err)
{
    const char *at = strchr(req->target, '?');
    struct http_header **end = &req->query;
    while (at != NULL && *at != '\0') {
        at++;
        size_t len = strcspn(at, "&");
        size_t name_len = strcspn(at, "=&");
        if (len > 0) {
            struct http_header *entry = talloc_zero(req, struct http_header);
            const char *value = name_len < len ? at + name_len + 1 : at + len;
            if (decode_form(entry, at, name_len, &entry->name, err) < 0 ||
                decode_form(entry, value, (size_t)(at + len - value), &entry->value, err) < 0) {
                return err->code;
            }
            *end = entry;
            end = &entry->next;
        }
        at += len;
    }
    return 0;
}

int http_check_query(struct trk_request *req, struct trk_err *err)
{
    json_t *details = NULL;
    const struct http_route *route = req->match.route;
    for (size_t i = 0; i < route->query_count; i++) {
        const struct http_query *declared = &route->query[i];
        const char *value = trk_req_query(req, declared->name);
        bool is_int = strcmp(declared->type, "int") == 0;
        int64_t number;
        bool flag;
        if (value == NULL || strcmp(declared->type, "string") == 0 ||
            (is_int && trk_parse_int64(value, INT64_MIN, INT64_MAX, &number, NULL) == 0) ||
            (!is_int && trk_parse_bool(value, &flag, NULL) == 0)) {
            continue;
        }
        details = details != NULL ? details : json_array();
        json_auto_t *input = json_string(value);
        (void)json_array_append_new(
            details,
            http_fault(is_int ? "int_parsing" : "bool_parsing",
                       json_pack("[ss]", "query", declared->name),
                       is_int ? "must be a whole number" : "must be true or false", input));
    }
    return details == NULL ? 0 : http_reply_faults(req, details, err);
}

/* -- getters -- */

void *trk_req_ctx(const struct trk_request *req)
{
    return req->server->options.ctx;
}

void *trk_req_mem(struct trk_request *req)
{
    return req;
}

const char *trk_req_method(const struct trk_request *req)
{
    return req->method;
}

const char *trk_req_path(const struct trk_request *req)
{
    return req->path;
}

const char *trk_req_param(struct trk_request *req, const char *name)
{
    const struct http_route *route = req->match.route;
    for (size_t i = 0; route != NULL && i < route->param_count; i++) {
        if (strcmp(route->params[i], name) == 0) {
            return req->match.values[i];
        }
    }
    return NULL;
}

const char *trk_req_query(struct trk_request *req, const char *name)
{
    for (const struct http_header *entry = req->query; entry != NULL; entry = entry->next) {
        if (strcmp(entry->name, name) == 0) {
            return entry->value;
        }
    }
    return NULL;
}

int64_t trk_req_query_int(struct trk_request *req, const char *name, int64_t otherwise)
{
    const char *value = trk_req_query(req, name);
    int64_t number = otherwise;
    if (value == NULL || trk_parse_int64(value, INT64_MIN, INT64_MAX, &number, NULL) < 0) {
        return otherwise;
    }
    return number;
}

bool trk_req_query_bool(struct trk_request *req, const char *name, bool otherwise)
{
    const char *value = trk_req_query(req, name);
    bool flag = otherwise;
    if (value == NULL || trk_parse_bool(value, &flag, NULL) < 0) {
        return otherwise;
    }
    return flag;
}

const char *trk_req_header(struct trk_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->mhd, MHD_HEADER_KIND, name);
}

const char *trk_req_cookie(struct trk_request *req, const char *name)
{
    const char *at = trk_req_header(req, "Cookie");
    size_t name_len = strlen(name);
    while (at != NULL && *at != '\0') {
        at += strspn(at, "; \t");
        size_t len = strcspn(at, ";");
        if (len > name_len && strncmp(at, name, name_len) == 0 && at[name_len] == '=') {
            trk_autofree char *value = NULL;
            const char *raw = at + name_len + 1;
            if (trk_url_decode(raw, len - name_len - 1, &value, NULL) < 0) {
                return NULL;
            }
            return talloc_strdup(req, value);
        }
        at += len;
    }
    return NULL;
}

const char *trk_req_tracing_id(const struct trk_request *req)
{
    return req->tracing_id;
}

const char *trk_req_peer(const struct trk_request *req)
{
    return http_pair_peer(req->pair);
}

const json_t *trk_req_json(const struct trk_request *req)
{
    return req->json;
}

const void *trk_req_body(const struct trk_request *req, size_t *ret_len)
{
    *ret_len = req->body.len;
    return req->body.data;
}

bool trk_req_is_alias(const struct trk_request *req)
{
    return req->is_alias;
}

bool trk_req_is_disconnected(const struct trk_request *req)
{
    struct pollfd p = {.fd = http_pair_fd(req->pair), .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

struct trk_http_server *trk_req_server(const struct trk_request *req)
{
    return req->server;
}

const struct trk_route *trk_req_route(const struct trk_request *req)
{
    return req->match.route == NULL ? NULL : req->match.route->decl;
}

void trk_req_set_subject(struct trk_request *req, void *subject)
{
    req->subject = subject;
}

void *trk_req_subject(const struct trk_request *req)
{
    return req->subject;
}

void trk_req_set_user(struct trk_request *req, void *user, void (*fini)(void *user))
{
    if (req->user_fini != NULL && req->user != user) {
        req->user_fini(req->user);
    }
    req->user = user;
    req->user_fini = fini;
}

void *trk_req_user(const struct trk_request *req)
{
    return req->user;
}
