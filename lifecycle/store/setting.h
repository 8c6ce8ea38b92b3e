/*
 * setting.h - rows of registry_setting: what an administrator changes while the platform runs.
 */
#ifndef LIFECYCLE_STORE_SETTING_H
#define LIFECYCLE_STORE_SETTING_H

#include <jansson.h>
#include <stdbool.h>

#include "libtrack/pg/pg.h"

#define SETTING_MAINTENANCE_MODE "maintenance_mode" /* JSON true or "true" */

int setting_store_set(struct trk_pg *conn, const char *name, const json_t *value,
                      struct trk_err *err) TRK_MUST_CHECK;
int setting_store_is_maintenance(struct trk_pg *conn, bool *ret,
                                 struct trk_err *err) TRK_MUST_CHECK;
/* TRK_UNAVAILABLE while maintenance mode is on. */
int setting_store_refuse_in_maintenance(struct trk_pg *conn, struct trk_err *err) TRK_MUST_CHECK;

#endif
