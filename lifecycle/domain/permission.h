/*
 * permission.h - scopes, and which paths of a job need no permission.
 */
#ifndef LIFECYCLE_DOMAIN_PERMISSION_H
#define LIFECYCLE_DOMAIN_PERMISSION_H

#include <stdbool.h>
#include <stddef.h>

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

/* /health, /live, /ready: callable by anybody on every job (one slash at the end is ignored). */
bool path_is_always_public(const char *path);
/* Is `path` the public endpoint `prefix` or below it? /echo opens /echo and /echo/x, not /echoes.
 */
bool path_is_below(const char *path, const char *prefix);

#endif
