#include "image_builder/build/proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "image_builder/build/shuttle.h"
#include "libtrack/base/buf.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define HEAD_MAX        (64U << 10)
#define HEAD_MS         30000
#define CONNECTIONS_MAX 48
#define STACK_BYTES     (256U << 10)
#define TROUBLES_MAX    32

struct proxy {
    struct proxy_options options;
    int listener;
    char *path;          /* of the unix socket; NULL: on a port */
    char *authorization; /* the field's value that must be shown; NULL: none */
    atomic_bool stop;
    pthread_t thread;
    pthread_mutex_t lock;
    unsigned refs; /* of proxy_stop's caller and of the connections, which may outlive it */
    struct trk_args troubles; /* hosts that were spoken of */
};

struct connection {
    struct proxy *proxy;
    int fd;
};

/* One request's head, in place. */
struct head {
    struct trk_buf bytes;            /* what was read, with what came behind the head */
    size_t len;                      /* of the head with its empty line */
    char *method, *target, *version; /* NUL-terminated in `line` */
    const char *fields;              /* behind the first line */
    char *line;                      /* owned */
};

static void head_fini(struct head *head)
{
    trk_buf_fini(&head->bytes);
    free(head->line);
}

static void answer(int fd, int status, const char *reason, const char *text)
{
    trk_autofree char *reply = trk_xasprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\n"
                                             "Content-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
                                             status, reason, strlen(text) + 1, text);
    (void)send(fd, reply, strlen(reply), MSG_NOSIGNAL);
}

static void trouble(struct proxy *proxy, const char *host, const char *text)
{
    (void)pthread_mutex_lock(&proxy->lock);
    bool is_known = proxy->troubles.count >= TROUBLES_MAX;
    for (size_t i = 0; i < proxy->troubles.count && !is_known; i++) {
        is_known = strcmp(proxy->troubles.items[i], host) == 0;
    }
    if (!is_known) {
        trk_args_add(&proxy->troubles, host);
        if (proxy->options.on_trouble != NULL) {
            proxy->options.on_trouble(proxy->options.ctx, text);
        }
    }
    (void)pthread_mutex_unlock(&proxy->lock);
}

/* ---- reading the head ---- */

static bool wait_readable(const struct proxy *proxy, int fd, int timeout_ms)
{
    for (int waited = 0; waited < timeout_ms && !proxy->stop; waited += 200) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (poll(&poll_fd, 1, 200) > 0) {
            return true;
        }
    }
    return false;
}

static bool read_head(const struct proxy *proxy, int fd, struct head *head)
{
    char bytes[4096];
    const char *end = NULL;
    while (end == NULL) {
        ssize_t n = wait_readable(proxy, fd, HEAD_MS) ? recv(fd, bytes, sizeof(bytes), 0) : 0;
        if (n <= 0 || trk_buf_add(&head->bytes, bytes, (size_t)n) < 0) {
            return false;
        }
        end = memmem(head->bytes.data, head->bytes.len, "\r\n\r\n", 4);
    }
    head->len = (size_t)(end - head->bytes.data) + 4;
    const char *line_end = memmem(head->bytes.data, head->len, "\r\n", 2);
    size_t line = (size_t)(line_end - head->bytes.data);
    if (memchr(head->bytes.data, '\0', head->len) != NULL) {
        return false;
    }
    head->line = trk_xstrndup(head->bytes.data, line);
    head->fields = line_end + 2;
    char *rest = head->line;
    head->method = strsep(&rest, " ");
    head->target = rest != NULL ? strsep(&rest, " ") : NULL;
    head->version = rest;
    return head->version != NULL && trk_str_has_prefix(head->version, "HTTP/1.") &&
           head->method[0] != '\0' && head->target[0] != '\0';
}

static bool is_field(const char *line, const char *name)
{
    size_t len = strlen(name);
    return strncasecmp(line, name, len) == 0 && line[len] == ':';
}

static bool is_authorized(const struct proxy *proxy, const struct head *head)
{
    static const char name[] = "Proxy-Authorization";
    const char *end = head->bytes.data + head->len - 2;
    bool is_shown = proxy->authorization == NULL;
    for (const char *line = head->fields; line < end && !is_shown;) {
        const char *next = (const char *)memmem(line, (size_t)(end - line), "\r\n", 2) + 2;
        if (is_field(line, name)) {
            const char *value = line + sizeof(name) + strspn(line + sizeof(name), " ");
            trk_autofree char *shown = trk_xstrndup(value, (size_t)(next - 2 - value));
            is_shown = trk_secret_equal(shown, proxy->authorization);
        }
        line = next;
    }
    return is_shown;
}

/* ---- the operator's own proxy ---- */

static bool is_without_proxy(const char *no_proxy, const char *host)
{
    static const char blanks[] = " \t,";
    const char *p = no_proxy != NULL ? no_proxy : "";
    for (p += strspn(p, blanks); *p != '\0'; p += strspn(p, blanks)) {
        size_t len = strcspn(p, blanks);
        size_t dot = *p == '.' || (*p == '*' && len > 1 && p[1] == '.') ? strcspn(p, ".") + 1 : 0;
        size_t n = len - dot, host_len = strlen(host);
        bool is_end = host_len >= n && strncasecmp(host + host_len - n, p + dot, n) == 0;
        if ((len == 1 && *p == '*') ||
            (is_end && (host_len == n || host[host_len - n - 1] == '.'))) {
            return true;
        }
        p += len;
    }
    return false;
}

/* Host and port of the proxy's URL and its "Proxy-Authorization" field ("" for none). */
static int read_proxy_url(const char *url, char host[256], unsigned *port, struct trk_buf *field,
                          struct trk_err *err)
{
    const char *authority = strstr(url, "://");
    if (authority != NULL && strncasecmp(url, "http://", 7) != 0) {
        return trk_err_set(err, TRK_UNAVAILABLE,
                           "the proxy of image_builder's environment must be an http:// one");
    }
    authority = authority != NULL ? authority + 3 : url;
    size_t len = strcspn(authority, "/");
    const char *at = memrchr(authority, '@', len);
    if (at != NULL) {
        size_t user_len = strcspn(authority, ":@");
        trk_autofree char *user = NULL, *password = NULL;
        int rc = trk_url_decode(authority, user_len, &user, err);
        if (rc == 0 && authority + user_len < at) {
            rc = trk_url_decode(authority + user_len + 1, (size_t)(at - authority) - user_len - 1,
                                &password, err);
        }
        if (rc < 0) {
            return rc;
        }
        trk_autofree char *pair = trk_xasprintf("%s:%s", user, password != NULL ? password : "");
        (void)trk_buf_adds(field, "Proxy-Authorization: Basic ");
        trk_base64_encode(field, pair, strlen(pair));
        (void)trk_buf_adds(field, "\r\n");
        len -= (size_t)(at + 1 - authority);
        authority = at + 1;
    }
    return network_split(authority, len, 80, host, port, err);
}

/* ---- one request ---- */

struct way {
    bool is_tunnel;
    char host[256];
    unsigned port;
    const char *path;        /* of an absolute form, from the '/' on; "" when it has none */
    const char *proxy;       /* the operator's, or NULL */
    struct trk_buf upstream; /* what the next one gets before the rest: a head, or nothing */
};

static int read_target(const struct head *head, struct way *way, struct trk_err *err)
{
    way->is_tunnel = strcmp(head->method, "CONNECT") == 0;
    if (way->is_tunnel) {
        way->path = "";
        return network_split(head->target, strlen(head->target), 0, way->host, &way->port, err);
    }
    if (strncasecmp(head->target, "http://", 7) != 0) {
        return trk_err_set(err, TRK_INVALID, "this is a proxy: ask for http://… or CONNECT");
    }
    const char *authority = head->target + 7;
    size_t len = strcspn(authority, "/?#");
    const char *at = memrchr(authority, '@', len);
    way->path = authority + len;
    authority = at != NULL ? at + 1 : authority;
    return network_split(authority, (size_t)(way->path - authority), 80, way->host, &way->port,
                         err);
}

/* The head as the next one gets it: one request a connection, so that each is judged. */
static void write_head(const struct head *head, const struct way *way, const char *authorization,
                       struct trk_buf *out)
{
    const char *target = way->proxy != NULL ? head->target : way->path;
    (void)trk_buf_addf(out, "%s %s%s HTTP/1.1\r\n", head->method,
                       target[0] == '/' || way->proxy != NULL ? "" : "/", target);
    const char *end = head->bytes.data + head->len - 2;
    for (const char *line = head->fields; line < end;) {
        const char *next = (const char *)memmem(line, (size_t)(end - line), "\r\n", 2) + 2;
        if (!is_field(line, "Connection") && strncasecmp(line, "Proxy-", 6) != 0 &&
            !is_field(line, "Keep-Alive")) {
            (void)trk_buf_add(out, line, (size_t)(next - line));
        }
        line = next;
    }
    (void)trk_buf_addf(out, "Connection: close\r\n%s\r\n", authorization);
}

static int open_way(struct proxy *proxy, const struct head *head, struct way *way, int *ret_fd,
                    struct trk_err *err)
{
    static bool (*const refuse[])(const struct sockaddr *addr) = {
        [NETWORK_IF_PUBLIC] = network_is_not_public,
        [NETWORK_IF_REMOTE] = network_is_local,
        [NETWORK_ALLOWED] = NULL,
    };
    const struct proxy_options *o = &proxy->options;
    enum network_verdict verdict = network_judge(&o->rules, way->host, way->port);
    if (verdict == NETWORK_REFUSED) {
        return trk_err_set(err, TRK_FORBIDDEN,
                           "network: %s port %u is refused: builds reach package indexes only; the "
                           "operator may add it to BUILD_NETWORK_HOSTS",
                           way->host, way->port);
    }
    const char *url = way->is_tunnel ? o->https_proxy : o->http_proxy;
    bool is_direct = trk_str_is_empty(url) || is_without_proxy(o->no_proxy, way->host);
    struct trk_buf field;
    trk_buf_init(&field, 4096);
    char host[256];
    unsigned port;
    int rc = 0;
    if (is_direct) {
        rc = network_connect(way->host, way->port, refuse[verdict], ret_fd, err);
    } else {
        way->proxy = url;
        rc = read_proxy_url(url, host, &port, &field, err);
        rc = rc < 0 ? rc : network_connect(host, port, NULL, ret_fd, err);
    }
    if (rc == TRK_FORBIDDEN) {
        rc = trk_err_set(err, TRK_FORBIDDEN, "network: %s port %u is refused: %s", way->host,
                         way->port,
                         verdict == NETWORK_IF_REMOTE
                             ? "it is an address of image_builder's own machine or link; the "
                               "operator may allow those by GIT_LOCAL_REMOTES"
                             : "it has no public address; the operator may add it to "
                               "BUILD_NETWORK_HOSTS");
    } else if (rc < 0) {
        rc = trk_err_wrap(err, "network: cannot be reached");
    }
    if (rc == 0 && (!way->is_tunnel || way->proxy != NULL)) {
        write_head(head, way, field.len > 0 ? field.data : "", &way->upstream);
    }
    trk_buf_fini(&field);
    return rc;
}

static bool send_rest(int fd, const char *bytes, size_t len)
{
    return len == 0 || send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void serve(struct proxy *proxy, int fd)
{
    struct head head = {0};
    struct way way = {0};
    struct trk_err err = {0};
    trk_autoclose int out = -1;
    trk_buf_init(&head.bytes, HEAD_MAX);
    trk_buf_init(&way.upstream, 2 * HEAD_MAX);
    if (!read_head(proxy, fd, &head) || read_target(&head, &way, &err) < 0) {
        answer(fd, 400, "Bad Request", err.code != 0 ? err.text : "not a request to a proxy");
    } else if (!is_authorized(proxy, &head)) {
        answer(fd, 407, "Proxy Authentication Required", "this proxy is not for everybody");
    } else if (open_way(proxy, &head, &way, &out, &err) < 0) {
        trk_autofree char *host = trk_xasprintf("%s:%u", way.host, way.port);
        trouble(proxy, host, err.text);
        bool is_refused = err.code == TRK_FORBIDDEN;
        answer(fd, is_refused ? 403 : 502, is_refused ? "Forbidden" : "Bad Gateway", err.text);
    } else {
        static const char opened[] = "HTTP/1.1 200 Connection established\r\n\r\n";
        bool is_told = !way.is_tunnel || way.proxy != NULL ||
                       send_rest(fd, opened, sizeof(opened) - 1);
        if (is_told && send_rest(out, way.upstream.data, way.upstream.len) &&
            send_rest(out, head.bytes.data + head.len, head.bytes.len - head.len)) {
            shuttle(fd, out, &proxy->stop);
        }
    }
    trk_buf_fini(&way.upstream);
    head_fini(&head);
}

/* ---- threads ---- */

static void proxy_unref(struct proxy *proxy)
{
    (void)pthread_mutex_lock(&proxy->lock);
    bool is_last = --proxy->refs == 0;
    (void)pthread_mutex_unlock(&proxy->lock);
    if (!is_last) {
        return;
    }
    (void)pthread_mutex_destroy(&proxy->lock);
    trk_args_fini(&proxy->troubles);
    network_rules_fini(&proxy->options.rules);
    free(proxy->path);
    free(proxy->authorization);
    free(proxy);
}

static void *connection_main(void *arg)
{
    struct connection *connection = arg;
    serve(connection->proxy, connection->fd);
    (void)close(connection->fd);
    proxy_unref(connection->proxy);
    free(connection);
    return NULL;
}

static void start_connection(struct proxy *proxy, int fd)
{
    (void)pthread_mutex_lock(&proxy->lock);
    bool is_full = proxy->refs > CONNECTIONS_MAX;
    proxy->refs += is_full ? 0 : 1;
    (void)pthread_mutex_unlock(&proxy->lock);
    if (is_full) {
        answer(fd, 503, "Service Unavailable", "too many connections of one build");
        (void)close(fd);
        return;
    }
    struct connection *connection = trk_xcalloc(1, sizeof(*connection));
    *connection = (struct connection){proxy, fd};
    pthread_t thread;
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (pthread_create(&thread, &attr, connection_main, connection) != 0) {
        (void)close(fd);
        free(connection);
        proxy_unref(proxy);
    }
    (void)pthread_attr_destroy(&attr);
}

static void *proxy_main(void *arg)
{
    struct proxy *proxy = arg;
    while (!proxy->stop) {
        struct pollfd poll_fd = {.fd = proxy->listener, .events = POLLIN};
        if (poll(&poll_fd, 1, 100) <= 0) {
            continue;
        }
        int fd = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            start_connection(proxy, fd);
        }
    }
    return NULL;
}

/* Paths of sockets are short: through the folder's descriptor any folder will do. */
static int listen_in(struct proxy *proxy, const char *folder, struct trk_err *err)
{
    trk_autoclose int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/proxy.sock", dir);
    proxy->path = trk_xasprintf("%s/proxy.sock", folder);
    proxy->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (dir < 0 || proxy->listener < 0 ||
        bind(proxy->listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        chmod(proxy->path, 0666) < 0 || listen(proxy->listener, 64) < 0) {
        return trk_err_errno(err, errno, "making %s", proxy->path);
    }
    return 0;
}

static int listen_on_port(struct proxy *proxy, const char *secret, struct trk_err *err)
{
    const struct sockaddr_in addr = {.sin_family = AF_INET,
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct trk_buf value;
    trk_autofree char *pair = trk_xasprintf("build:%s", secret);
    trk_buf_init(&value, 1024);
    (void)trk_buf_adds(&value, "Basic ");
    (void)trk_base64_encode(&value, pair, strlen(pair));
    proxy->authorization = trk_buf_steal(&value, NULL);
    proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (proxy->listener < 0 ||
        bind(proxy->listener, (const struct sockaddr *)(const void *)&addr, sizeof(addr)) < 0 ||
        listen(proxy->listener, 64) < 0) {
        return trk_err_errno(err, errno, "making the way to git remotes");
    }
    return 0;
}

unsigned proxy_port(const struct proxy *proxy)
{
    struct sockaddr_in addr = {0};
    socklen_t len = sizeof(addr);
    trk_assert(getsockname(proxy->listener, (struct sockaddr *)(void *)&addr, &len) == 0);
    return ntohs(addr.sin_port);
}

static void stop_listening(struct proxy *proxy)
{
    if (proxy->listener >= 0) {
        (void)close(proxy->listener);
    }
    if (proxy->path != NULL) {
        (void)unlink(proxy->path);
    }
}

int proxy_start(const struct proxy_options *options, struct proxy **ret, struct trk_err *err)
{
    struct proxy *proxy = trk_xcalloc(1, sizeof(*proxy));
    proxy->options = *options;
    proxy->listener = -1;
    proxy->refs = 1;
    (void)pthread_mutex_init(&proxy->lock, NULL);
    int rc = options->secret != NULL ? listen_on_port(proxy, options->secret, err)
                                     : listen_in(proxy, options->folder, err);
    int errnum = rc == 0 ? pthread_create(&proxy->thread, NULL, proxy_main, proxy) : 0;
    if (errnum != 0) {
        rc = trk_err_errno(err, errnum, "starting the proxy");
    }
    if (rc < 0) {
        stop_listening(proxy);
        proxy_unref(proxy);
        return rc;
    }
    *ret = proxy;
    return 0;
}

void proxy_stop(struct proxy *proxy)
{
    if (proxy == NULL) {
        return;
    }
    proxy->stop = true;
    (void)pthread_join(proxy->thread, NULL);
    stop_listening(proxy);
    (void)pthread_mutex_lock(&proxy->lock);
    proxy->options.on_trouble = NULL;
    (void)pthread_mutex_unlock(&proxy->lock);
    proxy_unref(proxy);
}
