#include "image_builder/build/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <strings.h>
#include <sys/ioctl.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define CONNECT_MS 10000

void network_rules_fini(struct network_rules *rules)
{
    trk_args_fini(&rules->trusted);
    trk_args_fini(&rules->named);
}

/* ---- names ---- */

static bool is_port(const char *text, size_t len, unsigned *ret)
{
    trk_autofree char *copy = trk_xstrndup(text, len);
    int64_t number;
    if (trk_parse_int64(copy, 1, 65535, &number, NULL) < 0) {
        return false;
    }
    *ret = (unsigned)number;
    return true;
}

int network_split(const char *authority, size_t len, unsigned port_default, char ret_host[256],
                  unsigned *ret_port, struct trk_err *err)
{
    const char *end = authority + len, *host = authority, *host_end, *rest;
    if (len > 0 && authority[0] == '[') {
        host = authority + 1;
        host_end = memchr(host, ']', len - 1);
        rest = host_end != NULL ? host_end + 1 : end;
    } else {
        host_end = memchr(host, ':', len);
        host_end = host_end != NULL ? host_end : end;
        rest = host_end;
    }
    unsigned port = port_default;
    bool is_good = host_end != NULL && host_end > host && host_end - host < 254;
    for (const char *p = host; is_good && p < host_end; p++) {
        is_good = (unsigned char)*p > ' ' && (unsigned char)*p < 0x7f &&
                  strchr("/@?#\\%", *p) == NULL;
    }
    if (is_good && rest < end) {
        is_good = *rest == ':' && is_port(rest + 1, (size_t)(end - rest - 1), &port);
    }
    if (!is_good || port == 0) {
        return trk_err_set(err, TRK_INVALID, "'%.*s' is not a host with a port",
                           (int)(len < 100 ? len : 100), authority);
    }
    for (size_t i = 0; host + i < host_end; i++) {
        char c = host[i];
        ret_host[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    size_t n = (size_t)(host_end - host);
    n -= n > 1 && ret_host[n - 1] == '.' ? 1 : 0; /* "example.com." is the same host */
    ret_host[n] = '\0';
    *ret_port = port;
    return 0;
}

void network_trust_hosts(struct network_rules *rules, const char *list)
{
    static const char blanks[] = " \t\r\n,";
    for (const char *p = list + strspn(list, blanks); *p != '\0'; p += strspn(p, blanks)) {
        size_t len = strcspn(p, blanks);
        char host[256];
        unsigned port;
        if (network_split(p, len, 443, host, &port, NULL) == 0) {
            trk_args_addf(&rules->trusted, "%s:%u", host, port);
            bool has_port = network_split(p, len, 0, host, &port, NULL) == 0;
            if (!has_port) {
                trk_args_addf(&rules->trusted, "%s:80", host);
            }
        }
        p += len;
    }
}

void network_trust_default_index(struct network_rules *rules)
{
    TRK_ARGS_ADD(&rules->trusted, "pypi.org:443", "files.pythonhosted.org:443");
}

static void add_urls(struct trk_args *list, const char *text)
{
    static const struct {
        const char *scheme;
        unsigned port;
    } schemes[] = {{"https://", 443}, {"http://", 80}};
    for (size_t i = 0; i < TRK_COUNT(schemes); i++) {
        for (const char *p = strcasestr(text, schemes[i].scheme); p != NULL;
             p = strcasestr(p, schemes[i].scheme)) {
            p += strlen(schemes[i].scheme);
            size_t len = strcspn(p, "/?# \t\r\n,;'\"<>\\");
            const char *at = memrchr(p, '@', len);
            const char *authority = at != NULL ? at + 1 : p;
            char host[256];
            unsigned port;
            if (network_split(authority, (size_t)(p + len - authority), schemes[i].port, host,
                              &port, NULL) == 0) {
                trk_args_addf(list, "%s:%u", host, port);
            }
        }
    }
}

void network_trust_urls(struct network_rules *rules, const char *text)
{
    add_urls(&rules->trusted, text);
}

void network_name_urls(struct network_rules *rules, const char *text)
{
    add_urls(&rules->named, text);
}

static bool is_listed(const struct trk_args *list, const char *host_and_port)
{
    for (size_t i = 0; i < list->count; i++) {
        const char *item = list->items[i];
        bool is_same = item[0] == '*' && item[1] == '.'
                           ? trk_str_has_suffix(host_and_port, item + 1)
                           : strcmp(item, host_and_port) == 0;
        if (is_same) {
            return true;
        }
    }
    return false;
}

enum network_verdict network_judge(const struct network_rules *rules, const char *host,
                                   unsigned port)
{
    trk_autofree char *wanted = trk_xasprintf("%s:%u", host, port);
    if (is_listed(&rules->trusted, wanted)) {
        return NETWORK_ALLOWED;
    }
    if (rules->any_remote) {
        return NETWORK_IF_REMOTE;
    }
    return rules->any_public || is_listed(&rules->named, wanted) ? NETWORK_IF_PUBLIC
                                                                 : NETWORK_REFUSED;
}

/* ---- addresses ---- */

struct block {
    uint32_t address;
    int bits;
};

static bool is_in(uint32_t address, const struct block *blocks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if ((address ^ blocks[i].address) >> (32 - blocks[i].bits) == 0) {
            return true;
        }
    }
    return false;
}

/* This host, loopback, link-local, multicast and broadcast (RFC 6890). */
static const struct block local_blocks[] = {
    {0x00000000, 8}, {0x7f000000, 8}, {0xa9fe0000, 16}, {0xe0000000, 4}, {0xf0000000, 4}};
/* Private networks, carrier NAT, protocol assignments, documentation, benchmarks. */
static const struct block private_blocks[] = {{0x0a000000, 8},  {0x64400000, 10}, {0xac100000, 12},
                                              {0xc0000000, 24}, {0xc0000200, 24}, {0xc0a80000, 16},
                                              {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24}};

/* The IPv4 address that an IPv6 one stands for: mapped, NAT64, 6to4. */
static bool embedded_v4(const unsigned char *a, uint32_t *ret)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const unsigned char nat64[12] = {0, 0x64, 0xff, 0x9b};
    static const unsigned char compatible[12] = {0};
    const unsigned char *at = NULL;
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0 || memcmp(a, compatible, 12) == 0) {
        at = a + 12;
    } else if (a[0] == 0x20 && a[1] == 0x02) {
        at = a + 2;
    }
    if (at == NULL) {
        return false;
    }
    *ret = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    return true;
}

static bool v4_of(const struct sockaddr *addr, uint32_t *ret)
{
    if (addr->sa_family == AF_INET) {
        *ret = ntohl(((const struct sockaddr_in *)(const void *)addr)->sin_addr.s_addr);
        return true;
    }
    return addr->sa_family == AF_INET6 &&
           embedded_v4(((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr.s6_addr, ret);
}

bool network_is_local(const struct sockaddr *addr)
{
    uint32_t v4;
    if (v4_of(addr, &v4)) { /* "::" and "::1" too: they embed 0.0.0.0 and 0.0.0.1 */
        return is_in(v4, local_blocks, TRK_COUNT(local_blocks));
    }
    if (addr->sa_family != AF_INET6) {
        return true;
    }
    const unsigned char *a = ((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr.s6_addr;
    return (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) || a[0] == 0xff;
}

bool network_is_public(const struct sockaddr *addr)
{
    uint32_t v4;
    if (network_is_local(addr)) {
        return false;
    }
    if (v4_of(addr, &v4)) {
        return !is_in(v4, private_blocks, TRK_COUNT(private_blocks));
    }
    const unsigned char *a = ((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr.s6_addr;
    return (a[0] & 0xe0) == 0x20; /* global unicast, RFC 4291 §2.4 */
}

bool network_is_not_public(const struct sockaddr *addr)
{
    return !network_is_public(addr);
}

/* ---- connections ---- */

static int connect_to(const struct addrinfo *to, int *ret_fd)
{
    trk_autoclose int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = 0;
    socklen_t len = sizeof(error);
    if (fd < 0) {
        return errno;
    }
    if (connect(fd, to->ai_addr, to->ai_addrlen) < 0) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
        if (errno != EINPROGRESS) {
            return errno;
        }
        if (poll(&poll_fd, 1, CONNECT_MS) <= 0) {
            return ETIMEDOUT;
        }
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0) {
            return error != 0 ? error : errno;
        }
    }
    int off = 0;
    (void)ioctl(fd, FIONBIO, &off);
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

int network_connect(const char *host, unsigned port, bool (*refuse)(const struct sockaddr *addr),
                    int *ret_fd, struct trk_err *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    char service[8];
    struct addrinfo *list = NULL;
    (void)snprintf(service, sizeof(service), "%u", port);
    int found = getaddrinfo(host, service, &hints, &list);
    if (found != 0) {
        return trk_err_set(err, TRK_UNAVAILABLE, "%s: %s", host, gai_strerror(found));
    }
    int errnum = 0;
    bool is_tried = false, is_connected = false;
    for (const struct addrinfo *a = list; a != NULL && !is_connected; a = a->ai_next) {
        if (refuse == NULL || !refuse(a->ai_addr)) {
            is_tried = true;
            errnum = connect_to(a, ret_fd);
            is_connected = errnum == 0;
        }
    }
    freeaddrinfo(list);
    if (is_connected) {
        return 0;
    }
    return is_tried
               ? trk_err_set(err, TRK_UNAVAILABLE, "%s port %u: %s", host, port, strerror(errnum))
               : trk_err_set(err, TRK_FORBIDDEN, "%s has no public address", host);
}
