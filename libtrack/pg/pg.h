/*
 * pg.h - Postgres: a bounded pool, parameters only, transactions with retry, migrations, LISTEN.
 *
 * Connections carry connect_timeout, keepalives and tcp_user_timeout. A connection is borrowed for
 * one unit of work; a broken one is dropped and reopened. When the server is away every call
 * answers TRK_UNAVAILABLE within the configured wait and recovers by itself. Statements that come
 * again are prepared on the server; behind a pooler that loses them, plain ones are used. Any
 * thread; one connection is used by one thread at a time.
 *
 *     trk_pg_auto struct trk_pg *conn = NULL; // given back at the end of the scope
 *     trk_pg_result_auto struct trk_pg_result *res = NULL;
 *     if (trk_pg_acquire(pool, &conn, err) < 0 ||
 *         trk_pg_query(conn, &res, err, "select name from x where id = $1", "s", id) < 0)
 *         return err->code;
 *     for (int row = 0; row < trk_pg_rows(res); row++)
 *         puts(trk_pg_text(res, row, "name"));
 */
#ifndef LIBTRACK_PG_H
#define LIBTRACK_PG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/err.h"

struct trk_pg_pool;
struct trk_pg; /* one connection */
struct trk_pg_result;

struct trk_pg_options {
    const char *conninfo;       /* host=… port=… user=… password=… dbname=…; copied */
    const char *schema;         /* search_path; made by trk_pg_migrate; NULL: the server's own */
    unsigned size;              /* connections at most */
    int64_t acquire_timeout_ms; /* waiting for a free one; 0: 5000 */
    const char *application_name;
    int64_t connect_timeout_ms;   /* 0: 1500 */
    int64_t statement_timeout_ms; /* of one statement; 0: 30000 */
};
struct trk_pg_pool *trk_pg_pool_new(const struct trk_pg_options *options); /* connects lazily */
void trk_pg_pool_free(struct trk_pg_pool *pool);
struct trk_pg_stats {
    unsigned size, in_use, waiting;
    uint64_t opened, failed, closed, queries;
};
void trk_pg_pool_stats(struct trk_pg_pool *pool, struct trk_pg_stats *ret);
/* Does the server answer? What the last statement or check has shown; asking starts a check in the
 * background when that is older than a second. Never blocks. */
bool trk_pg_pool_is_up(struct trk_pg_pool *pool);
/* Why it does not, in the server's or the system's own words: for the log, not for clients. */
void trk_pg_pool_last_error(struct trk_pg_pool *pool, char *out, size_t size);

int trk_pg_acquire(struct trk_pg_pool *pool, struct trk_pg **ret,
                   struct trk_err *err) TRK_MUST_CHECK;
void trk_pg_release(struct trk_pg *conn); /* takes NULL; an open transaction is rolled back */
void trk_pg_cleanup(struct trk_pg **conn);
#define trk_pg_auto __attribute__((cleanup(trk_pg_cleanup)))

/* Parameters by `types`: s text (NULL is SQL null), i int64_t, b bool (int), d double, x bytes
 * (const void *, size_t). *ret owned, may be asked as NULL for statements without rows. Errors:
 * unique and foreign key violations -> TRK_CONFLICT, a value that does not fit its column ->
 * TRK_INVALID, deadlocks, time limits and a lost connection -> TRK_UNAVAILABLE, disk full ->
 * TRK_NO_SPACE, rest TRK_INTERNAL; SQL never gets into the text shown to clients. */
int trk_pg_query(struct trk_pg *conn, struct trk_pg_result **ret, struct trk_err *err,
                 const char *sql, const char *types, ...) TRK_MUST_CHECK;
/* Number of rows touched by the last statement of this connection. */
int64_t trk_pg_affected(const struct trk_pg *conn);
/* Lifts (0) or sets the time limit of statements on this connection until it is given back. */
int trk_pg_set_timeout(struct trk_pg *conn, int64_t timeout_ms, struct trk_err *err) TRK_MUST_CHECK;
/* Begin … commit around fn; retried up to 5 times on serialization failures and deadlocks. fn
 * returns 0 to commit. */
int trk_pg_transaction(struct trk_pg_pool *pool,
                       int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err), void *ctx,
                       struct trk_err *err) TRK_MUST_CHECK;

void trk_pg_result_free(struct trk_pg_result *res); /* takes NULL */
void trk_pg_result_cleanup(struct trk_pg_result **res);
#define trk_pg_result_auto __attribute__((cleanup(trk_pg_result_cleanup)))
int trk_pg_rows(const struct trk_pg_result *res);
/* Columns by name (aborts on an unknown one). Text borrows, valid until the result goes; NULL for
 * SQL null. */
const char *trk_pg_text(const struct trk_pg_result *res, int row, const char *column);
int64_t trk_pg_int(const struct trk_pg_result *res, int row, const char *column); /* 0 for null */
double trk_pg_double(const struct trk_pg_result *res, int row, const char *column);
bool trk_pg_bool(const struct trk_pg_result *res, int row, const char *column);
bool trk_pg_is_null(const struct trk_pg_result *res, int row, const char *column);
/* bytea; *ret owned. */
int trk_pg_bytes(const struct trk_pg_result *res, int row, const char *column, void **ret,
                 size_t *ret_len, struct trk_err *err) TRK_MUST_CHECK;

/* Numbered migrations compiled into the service (see Makefile: sql/NNNN_name.sql -> a table). Runs
 * the missing ones, each in a transaction, under an advisory lock; a changed checksum of an applied
 * one is an error that names the file. */
struct trk_migration {
    int number;
    const char *name;
    const char *sql;
};
int trk_pg_migrate(struct trk_pg_pool *pool, const struct trk_migration *migrations, size_t count,
                   unsigned *ret_applied, struct trk_err *err) TRK_MUST_CHECK;

/* A dedicated listening connection with reconnect. on_notify runs on the calling thread of
 * trk_pg_listen; payload "" after a (re)connect: whatever came meanwhile was missed, look for
 * yourself. Returns when *stop is true. */
void trk_pg_listen(const struct trk_pg_options *options, const char *channel,
                   void (*on_notify)(void *ctx, const char *payload), void *ctx,
                   const atomic_bool *stop);

#endif
