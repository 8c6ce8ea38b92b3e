#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/pg/pg_internal.h"

#define PARAMS_MAX    40
#define TRANSACTIONS  5
#define LOOK_EVERY_MS 500
/* Longer than the pool's checks are apart: one lost connection is not taken for a lost server. */
#define DOWN_FOR_NS (1200 * TRK_NS_PER_MS)

/* -- sending and waiting -- */

/* The server's own limit of a statement ends only one that it works on. A server that is frozen, or
 * gone without a word, is told by the pool's checks on other connections: when they say for a while
 * that it does not answer, waiting on is in vain. */
static bool is_in_vain(struct trk_pg_pool *pool, int64_t *down_since_ns)
{
    int64_t now = trk_now_ns();
    if (pool == NULL || trk_pg_pool_is_up(pool)) {
        *down_since_ns = 0;
        return false;
    }
    if (*down_since_ns == 0) {
        *down_since_ns = now;
    }
    return now - *down_since_ns >= DOWN_FOR_NS;
}

/* Writes what is left to write and reads until a whole result is there. */
static bool await_one(PGconn *link, struct trk_pg_pool *pool, int64_t deadline_ns)
{
    int64_t down_since_ns = 0;
    for (;;) {
        int unsent = PQflush(link);
        if (unsent < 0) {
            return false;
        }
        if (unsent == 0 && PQisBusy(link) == 0) {
            return true;
        }
        int64_t left_ms = deadline_ns > 0 ? (deadline_ns - trk_now_ns()) / TRK_NS_PER_MS : -1;
        if (deadline_ns > 0 && left_ms <= 0) {
            return false;
        }
        struct pollfd p = {.fd = PQsocket(link),
                           .events = (short)(POLLIN | (unsent > 0 ? POLLOUT : 0))};
        int64_t wait_ms = left_ms < 0 || left_ms > LOOK_EVERY_MS ? LOOK_EVERY_MS : left_ms;
        int n = poll(&p, 1, (int)wait_ms);
        if ((n < 0 && errno != EINTR) || (n == 0 && is_in_vain(pool, &down_since_ns))) {
            return false;
        }
        if (n > 0 && (p.revents & (POLLIN | POLLERR | POLLHUP)) != 0 && PQconsumeInput(link) == 0) {
            return false;
        }
    }
}

PGresult *pg_link_await(PGconn *link, struct trk_pg_pool *pool, int64_t timeout_ms)
{
    int64_t deadline = timeout_ms > 0 ? trk_now_ns() + timeout_ms * TRK_NS_PER_MS : 0;
    PGresult *last = NULL;
    for (;;) {
        if (!await_one(link, pool, deadline)) {
            PQclear(last);
            return NULL;
        }
        PGresult *res = PQgetResult(link);
        if (res == NULL) {
            return last;
        }
        /* Of several statements the first failure is the answer. */
        if (last != NULL && PQresultStatus(last) == PGRES_FATAL_ERROR) {
            PQclear(res);
            continue;
        }
        PQclear(last);
        last = res;
    }
}

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

int pg_check(struct trk_pg *conn, const PGresult *res, struct trk_err *err)
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
    PGresult *res = sent == 1 ? pg_link_await(conn->link, conn->pool, conn->timeout_ms) : NULL;
    int code = pg_check(conn, res, err);
    if (code < 0) {
        PQclear(res);
        return code;
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

int trk_pg_query(struct trk_pg *conn, struct trk_pg_result **ret, struct trk_err *err,
                 const char *sql, const char *types, ...)
{
    struct params p;
    p.count = 0;
    va_list args;
    va_start(args, types);
    int code = collect(&p, types != NULL ? types : "", args, err);
    va_end(args);
    if (code < 0) {
        return code;
    }
    return finish(
        conn, PQsendQueryParams(conn->link, sql, p.count, NULL, p.values, p.lengths, p.formats, 0),
        ret, err);
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
    return strcmp(conn->sqlstate, "40001") == 0 || strcmp(conn->sqlstate, "40P01") == 0;
}

static int try_transaction(struct trk_pg *conn,
                           int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err),
                           void *ctx, bool *ret_again, struct trk_err *err)
{
    *ret_again = false;
    int code = pg_exec(conn, "begin", err);
    if (code < 0) {
        *ret_again = conn->broken; /* an idle connection that had died: nothing was done */
        return code;
    }
    code = fn(conn, ctx, err);
    if (code == 0) {
        code = pg_exec(conn, "commit", err);
    }
    *ret_again = code < 0 && is_retryable(conn);
    return code; /* what is open is rolled back when the connection is given back */
}

int trk_pg_transaction(struct trk_pg_pool *pool,
                       int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err), void *ctx,
                       struct trk_err *err)
{
    for (int attempt = 1;; attempt++) {
        trk_pg_auto struct trk_pg *conn = NULL;
        int code = trk_pg_acquire(pool, &conn, err);
        if (code < 0) {
            return code;
        }
        bool again;
        code = try_transaction(conn, fn, ctx, &again, err);
        if (code == 0 || !again || attempt == TRANSACTIONS) {
            return code;
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

static int column_of(const struct trk_pg_result *res, int row, const char *column)
{
    trk_assert(row >= 0 && row < trk_pg_rows(res));
    int i = PQfnumber(pg(res), column);
    if (i < 0) {
        trk_die("no column \"%s\" in the result", column);
    }
    return i;
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
