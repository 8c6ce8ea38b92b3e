#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/pg/pg_internal.h"

#define PARAMS_MAX   40
#define TRANSACTIONS 5

/* SQLSTATEs of prepared statements */
#define PG_STATE_NO_STATEMENT     "26000"
#define PG_STATE_STATEMENT_EXISTS "42P05"
#define PG_STATE_OTHER_COLUMNS    "0A000" /* "cached plan must not change result type" */

/* -- errors -- */

static const struct {
    const char *prefix; /* of SQLSTATE */
    enum trk_code code;
    const char *text; /* for the client; NULL: the server's primary message */
} states[] = {
    {"23505", TRK_CONFLICT, "it already exists"},
    {"23503", TRK_CONFLICT, "what it refers to does not exist, or it is still in use"},
    {"23P01", TRK_CONFLICT, "it already exists"},
    {"22", TRK_INVALID, NULL},
    {"40001", TRK_UNAVAILABLE, "too many changes at once, try again"},
    {"40P01", TRK_UNAVAILABLE, "too many changes at once, try again"},
    {"55P03", TRK_UNAVAILABLE, "it is being changed right now, try again"},
    {"57014", TRK_UNAVAILABLE, "the database took too long to answer, try again"},
    {"53100", TRK_NO_SPACE, "the database's disk is full: make room there, then try again"},
    {"53", TRK_UNAVAILABLE, "the database is overloaded, try again"},
    {"08", TRK_UNAVAILABLE, PG_AWAY_TEXT},
    {"57P", TRK_UNAVAILABLE, PG_AWAY_TEXT},
};

/* Checks an answer: 0, or the error it stands for. Takes nothing. */
static int check(struct trk_pg *conn, const PGresult *res, struct trk_err *err)
{
    conn->sqlstate[0] = '\0';
    ExecStatusType status = res != NULL ? PQresultStatus(res) : PGRES_FATAL_ERROR;
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        pg_pool_note(conn->pool, true, "");
        return 0;
    }
    const char *state = res != NULL ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    const char *message = res != NULL ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    if (state == NULL) { /* never got there, or the answer never came back */
        conn->broken = true;
        pg_pool_note(conn->pool, false,
                     PQstatus(conn->link) == CONNECTION_OK ? "no answer in time"
                                                           : "connection lost");
        return trk_err_set(err, TRK_UNAVAILABLE, "%s", PG_AWAY_TEXT);
    }
    (void)snprintf(conn->sqlstate, sizeof(conn->sqlstate), "%s", state);
    if (PQstatus(conn->link) != CONNECTION_OK) {
        conn->broken = true;
        pg_pool_note(conn->pool, false, message != NULL ? message : state);
    }
    for (size_t i = 0; i < TRK_COUNT(states); i++) {
        if (strncmp(state, states[i].prefix, strlen(states[i].prefix)) == 0) {
            return trk_err_set(err, states[i].code, "%s",
                               states[i].text != NULL ? states[i].text
                               : message != NULL      ? message
                                                      : "a value is not valid");
        }
    }
    return trk_err_set(err, TRK_INTERNAL, "database error %s: %s", state,
                       message != NULL ? message : "");
}

/* -- statements -- */

static void note_affected(struct trk_pg *conn, PGresult *res)
{
    const char *text = PQcmdTuples(res);
    conn->affected = text[0] != '\0' ? strtoll(text, NULL, 10) : 0;
}

static int finish(struct trk_pg *conn, int sent, struct trk_pg_result **ret, struct trk_err *err)
{
    pg_pool_count_query(conn->pool);
    PGresult *res = sent == 1
                        ? pg_link_await(conn->link, pg_pool_watch(conn->pool), conn->timeout_ms)
                        : NULL;
    int rc = check(conn, res, err);
    if (rc < 0) {
        PQclear(res);
        return rc;
    }
    note_affected(conn, res);
    if (ret != NULL) {
        *ret = (struct trk_pg_result *)res;
    } else {
        PQclear(res);
    }
    return 0;
}

int pg_exec(struct trk_pg *conn, const char *sql, struct trk_err *err)
{
    return finish(conn, PQsendQuery(conn->link, sql), NULL, err);
}

struct params {
    const char *values[PARAMS_MAX];
    int lengths[PARAMS_MAX], formats[PARAMS_MAX];
    char numbers[PARAMS_MAX][32];
    int count;
};

static int collect(struct params *p, const char *types, va_list args, struct trk_err *err)
{
    for (const char *t = types; *t != '\0'; t++) {
        trk_assert(p->count < PARAMS_MAX);
        int i = p->count++;
        p->formats[i] = 0;
        p->values[i] = p->numbers[i];
        switch (*t) {
        case 's':
            p->values[i] = va_arg(args, const char *);
            break;
        case 'i':
            (void)snprintf(p->numbers[i], sizeof(p->numbers[i]), "%" PRId64, va_arg(args, int64_t));
            break;
        case 'b':
            (void)snprintf(p->numbers[i], sizeof(p->numbers[i]), "%s",
                           va_arg(args, int) ? "true" : "false");
            break;
        case 'd':
            (void)snprintf(p->numbers[i], sizeof(p->numbers[i]), "%.17g", va_arg(args, double));
            break;
        case 'x': {
            const char *bytes = va_arg(args, const void *);
            size_t len = va_arg(args, size_t);
            if (len > 1024 * 1024 * 1024 - 8192) { /* the server's own limit of a field */
                return trk_err_set(err, TRK_TOO_LARGE, "%zu bytes do not fit the database", len);
            }
            p->values[i] = bytes != NULL ? bytes : NULL;
            p->lengths[i] = (int)len;
            p->formats[i] = 1;
            break;
        }
        default:
            trk_die("unknown parameter type '%c' in \"%s\"", *t, types);
        }
    }
    return 0;
}

static int run_plain(struct trk_pg *conn, const char *sql, const struct params *p,
                     struct trk_pg_result **ret, struct trk_err *err)
{
    return finish(
        conn,
        PQsendQueryParams(conn->link, sql, p->count, NULL, p->values, p->lengths, p->formats, 0),
        ret, err);
}

static bool has_state(const struct trk_pg *conn, const char *state)
{
    return strcmp(conn->sqlstate, state) == 0;
}

static int prepare(struct trk_pg *conn, struct pg_statement *statement, const char *name,
                   const char *sql, struct trk_err *err)
{
    int rc = finish(conn, PQsendPrepare(conn->link, name, sql, 0, NULL), NULL, err);
    if (rc == 0) {
        pg_statement_note_prepared(statement);
    }
    return rc;
}

/* The prepared statement is no more (a pooler), or its tables have changed (a migration). */
static bool is_stale(const struct trk_pg *conn)
{
    return has_state(conn, PG_STATE_NO_STATEMENT) || has_state(conn, PG_STATE_OTHER_COLUMNS);
}

static int run(struct trk_pg *conn, const char *sql, const struct params *p,
               struct trk_pg_result **ret, struct trk_err *err)
{
    char name[PG_STATEMENT_NAME_SIZE];
    struct pg_statement *s = pg_pool_has_statements(conn->pool)
                                 ? pg_statement_find(&conn->statements, sql, name)
                                 : NULL;
    if (s == NULL) {
        return run_plain(conn, sql, p, ret, err);
    }
    bool is_alone = PQtransactionStatus(conn->link) == PQTRANS_IDLE;
    int rc = pg_statement_is_prepared(s) ? 0 : prepare(conn, s, name, sql, err);
    if (rc == 0) {
        rc = finish(
            conn,
            PQsendQueryPrepared(conn->link, name, p->count, p->values, p->lengths, p->formats, 0),
            ret, err);
    }
    /* There already: prepared by another client of the pooler in between. */
    if (rc == 0 || !(is_stale(conn) || has_state(conn, PG_STATE_STATEMENT_EXISTS))) {
        return rc;
    }
    if (!has_state(conn, PG_STATE_OTHER_COLUMNS)) {
        pg_pool_give_up_statements(conn->pool);
    }
    if (is_alone) {
        conn->broken = has_state(conn, PG_STATE_OTHER_COLUMNS); /* closed when it is given back */
        return run_plain(conn, sql, p, ret, err);
    }
    conn->broken = true;
    return trk_err_set(err, TRK_UNAVAILABLE, "the database has just been changed, try again");
}

int trk_pg_query(struct trk_pg *conn, struct trk_pg_result **ret, struct trk_err *err,
                 const char *sql, const char *types, ...)
{
    struct params p;
    p.count = 0;
    va_list args;
    va_start(args, types);
    int rc = collect(&p, types != NULL ? types : "", args, err);
    va_end(args);
    if (rc < 0) {
        return rc;
    }
    return run(conn, sql, &p, ret, err);
}

int64_t trk_pg_affected(const struct trk_pg *conn)
{
    return conn->affected;
}

int trk_pg_set_timeout(struct trk_pg *conn, int64_t timeout_ms, struct trk_err *err)
{
    char sql[64];
    (void)snprintf(sql, sizeof(sql), "set statement_timeout = %" PRId64, timeout_ms);
    conn->timeout_ms = timeout_ms > 0 ? timeout_ms + PG_ANSWER_MARGIN_MS : 0;
    return pg_exec(conn, sql, err);
}

/* -- transactions -- */

static bool is_retryable(const struct trk_pg *conn)
{
    return has_state(conn, "40001") || has_state(conn, "40P01") || is_stale(conn) ||
           has_state(conn, PG_STATE_STATEMENT_EXISTS);
}

static int try_transaction(struct trk_pg *conn,
                           int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err),
                           void *ctx, bool *ret_again, struct trk_err *err)
{
    *ret_again = false;
    int rc = pg_exec(conn, "begin", err);
    if (rc < 0) {
        *ret_again = conn->broken; /* an idle connection that had died: nothing was done */
        return rc;
    }
    rc = fn(conn, ctx, err);
    if (rc == 0) {
        rc = pg_exec(conn, "commit", err);
    }
    *ret_again = rc < 0 && is_retryable(conn);
    return rc; /* what is open is rolled back when the connection is given back */
}

int trk_pg_transaction(struct trk_pg_pool *pool,
                       int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err), void *ctx,
                       struct trk_err *err)
{
    for (int attempt = 1;; attempt++) {
        trk_pg_auto struct trk_pg *conn = NULL;
        int rc = trk_pg_acquire(pool, &conn, err);
        if (rc < 0) {
            return rc;
        }
        bool again;
        rc = try_transaction(conn, fn, ctx, &again, err);
        if (rc == 0 || !again || attempt == TRANSACTIONS) {
            return rc;
        }
        trk_sleep_ms(attempt * 5);
    }
}

/* -- results -- */

static const PGresult *pg(const struct trk_pg_result *res)
{
    return (const PGresult *)res;
}

void trk_pg_result_free(struct trk_pg_result *res)
{
    PQclear((PGresult *)res);
}

void trk_pg_result_cleanup(struct trk_pg_result **res)
{
    trk_pg_result_free(*res);
}

int trk_pg_rows(const struct trk_pg_result *res)
{
    return PQntuples(pg(res));
}

/* Not PQfnumber: it takes a copy of the name to fold its case, 25 times a row. Columns are mostly
 * asked for in their order: the search begins behind the last one found. */
static int column_of(const struct trk_pg_result *res, int row, const char *column)
{
    static _Thread_local int last;
    trk_assert(row >= 0 && row < trk_pg_rows(res));
    int count = PQnfields(pg(res));
    for (int i = 0; i < count; i++) {
        int at = (last + 1 + i) % count;
        if (strcmp(PQfname(pg(res), at), column) == 0) {
            last = at;
            return at;
        }
    }
    trk_die("no column \"%s\" in the result", column);
}

const char *trk_pg_text(const struct trk_pg_result *res, int row, const char *column)
{
    int i = column_of(res, row, column);
    return PQgetisnull(pg(res), row, i) != 0 ? NULL : PQgetvalue(pg(res), row, i);
}

int64_t trk_pg_int(const struct trk_pg_result *res, int row, const char *column)
{
    const char *text = trk_pg_text(res, row, column);
    return text != NULL ? strtoll(text, NULL, 10) : 0;
}

double trk_pg_double(const struct trk_pg_result *res, int row, const char *column)
{
    const char *text = trk_pg_text(res, row, column);
    return text != NULL ? strtod(text, NULL) : 0;
}

bool trk_pg_bool(const struct trk_pg_result *res, int row, const char *column)
{
    const char *text = trk_pg_text(res, row, column);
    return text != NULL && text[0] == 't';
}

bool trk_pg_is_null(const struct trk_pg_result *res, int row, const char *column)
{
    return PQgetisnull(pg(res), row, column_of(res, row, column)) != 0;
}

int trk_pg_bytes(const struct trk_pg_result *res, int row, const char *column, void **ret,
                 size_t *ret_len, struct trk_err *err)
{
    const char *text = trk_pg_text(res, row, column);
    if (text == NULL) {
        return trk_err_set(err, TRK_NOT_FOUND, "%s is null", column);
    }
    size_t len;
    unsigned char *bytes = PQunescapeBytea((const unsigned char *)text, &len);
    if (bytes == NULL) {
        trk_die("out of memory");
    }
    *ret = bytes; /* libpq allocates with malloc */
    *ret_len = len;
    return 0;
}
