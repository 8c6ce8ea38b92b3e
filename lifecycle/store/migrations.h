/*
 * migrations.h - the database's numbered migrations (store/sql/NNNN_name.sql), compiled in. Never
 * edit one that has been released: its checksum is kept in the database; add the next number.
 */
#ifndef LIFECYCLE_STORE_MIGRATIONS_H
#define LIFECYCLE_STORE_MIGRATIONS_H

#include "libtrack/pg/pg.h"

/* Brings the database up to date; *ret_applied (may be NULL) says how many were missing. */
int migrations_run(struct trk_pg_pool *pool, unsigned *ret_applied,
                   struct trk_err *err) TRK_MUST_CHECK;

#endif
