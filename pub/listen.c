#include "pub/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/service.h"

#define BACKLOG    4096
#define PORT_TRIES 32

static int bound_port(int fd)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0) {
        return -1;
    }
    return ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                            : ((struct sockaddr_in *)&addr)->sin_port);
}

static int open_socket(const struct addrinfo *where, bool shared, int *ret_fd)
{
    trk_autoclose int fd = socket(where->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0) ||
        bind(fd, where->ai_addr, where->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        return -errno;
    }
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

static int resolve(const char *addr, int port, struct addrinfo **ret, struct trk_err *err)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    char service[8];
    (void)snprintf(service, sizeof(service), "%d", port);
    int n = getaddrinfo(addr, service, &hints, ret);
    return n == 0 ? 0 : trk_err_set(err, TRK_INVALID, "PUB_ADDR '%s': %s", addr, gai_strerror(n));
}

/* 0, -errno, or an error of the address. */
static int listen_at(const char *addr, int port, bool is_further, bool shared, int *ret_fd,
                     int *ret_errnum, struct trk_err *err)
{
    struct addrinfo *where = NULL;
    if (resolve(addr, port, &where, err) < 0) {
        return err->code;
    }
    int n = 0;
    if (shared && !is_further && port != 0) {
        /* Without the probe SO_REUSEPORT would share the port with another pub of this user. */
        trk_autoclose int probe = -1;
        n = open_socket(where, false, &probe);
    }
    if (n == 0) {
        n = open_socket(where, shared, ret_fd);
    }
    freeaddrinfo(where);
    *ret_errnum = -n;
    if (n == -EADDRINUSE) {
        return trk_err_set(err, TRK_CONFLICT,
                           "port %d on %s is already in use: stop what listens there or set "
                           "PUB_PORT",
                           port, addr);
    }
    return n < 0 ? trk_err_errno(err, -n, "listening on %s port %d", addr, port) : 0;
}

int pub_listen(const char *addr, int *port, bool is_further, bool shared, int ret_fds[2],
               struct trk_err *err)
{
    const char *twin = trk_service_twin(addr);
    for (int i = 0;; i++) {
        trk_autoclose int fd = -1, twin_fd = -1;
        int errnum = 0;
        if (listen_at(addr, *port, is_further, shared, &fd, &errnum, err) < 0) {
            return err->code;
        }
        int bound = bound_port(fd);
        if (twin != NULL &&
            listen_at(twin, bound, is_further, shared, &twin_fd, &errnum, err) < 0 &&
            errnum != EADDRNOTAVAIL && errnum != EAFNOSUPPORT) { /* a machine without it is fine */
            if (errnum == EADDRINUSE && *port == 0 && i < PORT_TRIES) {
                continue;
            }
            return err->code;
        }
        *port = bound;
        ret_fds[0] = TRK_STEAL_FD(fd);
        ret_fds[1] = TRK_STEAL_FD(twin_fd);
        return 0;
    }
}
