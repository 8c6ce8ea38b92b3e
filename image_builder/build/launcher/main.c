/*
 * build_launch - the last step before a build's command, inside the sandbox.
 *
 *     build_launch UID GID PIDS MEMORY_BYTES FILE_BYTES SOCKET FOLDER PROGRAM [ARGUMENT…]
 *
 * Becomes UID:GID (-1: stay), limits itself and goes to FOLDER, which may be that user's alone.
 * SOCKET ("-": none) is the way out: what connects to 127.0.0.1:3128 in this network namespace is
 * carried to it by a process that stays behind; on its other side image_builder decides what may be
 * reached.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "image_builder/build/shuttle.h"

enum { RELAY_PORT = 3128 };

static _Noreturn void fail(const char *what)
{
    dprintf(2, "build_launch: %s: %s\n", what, strerror(errno));
    _exit(126);
}

static void change_user(const char *uid_text, const char *gid_text)
{
    long uid = atol(uid_text), gid = atol(gid_text);
    if (uid >= 0 && (setgroups(0, NULL) < 0 || setresgid((gid_t)gid, (gid_t)gid, (gid_t)gid) < 0 ||
                     setresuid((uid_t)uid, (uid_t)uid, (uid_t)uid) < 0)) {
        fail("changing the user");
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        fail("giving up privileges");
    }
}

static void limit(int resource, const char *text)
{
    long long value = atoll(text);
    const struct rlimit both = {(rlim_t)value, (rlim_t)value};
    if (value > 0 && setrlimit((__rlimit_resource_t)resource, &both) < 0) {
        fail("setting limits");
    }
}

static int connect_out(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static _Noreturn void relay(int listener, const char *path)
{
    (void)signal(SIGCHLD, SIG_IGN);
    for (int fd = 0; fd < 3; fd++) { /* whoever waits for the command's output must see its end */
        (void)close(fd);
    }
    for (;;) {
        int in = accept(listener, NULL, NULL);
        if (in < 0 && errno != EINTR && errno != ECONNABORTED) {
            _exit(1);
        }
        if (in >= 0 && fork() == 0) {
            int out = connect_out(path);
            if (out >= 0) {
                shuttle(in, out, NULL);
            }
            _exit(0);
        }
        if (in >= 0) {
            (void)close(in);
        }
    }
}

static void start_relay(const char *path)
{
    int on = 1;
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons(RELAY_PORT),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 64) < 0) {
        fail("listening on the way out");
    }
    pid_t pid = fork();
    if (pid < 0) {
        fail("starting the relay");
    }
    if (pid == 0) {
        relay(listener, path);
    }
    (void)close(listener);
}

int main(int argc, char **argv)
{
    if (argc < 9) {
        dprintf(2, "usage: build_launch UID GID PIDS MEMORY_BYTES FILE_BYTES SOCKET FOLDER "
                   "PROGRAM [ARGUMENT...]\n");
        return 126;
    }
    change_user(argv[1], argv[2]);
    limit(RLIMIT_NPROC, argv[3]);
    limit(RLIMIT_DATA, argv[4]);
    limit(RLIMIT_FSIZE, argv[5]);
    const struct rlimit no_core = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    if (strcmp(argv[6], "-") != 0) {
        start_relay(argv[6]);
    }
    if (chdir(argv[7]) < 0) {
        fail(argv[7]);
    }
    execv(argv[8], argv + 8);
    fail(argv[8]);
}
