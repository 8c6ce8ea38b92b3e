/*
 * permission.h - scopes: what a grant allows.
 */
#ifndef LIFECYCLE_DOMAIN_PERMISSION_H
#define LIFECYCLE_DOMAIN_PERMISSION_H

#define SCOPE_READ_JOB          "read_job"
#define SCOPE_DEPLOY_JOB        "deploy_job"
#define SCOPE_DEPLOY_NEW_FAMILY "deploy_new_family"
#define SCOPE_DELETE_JOB        "delete_job"
#define SCOPE_CALL_JOB          "call_job"
#define SCOPE_CALL_ADMIN_API    "call_admin_api"
#define SCOPE_FULL_ACCESS       "full_access"

/* The scope's name of today for either era's spelling (read_fatman -> read_job); NULL for no
 * scope. */
const char *scope_canonical(const char *name);

#endif
