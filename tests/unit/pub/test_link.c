/* One exchange with lifecycle: whatever the answer's framing and however it is cut. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "pub/link.h"

/* Takes one connection, reads a head, sends `answer` piece bytes at a time and closes, or stays
 * silent until the peer leaves. */
static struct peer {
    int listener;
    const char *answer;
    size_t piece;
    bool is_silent;
    char request[2048];
} peer;

static void *run_peer(void *unused)
{
    (void)unused;
    trk_autoclose int fd = accept(peer.listener, NULL, NULL);
    size_t len = 0;
    while (strstr(peer.request, "\r\n\r\n") == NULL) {
        ssize_t n = recv(fd, peer.request + len, sizeof(peer.request) - 1 - len, 0);
        if (n <= 0) {
            return NULL;
        }
        len += (size_t)n;
        peer.request[len] = '\0';
    }
    for (size_t at = 0, all = strlen(peer.answer); at < all; at += peer.piece) {
        size_t n = all - at < peer.piece ? all - at : peer.piece;
        if (send(fd, peer.answer + at, n, MSG_NOSIGNAL) < 0) {
            return NULL;
        }
    }
    char c;
    if (peer.is_silent) {
        (void)!recv(fd, &c, 1, 0);
    }
    return NULL;
}

static struct trk_buf seen;
static int watched;

static int on_data(void *ctx, const char *bytes, size_t len, struct trk_err *err)
{
    (void)ctx;
    (void)trk_buf_add(&seen, bytes, len);
    return strstr(seen.data, "stop") != NULL ? trk_err_set(err, TRK_CANCELLED, "enough") : 0;
}

static void on_socket(void *ctx, int fd)
{
    (void)ctx;
    watched = fd;
}

static int exchange(const char *answer, size_t piece, const char *body, int *ret_status,
                    struct trk_err *err)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    pthread_t thread;
    peer.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    peer.answer = answer;
    peer.piece = piece;
    peer.request[0] = '\0';
    ck_assert_int_eq(bind(peer.listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    ck_assert_int_eq(listen(peer.listener, 1), 0);
    ck_assert_int_eq(getsockname(peer.listener, (struct sockaddr *)&addr, &len), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, run_peer, NULL), 0);
    trk_autofree char *url = trk_xasprintf("http://127.0.0.1:%d/lifecycle/",
                                           (int)ntohs(addr.sin_port));
    struct pub_link link;
    ck_assert_int_eq(pub_link_init(&link, url, "the-token", err), 0);
    trk_buf_reset(&seen);
    const struct pub_link_call call = {.path = "/x",
                                       .fields = "Last-Event-ID: 7\r\n",
                                       .body = body,
                                       .silence_ms = 300,
                                       .on_data = on_data,
                                       .on_socket = on_socket};
    int code = pub_link_run(&link, &call, ret_status, err);
    ck_assert_int_eq(watched, -1);
    (void)pthread_join(thread, NULL);
    (void)close(peer.listener);
    return code;
}

static const struct {
    const char *answer;
    int code, status;
    const char *data;
    bool is_silent;
} cases[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloXX", 0, 200, "hello", false},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0, 200, "ok",
     false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 0,
     200, "hello", false},
    {"HTTP/1.1 200 OK\r\n\r\nuntil the end", 0, 200, "until the end", false},
    {"HTTP/1.1 204 No Content\r\n\r\n", 0, 204, "", true},
    {"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope", 0, 403, "", false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", TRK_BAD_GATEWAY, 0, "hello", false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", TRK_BAD_GATEWAY, 0, "hel",
     false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", TRK_BAD_GATEWAY, 0, "", false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", TRK_BAD_GATEWAY, 0, "",
     false},
    {"garbage\r\n\r\n", TRK_BAD_GATEWAY, 0, "", false},
    {"", TRK_BAD_GATEWAY, 0, "", false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", TRK_TIMEOUT, 0, "hello", true},
    {"HTTP/1.1 200 OK\r\n\r\nplease stop here", TRK_CANCELLED, 0, "please stop here", true},
};

START_TEST(answer_is_read)
{
    size_t pieces[] = {1, 7, 4096};
    for (size_t i = 0; i < TRK_COUNT(pieces); i++) {
        struct trk_err err = {0};
        int status = 0;
        peer.is_silent = cases[_i].is_silent;
        trk_buf_init(&seen, 4096);
        int code = exchange(cases[_i].answer, pieces[i], NULL, &status, &err);
        ck_assert_msg(code == cases[_i].code, "case %d: %d %s", _i, code, err.text);
        ck_assert_int_eq(status, cases[_i].status);
        ck_assert_msg(strncmp(seen.data, cases[_i].data, seen.len) == 0, "case %d: %s", _i,
                      seen.data);
        trk_buf_fini(&seen);
    }
}
END_TEST

START_TEST(request_says_what_is_asked)
{
    struct trk_err err = {0};
    int status = 0;
    peer.is_silent = false;
    trk_buf_init(&seen, 4096);
    ck_assert_int_eq(
        exchange("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 4096, "{}", &status, &err), 0);
    ck_assert_ptr_eq(strstr(peer.request, "POST /lifecycle/x HTTP/1.1\r\nHost: 127.0.0.1:"),
                     peer.request);
    ck_assert_ptr_nonnull(strstr(peer.request, "\r\nX-Racetrack-Auth: the-token\r\n"));
    ck_assert_ptr_nonnull(strstr(peer.request, "\r\nLast-Event-ID: 7\r\n"));
    ck_assert_ptr_nonnull(strstr(peer.request, "\r\nContent-Length: 2\r\n"));
    trk_buf_fini(&seen);
}
END_TEST

START_TEST(nobody_there_is_said)
{
    struct trk_err err = {0};
    struct pub_link link;
    int status = 0;
    const struct pub_link_call call = {.path = "/x", .silence_ms = 300};
    ck_assert_int_eq(pub_link_init(&link, "http://127.0.0.1:1", "t", &err), 0);
    ck_assert_int_eq(pub_link_run(&link, &call, &status, &err), TRK_UNAVAILABLE);
    ck_assert_str_eq(err.text, "127.0.0.1:1: Connection refused");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("link");
    TCase *tcase = tcase_create("link");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, answer_is_read, 0, (int)TRK_COUNT(cases));
    tcase_add_test(tcase, request_says_what_is_asked);
    tcase_add_test(tcase, nobody_there_is_said);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures > 0 ? 1 : 0;
}
