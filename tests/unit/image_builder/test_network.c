/* What a build may reach: names, addresses, and the proxy that asks them. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/un.h>

#include "image_builder/build/network.h"
#include "image_builder/build/proxy.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

static struct trk_err err;

static const struct {
    const char *text;
    unsigned port_default;
    const char *host; /* NULL: refused */
    unsigned port;
} authorities[] = {
    {"Example.COM:80", 0, "example.com", 80},
    {"example.com", 443, "example.com", 443},
    {"example.com.:1", 0, "example.com", 1},
    {"[::1]:80", 0, "::1", 80},
    {"[::1]", 443, "::1", 443},
    {"example.com", 0, NULL, 0},
    {"example.com:", 0, NULL, 0},
    {"example.com:0", 0, NULL, 0},
    {"example.com:65536", 0, NULL, 0},
    {"example.com:80x", 0, NULL, 0},
    {":80", 0, NULL, 0},
    {"", 443, NULL, 0},
    {"a@b:80", 0, NULL, 0},
    {"a b:80", 0, NULL, 0},
    {"a/b:80", 0, NULL, 0},
    {"[::1", 443, NULL, 0},
    {"[::1]x:80", 0, NULL, 0},
    {"fe80::1%eth0", 443, NULL, 0},
};

START_TEST(authorities_are_split)
{
    char host[256];
    unsigned port;
    const char *text = authorities[_i].text;
    int rc = network_split(text, strlen(text), authorities[_i].port_default, host, &port, &err);
    ck_assert_msg((rc == 0) == (authorities[_i].host != NULL), "%s", text);
    if (rc == 0) {
        ck_assert_str_eq(host, authorities[_i].host);
        ck_assert_uint_eq(port, authorities[_i].port);
    }
}
END_TEST

static const struct {
    const char *address;
    bool is_public, is_local;
} addresses[] = {
    {"8.8.8.8", true, false},
    {"151.101.0.223", true, false},
    {"127.0.0.1", false, true},
    {"127.255.255.254", false, true},
    {"0.0.0.0", false, true},
    {"0.1.2.3", false, true},
    {"169.254.169.254", false, true},
    {"224.0.0.1", false, true},
    {"255.255.255.255", false, true},
    {"10.1.2.3", false, false},
    {"172.16.0.1", false, false},
    {"172.32.0.1", true, false},
    {"192.168.1.1", false, false},
    {"100.64.0.1", false, false},
    {"198.18.0.1", false, false},
    {"192.0.2.1", false, false},
    {"2606:4700::1", true, false},
    {"::1", false, true},
    {"::", false, true},
    {"fe80::1", false, true},
    {"ff02::1", false, true},
    {"fd00::1", false, false},
    {"::ffff:127.0.0.1", false, true},
    {"::ffff:10.0.0.1", false, false},
    {"::ffff:8.8.8.8", true, false},
    {"64:ff9b::7f00:1", false, true},
    {"64:ff9b::808:808", true, false},
    {"2002:7f00:1::", false, true},
    {"2002:a00:1::", false, false},
    {"::127.0.0.1", false, true},
};

START_TEST(addresses_are_told_apart)
{
    struct sockaddr_storage addr = {0};
    const char *text = addresses[_i].address;
    bool is_v6 = strchr(text, ':') != NULL;
    addr.ss_family = is_v6 ? AF_INET6 : AF_INET;
    void *at = is_v6 ? (void *)&((struct sockaddr_in6 *)&addr)->sin6_addr
                     : (void *)&((struct sockaddr_in *)&addr)->sin_addr;
    ck_assert_int_eq(inet_pton(addr.ss_family, text, at), 1);
    ck_assert_msg(network_is_public((struct sockaddr *)&addr) == addresses[_i].is_public, "%s",
                  text);
    ck_assert_msg(network_is_local((struct sockaddr *)&addr) == addresses[_i].is_local, "%s", text);
}
END_TEST

START_TEST(rules_tell_the_operators_from_the_jobs)
{
    struct network_rules rules = {0};
    network_trust_urls(&rules, "PIP_INDEX_URL=https://user:p%40ss@Mirror.example:8443/simple");
    network_trust_hosts(&rules, "git.example *.wheels.example:443, [fd00::1]:80");
    network_name_urls(&rules, "x @ https://files.example/x.whl\ngit+https://code.example/a.git\n"
                              "--index-url http://127.0.0.1:5432/simple\n");
    static const struct {
        const char *host;
        unsigned port;
        enum network_verdict verdict;
    } wanted[] = {
        {"mirror.example", 8443, NETWORK_ALLOWED},
        {"mirror.example", 443, NETWORK_REFUSED},
        {"git.example", 80, NETWORK_ALLOWED},
        {"git.example", 443, NETWORK_ALLOWED},
        {"git.example", 22, NETWORK_REFUSED},
        {"a.wheels.example", 443, NETWORK_ALLOWED},
        {"wheels.example", 443, NETWORK_REFUSED},
        {"evilwheels.example", 443, NETWORK_REFUSED},
        {"fd00::1", 80, NETWORK_ALLOWED},
        {"files.example", 443, NETWORK_IF_PUBLIC},
        {"code.example", 443, NETWORK_IF_PUBLIC},
        {"code.example", 80, NETWORK_REFUSED},
        {"127.0.0.1", 5432, NETWORK_IF_PUBLIC},
        {"other.example", 443, NETWORK_REFUSED},
        {"user", 443, NETWORK_REFUSED},
        {"pypi.org", 443, NETWORK_REFUSED},
    };
    for (size_t i = 0; i < TRK_COUNT(wanted); i++) {
        ck_assert_msg(network_judge(&rules, wanted[i].host, wanted[i].port) == wanted[i].verdict,
                      "%s:%u", wanted[i].host, wanted[i].port);
    }
    network_trust_default_index(&rules);
    ck_assert_int_eq(network_judge(&rules, "pypi.org", 443), NETWORK_ALLOWED);
    rules.any_public = true;
    ck_assert_int_eq(network_judge(&rules, "other.example", 443), NETWORK_IF_PUBLIC);
    network_rules_fini(&rules);
}
END_TEST

/* ---- the proxy ---- */

/* A server that answers every connection with what it was sent first. */
struct echo {
    int fd;
    unsigned port;
    pthread_t thread;
};

static void *echo_main(void *arg)
{
    const struct echo *echo = arg;
    int fd;
    while ((fd = accept(echo->fd, NULL, NULL)) >= 0) {
        char bytes[4096];
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
        if (n > 0) {
            (void)send(fd, bytes, (size_t)n, MSG_NOSIGNAL);
        }
        (void)close(fd);
    }
    return NULL;
}

static void echo_start(struct echo *echo)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    echo->fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(echo->fd, (struct sockaddr *)&addr, len), 0);
    ck_assert_int_eq(listen(echo->fd, 5), 0);
    ck_assert_int_eq(getsockname(echo->fd, (struct sockaddr *)&addr, &len), 0);
    echo->port = ntohs(addr.sin_port);
    ck_assert_int_eq(pthread_create(&echo->thread, NULL, echo_main, echo), 0);
}

static void echo_stop(struct echo *echo)
{
    (void)shutdown(echo->fd, SHUT_RDWR);
    (void)pthread_join(echo->thread, NULL);
    (void)close(echo->fd);
}

static int troubles;
static void on_trouble(void *ctx, const char *text)
{
    (void)ctx;
    ck_assert_ptr_nonnull(strstr(text, "network: "));
    troubles++;
}

/* Sends a request in `parts` (NULL-terminated, a moment between them); the whole answer. */
static void exchange(int fd, const char *const *parts, char *out, size_t size)
{
    for (; *parts != NULL; parts++) {
        ck_assert_int_eq(send(fd, *parts, strlen(*parts), MSG_NOSIGNAL), strlen(*parts));
        (void)usleep(20000);
    }
    size_t len = 0;
    ssize_t n;
    while (len + 1 < size && (n = recv(fd, out + len, size - len - 1, 0)) > 0) {
        len += (size_t)n;
    }
    out[len] = '\0';
    (void)close(fd);
}
static void ask(const char *folder, const char *const *parts, char *out, size_t size)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/proxy.sock", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    exchange(fd, parts, out, size);
}
#define ASK(out, ...) ask(folder, (const char *const[]){__VA_ARGS__, NULL}, out, sizeof(out))

START_TEST(proxy_carries_what_is_allowed_and_nothing_else)
{
    const char *folder = getenv("TEST_TMP");
    struct echo echo, other;
    struct proxy *proxy;
    char out[8192];
    echo_start(&echo);
    echo_start(&other);
    struct proxy_options options = {.folder = folder, .on_trouble = on_trouble};
    trk_autofree char *hosts = trk_xasprintf("127.0.0.1:%u", echo.port);
    trk_autofree char *named = trk_xasprintf("http://127.0.0.1:%u/", other.port);
    network_trust_hosts(&options.rules, hosts);
    network_name_urls(&options.rules, named);
    ck_assert_msg(proxy_start(&options, &proxy, &err) == 0, "%s", err.text);
    trk_autofree char *connect_line = trk_xasprintf("CONNECT 127.0.0.1:%u HTTP/1.1\r\n", echo.port);
    ASK(out, connect_line, "Host: x\r\n\r\n", "hello");
    ck_assert_str_eq(out, "HTTP/1.1 200 Connection established\r\n\r\nhello");
    trk_autofree char *get = trk_xasprintf(
        "GET http://user@127.0.0.1:%u/simple/x?y HTTP/1.1\r\nHost: a\r\nProxy-Authorization: b\r\n"
        "Connection: keep-alive\r\nAccept: c\r\n\r\n",
        echo.port);
    ASK(out, get);
    ck_assert_str_eq(out, "GET /simple/x?y HTTP/1.1\r\nHost: a\r\nAccept: c\r\n"
                          "Connection: close\r\n\r\n");
    ck_assert_int_eq(troubles, 0);
    /* named by the job, but not public; spoken of once */
    for (int i = 0; i < 2; i++) {
        trk_autofree char *line = trk_xasprintf("CONNECT 127.0.0.1:%u HTTP/1.1\r\n\r\n",
                                                other.port);
        ASK(out, line);
        ck_assert_ptr_nonnull(strstr(out, "HTTP/1.1 403 "));
        ck_assert_ptr_nonnull(strstr(out, "no public address"));
    }
    ck_assert_int_eq(troubles, 1);
    static const char *const bad[] = {"GET / HTTP/1.1\r\n\r\n", "CONNECT x HTTP/1.1\r\n\r\n",
                                      "nonsense\r\n\r\n", "GET https://x/ HTTP/1.1\r\n\r\n",
                                      "CONNECT :1 HTTP/1.1\r\n\r\n"};
    for (size_t i = 0; i < TRK_COUNT(bad); i++) {
        ASK(out, bad[i]);
        ck_assert_msg(trk_str_has_prefix(out, "HTTP/1.1 400 "), "%s: %s", bad[i], out);
    }
    ASK(out, "CONNECT evil.example:443 HTTP/1.1\r\n\r\n");
    ck_assert_ptr_nonnull(strstr(out, "BUILD_NETWORK_HOSTS"));
    proxy_stop(proxy);
    echo_stop(&other);
    echo_stop(&echo);
}
END_TEST

START_TEST(the_operators_own_proxy_is_asked)
{
    const char *folder = getenv("TEST_TMP");
    struct echo upstream, direct;
    struct proxy *proxy;
    char out[8192];
    echo_start(&upstream);
    echo_start(&direct);
    trk_autofree char *url = trk_xasprintf("http://me:p%%40ss@127.0.0.1:%u/", upstream.port);
    struct proxy_options options = {
        .folder = folder, .http_proxy = url, .https_proxy = url, .no_proxy = "other, .1,x"};
    trk_autofree char *hosts = trk_xasprintf("far.example 127.0.0.1:%u", direct.port);
    network_trust_hosts(&options.rules, hosts);
    ck_assert_msg(proxy_start(&options, &proxy, &err) == 0, "%s", err.text);
    ASK(out, "CONNECT far.example:443 HTTP/1.1\r\nHost: x\r\n\r\n");
    ck_assert_str_eq(out, "CONNECT far.example:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                          "Proxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n");
    ASK(out, "GET http://far.example/a HTTP/1.1\r\nHost: x\r\n\r\n");
    ck_assert(trk_str_has_prefix(out, "GET http://far.example/a HTTP/1.1\r\nHost: x\r\n"));
    trk_autofree char *near = trk_xasprintf("CONNECT 127.0.0.1:%u HTTP/1.1\r\n\r\n", direct.port);
    ASK(out, near, "hello");
    ck_assert_ptr_nonnull(strstr(out, "\r\n\r\nhello"));
    proxy_stop(proxy);
    echo_stop(&direct);
    echo_stop(&upstream);
}
END_TEST

static void ask_port(unsigned port, const char *request, char *out, size_t size)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    exchange(fd, (const char *const[]){request, NULL}, out, size);
}

START_TEST(a_proxy_with_a_secret_leads_away_from_this_machine)
{
    static const char *const local[] = {"127.0.0.1",         "localhost",       "[::1]",
                                        "0.0.0.0",           "169.254.169.254", "[fe80::1]",
                                        "[::ffff:127.0.0.1]"};
    struct echo echo;
    struct proxy *proxy;
    char out[8192];
    echo_start(&echo);
    struct proxy_options options = {.secret = "s3cret", .rules = {.any_remote = true}};
    trk_autofree char *trusted = trk_xasprintf("127.0.0.2:%u", echo.port);
    network_trust_hosts(&options.rules, trusted);
    ck_assert_msg(proxy_start(&options, &proxy, &err) == 0, "%s", err.text);
    unsigned port = proxy_port(proxy);
    static const char *const wrong[] = {"", "Proxy-Authorization: Basic YnVpbGQ6\r\n",
                                        "X-Proxy-Authorization: Basic YnVpbGQ6czNjcmV0\r\n"};
    for (size_t i = 0; i < TRK_COUNT(wrong); i++) {
        trk_autofree char *request = trk_xasprintf("CONNECT 127.0.0.2:%u HTTP/1.1\r\n%s\r\n",
                                                   echo.port, wrong[i]);
        ask_port(port, request, out, sizeof(out));
        ck_assert_msg(trk_str_has_prefix(out, "HTTP/1.1 407 "), "%s", out);
    }
    for (size_t i = 0; i < TRK_COUNT(local); i++) {
        trk_autofree char *request = trk_xasprintf(
            "CONNECT %s:%u HTTP/1.1\r\nProxy-Authorization: Basic YnVpbGQ6czNjcmV0\r\n\r\n",
            local[i], echo.port);
        ask_port(port, request, out, sizeof(out));
        ck_assert_msg(trk_str_has_prefix(out, "HTTP/1.1 403 "), "%s: %s", local[i], out);
        ck_assert_ptr_nonnull(strstr(out, "GIT_LOCAL_REMOTES"));
    }
    proxy_stop(proxy);
    echo_stop(&echo);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("network");
    TCase *tc = tcase_create("network");
    tcase_add_loop_test(tc, authorities_are_split, 0, TRK_COUNT(authorities));
    tcase_add_loop_test(tc, addresses_are_told_apart, 0, TRK_COUNT(addresses));
    tcase_add_test(tc, rules_tell_the_operators_from_the_jobs);
    tcase_add_test(tc, proxy_carries_what_is_allowed_and_nothing_else);
    tcase_add_test(tc, the_operators_own_proxy_is_asked);
    tcase_add_test(tc, a_proxy_with_a_secret_leads_away_from_this_machine);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
