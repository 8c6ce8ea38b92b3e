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
    char bytes[CMSG_SPACE(sizeof(int))];
};

void network_send(int news, int listener)
{
    char byte = 'n';
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    union control control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                                        .cmsg_level = SOL_SOCKET,
                                        .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (listener >= 0) {
        memcpy(CMSG_DATA(&control.header), &listener, sizeof(listener));
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
    }
    if (sendmsg(news, &message, MSG_NOSIGNAL) != 1) {
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

/* The program may have failed already, and said why: then there is nothing to listen on. */
int network_receive(int news)
{
    char byte;
    int listener = -1;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    union control control = {0};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    if (recvmsg(news, &message, MSG_CMSG_CLOEXEC) == 1 && message.msg_controllen > 0 &&
        control.header.cmsg_type == SCM_RIGHTS) {
        memcpy(&listener, CMSG_DATA(&control.header), sizeof(listener));
    }
    return listener;
}

void network_release(int news)
{
    (void)send(news, "g", 1, MSG_NOSIGNAL);
    (void)close(news);
}

void network_open(pid_t pid)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) {
        launch_fail("opening the network");
    }
    pid_t slirp = fork();
    if (slirp == 0) {
        char number[16], ready_fd[32];
        (void)snprintf(number, sizeof(number), "%d", (int)pid);
        (void)snprintf(ready_fd, sizeof(ready_fd), "--ready-fd=%d", ready[1]);
        (void)fcntl(ready[1], F_SETFD, 0);
        keeper_release_signals();
        execle("/usr/bin/slirp4netns", "slirp4netns", "--configure", "--mtu=65520",
               "--disable-host-loopback", "--enable-sandbox", ready_fd, number, "tap0",
               (char *)NULL, (char *[]){NULL});
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
