/*
 * cgroup.h - control groups (v1 and v2) for what must not take the machine: memory, CPU, processes.
 *
 * Groups lie in `racetrack` below our own group, or beside it with v2, one for each id. Where none
 * can be made (version 0) nothing is limited and all of this does nothing. Any thread; a struct
 * trk_cgroups is read-only after trk_cgroups_detect.
 */
#ifndef LIBTRACK_CGROUP_H
#define LIBTRACK_CGROUP_H

#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/err.h"

enum { TRK_CGROUP_PATHS_MAX = 4 };
struct trk_cgroups {
    int version;       /* 0: limits cannot be enforced; 1, 2 */
    char memory[4096]; /* folder of all groups; v2: the same for all controllers */
    char cpu[4096];    /* "" when the controller is missing */
    char pids[4096];   /* "" when the controller is missing */
};
struct trk_cgroup_limits { /* 0: none */
    int64_t memory_bytes;
    int64_t cpu_milli; /* thousandths of a CPU */
    int64_t pids;      /* processes and threads */
};

void trk_cgroups_detect(struct trk_cgroups *cgroups);
/* Makes the group with its limits. ret_files: up to TRK_CGROUP_PATHS_MAX - 1 owned paths of
 * cgroup.procs, NULL-terminated: for trk_proc_options.cgroup_procs. */
int trk_cgroups_make(const struct trk_cgroups *cgroups, const char *id,
                     const struct trk_cgroup_limits *limits, char *ret_files[TRK_CGROUP_PATHS_MAX],
                     struct trk_err *err) TRK_MUST_CHECK;
void trk_cgroups_remove(const struct trk_cgroups *cgroups, const char *id); /* when it is empty */
/* Sends SIGKILL to every member; how many there were. */
size_t trk_cgroups_kill(const struct trk_cgroups *cgroups, const char *id);
/* How often the kernel ended one of its processes for want of memory. */
int64_t trk_cgroups_oom_kills(const struct trk_cgroups *cgroups, const char *id);

#endif
