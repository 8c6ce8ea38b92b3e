/*
 * process.h - the infrastructure target `process`: jobs as processes of this host, without a
 * container engine, each in a sandbox (bubblewrap) with a network of its own, from which it reaches
 * the gateway and, when its manifest says so, the world outside, but nothing else on this host.
 *
 * Every generation has a folder jobs/<generation_id>/ in the state folder: workload.json (what
 * runs, written atomically before anything is executed), output.log, status.json (the exit status
 * as bubblewrap saw it), src/job (its code). Dependency layers lie once per digest under
 * jobs/.layers. A job outlives lifecycle; any lifecycle on the same state folder finds it again by
 * pid and start time. Changes to one generation happen under a file lock, so several lifecycles may
 * share the folder. What kills a job kills everything it started: its PID namespace, its control
 * group, and whatever carries its mark in the environment.
 *
 *     struct infra_process_options options = {.state_dir = dir, .wrapper = path, …};
 *     const struct infra_target *t;
 *     if (infra_process_new(&options, &t, err) < 0) …
 */
#ifndef LIFECYCLE_INFRA_PROCESS_PROCESS_H
#define LIFECYCLE_INFRA_PROCESS_PROCESS_H

#include "lifecycle/infra/target.h"

struct infra_process_limits { /* of one job, beside its memory and CPU; 0: none */
    int64_t pids;             /* processes and threads */
    int64_t files;            /* open ones */
    int64_t tmp_bytes;        /* /tmp, and /dev/shm */
    int64_t disk_bytes;       /* its project folder */
    int64_t log_bytes_s;      /* its output */
};
struct infra_process_options {
    const char *state_dir;       /* $RACETRACK_STATE; absolute */
    const char *wrapper;         /* path of job_wrapper */
    const char *launcher;        /* path of job_launcher; NULL: beside this executable */
    bool is_sandboxed;           /* where the sandbox does not work, jobs are refused */
    const char *job_user;        /* name or number; used when lifecycle runs as root; "": stay */
    const char *image_store_url; /* http://127.0.0.1:7201 */
    const char *token;           /* shown to the image store; secret */
    const char *secret_key;      /* seals the environment at rest; secret */
    struct infra_process_limits limits;
};
/* Makes the folders, probes the sandbox and the control groups, finds what runs, starts the watcher
 * thread. */
int infra_process_new(const struct infra_process_options *options, const struct infra_target **ret,
                      struct trk_err *err) TRK_MUST_CHECK;
/* Stops watching; the jobs run on. */
void infra_process_free(const struct infra_target *target);
/* Ends every job of the state folder (`lifecycle stop-jobs`): SIGTERM, then SIGKILL after grace_ms.
 * The jobs stay known, and start again when lifecycle does. */
int infra_process_stop_all(const char *state_dir, int64_t grace_ms, size_t *ret_count,
                           struct trk_err *err) TRK_MUST_CHECK;

#endif
