/*
 * job_wrapper - serves a Python class as a Racetrack job. See options.c for the usage.
 */
#include <stdio.h>
#include <stdlib.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "wrapper/front.h"

static struct front *front; /* in reach of leak checkers: it lives as long as the process */

int main(int argc, char **argv)
{
    /* The job's log is one file: the front's lines go where the worker's print() goes. */
    struct trk_log_options log = {.level = TRK_LOG_INFO, .structured = false, .fd = 1};
    const char *level = getenv("LOG_LEVEL");
    const char *structured = getenv("LOG_STRUCTURED");
    if (level != NULL) {
        (void)trk_log_level_parse(level, &log.level);
    }
    log.structured = structured != NULL && (*structured == 't' || *structured == '1');
    trk_log_init(&log);
    trk_json_init();
    struct trk_err err = {0};
    front = trk_xcalloc(1, sizeof(*front));
    int code = wrapper_options_read(argc, argv, &front->options, &err);
    if (code == 0) {
        code = front_run(front, &err);
    }
    if (code < 0) {
        (void)fprintf(stderr, "job_wrapper: %s\n", err.text);
    }
    return code < 0 ? 1 : 0;
}
