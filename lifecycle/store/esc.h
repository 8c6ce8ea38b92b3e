/*
 * esc.h - external service consumers: registry_esc.
 */
#ifndef LIFECYCLE_STORE_ESC_H
#define LIFECYCLE_STORE_ESC_H

#include <stddef.h>

#include "libtrack/pg/pg.h"

struct esc {
    const char *id, *name;
};
/* By name. */
int esc_store_list(struct trk_pg *conn, void *mem, struct esc **ret, size_t *ret_count,
                   struct trk_err *err) TRK_MUST_CHECK;
/* TRK_NOT_FOUND. */
int esc_store_get(struct trk_pg *conn, void *mem, const char *id, struct esc **ret,
                  struct trk_err *err) TRK_MUST_CHECK;
/* The row alone (auth/issue.h makes all of it); TRK_CONFLICT when the id is taken. */
int esc_store_create(struct trk_pg *conn, const char *id, const char *name,
                     struct trk_err *err) TRK_MUST_CHECK;

#endif
