#include "lifecycle/domain/status.h"

#include <string.h>

bool job_status_is_live(const char *status)
{
    return strcmp(status, JOB_RUNNING) == 0 || strcmp(status, JOB_ERROR) == 0 ||
           strcmp(status, JOB_LOST) == 0;
}
