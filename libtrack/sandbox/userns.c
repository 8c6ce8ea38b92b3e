#include "libtrack/sandbox/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libtrack/base/mem.h"

/* The process that stands in the namespace until it has its maps and somebody holds it, and is
 * killed then. It keeps nothing of its parent's: neither the pipes of other threads' stand-ins nor
 * locks, and dies with the thread that waits for it. */
static _Noreturn void stand_in(int ready_fd, pid_t parent)
{
    (void)close_range((unsigned)ready_fd + 1, ~0U, 0);
    (void)close_range(0, (unsigned)ready_fd - 1, 0);
    int errnum = unshare(CLONE_NEWUSER) < 0 ? errno : 0;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent ||
        write(ready_fd, &errnum, sizeof(errnum)) != (ssize_t)sizeof(errnum)) {
        _exit(1);
    }
    for (;;) {
        (void)pause();
    }
}

static int write_map(pid_t pid, const char *file, unsigned id, struct trk_err *err)
{
    char path[64], text[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    int len = snprintf(text, sizeof(text), "0 0 1\n%u %u 1\n", id, id);
    trk_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, (size_t)len) == len
               ? 0
               : trk_err_set(err, TRK_UNAVAILABLE,
                             "mapping user %u into a user namespace is refused here (%s): run the "
                             "service as an ordinary user",
                             id, strerror(errno));
}

static int open_namespace(pid_t pid, uid_t uid, gid_t gid, int *ret_fd, struct trk_err *err)
{
    int rc = write_map(pid, "uid_map", uid, err);
    rc = rc < 0 ? rc : write_map(pid, "gid_map", gid, err);
    if (rc < 0) {
        return rc;
    }
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC);
    return *ret_fd >= 0 ? 0 : trk_err_errno(err, errno, "opening %s", path);
}

int trk_userns_new(uid_t uid, gid_t gid, int *ret_fd, struct trk_err *err)
{
    trk_assert(uid != 0);
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) {
        return trk_err_errno(err, errno, "making a user namespace");
    }
    trk_autoclose int ready_read = ready[0], ready_write = ready[1];
    trk_assert(ready_write > 0);
    pid_t parent = getpid();
    pid_t pid = fork(); /* async-signal-safe calls only until it ends */
    if (pid == 0) {
        stand_in(ready_write, parent);
    }
    if (pid < 0) {
        return trk_err_errno(err, errno, "making a user namespace");
    }
    (void)close(TRK_STEAL_FD(ready_write));
    int errnum = EIO;
    ssize_t n = read(ready_read, &errnum, sizeof(errnum));
    int rc;
    if (n != (ssize_t)sizeof(errnum) || errnum != 0) {
        rc = trk_err_set(err, TRK_UNAVAILABLE,
                         "user namespaces are refused here (%s): allow them (sysctl "
                         "user.max_user_namespaces), in a container with --security-opt "
                         "seccomp=unconfined",
                         strerror(errnum));
    } else {
        rc = open_namespace(pid, uid, gid, ret_fd, err);
    }
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    return rc;
}
