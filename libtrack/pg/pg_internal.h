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

struct pg_statements;
struct pg_statement;

struct trk_pg {
    PGconn *link;
    struct trk_pg_pool *pool;
    struct pg_statements *statements; /* NULL: none yet */
    int64_t affected;
    int64_t idle_since_ns;
    int64_t timeout_ms; /* of one statement, seen from here; 0: none */
    char sqlstate[6];   /* of the last failed statement, "" when it never reached the server */
    bool broken;
};

/* -- the link: knows no pool (pg_link.c) -- */

/* Is the server known to answer? Asked while an answer is waited for. */
struct pg_watch {
    bool (*is_up)(void *ctx);
    void *ctx;
};
/* Opens a link within `timeout_ms` and sets the session up. *ret_link owned (PQfinish). `detail`
 * (may be NULL) takes the server's or libpq's own words for the log. */
int pg_link_open(const struct trk_pg_options *options, int64_t timeout_ms, PGconn **ret_link,
                 char *detail, size_t detail_size, struct trk_err *err) TRK_MUST_CHECK;
/* Waits for the answer to what was sent; the last result is the answer. NULL when the link broke,
 * the time ran out, or `watch` (may be NULL) says that the server is away. Owned. */
PGresult *pg_link_await(PGconn *link, const struct pg_watch *watch, int64_t timeout_ms);
/* Statements without parameters, several allowed (simple protocol); constants only. Did it work? */
bool pg_link_exec(PGconn *link, const char *sql, const struct pg_watch *watch, int64_t timeout_ms);

/* -- prepared statements of a session (pg_statement.c) -- */

#define PG_STATEMENT_NAME_SIZE 33
/* NULL: not to be prepared (it comes the first time, or there is no room). Borrowed from *all,
 * which is made when it is NULL, owned. */
struct pg_statement *pg_statement_find(struct pg_statements **all, const char *sql,
                                       char name[PG_STATEMENT_NAME_SIZE]);
bool pg_statement_is_prepared(const struct pg_statement *s);
void pg_statement_note_prepared(struct pg_statement *s);

/* -- the pool (pg_pool.c) -- */

void pg_pool_note(struct trk_pg_pool *pool, bool up, const char *detail);
void pg_pool_count_query(struct trk_pg_pool *pool);
const char *pg_pool_schema(const struct trk_pg_pool *pool);
const struct pg_watch *pg_pool_watch(const struct trk_pg_pool *pool);
/* A pooler between us and the server loses prepared statements: none are used from here on. */
void pg_pool_give_up_statements(struct trk_pg_pool *pool);
bool pg_pool_has_statements(const struct trk_pg_pool *pool);

/* -- statements (pg_query.c) -- */

/* As pg_link_exec, on a borrowed connection. */
int pg_exec(struct trk_pg *conn, const char *sql, struct trk_err *err) TRK_MUST_CHECK;

#define PG_AWAY_TEXT "database is not reachable, try again in a moment"

#endif
