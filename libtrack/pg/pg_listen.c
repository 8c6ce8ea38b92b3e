#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/pg/pg_internal.h"

#define STOP_LOOK_MS   250
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000

static bool is_told(const atomic_bool *stop)
{
    return atomic_load_explicit(stop, memory_order_acquire);
}

static bool start_listening(PGconn *link, const char *channel)
{
    char *quoted = PQescapeIdentifier(link, channel, strlen(channel));
    if (quoted == NULL) {
        return false;
    }
    trk_autofree char *sql = trk_xasprintf("listen %s", quoted);
    PQfreemem(quoted);
    PGresult *res = PQsendQuery(link, sql) == 1 ? pg_link_await(link, NULL, PG_ANSWER_MARGIN_MS)
                                                : NULL;
    bool ok = res != NULL && PQresultStatus(res) == PGRES_COMMAND_OK;
    PQclear(res);
    return ok;
}

static void deliver(PGconn *link, void (*on_notify)(void *ctx, const char *payload), void *ctx)
{
    PGnotify *notify;
    while ((notify = PQnotifies(link)) != NULL) {
        on_notify(ctx, notify->extra);
        PQfreemem(notify);
    }
}

/* Until the link breaks or it is time to stop. */
static void follow(PGconn *link, void (*on_notify)(void *ctx, const char *payload), void *ctx,
                   const atomic_bool *stop)
{
    deliver(link, on_notify, ctx);
    while (!is_told(stop)) {
        struct pollfd p = {.fd = PQsocket(link), .events = POLLIN};
        int n = poll(&p, 1, STOP_LOOK_MS);
        if (n < 0 && errno != EINTR) {
            return;
        }
        if (n > 0 && PQconsumeInput(link) == 0) {
            return;
        }
        deliver(link, on_notify, ctx);
        if (PQstatus(link) != CONNECTION_OK) {
            return;
        }
    }
}

static void pause_ms(int64_t ms, const atomic_bool *stop)
{
    for (int64_t slept = 0; slept < ms && !is_told(stop); slept += BACKOFF_MIN_MS) {
        trk_sleep_ms(BACKOFF_MIN_MS);
    }
}

void trk_pg_listen(const struct trk_pg_options *options, const char *channel,
                   void (*on_notify)(void *ctx, const char *payload), void *ctx,
                   const atomic_bool *stop)
{
    struct trk_pg_options own = *options;
    if (own.statement_timeout_ms == 0) {
        own.statement_timeout_ms = PG_STATEMENT_TIMEOUT_MS;
    }
    int64_t backoff_ms = BACKOFF_MIN_MS;
    while (!is_told(stop)) {
        PGconn *link;
        if (pg_link_open(&own, PG_CONNECT_TIMEOUT_MS, &link, NULL, 0, NULL) == 0) {
            if (start_listening(link, channel)) {
                backoff_ms = BACKOFF_MIN_MS;
                on_notify(ctx, "");
                follow(link, on_notify, ctx, stop);
            }
            PQfinish(link);
        }
        pause_ms(backoff_ms, stop);
        backoff_ms = backoff_ms * 2 < BACKOFF_MAX_MS ? backoff_ms * 2 : BACKOFF_MAX_MS;
    }
}
