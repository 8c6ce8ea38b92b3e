/*
 * proc.h - child processes: started with an argv, a closed set of descriptors and an explicit
 * environment, never through a shell. Any thread.
 *
 * trk_proc_run runs a short command to its end, with a deadline and a capped output (build steps,
 * git, pip). trk_proc_spawn starts a long-lived one whose identity (pid + start time) survives the
 * restart of the parent.
 */
#ifndef LIBTRACK_PROC_H
#define LIBTRACK_PROC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

struct trk_proc_fd {
    int from; /* borrows: descriptor in this process */
    int to;   /* number in the child */
};
struct trk_proc_options {
    const char *const *argv; /* NULL-terminated; argv[0] looked up in PATH when it has no '/' */
    const char *const
        *env;        /* NULL-terminated "K=V"; NULL: an environment of PATH, HOME, LANG only */
    const char *cwd; /* or NULL */
    const struct trk_proc_fd *fds; /* besides 0,1,2; everything else is closed */
    size_t fd_count;
    int stdin_fd, stdout_fd, stderr_fd; /* borrows; -1: /dev/null */
    bool new_session;                   /* setsid */
    bool change_user;
    uid_t uid; /* with change_user: also setgid, no supplementary groups */
    gid_t gid;
    const char *const *cgroup_procs; /* NULL-terminated cgroup.procs files the child joins before
                                        exec; NULL: none */
    int64_t memory_limit_bytes;      /* RLIMIT_AS unless 0 */
    bool die_with_parent;
    bool detach; /* becomes init's child: whoever dies here, it does not notice; its exit status
                    cannot be had by waiting */
    /* trk_proc_run calls it about ten times a second; a negative answer ends the command, and is
     * the result. NULL: none. */
    int (*on_tick)(void *ctx, struct trk_err *err);
    void *tick_ctx;
    int gate_fd; /* -1, or a pipe's read end: the child execs only after reading one byte, exits on
                    EOF */
};
/* Zeroed with every fd at -1. */
void trk_proc_options_init(struct trk_proc_options *options);

struct trk_proc {
    pid_t pid;
    uint64_t
        start_ticks; /* field 22 of /proc/PID/stat: pid + start_ticks name one process for ever */
    int pidfd;       /* owned by the struct; -1 when the kernel has none */
};
/* Starts it; an exec failure is reported here (not by the child's exit status). */
int trk_proc_spawn(const struct trk_proc_options *options, struct trk_proc *ret,
                   struct trk_err *err) TRK_MUST_CHECK;
/* Finds a process again by identity. TRK_NOT_FOUND when it is gone or the pid was reused. */
int trk_proc_adopt(pid_t pid, uint64_t start_ticks, struct trk_proc *ret,
                   struct trk_err *err) TRK_MUST_CHECK;
void trk_proc_fini(struct trk_proc *proc); /* closes the pidfd, lets the process run */
bool trk_proc_is_alive(const struct trk_proc *proc);
/* Sends to this very process (pidfd_send_signal), never to a reused pid. */
int trk_proc_signal(const struct trk_proc *proc, int sig, struct trk_err *err) TRK_MUST_CHECK;
/* Waits until it has ended: 0, or TRK_TIMEOUT. *ret_status as waitpid when it is our child, -1
 * otherwise. */
int trk_proc_wait(struct trk_proc *proc, int64_t timeout_ms, int *ret_status,
                  struct trk_err *err) TRK_MUST_CHECK;

/* Runs to the end; stdout and stderr both go to `output` as they come, and to `on_output` (may be
 * NULL). Past timeout_ms the whole process group is killed: TRK_TIMEOUT. A non-zero exit is no
 * error here: *ret_exit_code (128+signal when killed). `cancel` may be NULL; when it becomes true:
 * TRK_CANCELLED. */
int trk_proc_run(const struct trk_proc_options *options, const void *input, size_t input_len,
                 int64_t timeout_ms, struct trk_buf *output,
                 void (*on_output)(void *ctx, const char *bytes, size_t len), void *ctx,
                 const atomic_bool *cancel, int *ret_exit_code, struct trk_err *err) TRK_MUST_CHECK;

#endif
