#include "libtrack/http/http_client.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/http/curl_api.h"

#define ANSWER_BYTES_DEFAULT (16 << 20)
#define HEADERS_BYTES_MAX    (64 << 10)

struct trk_http_client {
    CURL *handle; /* NULL until the first call; keeps its connections between calls */
};

/* One call under way; what its callbacks see. */
struct call_state {
    const struct curl_api *api;
    CURL *handle;
    const struct trk_http_call *call;
    struct trk_buf body, headers;
    struct trk_err stop; /* why a callback ended the transfer; code 0: it did not */
    bool is_head_done;   /* its last, empty line has come */
    off_t fd_start;      /* of body_fd; -1: not seekable */
    int64_t fd_left;
    curl_off_t seen_bytes; /* both ways, at the last look */
    int64_t seen_ns;
    char curl_text[CURL_ERROR_SIZE];
};

struct trk_http_client *trk_http_client_new(void)
{
    return trk_xcalloc(1, sizeof(struct trk_http_client));
}

void trk_http_client_free(struct trk_http_client *client)
{
    const struct curl_api *api;
    if (client == NULL) {
        return;
    }
    if (client->handle != NULL && curl_api_get(&api, NULL) == 0) {
        api->easy_cleanup(client->handle);
    }
    free(client);
}

/* -- callbacks -- */

static int status_of(const struct call_state *state)
{
    long status = 0;
    (void)state->api->easy_getinfo(state->handle, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *ctx)
{
    struct call_state *state = ctx;
    const struct trk_http_call *call = state->call;
    size_t len = size * count;
    if (call->on_data != NULL) {
        int rc = call->on_data(call->ctx, status_of(state), bytes, len, &state->stop);
        if (rc < 0) {
            state->stop.code = (enum trk_code)rc; /* also when it wrote no text */
            return CURL_WRITEFUNC_ERROR;
        }
        return len;
    }
    if (trk_buf_add(&state->body, bytes, len) < 0) {
        (void)trk_err_set(&state->stop, TRK_TOO_LARGE, "the answer is larger than %zu bytes",
                          state->body.cap_bytes);
        return CURL_WRITEFUNC_ERROR;
    }
    return len;
}

/* One header line a call; keeps "name: value\n" of the last head (a 100 comes before the real). */
static size_t on_header(char *bytes, size_t size, size_t count, void *ctx)
{
    struct call_state *state = ctx;
    size_t len = size * count;
    size_t trimmed = len;
    while (trimmed > 0 && strchr("\r\n \t", bytes[trimmed - 1]) != NULL) {
        trimmed--;
    }
    if (trimmed == 0) {
        state->is_head_done = true;
        return len;
    }
    if (trimmed >= 5 && strncasecmp(bytes, "HTTP/", 5) == 0) {
        trk_buf_reset(&state->headers);
        state->is_head_done = false;
        return len;
    }
    const char *colon = memchr(bytes, ':', trimmed);
    if (colon == NULL) {
        return len;
    }
    for (const char *p = bytes; p < colon; p++) {
        (void)trk_buf_addc(&state->headers, (char)tolower((unsigned char)*p));
    }
    const char *value = colon + 1;
    while (value < bytes + trimmed && (*value == ' ' || *value == '\t')) {
        value++;
    }
    (void)trk_buf_adds(&state->headers, ": ");
    (void)trk_buf_add(&state->headers, value, (size_t)(bytes + trimmed - value));
    if (trk_buf_addc(&state->headers, '\n') < 0) {
        (void)trk_err_set(&state->stop, TRK_BAD_GATEWAY,
                          "the answer's head is larger than %d bytes", HEADERS_BYTES_MAX);
        return CURL_WRITEFUNC_ERROR;
    }
    return len;
}

static size_t on_read(char *bytes, size_t size, size_t count, void *ctx)
{
    struct call_state *state = ctx;
    size_t want = size * count;
    if ((uint64_t)want > (uint64_t)state->fd_left) {
        want = (size_t)state->fd_left;
    }
    ssize_t n;
    do {
        n = read(state->call->body_fd, bytes, want);
    } while (n < 0 && errno == EINTR);
    if (n < 0 || (n == 0 && want > 0)) {
        if (n < 0) {
            (void)trk_err_errno(&state->stop, errno, "reading the request's body");
        } else {
            (void)trk_err_set(&state->stop, TRK_INTERNAL,
                              "the request's body ended %lld bytes too early",
                              (long long)state->fd_left);
        }
        return CURL_READFUNC_ABORT;
    }
    state->fd_left -= n;
    return (size_t)n;
}

/* libcurl sends a body again when a kept connection turns out to be closed. */
static int on_seek(void *ctx, curl_off_t offset, int origin)
{
    struct call_state *state = ctx;
    if (origin != SEEK_SET || state->fd_start < 0 ||
        lseek(state->call->body_fd, state->fd_start + offset, SEEK_SET) < 0) {
        return CURL_SEEKFUNC_CANTSEEK;
    }
    state->fd_left = state->call->body_fd_size - offset;
    return CURL_SEEKFUNC_OK;
}

/* libcurl calls it about once a second, and when bytes move. */
static int on_progress(void *ctx, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    struct call_state *state = ctx;
    (void)down_total;
    (void)up_total;
    if (state->call->cancel != NULL &&
        atomic_load_explicit(state->call->cancel, memory_order_relaxed)) {
        return trk_err_set(&state->stop, TRK_CANCELLED, "cancelled");
    }
    int64_t now = trk_now_ns();
    if (down + up != state->seen_bytes) {
        state->seen_bytes = down + up;
        state->seen_ns = now;
    }
    if (state->call->idle_timeout_ms > 0 &&
        now - state->seen_ns > state->call->idle_timeout_ms * TRK_NS_PER_MS) {
        return trk_err_set(&state->stop, TRK_TIMEOUT, "no byte came for %lld ms",
                           (long long)state->call->idle_timeout_ms);
    }
    return 0;
}

/* -- setting a call up -- */

static const char *method_of(const struct trk_http_call *call)
{
    return call->method != NULL ? call->method : "GET";
}

static struct curl_slist *make_headers(const struct curl_api *api, const struct trk_http_call *call)
{
    struct curl_slist *list = NULL;
    for (const char *const *h = call->headers; h != NULL && *h != NULL; h++) {
        list = api->slist_append(list, *h);
    }
    if (call->auth_token != NULL) {
        trk_autofree char *header = trk_xasprintf("X-Racetrack-Auth: %s", call->auth_token);
        list = api->slist_append(list, header);
    }
    if (call->json != NULL) {
        list = api->slist_append(list, "Content-Type: application/json");
    } else if (call->body != NULL || call->body_fd_size > 0) {
        trk_autofree char *header = trk_xasprintf(
            "Content-Type: %s",
            call->content_type != NULL ? call->content_type : "application/octet-stream");
        list = api->slist_append(list, header);
    }
    return list;
}

static void set_body(struct call_state *state, const char *json_text)
{
    const struct curl_api *api = state->api;
    const struct trk_http_call *call = state->call;
    const char *method = method_of(call);
    CURL *h = state->handle;
    if (call->body_fd_size > 0) {
        state->fd_start = lseek(call->body_fd, 0, SEEK_CUR);
        state->fd_left = call->body_fd_size;
        (void)api->easy_setopt(h, CURLOPT_UPLOAD, 1L);
        (void)api->easy_setopt(h, CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->body_fd_size);
        (void)api->easy_setopt(h, CURLOPT_READFUNCTION, on_read);
        (void)api->easy_setopt(h, CURLOPT_READDATA, state);
        (void)api->easy_setopt(h, CURLOPT_SEEKFUNCTION, on_seek);
        (void)api->easy_setopt(h, CURLOPT_SEEKDATA, state);
    } else if (json_text != NULL) {
        (void)api->easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(json_text));
        (void)api->easy_setopt(h, CURLOPT_POSTFIELDS, json_text);
    } else if (call->body != NULL || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 ||
               strcmp(method, "PATCH") == 0) {
        /* also an empty one: such a request says Content-Length: 0 */
        (void)api->easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_len);
        (void)api->easy_setopt(h, CURLOPT_POSTFIELDS, call->body != NULL ? call->body : "");
    } else if (strcmp(method, "HEAD") == 0) {
        (void)api->easy_setopt(h, CURLOPT_NOBODY, 1L);
    }
    (void)api->easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
}

static void set_limits(struct call_state *state)
{
    const struct curl_api *api = state->api;
    const struct trk_http_call *call = state->call;
    CURL *h = state->handle;
    long connect_ms = call->connect_timeout_ms > 0 ? (long)call->connect_timeout_ms : 3000L;
    long total_ms = call->timeout_ms > 0    ? (long)call->timeout_ms
                    : call->timeout_ms == 0 ? 30000L
                                            : 0L;
    (void)api->easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    (void)api->easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    (void)api->easy_setopt(h, CURLOPT_TIMEOUT_MS, total_ms);
    (void)api->easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)api->easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    (void)api->easy_setopt(h, CURLOPT_PROXY, ""); /* not the environment's */
    (void)api->easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)api->easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
    (void)api->easy_setopt(h, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)api->easy_setopt(h, CURLOPT_XFERINFODATA, state);
    (void)api->easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    (void)api->easy_setopt(h, CURLOPT_WRITEDATA, state);
    (void)api->easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    (void)api->easy_setopt(h, CURLOPT_HEADERDATA, state);
    (void)api->easy_setopt(h, CURLOPT_ERRORBUFFER, state->curl_text);
    if (call->unix_socket != NULL) {
        (void)api->easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, call->unix_socket);
    }
    if (call->ca_file != NULL) {
        (void)api->easy_setopt(h, CURLOPT_CAINFO, call->ca_file);
    }
}

/* -- results -- */

/* "http://host:port" of a URL, without user and password, for error texts. */
static void origin_of(const char *url, char *out, size_t size)
{
    const char *at = strstr(url, "://");
    const char *host = at == NULL ? url : at + 3;
    int len = (int)strcspn(host, "/?#");
    const char *user = memrchr(host, '@', (size_t)len);
    if (user != NULL) {
        len -= (int)(user + 1 - host);
        host = user + 1;
    }
    (void)snprintf(out, size, "%.*s%.*s", at == NULL ? 0 : (int)(at + 3 - url), url, len, host);
}

static int set_failure(const struct call_state *state, CURLcode code, struct trk_err *err)
{
    char origin[512];
    origin_of(state->call->url, origin, sizeof(origin));
    const char *text = state->curl_text[0] != '\0' ? state->curl_text
                                                   : state->api->easy_strerror(code);
    if (state->stop.code != TRK_OK) {
        (void)trk_err_set(err, state->stop.code, "%s", state->stop.text);
        return trk_err_wrap(err, "%s %s", method_of(state->call), origin);
    }
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return trk_err_set(err, TRK_UNAVAILABLE,
                           "%s: no such host (%s): check the address for a typing error", origin,
                           text);
    case CURLE_COULDNT_CONNECT:
        return trk_err_set(err, TRK_UNAVAILABLE,
                           "%s cannot be reached (%s): check that the service runs and that the "
                           "address and port are right",
                           origin, text);
    case CURLE_OPERATION_TIMEDOUT:
        return trk_err_set(err, TRK_TIMEOUT, "%s did not answer in time (%s)", origin, text);
    case CURLE_UNSUPPORTED_PROTOCOL:
        if (strncasecmp(state->call->url, "http", 4) == 0) { /* it answered without a head */
            return trk_err_set(err, TRK_BAD_GATEWAY, "%s does not speak HTTP (%s)", origin, text);
        }
        __attribute__((fallthrough));
    case CURLE_URL_MALFORMAT:
        return trk_err_set(err, TRK_INVALID,
                           "'%.200s' is not a usable address (%s): expected http://host:port or "
                           "https://host",
                           state->call->url, text);
    case CURLE_OK: /* libcurl takes the end of the connection for the end of a head */
        return trk_err_set(err, TRK_BAD_GATEWAY, "%s broke off in the head of its answer", origin);
    case CURLE_OUT_OF_MEMORY: /* so it calls a head past its own limit */
        return trk_err_set(err, TRK_BAD_GATEWAY, "%s: the head of the answer is too large (%s)",
                           origin, text);
    case CURLE_FAILED_INIT:
        return trk_err_set(err, TRK_INTERNAL, "%s: %s", origin, text);
    default:
        return trk_err_set(err, TRK_BAD_GATEWAY, "%s gave no proper answer (%s)", origin, text);
    }
}

static void fill_answer(struct call_state *state, struct trk_http_answer *ret)
{
    *ret = (struct trk_http_answer){.status = status_of(state)};
    const char *type = NULL;
    (void)state->api->easy_getinfo(state->handle, CURLINFO_CONTENT_TYPE, &type);
    if (type != NULL) {
        (void)snprintf(ret->content_type, sizeof(ret->content_type), "%s", type);
    }
    ret->body = trk_buf_steal(&state->body, &ret->body_len);
    ret->headers = trk_buf_steal(&state->headers, NULL);
}

int trk_http_call(struct trk_http_client *client, const struct trk_http_call *call,
                  struct trk_http_answer *ret, struct trk_err *err)
{
    const struct curl_api *api;
    if (curl_api_get(&api, err) < 0) {
        return TRK_UNAVAILABLE;
    }
    if (client->handle == NULL) {
        client->handle = api->easy_init();
    } else {
        api->easy_reset(client->handle);
    }
    if (client->handle == NULL) {
        return trk_err_set(err, TRK_INTERNAL, "libcurl: out of memory");
    }
    struct call_state state = {
        .api = api, .handle = client->handle, .call = call, .seen_ns = trk_now_ns()};
    trk_buf_init(&state.body,
                 call->answer_max_bytes > 0 ? call->answer_max_bytes : ANSWER_BYTES_DEFAULT);
    trk_buf_init(&state.headers, HEADERS_BYTES_MAX);
    trk_autofree char *json_text = call->json != NULL ? trk_json_text(call->json) : NULL;
    struct curl_slist *headers = make_headers(api, call);
    (void)api->easy_setopt(client->handle, CURLOPT_URL, call->url);
    (void)api->easy_setopt(client->handle, CURLOPT_HTTPHEADER, headers);
    set_limits(&state);
    set_body(&state, json_text);
    CURLcode code = api->easy_perform(client->handle);
    api->slist_free_all(headers);
    int rc = 0;
    if (code == CURLE_OK && state.is_head_done) {
        fill_answer(&state, ret);
    } else {
        rc = set_failure(&state, code, err);
    }
    /* The handle keeps pointers into this frame otherwise. */
    api->easy_reset(client->handle);
    trk_buf_fini(&state.body);
    trk_buf_fini(&state.headers);
    return rc;
}

void trk_http_answer_fini(struct trk_http_answer *answer)
{
    free(answer->body);
    free(answer->headers);
    *answer = (struct trk_http_answer){0};
}

bool trk_http_answer_header(const struct trk_http_answer *answer, const char *name, char *out,
                            size_t size)
{
    size_t name_len = strlen(name);
    const char *line = answer->headers;
    while (line != NULL && *line != '\0') {
        size_t len = strcspn(line, "\n");
        if (len > name_len + 1 && strncmp(line, name, name_len) == 0 && line[name_len] == ':') {
            const char *value = line + name_len + 2;
            (void)snprintf(out, size, "%.*s", (int)(line + len - value), value);
            return true;
        }
        line += len + (line[len] == '\n');
    }
    return false;
}

int trk_http_answer_json(const struct trk_http_answer *answer, json_t **ret, struct trk_err *err)
{
    if (trk_json_parse(answer->body, answer->body_len, ret, err) < 0) {
        if (err != NULL) {
            err->code = TRK_BAD_GATEWAY;
        }
        (void)trk_err_wrap(err, "the answer (status %d) is not valid JSON", answer->status);
        return TRK_BAD_GATEWAY;
    }
    return 0;
}

/* The peer's own words: {"error": text} or {"detail": text or [{loc, msg}…]}. Returns owned. */
static char *error_text_of(const struct trk_http_answer *answer)
{
    json_auto_t *body = NULL;
    if (trk_json_parse(answer->body, answer->body_len, &body, NULL) < 0) {
        return NULL;
    }
    const char *text = trk_json_string_or(body, "error", NULL);
    const json_t *detail = json_object_get(body, "detail");
    if (text == NULL) {
        text = json_string_value(detail);
    }
    if (text != NULL) {
        return trk_xstrdup(text);
    }
    return json_array_size(detail) > 0 ? trk_json_text(detail) : NULL;
}

int trk_http_answer_err(const struct trk_http_answer *answer, struct trk_err *err)
{
    enum trk_code code = trk_code_from_http(answer->status);
    if (code == TRK_OK) {
        code = TRK_BAD_GATEWAY; /* a success that the caller did not expect */
    }
    trk_autofree char *text = error_text_of(answer);
    if (text != NULL) {
        return trk_err_set(err, code, "%s", text);
    }
    (void)trk_err_set(err, code, "status %d", answer->status);
    char first[256];
    size_t len = 0;
    for (size_t i = 0; i < answer->body_len && len + 1 < sizeof(first); i++) {
        unsigned char c = (unsigned char)answer->body[i];
        first[len++] = c < ' ' || c == 0x7F ? ' ' : (char)c;
    }
    first[len] = '\0';
    if (len > 0) {
        (void)trk_err_append(err, ": %s", first);
    }
    return code;
}
