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
/* Between program and keeper, on a pair of sockets: the namespace and the listener (-1: none) are
 * handed out, then the program waits to be released. */
void network_send(int news, int listener);
void network_await(int news);
void network_receive(int news, int *ret_namespace, int *ret_listener);
void network_release(int news);
/* Gives the namespace a way out, but none to this machine's loopback: slirp4netns. */
void network_open(int namespace);

#endif
