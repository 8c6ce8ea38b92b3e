/*
 * options.h - what `job_wrapper run` was asked to do: command line, environment, manifest.
 *
 * Read once at start; strings are owned by the struct and live as long as the process.
 */
#ifndef WRAPPER_OPTIONS_H
#define WRAPPER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "libtrack/base/err.h"

struct wrapper_options {
    char *entrypoint_path;
    char *entrypoint_class; /* NULL: the only class of the module */
    char *packages;         /* folder of the job's installed packages, or NULL */
    char *addr;
    int port;         /* 0: a free one */
    int listen_fd;    /* >= 0: already bound, instead of addr and port */
    bool has_own_tmp; /* /tmp and /dev/shm are nobody else's, and go with the worker */
    char *python;
    bool python_is_default;
    char *lib_dir;                 /* Python side of the wrapper */
    char *home_page;               /* starts with '/' */
    int64_t max_concurrency;       /* 0: unlimited */
    int64_t max_concurrency_queue; /* -1: unlimited */
    int64_t request_timeout_ns;
    uint64_t body_max_bytes;
    /* for /health */
    bool is_deployed; /* the name was given by whoever started it (JOB_NAME) */
    char *job_name, *job_version, *git_version, *deployed_by, *job_type_version;
    int64_t deployment_timestamp;
    /* What callers show in X-Racetrack-Job-Secret, probes apart; NULL: nothing is demanded. Taken
     * out of the environment, so that the job's code does not see it. */
    char *call_secret;
};
/* 0, 1 when help or version was printed (end with success), or an error for the user. */
int wrapper_options_read(int argc, char **argv, struct wrapper_options *ret,
                         struct trk_err *err) TRK_MUST_CHECK;

#endif
