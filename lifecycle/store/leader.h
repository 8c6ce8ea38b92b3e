/*
 * leader.h - which lifecycle of this database does the periodic work: the one whose session holds
 * an advisory lock. It goes with the connection.
 */
#ifndef LIFECYCLE_STORE_LEADER_H
#define LIFECYCLE_STORE_LEADER_H

#include <stdbool.h>

#include "libtrack/pg/pg.h"

/* Takes the lock for this connection's session; false when another holds it, or the database is
 * away. */
bool leader_store_try(struct trk_pg *conn);
/* Is the session that took it still there? */
bool leader_store_is_held(struct trk_pg *conn);

#endif
