#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <talloc.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_internal.h"

#define RETRY_AFTER_S  "1"
#define JSON_TYPE      "application/json"
#define STREAM_BLOCK   (16 * 1024)
#define LIST_BLOCK     (64 * 1024) /* shorter lists are sent whole */
#define LIST_TEXT_MAX  (64 << 20)
#define INPUT_TEXT_MAX 256 /* longer input is not sent back in a 422 */

/* -- keeping an answer until the handler has returned -- */

static void drop_reply(struct trk_request *req)
{
    if (req->response != NULL) {
        MHD_destroy_response(req->response);
        req->response = NULL;
    }
}

static int set_reply(struct trk_request *req, int status, const char *content_type,
                     struct MHD_Response *response)
{
    if (response == NULL) {
        trk_die("%s %s: no memory for an answer", req->method, req->target);
    }
    if (req->response != NULL) {
        trk_die("%s %s is answered twice", req->method, req->path);
    }
    if (content_type != NULL &&
        MHD_add_response_header(response, "Content-Type", content_type) != MHD_YES) {
        trk_die("bad content type '%s'", content_type);
    }
    req->response = response;
    req->is_short = false;
    req->status = status;
    return 0;
}

int trk_reply_header(struct trk_request *req, const char *name, const char *value)
{
    struct http_header *header = talloc_zero(req, struct http_header);
    header->name = talloc_strdup(header, name);
    header->value = talloc_strdup(header, value);
    struct http_header **end = &req->reply_headers;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = header;
    return 0;
}

/* Takes malloc'd text. */
static int reply_owned(struct trk_request *req, int status, const char *content_type, char *bytes,
                       size_t len)
{
    req->is_large |= len > HTTP_LARGE_BYTES;
    struct MHD_Response *response = MHD_create_response_from_buffer(len, bytes,
                                                                    MHD_RESPMEM_MUST_FREE);
    (void)set_reply(req, status, content_type, response);
    req->is_short = len <= GATE_SHORT_BYTES;
    return 0;
}

static int reply_json_value(struct trk_request *req, int status, const json_t *value)
{
    char *text = trk_json_text(value);
    return reply_owned(req, status, JSON_TYPE, text, strlen(text));
}

int trk_reply_json(struct trk_request *req, int status, json_t *value)
{
    if (value != NULL && req->is_alias && req->server->options.alias_reply != NULL) {
        value = req->server->options.alias_reply(req, value);
    }
    if (value == NULL) {
        struct trk_err err = {0};
        (void)trk_err_set(&err, TRK_INTERNAL,
                          "the JSON of the answer could not be made: a text that is not UTF-8?");
        http_reply_err(req, &err);
        return 0;
    }
    json_auto_t *owned = value;
    return reply_json_value(req, status, owned);
}

int trk_reply_null(struct trk_request *req)
{
    return trk_reply_json(req, 200, json_null());
}

int trk_reply_empty(struct trk_request *req, int status)
{
    static char nothing[1];
    (void)set_reply(req, status, NULL,
                    MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT));
    req->is_short = true;
    return 0;
}

int trk_reply_text(struct trk_request *req, int status, const char *content_type, const char *text)
{
    return reply_owned(req, status, content_type, trk_xstrdup(text), strlen(text));
}

int trk_reply_bytes(struct trk_request *req, int status, const char *content_type, void *bytes,
                    size_t len)
{
    return reply_owned(req, status, content_type, bytes, len);
}

int trk_reply_fd(struct trk_request *req, int status, const char *content_type, int fd,
                 uint64_t offset, uint64_t size)
{
    return set_reply(req, status, content_type,
                     MHD_create_response_from_fd_at_offset64(size, fd, offset));
}

struct stream {
    ssize_t (*next)(void *user, char *bytes, size_t size);
    void *user;
    void (*fini)(void *user);
};

static ssize_t stream_read(void *cls, uint64_t pos, char *bytes, size_t size)
{
    struct stream *stream = cls;
    (void)pos;
    ssize_t n = stream->next(stream->user, bytes, size);
    return n > 0    ? n
           : n == 0 ? MHD_CONTENT_READER_END_OF_STREAM
                    : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void stream_free(void *cls)
{
    struct stream *stream = cls;
    if (stream->fini != NULL) {
        stream->fini(stream->user);
    }
    free(stream);
}

int trk_reply_stream(struct trk_request *req, int status, const char *content_type,
                     ssize_t (*next)(void *user, char *bytes, size_t size), void *user,
                     void (*fini)(void *user))
{
    if (strcmp(req->method, "HEAD") == 0) { /* libmicrohttpd would send the last chunk */
        if (fini != NULL) {
            fini(user);
        }
        int rc = trk_reply_empty(req, status);
        (void)MHD_add_response_header(req->response, "Content-Type", content_type);
        return rc;
    }
    struct stream *stream = trk_xcalloc(1, sizeof(*stream));
    *stream = (struct stream){.next = next, .user = user, .fini = fini};
    return set_reply(req, status, content_type,
                     MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read,
                                                       stream, stream_free));
}

/* -- long lists -- */

struct list {
    trk_list_next next;
    void *user;
    void (*fini)(void *user);
    struct trk_buf text; /* what is to be sent from `at` on */
    size_t at;
    bool has_any, is_over;
    char tracing_id[128];
};

static void list_free(void *user)
{
    struct list *list = user;
    if (list->fini != NULL) {
        list->fini(list->user);
    }
    trk_buf_fini(&list->text);
    free(list);
}

/* Makes elements until there is a block of text, or the list is over. */
static int list_fill(struct list *list, struct trk_err *err)
{
    struct trk_buf *text = &list->text;
    while (!list->is_over && text->len < LIST_BLOCK) {
        int rc = list->next(list->user, text, err);
        if (rc < 0) {
            return rc;
        }
        list->is_over = rc == 0;
    }
    if (!list->has_any && text->len > 0) {
        text->data[0] = '['; /* the first one's comma */
        list->has_any = true;
    }
    if (list->is_over) {
        (void)trk_buf_adds(text, list->has_any ? "]" : "[]");
    }
    return text->failed ? trk_err_set(err, TRK_TOO_LARGE, "a list has too large elements") : 0;
}

static ssize_t list_read(void *user, char *bytes, size_t size)
{
    struct list *list = user;
    struct trk_err err = {0};
    if (list->at == list->text.len && !list->is_over) {
        trk_buf_reset(&list->text);
        list->at = 0;
        if (list_fill(list, &err) < 0) {
            trk_log_set_tracing_id(list->tracing_id);
            trk_log_error("a list broke off", "error", err.text, NULL);
            return -1;
        }
    }
    size_t n = list->text.len - list->at;
    n = n < size ? n : size;
    memcpy(bytes, list->text.data + list->at, n);
    list->at += n;
    return (ssize_t)n;
}

int trk_reply_list(struct trk_request *req, int status, trk_list_next next, void *user,
                   void (*fini)(void *user), struct trk_err *err)
{
    struct list *list = trk_xcalloc(1, sizeof(*list));
    *list = (struct list){.next = next, .user = user, .fini = fini};
    memcpy(list->tracing_id, req->tracing_id, sizeof(list->tracing_id));
    trk_buf_init(&list->text, LIST_TEXT_MAX);
    int rc = list_fill(list, err);
    if (rc < 0) {
        list_free(list);
        return rc;
    }
    if (!list->is_over) {
        return trk_reply_stream(req, status, JSON_TYPE, list_read, list, list_free);
    }
    size_t len;
    char *text = trk_buf_steal(&list->text, &len);
    list_free(list);
    return reply_owned(req, status, JSON_TYPE, text, len);
}

int http_reply_redirect(struct trk_request *req, const char *location)
{
    (void)trk_reply_header(req, "Location", location);
    return trk_reply_empty(req, 307);
}

/* -- errors -- */

json_t *http_fault(const char *type, json_t *loc, const char *msg, const json_t *input)
{
    json_t *fault = json_pack("{s:s, s:o, s:s}", "type", type, "loc", loc, "msg", msg);
    bool is_short = input != NULL && !json_is_object(input) && !json_is_array(input) &&
                    !(json_is_string(input) && json_string_length(input) > INPUT_TEXT_MAX);
    (void)json_object_set_new(fault, "input", is_short ? json_deep_copy(input) : json_null());
    return fault;
}

/* What a client is told of a fault of ours: at most the outermost context, which is our own
 * words; causes (addresses, SQL) go to the log. */
static void public_text(const struct trk_request *req, const struct trk_err *err, char *out,
                        size_t size)
{
    const char *reason = "internal error";
    if (err->code == TRK_UNAVAILABLE) {
        reason = "temporarily unavailable, try again shortly";
    } else if (err->code == TRK_TIMEOUT) {
        reason = "a dependency did not answer in time";
    } else if (err->code == TRK_BAD_GATEWAY) {
        reason = "a dependency gave a wrong answer";
    } else if (err->code == TRK_NO_SPACE) {
        reason = "no space left on the server's disk";
    }
    const char *colon = err->code == TRK_INTERNAL ? NULL : strstr(err->text, ": ");
    int context = colon == NULL ? 0 : (int)(colon - err->text);
    (void)snprintf(out, size, "%.*s%s%s (tracing id %s)", context, err->text,
                   context > 0 ? ": " : "", reason, req->tracing_id);
}

static json_t *error_body(const struct trk_request *req, const struct trk_err *err, int status)
{
    char hidden[1024];
    const char *text = err->text;
    if (status >= 500) {
        public_text(req, err, hidden, sizeof(hidden));
        text = hidden;
    }
    json_t *value = json_string(text);
    if (value == NULL) { /* not UTF-8: some user's bytes */
        value = json_string("the error's text is not valid UTF-8");
    }
    json_t *body = json_pack("{s:o, s:s}", "error", value, "type", trk_code_info(err->code)->type);
    if (status >= 500) {
        (void)json_object_set_new(body, "tracing_id", json_string(req->tracing_id));
    }
    return body;
}

static void log_error(const struct trk_request *req, const struct trk_err *err, int status)
{
    char status_text[16];
    (void)snprintf(status_text, sizeof(status_text), "%d", status);
    trk_log_error("request failed", "method", req->method, "path", req->path, "status", status_text,
                  "error", err->text, NULL);
    if (status == 500 && req->server->server_errors != NULL) {
        trk_metric_inc(req->server->server_errors);
    }
}

/* Will the same request do later? */
static bool is_passing(int status)
{
    return status == 503 || status == 429;
}

static bool says(const struct trk_request *req, const char *name)
{
    const struct http_header *h = req->reply_headers;
    while (h != NULL && strcasecmp(h->name, name) != 0) {
        h = h->next;
    }
    return h != NULL;
}

void http_reply_err(struct trk_request *req, const struct trk_err *err)
{
    int status = trk_code_info(err->code)->http_status;
    drop_reply(req);
    if (status >= 500) {
        log_error(req, err, status);
    }
    if (is_passing(status) && !says(req, "Retry-After")) {
        (void)trk_reply_header(req, "Retry-After", RETRY_AFTER_S);
    }
    json_t *body = error_body(req, err, status);
    if (req->match.route == NULL && (status == 404 || status == 405)) {
        /* the original's body for these two */
        (void)json_object_set_new(body, "detail",
                                  json_string(status == 404 ? "Not Found" : "Method Not Allowed"));
    }
    if (req->server->options.error_reply != NULL) {
        body = req->server->options.error_reply(req, status, err, body);
    }
    json_auto_t *owned = body;
    (void)reply_json_value(req, status, owned);
}

int http_reply_faults(struct trk_request *req, json_t *details, struct trk_err *err)
{
    size_t i;
    json_t *fault;
    (void)trk_err_set(err, TRK_SCHEMA, "the request does not match its schema");
    json_array_foreach (details, i, fault) {
        const json_t *loc = json_object_get(fault, "loc");
        const char *separator = i == 0 ? ": " : "; ";
        size_t k;
        const json_t *step;
        json_array_foreach (loc, k, step) {
            if (json_is_integer(step)) {
                (void)trk_err_append(err, "[%lld]", (long long)json_integer_value(step));
            } else {
                (void)trk_err_append(err, "%s%s", k == 0 ? separator : ".",
                                     json_string_value(step));
            }
        }
        (void)trk_err_append(err, " %s", json_string_value(json_object_get(fault, "msg")));
    }
    json_auto_t *body = error_body(req, err, 422);
    (void)json_object_set_new(body, "detail", details);
    drop_reply(req);
    (void)reply_json_value(req, 422, body);
    return TRK_SCHEMA;
}

/* -- sending -- */

static const char *reason_of(int status)
{
    switch (status) {
    case 413:
        return "Content Too Large";
    case 507:
        return "Insufficient Storage";
    default:
        return status >= 500 ? "Error" : "Bad Request";
    }
}

void http_reply_raw(struct trk_request *req, const struct trk_err *err)
{
    int status = trk_code_info(err->code)->http_status;
    if (status >= 500) {
        log_error(req, err, status);
    }
    json_t *value = error_body(req, err, status);
    if (req->server->options.error_reply != NULL) {
        value = req->server->options.error_reply(req, status, err, value);
    }
    json_auto_t *body = value;
    trk_autofree char *text = trk_json_text(body);
    trk_autofree char *head = trk_xasprintf(
        "HTTP/1.1 %d %s\r\nContent-Type: " JSON_TYPE "\r\nContent-Length: %zu\r\n"
        "%s: %s\r\n%sX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        status, reason_of(status), strlen(text), req->server->options.tracing_header,
        req->tracing_id, is_passing(status) ? "Retry-After: " RETRY_AFTER_S "\r\n" : "");
    struct iovec parts[2] = {{head, strlen(head)}, {text, strlen(text)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    /* Nothing was sent on this connection before but "100 Continue": it fits the socket's buffer.
     */
    (void)sendmsg(http_pair_fd(req->pair), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    req->status = status;
}

enum MHD_Result http_reply_queue(struct trk_request *req)
{
    if (req->response == NULL) {
        struct trk_err err = {0};
        (void)trk_err_set(&err, TRK_INTERNAL, "the handler of %s did not answer", req->path);
        http_reply_err(req, &err);
    }
    struct MHD_Response *response = req->response;
    (void)MHD_add_response_header(response, req->server->options.tracing_header, req->tracing_id);
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    for (const struct http_header *h = req->reply_headers; h != NULL; h = h->next) {
        if (MHD_add_response_header(response, h->name, h->value) != MHD_YES) {
            trk_log_warn("answer header left out: not valid", "name", h->name, NULL);
        }
    }
    if (req->must_close || atomic_load(&req->server->stopping)) {
        (void)MHD_add_response_header(response, "Connection", "close");
    }
    if (req->is_large || req->body_held > HTTP_LARGE_BYTES) {
        atomic_store(&req->server->wants_trim, true);
    }
    if (!req->is_short) {
        http_gate_watch_answer(req->server->gate, req->pair);
    }
    enum MHD_Result result = MHD_queue_response(req->mhd, (unsigned)req->status, response);
    drop_reply(req);
    return result;
}
