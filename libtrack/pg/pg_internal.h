/*
 * pg_internal.h - what the files of the Postgres module share. Not for others.
 */
#ifndef LIBTRACK_PG_INTERNAL_H
#define LIBTRACK_PG_INTERNAL_H

#include <postgresql/libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>

#include "libtrack/pg/pg.h"

#define PG_CONNECT_TIMEOUT_MS   1500
#define PG_STATEMENT_TIMEOUT_MS 30000
#define PG_ANSWER_MARGIN_MS     2000 /* the server's own limit must fire first */

struct trk_pg {
    PGconn *link;
    struct trk_pg_pool *pool;
    int64_t affected;
    int64_t idle_since_ns;
    int64_t timeout_ms; /* of one statement, seen from here; 0: none */
    char sqlstate[6];   /* of the last failed statement, "" when it never reached the server */
    bool broken;
};

/* Opens a link within `timeout_ms` and sets the session up. *ret_link owned (PQfinish). `detail`
 * (may be NULL) takes the server's or libpq's own words for the log. */
int pg_link_open(const struct trk_pg_options *options, int64_t timeout_ms, PGconn **ret_link,
                 char *detail, size_t detail_size, struct trk_err *err) TRK_MUST_CHECK;
/* Waits for the answer to what was sent; the last result is the answer. NULL when the link broke,
 * the time ran out, or the checks of `pool` (may be NULL) say that the server is away. Owned. */
PGresult *pg_link_await(PGconn *link, struct trk_pg_pool *pool, int64_t timeout_ms);
/* Statements without parameters, several allowed (simple protocol); constants only. */
int pg_exec(struct trk_pg *conn, const char *sql, struct trk_err *err) TRK_MUST_CHECK;
/* Checks an answer: 0, or the error it stands for. Takes nothing. */
int pg_check(struct trk_pg *conn, const PGresult *res, struct trk_err *err) TRK_MUST_CHECK;
void pg_pool_note(struct trk_pg_pool *pool, bool up, const char *detail);
void pg_pool_count_query(struct trk_pg_pool *pool);
const char *pg_pool_schema(const struct trk_pg_pool *pool);

#define PG_AWAY_TEXT "database is not reachable, try again in a moment"

#endif
