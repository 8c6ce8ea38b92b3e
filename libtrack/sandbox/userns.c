#include "libtrack/sandbox/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>

#include "libtrack/base/mem.h"

/* The process that stands in the namespace until it has its maps and somebody holds it. */
static _Noreturn void stand_in(int ready_fd, int go_fd)
{
    char byte = 0;
    int errnum = unshare(CLONE_NEWUSER) < 0 ? errno : 0;
    if (write(ready_fd, &errnum, sizeof(errnum)) != (ssize_t)sizeof(errnum) ||
        read(go_fd, &byte, 1) < 0) {
        _exit(1);
    }
    _exit(0);
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
    int ready[2], go[2] = {-1, -1};
    if (pipe2(ready, O_CLOEXEC) < 0) {
        return trk_err_errno(err, errno, "making a user namespace");
    }
    trk_autoclose int ready_read = ready[0], ready_write = ready[1];
    if (pipe2(go, O_CLOEXEC) < 0) {
        return trk_err_errno(err, errno, "making a user namespace");
    }
    trk_autoclose int go_read = go[0], go_write = go[1];
    pid_t pid = fork(); /* async-signal-safe calls only until it ends */
    if (pid == 0) {
        (void)close(go_write);
        stand_in(ready_write, go_read);
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
    (void)close(TRK_STEAL_FD(go_write));
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    return rc;
}
