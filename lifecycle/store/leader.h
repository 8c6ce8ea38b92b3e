/*
 * leader.h - which lifecycle of this database does which periodic work: the one whose session holds
 * its advisory lock. It goes with the connection.
 */
#ifndef LIFECYCLE_STORE_LEADER_H
#define LIFECYCLE_STORE_LEADER_H

#include <stdbool.h>

#include "libtrack/pg/pg.h"

/* Takes the lock of a target instance ("": what concerns the whole database) for this connection's
 * session; false when another holds it, or the database is away. */
bool leader_store_try(struct trk_pg *conn, const char *instance);
/* Is the session there still, with what it took? */
bool leader_store_is_alive(struct trk_pg *conn);

#endif
