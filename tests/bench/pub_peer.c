/* What stands behind a gateway in pub_vs_nginx.sh: the smallest job there can be, and a lifecycle
 * that allows everything. One thread, epoll; it trusts its peers and parses no more than it must.
 *
 *     pub_peer PORT
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY "{\"result\": 42, \"unit\": \"apples\"}"

static char answer[256], decision[1024];

static void prepare(int port)
{
    char json[512];
    (void)snprintf(
        answer, sizeof(answer),
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(BODY), BODY);
    (void)snprintf(json, sizeof(json),
                   "{\"job\":{\"name\":\"adder\",\"version\":\"0.0.1\",\"status\":\"running\","
                   "\"internal_name\":\"127.0.0.1:%d\"},\"caller\":\"ESC bench\","
                   "\"decision\":\"any_path\"}",
                   port);
    (void)snprintf(decision, sizeof(decision), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                   strlen(json), json);
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
    const char *text = answer;
    if (strncmp(request, "GET /lifecycle/", 15) == 0) {
        text = strstr(request, "/can-call-job/") != NULL
                   ? decision
                   : "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                     "event: hello\ndata: {\"last_id\": 1}\n\n";
    }
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

int main(int argc, char **argv)
{
    int port = argc == 2 ? atoi(argv[1]) : 0;
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
    prepare(port);
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
