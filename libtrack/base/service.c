#include "libtrack/base/service.h"
#include <string.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"

void trk_service_block_signals(sigset_t *ret)
{
    (void)sigemptyset(ret);
    (void)sigaddset(ret, SIGTERM);
    (void)sigaddset(ret, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, ret, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

static int write_port(const char *service, const char *state_dir, const char *port,
                      struct trk_err *err)
{
    trk_autofree char *dir = trk_xasprintf("%s/run", state_dir);
    trk_autofree char *path = trk_xasprintf("%s/%s.port", dir, service);
    trk_autofree char *text = trk_xasprintf("%s\n", port);
    int rc = trk_mkdir_p(dir, 0755, err);
    return rc < 0 ? rc : trk_file_write(path, text, strlen(text), 0644, err);
}

int trk_service_announce(const char *service, const char *state_dir, const char *addr, int port,
                         struct trk_err *err)
{
    char number[16];
    (void)snprintf(number, sizeof(number), "%d", port);
    if (state_dir[0] != '\0' && write_port(service, state_dir, number, err) < 0) {
        return err->code;
    }
    trk_log_info("listening", "service", service, "addr", addr, "port", number, NULL);
    return 0;
}

bool trk_service_wait(const char *service, const sigset_t *signals, int64_t wait_ms)
{
    int number;
    do {
        if (wait_ms < 0) {
            number = sigwaitinfo(signals, NULL);
        } else {
            struct timespec wait = {.tv_sec = wait_ms / 1000,
                                    .tv_nsec = wait_ms % 1000 * TRK_NS_PER_MS};
            number = sigtimedwait(signals, NULL, &wait);
        }
    } while (number < 0 && errno == EINTR);
    if (number > 0) {
        trk_log_info("stopping", "service", service, "signal",
                     number == SIGTERM ? "SIGTERM" : "SIGINT", NULL);
    }
    return number > 0;
}

const char *trk_service_twin(const char *addr)
{
    return strcmp(addr, "127.0.0.1") == 0 || strcmp(addr, "localhost") == 0 ? "::1"
           : strcmp(addr, "::1") == 0                                       ? "127.0.0.1"
                                                                            : NULL;
}
