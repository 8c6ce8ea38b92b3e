/*
 * keeper.h - what stays beside a job's program, outside its network: one thread, one epoll.
 *
 * It passes signals on, writes the program's output to its own at no more than a rate (a program
 * that says more waits), and carries connections from the program's network to pub, and to nothing
 * else. For the launcher.
 */
#ifndef LIFECYCLE_INFRA_PROCESS_LAUNCHER_KEEPER_H
#define LIFECYCLE_INFRA_PROCESS_LAUNCHER_KEEPER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

struct keeper {
    pid_t program;
    int output;         /* the read end of its stdout and stderr */
    long long log_rate; /* bytes a second; 0: any */
    int listener;       /* in the program's network, non-blocking; -1: none */
    const struct sockaddr_storage *pub;
    socklen_t pub_len;
};

/* Before the program is forked: signals wait for the keeper. Released in whatever is executed. */
void keeper_hold_signals(void);
void keeper_release_signals(void);
/* Ends with the program's status (128 + signal), its last output written. */
_Noreturn void keeper_run(struct keeper *keeper);

/* relay.c: connections that are carried. */
enum { RELAY_EVENTS = 64 };
struct relay_end;
void relay_accept(int epoll_fd, const struct keeper *keeper);
/* An event of one connection's side. */
void relay_on_event(int epoll_fd, struct relay_end *end, unsigned events);
/* Frees what ended since; after all events of a turn. True when there is room for connections. */
bool relay_tidy(void);

#endif
