/*
 * service.h - what the main programs of the services share: signals, the port file, where to
 * listen. Call from the main thread.
 *
 *     sigset_t signals;
 *     trk_service_block_signals(&signals); // before the first thread: all inherit it
 *     ...start...
 *     if (trk_service_announce("pub", state_dir, addr, port, err) < 0) ...
 *     (void)trk_service_wait("pub", &signals, -1);
 */
#ifndef LIBTRACK_SERVICE_H
#define LIBTRACK_SERVICE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "libtrack/base/err.h"

/* Blocks SIGTERM and SIGINT, so that only trk_service_wait sees them; ignores SIGPIPE. */
void trk_service_block_signals(sigset_t *ret);
/* Writes the bound port to <state_dir>/run/<service>.port (unless state_dir is "") and logs where
 * the service listens. */
int trk_service_announce(const char *service, const char *state_dir, const char *addr, int port,
                         struct trk_err *err) TRK_MUST_CHECK;
/* The loopback address of the other family (127.0.0.1, ::1), which a service listens on as well, so
 * that nobody else answers there; NULL for an address that is no loopback. */
const char *trk_service_twin(const char *addr);
/* Waits for a signal to stop, for ever when wait_ms is -1. True when it came (and is logged). */
bool trk_service_wait(const char *service, const sigset_t *signals, int64_t wait_ms);

#endif
