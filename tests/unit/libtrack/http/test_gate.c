/* The gate before libmicrohttpd: slow clients cost memory only, answers find their way. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>

#include "tests/unit/libtrack/http/http_service.h"

#define SLOW 300

static struct service service;

static void setup(void)
{
    service = (struct service){0};
    struct trk_http_options options = service_options(&service);
    options.request_max = 4;
    service_start(&service, &options);
}

static void teardown(void)
{
    service_stop(&service);
}

static void send_text(int fd, const char *text)
{
    ck_assert(raw_send(fd, text, strlen(text)));
}

static void assert_answers(int fd, const char *request, int status)
{
    send_text(fd, request);
    struct raw_answer answer = raw_read_one(fd);
    ck_assert_msg(answer.status == status, "%d: %s", answer.status, answer.bytes);
    raw_answer_fini(&answer);
}

/* More clients than places stop in the middle of their requests; none takes a place. */
START_TEST(test_slow_clients_take_no_place)
{
    static const char *const begins[] = {
        "GET /li",
        "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{",
        "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{",
        "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
        "chunked\r\n\r\n7\r\n{\"a\":1}\r\n",
    };
    static const char *const ends[] = {"ve HTTP/1.1\r\nHost: x\r\n\r\n", "\"a\":1}",
                                       "\"a\":1}\r\n0\r\n\r\n", "0\r\n\r\n"};
    int fds[SLOW];
    for (int i = 0; i < SLOW; i++) {
        fds[i] = raw_dial(service.port);
        send_text(fds[i], begins[i % 4]);
    }
    struct raw_answer answer = ask(&service, "POST", "/api/v1/echo",
                                   "Content-Type: application/json\r\n", "{\"a\":1}");
    ck_assert_int_eq(answer.status, 200);
    raw_answer_fini(&answer);
    for (int i = 0; i < SLOW; i++) {
        assert_answers(fds[i], ends[i % 4], 200);
        (void)close(fds[i]);
    }
}
END_TEST

/* Large bodies on their way hold half of the places: other requests have the rest. */
START_TEST(test_uploads_leave_places)
{
    static const char begin[] =
        "PUT /api/v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\nabc";
    int fds[8];
    for (size_t i = 0; i < TRK_COUNT(fds); i++) {
        fds[i] = raw_dial(service.port);
        send_text(fds[i], begin);
    }
    struct raw_answer answer = ask(&service, "GET", "/live", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    raw_answer_fini(&answer);
    static char rest[200000 - 3];
    memset(rest, 'x', sizeof(rest));
    for (size_t i = 0; i < TRK_COUNT(fds); i++) { /* each has its turn */
        ck_assert(raw_send(fds[i], rest, sizeof(rest)));
        answer = raw_read_one(fds[i]);
        ck_assert_int_eq(answer.status, 200);
        raw_answer_fini(&answer);
        (void)close(fds[i]);
    }
    ck_assert_int_eq(service.bodies, 8 * 200000);
}
END_TEST

/* All bodies in memory together are limited; who comes too late is told to come again. */
START_TEST(test_bodies_have_a_budget)
{
    static const char begin[] =
        "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 290007\r\n\r\n";
    static char spaces[290000];
    int fds[256], refused = 0, served = 0;
    memset(spaces, ' ', sizeof(spaces));
    teardown();
    service = (struct service){0};
    service_start(&service, NULL);
    for (size_t i = 0; i < TRK_COUNT(fds); i++) {
        fds[i] = raw_dial(service.port);
        send_text(fds[i], begin);
        ck_assert(raw_send(fds[i], spaces, sizeof(spaces)));
    }
    struct pollfd wait[TRK_COUNT(fds)]; /* none is whole: an answer is a refusal */
    for (size_t i = 0; i < TRK_COUNT(fds); i++) {
        wait[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    }
    ck_assert_int_gt(poll(wait, TRK_COUNT(fds), 5 * RAW_DEADLINE_MS), 0); /* 74 MB first */
    for (size_t i = 0; i < TRK_COUNT(fds); i++) {
        (void)raw_send(fds[i], "{\"a\":1}", 7);
        struct raw_answer answer = raw_read_one(fds[i]);
        ck_assert_msg(answer.status == 200 || answer.status == 503, "%s", answer.bytes);
        if (answer.status == 503) {
            ck_assert_str_eq(raw_header(&answer, "Retry-After"), "1");
        }
        *(answer.status == 503 ? &refused : &served) += 1;
        raw_answer_fini(&answer);
        (void)close(fds[i]);
    }
    ck_assert_int_gt(refused, 0);
    ck_assert_int_gt(served, 200);
    struct raw_answer answer = ask(&service, "POST", "/api/v1/echo", "", "{\"a\":1}");
    ck_assert_int_eq(answer.status, 200); /* all is given back */
    raw_answer_fini(&answer);
}
END_TEST

/* Byte by byte in, pieces of any size out. */
START_TEST(test_every_split)
{
    static const char request[] = "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                                  "chunked\r\n\r\n4;x=y\r\n{\"a\"\r\n3\r\n:1}\r\n0\r\nX: y\r\n\r\n";
    int fd = raw_dial(service.port);
    for (size_t cut = 1; cut < sizeof(request) - 1; cut++) {
        ck_assert(raw_send(fd, request, cut));
        trk_sleep_ms(1);
        assert_answers(fd, request + cut, 200);
    }
    (void)close(fd);
    ck_assert_int_eq(service.calls, (int)sizeof(request) - 2);
}
END_TEST

static int dial_v6(int port)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6,
                                   .sin6_port = htons((uint16_t)port),
                                   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void assert_peer(int fd, const char *peer)
{
    send_text(fd, "GET /api/v1/hello/x HTTP/1.1\r\nHost: x\r\n\r\n");
    struct raw_answer answer = raw_read_one(fd);
    trk_autofree char *text = trk_xasprintf("\"peer\":\"%s\"", peer);
    ck_assert_msg(strstr(answer.body, text) != NULL, "%s", answer.body);
    raw_answer_fini(&answer);
}

/* Both loopback families, and each request knows its own client. */
START_TEST(test_peer)
{
    int v4 = raw_dial(service.port);
    assert_peer(v4, "127.0.0.1");
    int v6 = dial_v6(service.port);
    if (v6 < 0) { /* a machine without IPv6 */
        (void)close(v4);
        return;
    }
    assert_peer(v6, "::1");
    assert_peer(v4, "127.0.0.1");
    (void)close(v4);
    (void)close(v6);
}
END_TEST

START_TEST(test_other_family_taken)
{
    struct trk_http_options options = service_options(&service);
    struct trk_http_server *server = NULL;
    struct trk_err err = {0};
    bool is_by_another = true; /* some other process has that port in the first family */
    for (int i = 0; i < 20 && is_by_another; i++) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        socklen_t len = sizeof(address);
        trk_autoclose int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 1) < 0 ||
            getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
            return;
        }
        options.port = ntohs(address.sin6_port);
        ck_assert_int_eq(trk_http_server_start(&options, &server, &err), TRK_CONFLICT);
        is_by_another = strstr(err.text, "127.0.0.1 is already in use") != NULL;
    }
    ck_assert_msg(strstr(err.text, "::1 is already in use") != NULL, "%s", err.text);
}
END_TEST

/* With as many connections as descriptors allow, a new one takes the place of the one that has
 * been without a request for the longest time. */
START_TEST(test_full_of_idle_clients)
{
    struct rlimit kept, few = {.rlim_cur = 200, .rlim_max = 200};
    int fds[150];
    service_stop(&service);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &kept), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    setup(); /* room for 100 */
    if (setrlimit(RLIMIT_NOFILE, &kept) < 0) {
        return; /* only root may; the clients' ends would not fit */
    }
    for (size_t i = 0; i < TRK_COUNT(fds); i++) {
        fds[i] = raw_dial(service.port);
        send_text(fds[i], "GET /li");
        if (i == 99) { /* the first one becomes the last used */
            assert_answers(fds[0], "ve HTTP/1.1\r\nHost: x\r\n\r\n", 200);
        }
    }
    assert_answers(fds[149], "ve HTTP/1.1\r\nHost: x\r\n\r\n", 200);
    assert_answers(fds[0], "GET /live HTTP/1.1\r\nHost: x\r\n\r\n", 200);
    struct raw_answer answer = raw_read(fds[1], RAW_DEADLINE_MS);
    ck_assert(answer.is_closed && answer.status == 0);
    raw_answer_fini(&answer);
    for (size_t i = 0; i < TRK_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
}
END_TEST

/* Clients that ask for many requests and read none of the answers: each is held back alone. */
START_TEST(test_pipelined_reader_sleeps)
{
    int fd = raw_dial(service.port);
    for (int i = 0; i < 200; i++) {
        send_text(fd, "GET /api/v1/hello/x HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    struct raw_answer answer = ask(&service, "GET", "/live", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    raw_answer_fini(&answer);
    (void)shutdown(fd, SHUT_WR);
    answer = raw_read(fd, RAW_DEADLINE_MS);
    ck_assert_uint_eq(answer.answers, 200);
    ck_assert(answer.is_closed);
    raw_answer_fini(&answer);
    (void)close(fd);
}
END_TEST

static void *hammer(void *arg)
{
    static const char *const requests[] = {
        "GET /live HTTP/1.1\r\nHost: x\r\n\r\n", /* short: carried by the thread that made it */
        "GET /file?size=3 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /list?count=5000 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "7\r\n{\"a\":1}\r\n0\r\n\r\n",
        "GET /live HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    };
    size_t *served = arg;
    for (size_t round = 0; round < 20; round++) {
        int fd = raw_dial(service.port);
        for (size_t i = 0; i < TRK_COUNT(requests); i++) {
            const char *request = requests[(i + round) % TRK_COUNT(requests)];
            (void)raw_send(fd, request, strlen(request));
        }
        (void)shutdown(fd, SHUT_WR);
        struct raw_answer answer = raw_read(fd, RAW_DEADLINE_MS);
        *served += answer.is_closed ? answer.answers : 0;
        raw_answer_fini(&answer);
        (void)close(fd);
    }
    return NULL;
}

/* More clients than places, all kinds of answers, each connection to its last request. */
START_TEST(test_many_at_once)
{
    pthread_t threads[12];
    size_t served[TRK_COUNT(threads)] = {0};
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, &served[i]), 0);
    }
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        (void)pthread_join(threads[i], NULL);
        ck_assert_uint_eq(served[i], 20 * 6);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gate");
    TCase *tcase = tcase_create("gate");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_slow_clients_take_no_place);
    tcase_add_test(tcase, test_uploads_leave_places);
    tcase_add_test(tcase, test_bodies_have_a_budget);
    tcase_add_test(tcase, test_every_split);
    tcase_add_test(tcase, test_peer);
    tcase_add_test(tcase, test_other_family_taken);
    tcase_add_test(tcase, test_full_of_idle_clients);
    tcase_add_test(tcase, test_pipelined_reader_sleeps);
    tcase_add_test(tcase, test_many_at_once);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
