#include "lifecycle/infra/process/launcher/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lifecycle/infra/process/launcher/keeper.h"

enum { BACKLOG = 128 };

void network_enter(void)
{
    if (unshare(CLONE_NEWNET) < 0) {
        launch_fail("making a network namespace");
    }
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0) {
        launch_fail("setting up the loopback");
    }
    (void)close(fd);
}

int network_listen(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, BACKLOG) < 0) {
        launch_fail("listening for calls of other jobs");
    }
    return fd;
}

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(2 * sizeof(int))];
};

/* By its own /proc: in a container that may be another one, with other numbers. */
void network_send(int news, int listener)
{
    char byte = 'n';
    const int fds[2] = {open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), listener};
    size_t size = (listener >= 0 ? 2 : 1) * sizeof(int);
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    union control control = {
        .header = {.cmsg_len = CMSG_LEN(size), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(size)};
    memcpy(CMSG_DATA(&control.header), fds, size);
    if (fds[0] < 0 || sendmsg(news, &message, MSG_NOSIGNAL) != 1) {
        launch_fail("telling the keeper");
    }
}

void network_await(int news)
{
    char byte;
    if (recv(news, &byte, 1, 0) != 1) {
        _exit(126); /* the keeper has said why */
    }
}

/* The program may have failed already, and said why: then nothing comes. */
void network_receive(int news, int *ret_namespace, int *ret_listener)
{
    char byte;
    int fds[2] = {-1, -1};
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    union control control = {0};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    if (recvmsg(news, &message, MSG_CMSG_CLOEXEC) == 1 && message.msg_controllen > 0 &&
        control.header.cmsg_type == SCM_RIGHTS) {
        memcpy(fds, CMSG_DATA(&control.header), control.header.cmsg_len - CMSG_LEN(0));
    }
    *ret_namespace = fds[0];
    *ret_listener = fds[1];
}

void network_release(int news)
{
    (void)send(news, "g", 1, MSG_NOSIGNAL);
    (void)close(news);
}

void network_open(int namespace)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) {
        launch_fail("opening the network");
    }
    pid_t slirp = fork();
    if (slirp == 0) {
        char path[32], ready_fd[32];
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", namespace);
        (void)snprintf(ready_fd, sizeof(ready_fd), "--ready-fd=%d", ready[1]);
        (void)fcntl(ready[1], F_SETFD, 0);
        (void)fcntl(namespace, F_SETFD, 0);
        keeper_release_signals();
        execle("/usr/bin/slirp4netns", "slirp4netns", "--configure", "--mtu=65520",
               "--disable-host-loopback", "--enable-sandbox", ready_fd, "--netns-type=path", path,
               "tap0", (char *)NULL, (char *[]){NULL});
        launch_fail("/usr/bin/slirp4netns");
    }
    (void)close(ready[1]);
    char byte;
    if (slirp < 0 || read(ready[0], &byte, 1) != 1) {
        dprintf(2, "job_launch: the job's network cannot be opened to the outside\n");
        _exit(126);
    }
    (void)close(ready[0]);
}
