#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/pg/pg_internal.h"

#define IDLE_MAX_NS      (60 * TRK_NS_PER_S)
#define CHECK_EVERY_NS   TRK_NS_PER_S
#define CHECK_TIMEOUT_MS 1000
#define CHECKER_STACK    (256 * 1024)

struct trk_pg_pool {
    struct trk_pg_options options; /* own copies */
    struct pg_watch watch;
    pthread_mutex_t lock;
    pthread_cond_t released;
    struct trk_pg **idle; /* most recently used last */
    unsigned idle_count;
    unsigned in_use, waiting;
    uint64_t opened, failed, closed;
    atomic_uint_fast64_t queries;

    /* what is known about the server */
    atomic_bool up;
    atomic_bool loses_statements;
    atomic_int_fast64_t known_at_ns;
    char last_error[512]; /* under lock */
    /* the background check: a thread that exists from the first question on */
    pthread_t checker;
    pthread_cond_t check_wanted;
    bool checker_runs, check_is_wanted, stopping;
};

static char *copy(const char *s)
{
    return s != NULL ? trk_xstrdup(s) : NULL;
}

static bool is_up(void *pool)
{
    return trk_pg_pool_is_up(pool);
}

struct trk_pg_pool *trk_pg_pool_new(const struct trk_pg_options *options)
{
    trk_assert(options->size > 0);
    struct trk_pg_pool *pool = trk_xcalloc(1, sizeof(*pool));
    pool->watch = (struct pg_watch){.is_up = is_up, .ctx = pool};
    pool->options = *options;
    pool->options.conninfo = copy(options->conninfo);
    pool->options.schema = copy(options->schema);
    pool->options.application_name = copy(options->application_name);
    if (pool->options.acquire_timeout_ms == 0) {
        pool->options.acquire_timeout_ms = 5000;
    }
    if (pool->options.connect_timeout_ms == 0) {
        pool->options.connect_timeout_ms = PG_CONNECT_TIMEOUT_MS;
    }
    if (pool->options.statement_timeout_ms == 0) {
        pool->options.statement_timeout_ms = PG_STATEMENT_TIMEOUT_MS;
    }
    pool->idle = trk_xcalloc(options->size, sizeof(struct trk_pg *));
    (void)pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&pool->released, &attr);
    (void)pthread_cond_init(&pool->check_wanted, &attr);
    (void)pthread_condattr_destroy(&attr);
    return pool;
}

static void free_connection(struct trk_pg *conn)
{
    PQfinish(conn->link);
    free(conn->statements);
    free(conn);
}

static void close_connection(struct trk_pg_pool *pool, struct trk_pg *conn)
{
    free_connection(conn);
    (void)pthread_mutex_lock(&pool->lock);
    pool->closed++;
    (void)pthread_mutex_unlock(&pool->lock);
}

void trk_pg_pool_free(struct trk_pg_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    bool join = pool->checker_runs;
    (void)pthread_cond_broadcast(&pool->check_wanted);
    (void)pthread_mutex_unlock(&pool->lock);
    if (join) {
        (void)pthread_join(pool->checker, NULL);
    }
    trk_assert(pool->in_use == 0);
    for (unsigned i = 0; i < pool->idle_count; i++) {
        free_connection(pool->idle[i]);
    }
    free(pool->idle);
    char *strings[] = {(char *)(uintptr_t)pool->options.conninfo,
                       (char *)(uintptr_t)pool->options.schema,
                       (char *)(uintptr_t)pool->options.application_name};
    for (size_t i = 0; i < TRK_COUNT(strings); i++) {
        free(strings[i]);
    }
    (void)pthread_cond_destroy(&pool->released);
    (void)pthread_cond_destroy(&pool->check_wanted);
    (void)pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void trk_pg_pool_stats(struct trk_pg_pool *pool, struct trk_pg_stats *ret)
{
    (void)pthread_mutex_lock(&pool->lock);
    *ret = (struct trk_pg_stats){
        .size = pool->options.size,
        .in_use = pool->in_use,
        .waiting = pool->waiting,
        .opened = pool->opened,
        .failed = pool->failed,
        .closed = pool->closed,
    };
    (void)pthread_mutex_unlock(&pool->lock);
    ret->queries = atomic_load(&pool->queries);
}

void pg_pool_count_query(struct trk_pg_pool *pool)
{
    atomic_fetch_add(&pool->queries, 1);
}

const char *pg_pool_schema(const struct trk_pg_pool *pool)
{
    return pool->options.schema;
}

const struct pg_watch *pg_pool_watch(const struct trk_pg_pool *pool)
{
    return &pool->watch;
}

void pg_pool_give_up_statements(struct trk_pg_pool *pool)
{
    atomic_store(&pool->loses_statements, true);
}

bool pg_pool_has_statements(const struct trk_pg_pool *pool)
{
    return !atomic_load(&pool->loses_statements);
}

void pg_pool_note(struct trk_pg_pool *pool, bool up, const char *detail)
{
    atomic_store(&pool->known_at_ns, trk_now_ns());
    atomic_store(&pool->up, up);
    if (!up) {
        (void)pthread_mutex_lock(&pool->lock);
        (void)snprintf(pool->last_error, sizeof(pool->last_error), "%s", detail);
        (void)pthread_mutex_unlock(&pool->lock);
    }
}

void trk_pg_pool_last_error(struct trk_pg_pool *pool, char *out, size_t size)
{
    (void)pthread_mutex_lock(&pool->lock);
    (void)snprintf(out, size, "%s", pool->last_error);
    (void)pthread_mutex_unlock(&pool->lock);
}

/* -- borrowing -- */

/* Has the server closed an idle link meanwhile? An end of stream or a farewell message is readable.
 */
static bool is_alive(struct trk_pg *conn)
{
    struct pollfd p = {.fd = PQsocket(conn->link), .events = POLLIN};
    int n = poll(&p, 1, 0);
    if (n == 0) {
        return PQstatus(conn->link) == CONNECTION_OK;
    }
    return PQconsumeInput(conn->link) == 1 && PQstatus(conn->link) == CONNECTION_OK &&
           poll(&p, 1, 0) == 0;
}

static int open_connection(struct trk_pg_pool *pool, struct trk_pg **ret, struct trk_err *err)
{
    PGconn *link;
    char detail[512] = "";
    int rc = pg_link_open(&pool->options, pool->options.connect_timeout_ms, &link, detail,
                          sizeof(detail), err);
    (void)pthread_mutex_lock(&pool->lock);
    if (rc < 0) {
        pool->failed++;
    } else {
        pool->opened++;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    pg_pool_note(pool, rc == 0, detail);
    if (rc < 0) {
        return rc;
    }
    struct trk_pg *conn = trk_xcalloc(1, sizeof(*conn));
    conn->link = link;
    conn->pool = pool;
    *ret = conn;
    return 0;
}

static struct timespec deadline_after(int64_t timeout_ms)
{
    int64_t at = trk_now_ns() + timeout_ms * TRK_NS_PER_MS;
    return (struct timespec){.tv_sec = at / TRK_NS_PER_S, .tv_nsec = at % TRK_NS_PER_S};
}

/* Takes one of the places; with it comes an idle connection, or none. */
static int take_place(struct trk_pg_pool *pool, int64_t timeout_ms, struct trk_pg **ret_idle,
                      struct trk_err *err)
{
    struct timespec deadline = deadline_after(timeout_ms);
    (void)pthread_mutex_lock(&pool->lock);
    pool->waiting++;
    int waited = 0;
    while (pool->in_use >= pool->options.size && waited == 0) {
        waited = pthread_cond_timedwait(&pool->released, &pool->lock, &deadline);
    }
    pool->waiting--;
    bool ok = pool->in_use < pool->options.size;
    *ret_idle = NULL;
    if (ok) {
        pool->in_use++;
        if (pool->idle_count > 0) {
            *ret_idle = pool->idle[--pool->idle_count];
        }
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return ok ? 0
              : trk_err_set(err, TRK_UNAVAILABLE,
                            "all %u database connections are busy, try again in a moment",
                            pool->options.size);
}

static struct trk_pg *next_idle(struct trk_pg_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    struct trk_pg *conn = pool->idle_count > 0 ? pool->idle[--pool->idle_count] : NULL;
    (void)pthread_mutex_unlock(&pool->lock);
    return conn;
}

static void give_place_back(struct trk_pg_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->in_use--;
    (void)pthread_cond_signal(&pool->released);
    (void)pthread_mutex_unlock(&pool->lock);
}

static int acquire_within(struct trk_pg_pool *pool, int64_t timeout_ms, struct trk_pg **ret,
                          struct trk_err *err)
{
    struct trk_pg *conn;
    if (take_place(pool, timeout_ms, &conn, err) < 0) {
        return TRK_UNAVAILABLE;
    }
    while (conn != NULL && !is_alive(conn)) {
        close_connection(pool, conn);
        conn = next_idle(pool);
    }
    if (conn == NULL) {
        int rc = open_connection(pool, &conn, err);
        if (rc < 0) {
            give_place_back(pool);
            return rc;
        }
    }
    conn->timeout_ms = pool->options.statement_timeout_ms + PG_ANSWER_MARGIN_MS;
    conn->affected = 0;
    conn->sqlstate[0] = '\0';
    *ret = conn;
    return 0;
}

int trk_pg_acquire(struct trk_pg_pool *pool, struct trk_pg **ret, struct trk_err *err)
{
    return acquire_within(pool, pool->options.acquire_timeout_ms, ret, err);
}

/* Brings the session back to how it was opened. */
static bool reset_session(struct trk_pg *conn)
{
    struct trk_pg_pool *pool = conn->pool;
    int64_t limit_ms = pool->options.statement_timeout_ms;
    int64_t normal_ms = limit_ms + PG_ANSWER_MARGIN_MS;
    char sql[64];
    (void)snprintf(sql, sizeof(sql), "set statement_timeout = %lld", (long long)limit_ms);
    if (conn->broken || PQstatus(conn->link) != CONNECTION_OK) {
        return false;
    }
    if (PQtransactionStatus(conn->link) != PQTRANS_IDLE &&
        !pg_link_exec(conn->link, "rollback", &pool->watch, normal_ms)) {
        return false;
    }
    return conn->timeout_ms == normal_ms || pg_link_exec(conn->link, sql, &pool->watch, normal_ms);
}

void trk_pg_release(struct trk_pg *conn)
{
    if (conn == NULL) {
        return;
    }
    struct trk_pg_pool *pool = conn->pool;
    bool keep = reset_session(conn);
    struct trk_pg *old = NULL;
    if (!keep) {
        close_connection(pool, conn);
    }
    int64_t now = trk_now_ns();
    (void)pthread_mutex_lock(&pool->lock);
    if (keep) {
        conn->idle_since_ns = now;
        pool->idle[pool->idle_count++] = conn;
    }
    /* The longest unused one goes when a minute has passed. */
    if (pool->idle_count > 1 && now - pool->idle[0]->idle_since_ns > IDLE_MAX_NS) {
        old = pool->idle[0];
        pool->idle_count--;
        memmove(pool->idle, pool->idle + 1, pool->idle_count * sizeof(struct trk_pg *));
    }
    pool->in_use--;
    (void)pthread_cond_signal(&pool->released);
    (void)pthread_mutex_unlock(&pool->lock);
    if (old != NULL) {
        close_connection(pool, old);
    }
}

void trk_pg_cleanup(struct trk_pg **conn)
{
    trk_pg_release(*conn);
}

/* -- is it up? -- */

/* All connections are in use: who holds them may be waiting for a server that hangs. */
static void check_beside(struct trk_pg_pool *pool)
{
    PGconn *link;
    char detail[512] = "";
    bool ok = pg_link_open(&pool->options, CHECK_TIMEOUT_MS, &link, detail, sizeof(detail), NULL) ==
              0;
    if (ok) {
        PQfinish(link);
    }
    pg_pool_note(pool, ok, detail);
}

static void check(struct trk_pg_pool *pool)
{
    struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    if (acquire_within(pool, 0, &conn, &err) < 0) {
        if (strcmp(err.text, PG_AWAY_TEXT) != 0) {
            check_beside(pool);
        }
        return;
    }
    bool ok = pg_link_exec(conn->link, "select 1", &pool->watch, CHECK_TIMEOUT_MS);
    pg_pool_note(pool, ok, "no answer to a check within 1 s");
    if (!ok) {
        conn->broken = true;
        /* Nobody shall wait on the other idle ones: opening a new one fails sooner. */
        for (struct trk_pg *idle = next_idle(pool); idle != NULL; idle = next_idle(pool)) {
            close_connection(pool, idle);
        }
    }
    trk_pg_release(conn);
}

static void *run_checker(void *arg)
{
    struct trk_pg_pool *pool = arg;
    (void)pthread_mutex_lock(&pool->lock);
    while (!pool->stopping) {
        if (!pool->check_is_wanted) {
            (void)pthread_cond_wait(&pool->check_wanted, &pool->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&pool->lock);
        check(pool);
        (void)pthread_mutex_lock(&pool->lock);
        pool->check_is_wanted = false;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void want_check(struct trk_pg_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    if (!pool->checker_runs && !pool->stopping) {
        pthread_attr_t attr;
        (void)pthread_attr_init(&attr);
        (void)pthread_attr_setstacksize(&attr, CHECKER_STACK);
        pool->checker_runs = pthread_create(&pool->checker, &attr, run_checker, pool) == 0;
        (void)pthread_attr_destroy(&attr);
    }
    pool->check_is_wanted = true;
    (void)pthread_cond_signal(&pool->check_wanted);
    (void)pthread_mutex_unlock(&pool->lock);
}

bool trk_pg_pool_is_up(struct trk_pg_pool *pool)
{
    if (trk_now_ns() - atomic_load(&pool->known_at_ns) > CHECK_EVERY_NS) {
        want_check(pool);
    }
    return atomic_load(&pool->up);
}
