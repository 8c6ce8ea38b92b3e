#include "image_builder/build/shuttle.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

static bool send_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        bytes += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* Moves what has come; false: this direction is over. */
static bool carry(int from, int to)
{
    char bytes[32768];
    ssize_t n = recv(from, bytes, sizeof(bytes), 0);
    if (n < 0 && errno == EINTR) {
        return true;
    }
    if (n > 0 && send_all(to, bytes, (size_t)n)) {
        return true;
    }
    (void)shutdown(to, SHUT_WR);
    return false;
}

void shuttle(int a, int b, const atomic_bool *stop)
{
    struct pollfd fds[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
    while ((fds[0].fd >= 0 || fds[1].fd >= 0) && (stop == NULL || !*stop)) {
        if (poll(fds, 2, 200) < 0 && errno != EINTR) {
            return;
        }
        if (fds[0].fd >= 0 && fds[0].revents != 0 && !carry(a, b)) {
            fds[0].fd = -1;
        }
        if (fds[1].fd >= 0 && fds[1].revents != 0 && !carry(b, a)) {
            fds[1].fd = -1;
        }
    }
}
