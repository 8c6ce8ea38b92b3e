/*
 * listen.h - listening sockets, one a thread on the same port.
 */
#ifndef PUB_LISTEN_H
#define PUB_LISTEN_H

#include <stdbool.h>

#include "libtrack/base/err.h"

/* *port 0: takes a free one and tells. is_further: the port is ours already. shared: several
 * sockets will listen on it. ret_fds: the second is that of the other loopback; -1 where there is
 * none. TRK_CONFLICT when somebody else has the port. */
int pub_listen(const char *addr, int *port, bool is_further, bool shared, int ret_fds[2],
               struct trk_err *err) TRK_MUST_CHECK;

#endif
