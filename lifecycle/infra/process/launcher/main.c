/*
 * job_launch - the last step before a job's wrapper, inside the sandbox.
 *
 *     job_launch ENV_FD UID GID PROGRAM [ARGUMENT…]
 *
 * bubblewrap runs as root when lifecycle does, and the job must not; and the job's environment is
 * the user's, so nothing privileged may ever run with it (LD_PRELOAD). So: become UID:GID (-1:
 * stay), drop what privileges are left, and only then execute the program with the environment read
 * from ENV_FD ("K=V" strings, each ended by NUL). Descriptors up to 3 (the listening socket) are
 * passed on.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENV_BYTES_MAX = 4 << 20, ENV_COUNT_MAX = 20000 };

static _Noreturn void fail(const char *what)
{
    dprintf(2, "job_launch: %s: %s\n", what, strerror(errno));
    _exit(126);
}

static char *read_env(int fd, size_t *ret_len)
{
    static char bytes[ENV_BYTES_MAX + 1];
    size_t len = 0;
    for (;;) {
        ssize_t n = read(fd, bytes + len, ENV_BYTES_MAX - len);
        if (n < 0) {
            fail("reading the environment");
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    *ret_len = len;
    return bytes;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        dprintf(2, "usage: job_launch ENV_FD UID GID PROGRAM [ARGUMENT...]\n");
        return 126;
    }
    static char *env[ENV_COUNT_MAX + 1];
    size_t len, count = 0;
    char *bytes = read_env(atoi(argv[1]), &len);
    for (char *entry = bytes; entry < bytes + len && count < ENV_COUNT_MAX;
         entry += strlen(entry) + 1) {
        env[count++] = entry;
    }
    long uid = atol(argv[2]), gid = atol(argv[3]);
    if (uid >= 0 && (setgroups(0, NULL) < 0 || setresgid((gid_t)gid, (gid_t)gid, (gid_t)gid) < 0 ||
                     setresuid((uid_t)uid, (uid_t)uid, (uid_t)uid) < 0)) {
        fail("changing the user");
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        fail("giving up privileges");
    }
    (void)syscall(SYS_close_range, 4U, ~0U, 0U);
    execve(argv[4], argv + 4, env);
    fail(argv[4]);
}
