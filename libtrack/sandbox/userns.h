/*
 * userns.h - user namespaces for sandboxes that root starts. Any thread.
 *
 * bubblewrap makes its own for an ordinary user. Root would be mapped to root by it; so root makes
 * the namespace here, in which there are root (bubblewrap's own, while it sets things up) and one
 * unprivileged user, who runs the code and can become nobody else.
 */
#ifndef LIBTRACK_USERNS_H
#define LIBTRACK_USERNS_H

#include <sys/types.h>

#include "libtrack/base/err.h"

/* *ret_fd names the namespace, for struct trk_sandbox; it goes with its last descriptor and
 * process. TRK_UNAVAILABLE where the kernel or the container refuses. */
int trk_userns_new(uid_t uid, gid_t gid, int *ret_fd, struct trk_err *err) TRK_MUST_CHECK;

#endif
