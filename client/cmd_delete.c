#include <stdio.h>

#include "client/cli.h"
#include "client/job_ref.h"
#include "client/remote.h"
#include "libtrack/base/mem.h"

#define DELETE_TIMEOUT_MS 120000 /* the job finishes its calls first */

int cmd_delete(struct cli *cli, struct trk_err *err)
{
    struct job_ref job;
    struct remote remote;
    int rc = job_ref_of(&job, cli, NULL, err);
    if (rc < 0) {
        return rc;
    }
    rc = remote_open_of(&remote, cli, job.remote, err);
    if (rc < 0) {
        rc = job_ref_explain(&job, err);
        job_ref_fini(&job);
        return rc;
    }
    trk_autofree char *path = remote_job_path(job.name, job.version, "");
    const struct remote_request request = {.method = "DELETE",
                                           .path = path,
                                           .timeout_ms = DELETE_TIMEOUT_MS,
                                           .context = "deleting the job"};
    rc = remote_send(&remote, &request, NULL, NULL, err);
    if (rc == 0) {
        (void)printf("%s %s is deleted from %s\n", job.name, job.version, remote.shown);
    }
    remote_close(&remote);
    rc = rc < 0 ? job_ref_explain(&job, err) : rc;
    job_ref_fini(&job);
    return rc;
}
