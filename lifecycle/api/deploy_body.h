/*
 * deploy_body.h - the body of POST /deploy: its build_context goes to a file as it comes, the rest
 * is small and kept.
 */
#ifndef LIFECYCLE_API_DEPLOY_BODY_H
#define LIFECYCLE_API_DEPLOY_BODY_H

#include "libtrack/http/http_server.h"
#include "lifecycle/deploy/context.h"

/* on_body of the route. Who may deploy nothing at all is refused with the first piece. */
int deploy_body_add(struct trk_request *req, const void *bytes, size_t len,
                    struct trk_err *err) TRK_MUST_CHECK;
/* The context that came, once the body has ended; borrows from the request; NULL: there is none. */
int deploy_body_context(struct trk_request *req, struct context **ret,
                        struct trk_err *err) TRK_MUST_CHECK;

#endif
