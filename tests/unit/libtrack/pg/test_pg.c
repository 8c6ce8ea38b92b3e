#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/pg/pg.h"
#include "tests/unit/support/pg_cluster.h"

static struct pg_cluster *cluster;

static struct trk_pg_pool *new_pool(unsigned size, const char *schema)
{
    struct trk_pg_options options = {.conninfo = pg_cluster_conninfo(cluster),
                                     .schema = schema,
                                     .size = size,
                                     .acquire_timeout_ms = 300,
                                     .application_name = "test"};
    return trk_pg_pool_new(&options);
}

static void must(struct trk_pg *conn, const char *sql)
{
    struct trk_err err = {0};
    ck_assert_msg(trk_pg_query(conn, NULL, &err, sql, "") == 0, "%s: %s", sql, err.text);
}

static int64_t number(struct trk_pg_pool *pool, const char *sql)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    struct trk_err err = {0};
    ck_assert_msg(trk_pg_acquire(pool, &conn, &err) == 0, "%s", err.text);
    ck_assert_msg(trk_pg_query(conn, &res, &err, sql, "") == 0, "%s", err.text);
    return trk_pg_int(res, 0, "n");
}

START_TEST(parameters_and_columns)
{
    struct trk_pg_pool *pool = new_pool(1, NULL);
    {
        trk_pg_auto struct trk_pg *conn = NULL;
        trk_pg_result_auto struct trk_pg_result *res = NULL;
        struct trk_err err = {0};
        const char bytes[] = {0, 1, 'a', '\\', (char)0xFF};
        ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
        ck_assert_int_eq(trk_pg_query(conn, &res, &err,
                                      "select $1::text as s, $2::bigint as i, $3::boolean as b, "
                                      "$4::float8 as d, $5::bytea as x, $6::text as nothing",
                                      "sibdxs", "it's; drop table x", INT64_MIN, true, 0.1,
                                      (const void *)bytes, sizeof(bytes), NULL),
                         0);
        ck_assert_int_eq(trk_pg_rows(res), 1);
        ck_assert_str_eq(trk_pg_text(res, 0, "s"), "it's; drop table x");
        ck_assert_int_eq(trk_pg_int(res, 0, "i"), INT64_MIN);
        ck_assert(trk_pg_bool(res, 0, "b"));
        ck_assert_double_eq(trk_pg_double(res, 0, "d"), 0.1);
        trk_autofree void *back = NULL;
        size_t len;
        ck_assert_int_eq(trk_pg_bytes(res, 0, "x", &back, &len, &err), 0);
        ck_assert_mem_eq(back, bytes, sizeof(bytes));
        ck_assert_uint_eq(len, sizeof(bytes));
        ck_assert(trk_pg_is_null(res, 0, "nothing"));
        ck_assert_ptr_null(trk_pg_text(res, 0, "nothing"));
    }
    trk_pg_pool_free(pool);
}
END_TEST

START_TEST(errors_by_kind_without_sql)
{
    struct trk_pg_pool *pool = new_pool(1, NULL);
    {
        trk_pg_auto struct trk_pg *conn = NULL;
        struct trk_err err = {0};
        ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
        must(conn, "create temp table kinds (id int primary key, name varchar(3), "
                   "other int references kinds (id))");
        must(conn, "insert into kinds values (1, 'a')");
        ck_assert_int_eq(
            trk_pg_query(conn, NULL, &err, "insert into kinds values ($1)", "i", INT64_C(1)),
            TRK_CONFLICT);
        ck_assert_int_eq(trk_pg_query(conn, NULL, &err, "insert into kinds values (2, 'b', 7)", ""),
                         TRK_CONFLICT);
        ck_assert_int_eq(
            trk_pg_query(conn, NULL, &err, "insert into kinds values (3, $1)", "s", "longer"),
            TRK_INVALID);
        ck_assert_ptr_nonnull(strstr(err.text, "too long"));
        ck_assert_int_eq(trk_pg_query(conn, NULL, &err, "select secret from nowhere_table", ""),
                         TRK_INTERNAL);
        ck_assert_ptr_null(strstr(err.text, "select"));
        ck_assert_int_eq(trk_pg_query(conn, NULL, &err, "update kinds set name = 'c'", ""), 0);
        ck_assert_int_eq(trk_pg_affected(conn), 1);
    }
    trk_pg_pool_free(pool);
}
END_TEST

START_TEST(a_full_pool_answers_in_time)
{
    struct trk_pg_pool *pool = new_pool(2, NULL);
    struct trk_pg *a, *b, *c;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_pg_acquire(pool, &a, &err), 0);
    ck_assert_int_eq(trk_pg_acquire(pool, &b, &err), 0);
    int64_t start = trk_now_ns();
    ck_assert_int_eq(trk_pg_acquire(pool, &c, &err), TRK_UNAVAILABLE);
    ck_assert_int_ge(trk_now_ns() - start, 290 * TRK_NS_PER_MS);
    ck_assert_int_lt(trk_now_ns() - start, 5 * TRK_NS_PER_S);
    ck_assert_ptr_nonnull(strstr(err.text, "busy"));
    trk_pg_release(b);
    ck_assert_int_eq(trk_pg_acquire(pool, &c, &err), 0);
    struct trk_pg_stats stats;
    trk_pg_pool_stats(pool, &stats);
    ck_assert_uint_eq(stats.in_use, 2);
    ck_assert_uint_eq(stats.opened, 2); /* c took over b's link */
    trk_pg_release(a);
    trk_pg_release(c);
    trk_pg_pool_free(pool);
}
END_TEST

START_TEST(an_open_transaction_is_rolled_back_on_release)
{
    struct trk_pg_pool *pool = new_pool(1, NULL);
    struct trk_pg *conn;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    must(conn, "create table forgotten (id int)");
    must(conn, "begin");
    must(conn, "insert into forgotten values (1)");
    trk_pg_release(conn);
    ck_assert_int_eq(number(pool, "select count(*) as n from forgotten"), 0);
    trk_pg_pool_free(pool);
}
END_TEST

static int insert_then_fail(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    must(conn, "insert into half values (1)");
    (*(int *)ctx)++;
    return trk_err_set(err, TRK_FORBIDDEN, "no");
}

START_TEST(a_failed_transaction_leaves_nothing)
{
    struct trk_pg_pool *pool = new_pool(1, NULL);
    struct trk_pg *conn;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    must(conn, "create table half (id int)");
    trk_pg_release(conn);
    int calls = 0;
    ck_assert_int_eq(trk_pg_transaction(pool, insert_then_fail, &calls, &err), TRK_FORBIDDEN);
    ck_assert_int_eq(calls, 1);
    ck_assert_str_eq(err.text, "no");
    ck_assert_int_eq(number(pool, "select count(*) as n from half"), 0);
    trk_pg_pool_free(pool);
}
END_TEST

/* Two writers that read first: at this isolation one of them must be told to try again. */
struct increment {
    pthread_barrier_t *barrier;
    struct trk_pg_pool *pool;
    int attempts;
};

static int increment(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct increment *mine = ctx;
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    must(conn, "set transaction isolation level serializable");
    int code = trk_pg_query(conn, &res, err, "select n from counter", "");
    if (code == 0 && mine->attempts++ == 0) {
        (void)pthread_barrier_wait(mine->barrier);
    }
    if (code == 0) {
        code = trk_pg_query(conn, NULL, err, "update counter set n = $1", "i",
                            trk_pg_int(res, 0, "n") + 1);
    }
    return code;
}

static void *run_increment(void *arg)
{
    struct increment *mine = arg;
    struct trk_err err = {0};
    ck_assert_msg(trk_pg_transaction(mine->pool, increment, mine, &err) == 0, "%s", err.text);
    return NULL;
}

START_TEST(serialization_failures_are_retried)
{
    struct trk_pg_pool *pool = new_pool(2, NULL);
    struct trk_pg *conn;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    must(conn, "create table counter (n int)");
    must(conn, "insert into counter values (0)");
    trk_pg_release(conn);
    pthread_barrier_t barrier;
    (void)pthread_barrier_init(&barrier, NULL, 2);
    struct increment both[2] = {{&barrier, pool, 0}, {&barrier, pool, 0}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_increment, &both[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    ck_assert_int_eq(number(pool, "select n from counter"), 2);
    ck_assert_int_eq(both[0].attempts + both[1].attempts, 3);
    (void)pthread_barrier_destroy(&barrier);
    trk_pg_pool_free(pool);
}
END_TEST

START_TEST(a_statement_has_a_time_limit)
{
    struct trk_pg_options options = {
        .conninfo = pg_cluster_conninfo(cluster), .size = 1, .statement_timeout_ms = 50};
    struct trk_pg_pool *pool = trk_pg_pool_new(&options);
    struct trk_pg *conn;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    ck_assert_int_eq(trk_pg_query(conn, NULL, &err, "select pg_sleep(30)", ""), TRK_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "too long"));
    ck_assert_int_eq(trk_pg_set_timeout(conn, 10000, &err), 0);
    must(conn, "select pg_sleep(0.1)");
    trk_pg_release(conn);
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    ck_assert_int_eq(trk_pg_query(conn, NULL, &err, "select pg_sleep(30)", ""), TRK_UNAVAILABLE);
    trk_pg_release(conn);
    trk_pg_pool_free(pool);
}
END_TEST

#define PREPARED                                                                                   \
    "select count(*) as n from pg_prepared_statements where statement = 'select n from plan'"

static int read_plan(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    const char **change = ctx;
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    if (*change != NULL) {
        must(conn, TRK_STEAL(*change));
    }
    int code = trk_pg_query(conn, &res, err, "select * from plan", "");
    ck_assert(code < 0 || trk_pg_rows(res) == 1);
    return code;
}

START_TEST(statements_that_come_again_are_prepared)
{
    struct trk_pg_pool *pool = new_pool(1, NULL);
    struct trk_err err = {0};
    (void)number(pool, "select 1 as n");
    struct trk_pg *conn;
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    must(conn, "create table plan (n int)");
    must(conn, "insert into plan values (7)");
    trk_pg_release(conn);
    const char *no_change = NULL;
    for (int64_t i = 0; i < 3; i++) {
        ck_assert_int_eq(number(pool, PREPARED), i > 1);
        ck_assert_int_eq(number(pool, "select n from plan"), 7);
    }
    /* A column more: the statement that is prepared answers with an error. */
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(trk_pg_transaction(pool, read_plan, &no_change, &err), 0);
    }
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    must(conn, "alter table plan add m int");
    trk_pg_release(conn);
    ck_assert_msg(trk_pg_transaction(pool, read_plan, &no_change, &err) == 0, "%s", err.text);
    ck_assert_int_eq(number(pool, "select n from plan"), 7);
    trk_pg_pool_free(pool);
}
END_TEST

START_TEST(a_pooler_may_lose_prepared_statements)
{
    struct trk_pg_pool *pool = new_pool(1, NULL);
    struct trk_err err = {0};
    struct trk_pg *conn;
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    for (int i = 0; i < 3; i++) {
        trk_pg_result_auto struct trk_pg_result *res = NULL;
        ck_assert_int_eq(trk_pg_query(conn, &res, &err, "select $1::int as n", "i", (int64_t)i), 0);
    }
    must(conn, "deallocate all");
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    ck_assert_msg(trk_pg_query(conn, &res, &err, "select $1::int as n", "i", (int64_t)5) == 0, "%s",
                  err.text);
    ck_assert_int_eq(trk_pg_int(res, 0, "n"), 5);
    trk_pg_release(conn);
    for (int i = 0; i < 3; i++) { /* from here on it is not tried again */
        ck_assert_int_eq(number(pool, "select count(*) as n from pg_prepared_statements"), 0);
    }
    trk_pg_pool_free(pool);
}
END_TEST

static bool becomes(struct trk_pg_pool *pool, bool up)
{
    int64_t deadline = trk_now_ns() + 10 * TRK_NS_PER_S;
    while (trk_pg_pool_is_up(pool) != up) {
        if (trk_now_ns() > deadline) {
            return false;
        }
        trk_sleep_ms(10);
    }
    return true;
}

START_TEST(recovers_from_a_crash_of_the_server)
{
    struct trk_pg_pool *pool = new_pool(2, NULL);
    ck_assert(!trk_pg_pool_is_up(pool)); /* not known yet */
    ck_assert(becomes(pool, true));
    pg_cluster_crash(cluster);
    struct trk_pg *conn;
    struct trk_err err = {0};
    int64_t start = trk_now_ns();
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), TRK_UNAVAILABLE);
    ck_assert_int_lt(trk_now_ns() - start, 2 * TRK_NS_PER_S);
    ck_assert_ptr_nonnull(strstr(err.text, "database is not reachable"));
    ck_assert(!trk_pg_pool_is_up(pool));
    char why[256];
    trk_pg_pool_last_error(pool, why, sizeof(why));
    ck_assert_str_ne(why, "");
    pg_cluster_resume(cluster);
    ck_assert(becomes(pool, true)); /* by itself: nobody asks for a connection */
    ck_assert_int_eq(number(pool, "select 7 as n"), 7);
    trk_pg_pool_free(pool);
}
END_TEST

START_TEST(a_full_pool_does_not_hide_the_loss_of_the_server)
{
    struct trk_pg_pool *pool = new_pool(1, NULL);
    struct trk_pg *conn;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_pg_acquire(pool, &conn, &err), 0);
    must(conn, "select 1");
    ck_assert(trk_pg_pool_is_up(pool));
    pg_cluster_crash(cluster);
    ck_assert(becomes(pool, false)); /* although the one connection is not asked */
    pg_cluster_resume(cluster);
    ck_assert(becomes(pool, true));
    trk_pg_release(conn);
    ck_assert_int_eq(number(pool, "select 7 as n"), 7);
    trk_pg_pool_free(pool);
}
END_TEST

static const struct trk_migration good[] = {
    {1, "0001_one", "create table one (id int); insert into one values (1); -- two statements"},
    {2, "0002_two", "create table two (id int)"},
};

struct migrating {
    struct trk_pg_pool *pool;
    unsigned applied;
};

static void *run_migrate(void *arg)
{
    struct migrating *mine = arg;
    struct trk_err err = {0};
    ck_assert_msg(trk_pg_migrate(mine->pool, good, 2, &mine->applied, &err) == 0, "%s", err.text);
    return NULL;
}

START_TEST(migrations_run_once_also_when_two_start)
{
    struct migrating both[2] = {{new_pool(2, "Race\"track"), 0}, {new_pool(2, "Race\"track"), 0}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_migrate, &both[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    ck_assert_uint_eq(both[0].applied + both[1].applied, 2);
    ck_assert_int_eq(number(both[0].pool, "select count(*) as n from one"), 1);
    struct trk_err err = {0};
    unsigned applied = 9;
    ck_assert_int_eq(trk_pg_migrate(both[0].pool, good, 2, &applied, &err), 0);
    ck_assert_uint_eq(applied, 0);
    trk_pg_pool_free(both[0].pool);
    trk_pg_pool_free(both[1].pool);
}
END_TEST

START_TEST(bad_migrations_are_named)
{
    struct trk_pg_pool *pool = new_pool(1, "bad");
    struct trk_err err = {0};
    struct trk_migration list[] = {good[0], {2, "0002_wrong", "create table t (id int); nonsense"}};
    ck_assert_int_eq(trk_pg_migrate(pool, list, 2, NULL, &err), TRK_INTERNAL);
    ck_assert_ptr_nonnull(strstr(err.text, "0002_wrong"));
    ck_assert_int_eq(number(pool, "select (to_regclass('t') is not null)::int as n"), 0);
    list[1] = good[1];
    ck_assert_int_eq(trk_pg_migrate(pool, list, 2, NULL, &err), 0);
    list[0].sql = "create table other (id int)";
    ck_assert_int_eq(trk_pg_migrate(pool, list, 2, NULL, &err), TRK_INTERNAL);
    ck_assert_ptr_nonnull(strstr(err.text, "0001_one.sql was changed"));
    list[0] = good[0];
    ck_assert_int_eq(trk_pg_migrate(pool, list, 1, NULL, &err), TRK_INTERNAL);
    ck_assert_ptr_nonnull(strstr(err.text, "newer version (0002_two)"));
    trk_pg_pool_free(pool);
}
END_TEST

struct listening {
    pthread_mutex_t lock;
    int connects;
    char last[32];
    atomic_bool stop;
};

static void on_notify(void *ctx, const char *payload)
{
    struct listening *l = ctx;
    (void)pthread_mutex_lock(&l->lock);
    if (payload[0] == '\0') {
        l->connects++;
    } else {
        (void)snprintf(l->last, sizeof(l->last), "%s", payload);
    }
    (void)pthread_mutex_unlock(&l->lock);
}

static void *run_listen(void *arg)
{
    struct listening *l = arg;
    struct trk_pg_options options = {.conninfo = pg_cluster_conninfo(cluster)};
    trk_pg_listen(&options, "test_channel", on_notify, l, &l->stop);
    return NULL;
}

static bool heard(struct listening *l, int connects, const char *payload)
{
    int64_t deadline = trk_now_ns() + 10 * TRK_NS_PER_S;
    for (;;) {
        (void)pthread_mutex_lock(&l->lock);
        bool ok = l->connects >= connects && strcmp(l->last, payload) == 0;
        (void)pthread_mutex_unlock(&l->lock);
        if (ok || trk_now_ns() > deadline) {
            return ok;
        }
        trk_sleep_ms(5);
    }
}

START_TEST(listening_goes_on_after_a_crash)
{
    struct listening l = {.lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_listen, &l), 0);
    ck_assert(heard(&l, 1, ""));
    struct trk_pg_pool *pool = new_pool(1, NULL);
    (void)number(pool, "select 1 as n from pg_notify('test_channel', 'one')");
    ck_assert(heard(&l, 1, "one"));
    pg_cluster_crash(cluster);
    pg_cluster_resume(cluster);
    ck_assert(heard(&l, 2, "one"));
    (void)number(pool, "select 1 as n from pg_notify('test_channel', 'two')");
    ck_assert(heard(&l, 2, "two"));
    atomic_store(&l.stop, true);
    (void)pthread_join(thread, NULL);
    trk_pg_pool_free(pool);
}
END_TEST

int main(void)
{
    cluster = pg_cluster_start();
    Suite *suite = suite_create("pg");
    TCase *tcase = tcase_create("pg");
    tcase_add_test(tcase, parameters_and_columns);
    tcase_add_test(tcase, errors_by_kind_without_sql);
    tcase_add_test(tcase, a_full_pool_answers_in_time);
    tcase_add_test(tcase, an_open_transaction_is_rolled_back_on_release);
    tcase_add_test(tcase, a_failed_transaction_leaves_nothing);
    tcase_add_test(tcase, serialization_failures_are_retried);
    tcase_add_test(tcase, a_statement_has_a_time_limit);
    tcase_add_test(tcase, statements_that_come_again_are_prepared);
    tcase_add_test(tcase, a_pooler_may_lose_prepared_statements);
    tcase_add_test(tcase, recovers_from_a_crash_of_the_server);
    tcase_add_test(tcase, a_full_pool_does_not_hide_the_loss_of_the_server);
    tcase_add_test(tcase, migrations_run_once_also_when_two_start);
    tcase_add_test(tcase, bad_migrations_are_named);
    tcase_add_test(tcase, listening_goes_on_after_a_crash);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    /* One process: the server is restarted by tests, and is our child. */
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    pg_cluster_stop(cluster);
    return failures > 0 ? 1 : 0;
}
