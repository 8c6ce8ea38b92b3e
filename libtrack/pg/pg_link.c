/* pg_link.c - one session with the server: opening it, waiting for answers. Knows no pool. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/pg/pg_internal.h"

#define LOOK_EVERY_MS 500
/* Longer than the pool's checks are apart: one lost connection is not taken for a lost server. */
#define DOWN_FOR_NS (1200 * TRK_NS_PER_MS)

/* -- sending and waiting -- */

/* The server's own limit of a statement ends only one that it works on. A server that is frozen, or
 * gone without a word, is told by a watch on other connections: when it says for a while that it
 * does not answer, waiting on is in vain. */
static bool is_in_vain(const struct pg_watch *watch, int64_t *down_since_ns)
{
    int64_t now = trk_now_ns();
    if (watch == NULL || watch->is_up(watch->ctx)) {
        *down_since_ns = 0;
        return false;
    }
    if (*down_since_ns == 0) {
        *down_since_ns = now;
    }
    return now - *down_since_ns >= DOWN_FOR_NS;
}

/* Writes what is left to write and reads until a whole result is there. */
static bool await_one(PGconn *link, const struct pg_watch *watch, int64_t deadline_ns)
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
        if ((n < 0 && errno != EINTR) || (n == 0 && is_in_vain(watch, &down_since_ns))) {
            return false;
        }
        if (n > 0 && (p.revents & (POLLIN | POLLERR | POLLHUP)) != 0 && PQconsumeInput(link) == 0) {
            return false;
        }
    }
}

PGresult *pg_link_await(PGconn *link, const struct pg_watch *watch, int64_t timeout_ms)
{
    int64_t deadline = timeout_ms > 0 ? trk_now_ns() + timeout_ms * TRK_NS_PER_MS : 0;
    PGresult *last = NULL;
    for (;;) {
        if (!await_one(link, watch, deadline)) {
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

bool pg_link_exec(PGconn *link, const char *sql, const struct pg_watch *watch, int64_t timeout_ms)
{
    PGresult *res = PQsendQuery(link, sql) == 1 ? pg_link_await(link, watch, timeout_ms) : NULL;
    ExecStatusType status = res != NULL ? PQresultStatus(res) : PGRES_FATAL_ERROR;
    PQclear(res);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

/* -- opening a link -- */

static void ignore_notice(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

static void copy_message(PGconn *link, char *out, size_t size)
{
    if (out == NULL) {
        return;
    }
    (void)snprintf(out, size, "%s", PQerrorMessage(link));
    for (char *p = out; *p != '\0'; p++) {
        if (*p == '\n' || *p == '\t') {
            *p = ' ';
        }
    }
    size_t len = strlen(out);
    while (len > 0 && out[len - 1] == ' ') {
        out[--len] = '\0';
    }
}

/* libpq's own connect_timeout counts in seconds and not below two: hence the polling here. */
static bool connect_within(PGconn *link, int64_t timeout_ms)
{
    int64_t deadline = trk_now_ns() + timeout_ms * TRK_NS_PER_MS;
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    while (state != PGRES_POLLING_OK) {
        if (state == PGRES_POLLING_FAILED) {
            return false;
        }
        int64_t left_ms = (deadline - trk_now_ns()) / TRK_NS_PER_MS;
        struct pollfd p = {.fd = PQsocket(link),
                           .events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        int n = left_ms > 0 ? poll(&p, 1, (int)left_ms) : 0;
        if (n == 0) {
            return false;
        }
        if (n > 0) {
            state = PQconnectPoll(link);
        }
    }
    return true;
}

static int set_up_session(PGconn *link, const struct trk_pg_options *options, int64_t timeout_ms)
{
    struct trk_buf sql;
    trk_buf_init(&sql, 4096);
    (void)trk_buf_addf(&sql,
                       "set statement_timeout = %lld; set client_min_messages = warning; "
                       "set idle_in_transaction_session_timeout = 120000",
                       (long long)options->statement_timeout_ms);
    if (options->schema != NULL) {
        char *quoted = PQescapeIdentifier(link, options->schema, strlen(options->schema));
        if (quoted != NULL) {
            (void)trk_buf_addf(&sql, "; set search_path = %s", quoted);
        }
        PQfreemem(quoted);
    }
    bool ok = pg_link_exec(link, sql.data, NULL, timeout_ms);
    trk_buf_fini(&sql);
    return ok ? 0 : TRK_UNAVAILABLE;
}

int pg_link_open(const struct trk_pg_options *options, int64_t timeout_ms, PGconn **ret_link,
                 char *detail, size_t detail_size, struct trk_err *err)
{
    char application[64];
    (void)snprintf(application, sizeof(application), "%s",
                   options->application_name != NULL ? options->application_name : "racetrack");
    /* A dbname that is a connection string is expanded in its place: what follows overrides it. */
    const char *keys[] = {"dbname",           "application_name", "client_encoding",
                          "keepalives",       "keepalives_idle",  "keepalives_interval",
                          "keepalives_count", "tcp_user_timeout", NULL};
    const char *values[] = {options->conninfo, application, "UTF8", "1", "10", "5", "3",
                            "15000",           NULL};
    int64_t deadline = trk_now_ns() + timeout_ms * TRK_NS_PER_MS;
    PGconn *link = PQconnectStartParams(keys, values, 1);
    if (link == NULL) {
        trk_die("out of memory");
    }
    (void)PQsetNoticeProcessor(link, ignore_notice, NULL);
    if (PQstatus(link) == CONNECTION_BAD || !connect_within(link, timeout_ms) ||
        PQsetnonblocking(link, 1) != 0 ||
        set_up_session(link, options, (deadline - trk_now_ns()) / TRK_NS_PER_MS + 1) < 0) {
        copy_message(link, detail, detail_size);
        if (detail != NULL && detail[0] == '\0') {
            (void)snprintf(detail, detail_size, "no answer within %lld ms", (long long)timeout_ms);
        }
        PQfinish(link);
        return trk_err_set(err, TRK_UNAVAILABLE, "%s", PG_AWAY_TEXT);
    }
    *ret_link = link;
    return 0;
}
