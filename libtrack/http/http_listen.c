/* The sockets that the HTTP server listens on. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/service.h"
#include "libtrack/http/http_internal.h"

#define BACKLOG    4096
#define PORT_TRIES 32

static int fill_address(const char *addr, int port, struct sockaddr_storage *ret,
                        socklen_t *ret_len, struct trk_err *err)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (strcmp(addr, "localhost") == 0) {
        addr = "127.0.0.1";
    }
    if (inet_pton(AF_INET, addr, &v4.sin_addr) == 1) {
        memcpy(ret, &v4, sizeof(v4));
        *ret_len = sizeof(v4);
    } else if (inet_pton(AF_INET6, addr, &v6.sin6_addr) == 1) {
        memcpy(ret, &v6, sizeof(v6));
        *ret_len = sizeof(v6);
    } else {
        return trk_err_set(err, TRK_INVALID,
                           "cannot listen on '%s': expected an IP address such as 127.0.0.1 or "
                           "0.0.0.0",
                           addr);
    }
    return 0;
}

static int listen_fault(const struct trk_http_options *options, const char *addr, int errnum,
                        struct trk_err *err)
{
    int port = options->port;
    switch (errnum) {
    case EADDRINUSE:
        return trk_err_set(err, TRK_CONFLICT,
                           "port %d on %s is already in use: stop the process that listens there "
                           "(`ss -ltnp 'sport = :%d'` shows which) or choose another port%s%s",
                           port, addr, port, options->port_setting != NULL ? ": " : "",
                           options->port_setting != NULL ? options->port_setting : "");
    case EACCES:
        return trk_err_set(err, TRK_FORBIDDEN,
                           "no permission to listen on port %d of %s: choose a port above 1023",
                           port, addr);
    case EADDRNOTAVAIL:
        return trk_err_set(err, TRK_INVALID, "this machine has no address %s to listen on", addr);
    default:
        return trk_err_errno(err, errnum, "listening on %s port %d", addr, port);
    }
}

/* 0 or -errno. */
static int open_listener(const struct sockaddr_storage *address, socklen_t len, int *ret_fd)
{
    trk_autoclose int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                                  0);
    int on = 1; /* what is accepted inherits NODELAY */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        bind(fd, (const struct sockaddr *)address, len) < 0 || listen(fd, BACKLOG) < 0) {
        return -errno;
    }
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

/* *port 0 becomes the one that was found. */
static int listen_at(const struct trk_http_options *options, const char *addr, int *port,
                     int *ret_fd, int *ret_errnum, struct trk_err *err)
{
    struct sockaddr_storage address = {0};
    socklen_t len = 0;
    if (fill_address(addr, *port, &address, &len, err) < 0) {
        return err->code;
    }
    trk_autoclose int fd = -1;
    int rc = open_listener(&address, len, &fd);
    if (rc == 0 && getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        rc = -errno;
    }
    *ret_errnum = -rc;
    if (rc < 0) {
        return listen_fault(options, addr, -rc, err);
    }
    in_port_t bound; /* at the same place in both families' addresses */
    memcpy(&bound, (const char *)&address + offsetof(struct sockaddr_in, sin_port), sizeof(bound));
    *port = ntohs(bound);
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

int http_listen(const struct trk_http_options *options, int fds[2], size_t *ret_count,
                int *ret_port, struct trk_err *err)
{
    const char *twin = trk_service_twin(options->addr);
    for (int i = 0;; i++) {
        trk_autoclose int fd = -1, twin_fd = -1;
        int port = options->port, errnum = 0;
        if (listen_at(options, options->addr, &port, &fd, &errnum, err) < 0) {
            return err->code;
        }
        if (twin != NULL && listen_at(options, twin, &port, &twin_fd, &errnum, err) < 0 &&
            errnum != EADDRNOTAVAIL && errnum != EAFNOSUPPORT) { /* a machine without it is fine */
            if (errnum == EADDRINUSE && options->port == 0 && i < PORT_TRIES) {
                continue;
            }
            return err->code;
        }
        *ret_port = port;
        *ret_count = twin_fd >= 0 ? 2 : 1;
        fds[0] = TRK_STEAL_FD(fd);
        fds[1] = TRK_STEAL_FD(twin_fd);
        return 0;
    }
}
