/*
 * subject.h - who is asking: a user, an ESC, a job family, or one of our own services.
 */
#ifndef LIFECYCLE_DOMAIN_SUBJECT_H
#define LIFECYCLE_DOMAIN_SUBJECT_H

#include <stdbool.h>

#include "libtrack/auth/jwt.h"

struct permission {
    const char *scope;
    const char *family_name;            /* NULL: any */
    const char *job_name, *job_version; /* NULL: any; set together */
    const char *endpoint;               /* NULL: any */
};
/* Hangs on the request's memory. */
struct subject {
    enum trk_subject_type type;
    const char *id;       /* registry_authsubject.id; NULL for internal */
    const char *name;     /* username, ESC name, family name, service name */
    const char *token_id; /* or NULL */
    const char *token;    /* the text presented */
    int64_t valid_for_ms; /* until that expires; 0: it does not */
    bool is_session;      /* the token was made by a login with a password */
    bool is_staff, is_active;
    struct trk_token claims;
    const struct permission *permissions;
    unsigned permission_count;
};

/* Does the subject hold `scope` on this job (endpoint NULL: the job as a whole, so endpoint-limited
 * rows do not count; version NULL: the family as a whole, so rows of single jobs do not count)?
 * Pure. */
bool subject_can(const struct subject *subject, const char *scope, const char *family,
                 const char *version, const char *endpoint);
/* Does it hold the scope on anything (listing)? Rows limited to an endpoint do not count. */
bool subject_can_somewhere(const struct subject *subject, const char *scope);
/* Does it hold the scope on the family or on any job of it? */
bool subject_can_in_family(const struct subject *subject, const char *scope, const char *family);
/* Does it hold the scope on everything? What stands above jobs (call_admin_api) needs that. */
bool subject_can_everywhere(const struct subject *subject, const char *scope);
/* "User admin", "ESC billing", "Job family adder", "Service pub". */
int subject_describe(const struct subject *subject, char *out, unsigned size);

#endif
