/* What stands behind a gateway in pub_vs_nginx.sh: the smallest job there can be, and a lifecycle
 * that tells of it and of CALLERS callers, who hold the tokens aaa…0, aaa…1 and so on (180 times
 * a). One thread, epoll; it trusts its peers and parses no more than it must.
 *
 *     pub_peer PORT CALLERS
 */
#include <arpa/inet.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY "{\"result\": 42, \"unit\": \"apples\"}"

static char answer[256];
static char *stream;

static void prepare_stream(int port, int callers)
{
    size_t size;
    FILE *out = open_memstream(&stream, &size);
    (void)fprintf(out,
                  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                  "event: snapshot\ndata: {\"id\": 1}\n\n"
                  "event: job\ndata: [{\"id\":\"j\",\"name\":\"adder\",\"version\":\"0.0.1\","
                  "\"status\":\"running\",\"public\":[],\"replicas\":[{\"address\":"
                  "\"127.0.0.1:%d\"}]}]\n\n",
                  port);
    for (int i = 0; i < callers; i++) {
        char token[200], hex[65];
        unsigned char digest[32];
        memset(token, 'a', 180);
        int len = 180 + snprintf(token + 180, sizeof(token) - 180, "%d", i);
        (void)SHA256((const unsigned char *)token, (size_t)len, digest);
        for (int k = 0; k < 32; k++) {
            (void)snprintf(hex + 2 * k, 3, "%02x", digest[k]);
        }
        (void)fprintf(out,
                      "%s{\"id\":\"s%d\",\"type\":\"esc\",\"name\":\"ESC bench %d\","
                      "\"active\":true,\"tokens\":[{\"d\":\"%s\",\"e\":null}],\"grants\":"
                      "[{\"family\":\"adder\",\"job\":null,\"endpoint\":null}]}%s",
                      i % 1000 == 0 ? "event: subject\ndata: [" : ",", i, i, hex,
                      i % 1000 == 999 || i == callers - 1 ? "]\n\n" : "");
    }
    (void)fprintf(out, "id: 1\nevent: snapshot_end\ndata: {}\n\n");
    (void)fclose(out);
}

static void prepare(int port, int callers)
{
    prepare_stream(port, callers);
    (void)snprintf(
        answer, sizeof(answer),
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(BODY), BODY);
}

static void serve(int fd)
{
    char request[16384];
    ssize_t n = recv(fd, request, sizeof(request) - 1, 0);
    if (n <= 0) {
        (void)close(fd);
        return;
    }
    request[n] = '\0';
    const char *text = strncmp(request, "GET /lifecycle/", 15) == 0 ? stream : answer;
    for (size_t left = strlen(text); left > 0;) {
        ssize_t sent = send(fd, text, left, MSG_NOSIGNAL);
        if (sent <= 0) {
            return;
        }
        text += sent;
        left -= (size_t)sent;
    }
}

int main(int argc, char **argv)
{
    int port = argc == 3 ? atoi(argv[1]) : 0;
    int callers = argc == 3 ? atoi(argv[2]) : 0;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 1024) < 0) {
        perror("pub_peer");
        return 1;
    }
    prepare(port, callers);
    int epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll_fd, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                serve(fd);
                continue;
            }
            event.data.fd = accept(listener, NULL, NULL);
            (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event.data.fd, &event);
        }
    }
}
