/* Names are looked up side by side, and what is open ends with its loop. The name server answers
 * fast.test and nobody else. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "pub/resolver.h"

static struct pub_loop loop;
static struct pub_resolver *resolver;
static struct pub_watch server;
static char servers[32];
static int asked; /* for slow.test */
static char seen[1024];

static void on_query(struct pub_watch *watch, uint32_t events)
{
    static const unsigned char fast[] = "\4fast\4test";
    static const unsigned char answer[] = {0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 1, 2, 3};
    unsigned char packet[1024];
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    ssize_t n = recvfrom(watch->fd, packet, 512, 0, (struct sockaddr *)&from, &from_len);
    (void)events;
    if (n < 12 + (ssize_t)sizeof(fast)) {
        return;
    }
    if (memcmp(packet + 12, fast, sizeof(fast)) != 0) {
        asked++;
        return;
    }
    size_t end = 12 + sizeof(fast) + 4;
    bool is_v4 = packet[end - 3] == 1;
    memset(packet + 6, 0, 6); /* counts of records */
    packet[2] |= 0x80;
    packet[7] = is_v4;
    if (is_v4) {
        memcpy(packet + end, answer, sizeof(answer));
        end += sizeof(answer);
    }
    (void)sendto(watch->fd, packet, end, 0, (struct sockaddr *)&from, from_len);
}

static void setup(void)
{
    struct trk_err err = {0};
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    ck_assert_int_eq(pub_loop_init(&loop, &loop, &err), 0);
    server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    server.on_event = on_query;
    ck_assert_int_eq(bind(server.fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    ck_assert_int_eq(getsockname(server.fd, (struct sockaddr *)&addr, &len), 0);
    ck_assert_int_eq(pub_loop_add(&loop, &server, EPOLLIN), 0);
    (void)snprintf(servers, sizeof(servers), "127.0.0.1:%d", ntohs(addr.sin_port));
    resolver = pub_resolver_new(&loop, servers);
    seen[0] = '\0';
    asked = 0;
}

static void teardown(void)
{
    pub_resolver_free(resolver);
    pub_loop_flush(&loop);
    pub_loop_close(&server);
    pub_loop_fini(&loop);
}

static void on_resolved(struct pub_message *message, void *ctx)
{
    const struct pub_resolution *q = (const struct pub_resolution *)message;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&q->addr;
    char text[INET_ADDRSTRLEN] = "none";
    if (q->addr_len > 0 && v4->sin_family == AF_INET) {
        (void)inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    }
    size_t len = strlen(seen);
    (void)snprintf(seen + len, sizeof(seen) - len, "%s=%s:%d ", q->host, text,
                   q->addr_len > 0 ? ntohs(v4->sin_port) : 0);
    ((struct pub_loop *)ctx)->is_over = true;
}

static void ask(const char *name)
{
    struct pub_resolution *q = trk_xcalloc(1, sizeof(*q));
    q->message.run = on_resolved;
    (void)snprintf(q->host, sizeof(q->host), "%s", name);
    memcpy(q->port, "7000", 5);
    pub_resolve(resolver, q);
}

static void run(void)
{
    loop.is_over = false;
    pub_loop_run(&loop);
}

START_TEST(none_waits_for_another)
{
    int64_t start = trk_now_ns();
    ask("slow.test");
    ask("fast.test");
    ck_assert_str_eq(seen, "");
    run();
    ck_assert_str_eq(seen, "fast.test=127.1.2.3:7000 ");
    ck_assert_int_lt(trk_now_ns() - start, TRK_NS_PER_S);
    run();
    ck_assert_str_eq(seen, "fast.test=127.1.2.3:7000 slow.test=none:0 ");
    ck_assert_int_ge(asked, 2); /* it was tried again */
}
END_TEST

START_TEST(hosts_of_this_machine_need_no_server)
{
    ask("localhost");
    ck_assert_str_eq(seen, ""); /* never at once */
    run();
    ck_assert_str_eq(seen, "localhost=127.0.0.1:7000 ");
}
END_TEST

START_TEST(what_is_open_ends_with_the_loop)
{
    ask("slow.test");
    ask("slower.test");
    pub_resolver_free(TRK_STEAL(resolver));
    pub_loop_flush(&loop);
    ck_assert_str_eq(seen, "slow.test=none:0 slower.test=none:0 ");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resolver");
    TCase *tcase = tcase_create("resolver");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, none_waits_for_another);
    tcase_add_test(tcase, hosts_of_this_machine_need_no_server);
    tcase_add_test(tcase, what_is_open_ends_with_the_loop);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures > 0 ? 1 : 0;
}
