/* Heads as they are sent on: hop-by-hop fields taken out (RFC 9110 §7.6.1), ours put in. */
#include <string.h>
#include <sys/random.h>

#include "libtrack/base/err.h"
#include "libtrack/base/mem.h"
#include "pub/client.h"
#include "pub/text.h"
#include "pub/token.h"

/* What the Connection fields of a message name, besides what everybody puts there. */
struct named {
    struct trk_h1_slice values[8];
    size_t count;
    bool has_too_many;
};

static void find_named(struct named *n, const struct trk_h1_header *headers, size_t count)
{
    n->count = 0;
    n->has_too_many = false;
    for (size_t i = 0; i < count; i++) {
        if (headers[i].id != TRK_H1_CONNECTION || trk_h1_is(headers[i].value, "keep-alive") ||
            trk_h1_is(headers[i].value, "close") || trk_h1_is(headers[i].value, "upgrade")) {
            continue;
        }
        if (n->count == sizeof(n->values) / sizeof(n->values[0])) {
            n->has_too_many = true;
            return;
        }
        n->values[n->count++] = headers[i].value;
    }
}

static bool is_named(const struct named *n, struct trk_h1_slice name)
{
    char lower[128];
    if (n->count == 0 || name.len >= sizeof(lower)) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.at[i];
        lower[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    lower[name.len] = '\0';
    for (size_t i = 0; i < n->count; i++) {
        if (trk_h1_has_token(n->values[i], lower)) {
            return true;
        }
    }
    return false;
}

/* The same name for servers that do not tell '-' from '_' (WSGI, CGI)? */
static bool is_like(struct trk_h1_slice name, const char *lower, size_t len)
{
    if (name.len != len) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = name.at[i];
        c = (char)(c == '_' ? '-' : c >= 'A' && c <= 'Z' ? c | 0x20 : c);
        if (c != lower[i]) {
            return false;
        }
    }
    return true;
}

static void field(struct pub_text *t, const char *name, const char *value)
{
    pub_text_adds(t, name);
    pub_text_add(t, ": ", 2);
    pub_text_adds(t, value);
    pub_text_add(t, "\r\n", 2);
}

/* -- tracing id -- */

static __thread unsigned char random_bytes[4096];
static __thread size_t random_left;

static void new_uuid(char *out)
{
    static const char hex[] = "0123456789abcdef";
    if (random_left < 16) {
        if (getrandom(random_bytes, sizeof(random_bytes), 0) != (ssize_t)sizeof(random_bytes)) {
            trk_die("getrandom failed");
        }
        random_left = sizeof(random_bytes);
    }
    random_left -= 16;
    unsigned char *b = random_bytes + random_left;
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *out++ = '-';
        }
        *out++ = hex[b[i] >> 4];
        *out++ = hex[b[i] & 15];
    }
    *out = '\0';
}

void pub_head_tracing_id(struct pub_client *c, struct trk_h1_slice value)
{
    bool is_usable = value.len > 0 && value.len < sizeof(c->tracing_id);
    for (size_t i = 0; is_usable && i < value.len; i++) {
        is_usable = value.at[i] > 0x20 && value.at[i] < 0x7F;
    }
    if (!is_usable) {
        new_uuid(c->tracing_id);
        return;
    }
    memcpy(c->tracing_id, value.at, value.len);
    c->tracing_id[value.len] = '\0';
}

/* -- request -- */

/* Lines that go as they are are copied in runs: from the first one's name to the name of the first
 * that does not go. */
struct run {
    const char *start; /* NULL: none */
};

static void end_run(struct run *run, const char *end, struct pub_text *t)
{
    if (run->start != NULL) {
        pub_text_add(t, run->start, (size_t)(end - run->start));
        run->start = NULL;
    }
}

static const char forwarded_prefix[] = "x-forwarded-";

/* What only the gateway says, in either spelling: who calls, through whom, and that it may. */
static bool is_ours(const struct pub_shared *shared, struct trk_h1_slice name)
{
    static const char *const names[] = {"forwarded", "x-real-ip", "x-racetrack-job-secret"};
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        if (is_like(name, names[i], strlen(names[i]))) {
            return true;
        }
    }
    size_t prefix_len = sizeof(forwarded_prefix) - 1;
    return (name.len > prefix_len &&
            is_like((struct trk_h1_slice){name.at, prefix_len}, forwarded_prefix, prefix_len)) ||
           is_like(name, shared->caller_header, strlen(shared->caller_header)) ||
           is_like(name, shared->tracing_header, strlen(shared->tracing_header));
}

static bool is_token(struct trk_h1_slice name)
{
    static const char *const names[] = {"x-racetrack-auth", "x-racetrack-user-auth",
                                        "x-racetrack-esc-auth"};
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        if (is_like(name, names[i], strlen(names[i]))) {
            return true;
        }
    }
    return false;
}

static void add_forwarded(struct pub_client *c, struct trk_h1_slice host, struct pub_text *t)
{
    pub_text_adds(t, "X-Forwarded-Host: ");
    pub_text_slice(t, host);
    pub_text_adds(t, "\r\nX-Forwarded-Proto: http\r\nX-Forwarded-For: ");
    pub_text_adds(t, c->peer);
    pub_text_add(t, "\r\n", 2);
}

/* One hop less (RFC 9110 §7.6.2); what is no number of hops goes no further. */
static void add_max_forwards(struct trk_h1_slice value, struct pub_text *t)
{
    uint64_t n = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (i > 8 || value.at[i] < '0' || value.at[i] > '9') {
            return;
        }
        n = n * 10 + (uint64_t)(value.at[i] - '0');
    }
    if (n > 0) {
        pub_text_adds(t, "Max-Forwards: ");
        pub_text_u64(t, n - 1);
        pub_text_add(t, "\r\n", 2);
    }
}

/* The Cookie field without the caller's token. */
static void add_cookies(struct trk_h1_slice header, struct pub_text *t)
{
    const char *before = "Cookie: ";
    while (header.len > 0) {
        struct trk_h1_slice pair = pub_token_next_cookie(&header);
        if (pair.len > 0 && !pub_token_is_cookie(pair)) {
            pub_text_adds(t, before);
            pub_text_slice(t, pair);
            before = "; ";
        }
    }
    if (before[0] == ';') {
        pub_text_add(t, "\r\n", 2);
    }
}

static bool is_dropped_from_request(const struct pub_client *c, const struct trk_h1_header *h,
                                    const struct named *named)
{
    const struct pub_shared *shared = c->worker->shared;
    switch (h->id) {
    case TRK_H1_CONNECTION:
    case TRK_H1_KEEP_ALIVE:
    case TRK_H1_PROXY_CONNECTION:
    case TRK_H1_PROXY_AUTHORIZATION:
    case TRK_H1_TE:
    case TRK_H1_TRAILER:
    case TRK_H1_TRANSFER_ENCODING:
    case TRK_H1_UPGRADE:
    case TRK_H1_X_FORWARDED_FOR:
    case TRK_H1_X_FORWARDED_HOST:
    case TRK_H1_X_FORWARDED_PROTO:
    case TRK_H1_X_CALLER_NAME:
        return true;
    case TRK_H1_EXPECT:
        return c->wants_continue; /* answered here */
    case TRK_H1_HOST:
    case TRK_H1_CONTENT_LENGTH:
        return false;
    case TRK_H1_X_RACETRACK_AUTH:
    case TRK_H1_X_RACETRACK_USER_AUTH:
    case TRK_H1_X_RACETRACK_ESC_AUTH:
    case TRK_H1_COOKIE: /* goes without the token */
        return !shared->config->forward_caller_token;
    default:
        return is_ours(shared, h->name) || is_named(named, h->name) ||
               (!shared->config->forward_caller_token && is_token(h->name));
    }
}

bool pub_head_request(struct pub_client *c, struct pub_text *t)
{
    const struct trk_h1_request *r = pub_call_request(c);
    const struct pub_config *config = c->worker->shared->config;
    const struct pub_target *target = c->target;
    pub_text_slice(t, r->method);
    pub_text_adds(t, " /pub/job/");
    pub_text_url(t, target->job, strlen(target->job), false);
    pub_text_add(t, "/", 1);
    pub_text_url(t, target->version, strlen(target->version), false);
    pub_text_slice(t, c->rest);
    pub_text_adds(t, " HTTP/1.1\r\n");

    struct named named;
    find_named(&named, r->headers, r->header_count);
    if (named.has_too_many) {
        return false;
    }
    struct trk_h1_slice host = {"", 0};
    struct run run = {NULL};
    bool has_host = false;
    bool is_options = r->method.len == 7 && memcmp(r->method.at, "OPTIONS", 7) == 0;
    for (size_t i = 0; i < r->header_count; i++) {
        const struct trk_h1_header *h = &r->headers[i];
        if (h->id == TRK_H1_HOST) {
            has_host = true;
            host = h->value;
        }
        if (is_dropped_from_request(c, h, &named)) {
            end_run(&run, h->name.at, t);
            if (h->id == TRK_H1_COOKIE) {
                add_cookies(h->value, t);
            }
        } else if (is_options && trk_h1_is(h->name, "max-forwards")) {
            end_run(&run, h->name.at, t);
            add_max_forwards(h->value, t);
        } else if (run.start == NULL) {
            run.start = h->name.at;
        }
    }
    end_run(&run, c->in.bytes + c->head_len - 2, t);
    if (!has_host) { /* HTTP/1.0 */
        field(t, "Host", c->up->host->name);
    }
    add_forwarded(c, host, t);
    field(t, config->tracing_header, c->tracing_id);
    if (c->caller != NULL) {
        field(t, config->caller_header, c->caller);
    }
    if (target->secret != NULL) {
        field(t, "X-Racetrack-Job-Secret", target->secret);
    }
    if (c->in.body == TRK_H1_CHUNKED) {
        pub_text_adds(t, "Transfer-Encoding: chunked\r\n");
    }
    if (c->is_upgrade) {
        pub_text_adds(t, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    }
    pub_text_add(t, "\r\n", 2);
    return !t->overflow;
}

/* -- response -- */

/* Behind "scheme://authority" if the authority is the job's or the gateway's own, else NULL. */
static const char *relative_location(struct pub_client *c, struct trk_h1_slice location)
{
    size_t scheme = location.len > 8 && memcmp(location.at, "https://", 8) == 0  ? 8
                    : location.len > 7 && memcmp(location.at, "http://", 7) == 0 ? 7
                                                                                 : 0;
    if (scheme == 0) {
        return NULL;
    }
    const char *authority = location.at + scheme;
    const char *end = location.at + location.len;
    const char *path = authority;
    while (path < end && *path != '/' && *path != '?' && *path != '#') {
        path++;
    }
    if (end - path > 1 && path[0] == '/' && path[1] == '/') {
        return NULL; /* by itself it would name another host */
    }
    size_t len = (size_t)(path - authority);
    const char *job_host = c->up->host->name;
    if (len == strlen(job_host) && memcmp(authority, job_host, len) == 0) {
        return path;
    }
    const struct trk_h1_request *r = pub_call_request(c);
    const struct trk_h1_header *host = trk_h1_find(r->headers, r->header_count, "host");
    return host != NULL && host->value.len == len && memcmp(authority, host->value.at, len) == 0
               ? path
               : NULL;
}

static void add_location(struct pub_text *t, struct trk_h1_slice location, const char *path)
{
    pub_text_adds(t,
                  path < location.at + location.len && *path == '/' ? "Location: " : "Location: /");
    pub_text_add(t, path, (size_t)(location.at + location.len - path));
    pub_text_add(t, "\r\n", 2);
}

/* Would it reach beyond the job: the caller's session, other jobs' pages, the whole host? */
static bool reaches_beyond(const struct trk_h1_header *h)
{
    if (trk_h1_is(h->name, "set-cookie")) {
        struct trk_h1_slice rest = h->value;
        return pub_token_is_cookie(pub_token_next_cookie(&rest));
    }
    return trk_h1_is(h->name, "service-worker-allowed") || trk_h1_is(h->name, "clear-site-data") ||
           trk_h1_is(h->name, "strict-transport-security");
}

static bool is_dropped_from_response(const struct pub_client *c, const struct trk_h1_header *h,
                                     const struct named *named)
{
    switch (h->id) {
    case TRK_H1_CONNECTION:
    case TRK_H1_KEEP_ALIVE:
    case TRK_H1_PROXY_CONNECTION:
    case TRK_H1_TE:
    case TRK_H1_TRAILER:
    case TRK_H1_TRANSFER_ENCODING:
    case TRK_H1_UPGRADE:
        return true;
    case TRK_H1_CONTENT_LENGTH: /* RFC 9110 §8.6 */
        return c->status == 204 || c->status == 304;
    case TRK_H1_CONTENT_TYPE:
    case TRK_H1_DATE:
    case TRK_H1_SERVER:
        return false;
    default: {
        const char *tracing = c->worker->shared->tracing_header;
        return is_like(h->name, tracing, strlen(tracing)) || is_named(named, h->name) ||
               reaches_beyond(h);
    }
    }
}

/* What a browser may do with an answer that it could show, unless the job says so itself. */
static void add_page_headers(const struct trk_h1_response *r, struct pub_text *t)
{
    static const struct {
        const char *lower, *name, *value;
    } headers[] = {
        {"x-content-type-options", "X-Content-Type-Options", "nosniff"},
        {"x-frame-options", "X-Frame-Options", "SAMEORIGIN"},
        {"referrer-policy", "Referrer-Policy", "same-origin"},
        {"content-security-policy", "Content-Security-Policy",
         "frame-ancestors 'self'; base-uri 'self'; object-src 'none'"},
    };
    const struct trk_h1_header *type = trk_h1_find(r->headers, r->header_count, "content-type");
    static const char json[] = "application/json";
    if (type != NULL && type->value.len >= sizeof(json) - 1 &&
        trk_h1_is((struct trk_h1_slice){type->value.at, sizeof(json) - 1}, json)) {
        return;
    }
    for (size_t i = 0; i < TRK_COUNT(headers); i++) {
        if (trk_h1_find(r->headers, r->header_count, headers[i].lower) == NULL) {
            field(t, headers[i].name, headers[i].value);
        }
    }
}

bool pub_head_response(struct pub_client *c, const struct trk_h1_response *r, size_t head_len,
                       struct pub_text *t)
{
    const char *bytes = c->out.bytes;
    const char *line_end = memchr(bytes, '\r', head_len);
    pub_text_adds(t, "HTTP/1.1");
    pub_text_add(t, bytes + 8, (size_t)(line_end + 2 - (bytes + 8)));
    struct named named;
    find_named(&named, r->headers, r->header_count);
    struct run run = {NULL};
    for (size_t i = 0; i < r->header_count; i++) {
        const struct trk_h1_header *h = &r->headers[i];
        const char *path = h->id == TRK_H1_LOCATION ? relative_location(c, h->value) : NULL;
        if (path != NULL || is_dropped_from_response(c, h, &named)) {
            end_run(&run, h->name.at, t);
            if (path != NULL) {
                add_location(t, h->value, path);
            }
        } else if (run.start == NULL) {
            run.start = h->name.at;
        }
    }
    end_run(&run, bytes + head_len - 2, t);
    field(t, c->worker->shared->config->tracing_header, c->tracing_id);
    if (r->status != 101) {
        add_page_headers(r, t);
    }
    if (r->status == 101) {
        pub_text_adds(t, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if (!c->keep_alive) {
        pub_text_adds(t, "Connection: close\r\n");
    } else if (c->minor == 0) {
        pub_text_adds(t, "Connection: keep-alive\r\n");
    }
    if (c->out.body == TRK_H1_CHUNKED && !c->out.dechunk) {
        pub_text_adds(t, "Transfer-Encoding: chunked\r\n");
    }
    pub_text_add(t, "\r\n", 2);
    return !t->overflow;
}
