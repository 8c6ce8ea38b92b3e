/*
 * job_launch - the last step before a job's wrapper, inside the sandbox, and what stays beside it.
 *
 *     job_launch [NAME=VALUE…] -- PROGRAM [ARGUMENT…]
 *
 *     env=FD         the program's environment: "K=V" strings, each ended by NUL (required)
 *     uid=N gid=N    whom to become; without: stay
 *     files=N        open files at most
 *     log_rate=N     bytes of output a second, with bursts of eight seconds' worth
 *     network=alone  a network namespace with nothing but its own loopback
 *     network=outside  the same with a way out, but none to this machine (slirp4netns)
 *     pub=HOST:PORT  numeric; reached from that namespace at 127.0.0.1:pub_port, and nothing else
 * is pub_port=N
 *
 * bubblewrap runs as root when lifecycle does, and the job must not; and the job's environment is
 * the user's, so nothing privileged may ever run with it (LD_PRELOAD). So: make the namespace,
 * become UID:GID, drop what privileges are left, and only then execute the program. Descriptor 3
 * (the listening socket, of the network outside) is passed on.
 *
 * The process that bubblewrap started remains as the program's keeper, in the network outside: it
 * passes signals on, writes the output and carries connections to pub (keeper.h). It ends with the
 * program, as the program did.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lifecycle/infra/process/launcher/filter.h"
#include "lifecycle/infra/process/launcher/keeper.h"
#include "lifecycle/infra/process/launcher/network.h"

enum { ENV_BYTES_MAX = 4 << 20, ENV_COUNT_MAX = 20000, LISTEN_FD = 3 };

struct launch {
    int env_fd;
    long uid, gid;
    long long files, log_rate;
    bool is_alone, is_outside;
    struct sockaddr_storage pub;
    socklen_t pub_len; /* 0: none */
    int pub_port;
    char **program;
};

static char *env_bytes; /* pages of its own: the keeper gives them back */

_Noreturn void launch_fail(const char *what)
{
    dprintf(2, "job_launch: %s: %s\n", what, strerror(errno));
    _exit(126);
}

static _Noreturn void usage(const char *word)
{
    dprintf(2, "job_launch: '%s' is not understood\n", word);
    _exit(126);
}

/* "1.2.3.4:80" or "[::1]:80". */
static void read_address(const char *text, struct launch *l)
{
    char host[64] = "";
    const char *cut = strrchr(text, ':');
    bool is_v6 = text[0] == '[';
    size_t len = cut != NULL ? (size_t)(cut - text) - (is_v6 ? 2 : 0) : sizeof(host);
    if (len >= sizeof(host)) {
        usage(text);
    }
    memcpy(host, text + is_v6, len);
    in_port_t port = htons((uint16_t)atoi(cut + 1));
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(&l->pub, &v4, sizeof(v4));
        l->pub_len = sizeof(v4);
    } else if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(&l->pub, &v6, sizeof(v6));
        l->pub_len = sizeof(v6);
    } else {
        usage(text);
    }
}

static void read_option(const char *word, struct launch *l)
{
    const char *value = strchr(word, '=');
    size_t len = value != NULL ? (size_t)(value++ - word) : 0;
#define IS(name) (len == sizeof(name) - 1 && memcmp(word, name, len) == 0)
    if (IS("env")) {
        l->env_fd = atoi(value);
    } else if (IS("uid")) {
        l->uid = atol(value);
    } else if (IS("gid")) {
        l->gid = atol(value);
    } else if (IS("files")) {
        l->files = atoll(value);
    } else if (IS("log_rate")) {
        l->log_rate = atoll(value);
    } else if (IS("network")) {
        l->is_outside = strcmp(value, "outside") == 0;
        l->is_alone = l->is_outside || strcmp(value, "alone") == 0;
    } else if (IS("pub")) {
        read_address(value, l);
    } else if (IS("pub_port")) {
        l->pub_port = atoi(value);
    } else {
        usage(word);
    }
#undef IS
}

static void read_options(char **argv, struct launch *l)
{
    *l = (struct launch){.env_fd = -1, .uid = -1, .gid = -1};
    for (argv++; *argv != NULL && strcmp(*argv, "--") != 0; argv++) {
        read_option(*argv, l);
    }
    if (*argv == NULL || argv[1] == NULL || l->env_fd < 0) {
        usage("no env=FD and -- PROGRAM");
    }
    l->program = argv + 1;
}

static char **read_env(int fd)
{
    static char *env[ENV_COUNT_MAX + 1];
    size_t len = 0, count = 0;
    env_bytes = mmap(NULL, ENV_BYTES_MAX + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                     -1, 0);
    if (env_bytes == MAP_FAILED) {
        launch_fail("reading the environment");
    }
    for (;;) {
        ssize_t n = read(fd, env_bytes + len, ENV_BYTES_MAX - len);
        if (n < 0) {
            launch_fail("reading the environment");
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    for (char *entry = env_bytes; entry < env_bytes + len && count < ENV_COUNT_MAX;
         entry += strlen(entry) + 1) {
        env[count++] = entry;
    }
    return env;
}

static void drop_privileges(const struct launch *l)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};
    if (l->uid >= 0 &&
        (setgroups(0, NULL) < 0 || setresgid((gid_t)l->gid, (gid_t)l->gid, (gid_t)l->gid) < 0 ||
         setresuid((uid_t)l->uid, (uid_t)l->uid, (uid_t)l->uid) < 0)) {
        launch_fail("changing the user");
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
        syscall(SYS_capset, &header, none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        launch_fail("giving up privileges");
    }
}

static void limit_files(long long most)
{
    struct rlimit files;
    if (most > 0 && getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max > (rlim_t)most) {
        files.rlim_cur = files.rlim_max = (rlim_t)most;
        if (setrlimit(RLIMIT_NOFILE, &files) < 0) {
            launch_fail("limiting open files");
        }
    }
}

/* In the child: the namespace, told to the keeper, then the program. */
static _Noreturn void run(const struct launch *l, char **env, int news, int output)
{
    if (l->is_alone) {
        network_enter();
        network_send(news, l->pub_len > 0 ? network_listen(l->pub_port) : -1);
        network_await(news);
    }
    drop_privileges(l);
    const struct rlimit no_core = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    limit_files(l->files);
    if (l->is_alone) {
        filter_sockets();
    }
    keeper_release_signals();
    if (dup2(output, 1) < 0 || dup2(output, 2) < 0) {
        launch_fail("setting up the output");
    }
    (void)syscall(SYS_close_range, (unsigned)LISTEN_FD + 1, ~0U, 0U);
    execve(l->program[0], l->program, env);
    launch_fail(l->program[0]);
}

int main(int argc, char **argv)
{
    (void)argc;
    struct launch l;
    read_options(argv, &l);
    char **env = read_env(l.env_fd);
    (void)syscall(SYS_close_range, (unsigned)LISTEN_FD + 1, ~0U, 0U);
    int output[2], news[2];
    if (pipe2(output, O_CLOEXEC) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, news) < 0) {
        launch_fail("making pipes");
    }
    keeper_hold_signals();
    pid_t pid = fork();
    if (pid < 0) {
        launch_fail("starting the program");
    }
    if (pid == 0) {
        (void)close(news[0]);
        run(&l, env, news[1], output[1]);
    }
    (void)munmap(env_bytes, ENV_BYTES_MAX + 1);
    (void)close(LISTEN_FD);
    (void)close(news[1]);
    (void)close(output[1]);
    struct keeper k = {.program = pid,
                       .output = output[0],
                       .log_rate = l.log_rate,
                       .listener = -1,
                       .pub = &l.pub,
                       .pub_len = l.pub_len};
    if (l.is_alone) {
        int namespace;
        network_receive(news[0], &namespace, &k.listener);
        if (l.is_outside && namespace >= 0) {
            network_open(namespace);
        }
        (void)close(namespace);
        network_release(news[0]);
    }
    drop_privileges(&l);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* the program may be of the same user */
    keeper_run(&k);
}
