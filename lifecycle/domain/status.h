/*
 * status.h - statuses of jobs and deployments, and what they mean. `latest` and
 * wildcards point at live ones only: trk_version_is_live.
 */
#ifndef LIFECYCLE_DOMAIN_STATUS_H
#define LIFECYCLE_DOMAIN_STATUS_H

#define JOB_STARTING "starting" /* its first deployment is on the way: `latest` does not see it */
#define JOB_RUNNING  "running"
#define JOB_ERROR    "error" /* running, but not healthy */
#define JOB_ORPHANED "orphaned"
#define JOB_LOST     "lost" /* its workload is gone */

#define DEPLOYMENT_IN_PROGRESS "in_progress"
#define DEPLOYMENT_DONE        "done"
#define DEPLOYMENT_FAILED      "failed"

#endif
