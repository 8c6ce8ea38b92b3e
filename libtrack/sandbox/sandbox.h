/*
 * sandbox.h - the bubblewrap command line in which code runs that nobody vouches for: jobs of the
 * process target and the commands of a build.
 *
 * What is inside sees the system's programs and libraries read-only, the devices that are always
 * harmless, a /tmp of its own, no other process, and nothing else: no home folder, no /var, no
 * socket below /run, no /sys. The caller adds what it may see beyond that, then "--" and the
 * command. Functions only add strings to an argv; any thread.
 *
 *     struct trk_sandbox sandbox = {.own_user = true, .no_network = true};
 *     TRK_ARGS_AUTO(argv);
 *     trk_sandbox_begin(&sandbox, &argv);
 *     trk_sandbox_show(&argv, folder, "/work", true);
 *     TRK_ARGS_ADD(&argv, "--", "/usr/bin/python3", "-c", code);
 */
#ifndef LIBTRACK_SANDBOX_H
#define LIBTRACK_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "libtrack/base/args.h"
#include "libtrack/base/err.h"
#include "libtrack/base/proc.h"

struct trk_sandbox {
    const char *hidden;     /* a folder that is shown empty where the system's folders hold it */
    bool with_opt;          /* /opt too */
    bool with_cpus;         /* /sys/devices/system, for whoever counts the CPUs */
    bool own_user;          /* in a user namespace that bubblewrap makes; for ordinary users */
    int userns_fd;          /* > 0: in this user namespace (a descriptor's number in the child) */
    bool no_network;        /* a network namespace with nothing but its own loopback */
    bool outer_proc;        /* the /proc around us, read-only, where a fresh one is refused (in
                               containers) */
    bool may_change_user;   /* keeps what a launcher needs to become another user */
    bool may_make_network;  /* keeps what a launcher needs to make a network namespace, and what
                               slirp4netns needs to open and to confine itself */
    uint64_t tmp_bytes_max; /* of /tmp, and of /dev/shm; 0: bounded by memory only */
    int status_fd;          /* > 0: a descriptor's number in the child for bubblewrap's own news */
};

/* Adds "bwrap" and all that every sandbox has. */
void trk_sandbox_begin(const struct trk_sandbox *sandbox, struct trk_args *args);
/* Shows the file or folder `from` of this machine as `to`. */
void trk_sandbox_show(struct trk_args *args, const char *from, const char *to, bool is_writable);
/* The same at its own place, read-only, when it is there. */
void trk_sandbox_show_if_there(struct trk_args *args, const char *path);
/* Folders above `path`, open to every user (bubblewrap makes them 0700 by itself). */
void trk_sandbox_parents(struct trk_args *args, const char *path);

/* Runs a sandboxed command that does nothing: 0 when it ends well. TRK_UNAVAILABLE says why
 * bubblewrap does not work here, and what to do. Takes up to 10 s. */
int trk_sandbox_probe(const struct trk_proc_options *options, struct trk_err *err) TRK_MUST_CHECK;

#endif
