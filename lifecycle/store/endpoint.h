/*
 * endpoint.h - public endpoints that manifests ask for (registry_publicendpointrequest). Only
 * active ones are honoured; an administrator activates them.
 */
#ifndef LIFECYCLE_STORE_ENDPOINT_H
#define LIFECYCLE_STORE_ENDPOINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "libtrack/pg/pg.h"

struct public_endpoint {
    const char *endpoint;
    bool is_active;
};
int endpoint_store_list(struct trk_pg *conn, void *mem, const char *job_id,
                        struct public_endpoint **ret, size_t *ret_count,
                        struct trk_err *err) TRK_MUST_CHECK;
/* Opens or closes one; *ret_found is false when there is no such request. */
int endpoint_store_set(struct trk_pg *conn, const char *job_id,
                       const struct public_endpoint *endpoint, bool *ret_found,
                       struct trk_err *err) TRK_MUST_CHECK;
/* Forgets, active or not, what is not in this array of texts (NULL: everything). */
int endpoint_store_keep(struct trk_pg *conn, const char *job_id, const json_t *endpoints,
                        struct trk_err *err) TRK_MUST_CHECK;
/* Registers a request; inactive when new, as it was otherwise. */
int endpoint_store_request(struct trk_pg *conn, const char *job_id, const char *endpoint,
                           struct trk_err *err) TRK_MUST_CHECK;

#endif
