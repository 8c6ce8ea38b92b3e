/*
 * filter.h - which kinds of sockets a job may make. For the launcher.
 */
#ifndef LIFECYCLE_INFRA_PROCESS_LAUNCHER_FILTER_H
#define LIFECYCLE_INFRA_PROCESS_LAUNCHER_FILTER_H

/* From here on, and in all that is executed: unix, IPv4, IPv6 and netlink sockets. Others, such as
 * AF_VSOCK, do not belong to a network namespace: they lead out of it. After privileges were given
 * up for good (no_new_privs); what fails ends the process. */
void filter_sockets(void);

#endif
