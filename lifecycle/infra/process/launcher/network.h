/*
 * network.h - a job's own network namespace. For the launcher; what fails ends the process.
 */
#ifndef LIFECYCLE_INFRA_PROCESS_LAUNCHER_NETWORK_H
#define LIFECYCLE_INFRA_PROCESS_LAUNCHER_NETWORK_H

#include <sys/types.h>

_Noreturn void launch_fail(const char *what); /* main.c: says errno, and ends */

/* Moves this process into a namespace with nothing but its loopback. */
void network_enter(void);
/* A socket that listens on 127.0.0.1 here. */
int network_listen(int port);
/* Between program and keeper, on a pair of sockets: the listener (-1: none) goes out of the
 * namespace, then the program waits to be released. */
void network_send(int news, int listener);
void network_await(int news);
int network_receive(int news);
void network_release(int news);
/* Gives the namespace of `pid` a way out, but none to this machine's loopback: slirp4netns. */
void network_open(pid_t pid);

#endif
