#include "lifecycle/deploy/image_store.h"

#include <errno.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/http_client.h"
#include "lifecycle/config.h"
#include "lifecycle/lifecycle.h"

enum { PATIENCE_MS = 20000, PAUSE_MAX_MS = 1000, IDLE_MS = 60000, RETAIN_MS = 3000 };

static int put(const struct lifecycle *lc, struct trk_http_client *client, const char *url, int fd,
               int64_t size_bytes, struct trk_err *err)
{
    const struct trk_http_call call = {.method = "PUT",
                                       .url = url,
                                       .auth_token = lc->internal_token,
                                       .body_fd = fd,
                                       .body_fd_size = size_bytes,
                                       .timeout_ms = lc->config->build_timeout_s * 1000,
                                       .idle_timeout_ms = IDLE_MS};
    struct trk_http_answer answer = {0};
    if (lseek(fd, 0, SEEK_SET) < 0) {
        return trk_err_errno(err, errno, "reading the source");
    }
    int rc = trk_http_call(client, &call, &answer, err);
    if (rc == 0 && answer.status >= 300) {
        rc = trk_http_answer_err(&answer, err);
    }
    trk_http_answer_fini(&answer);
    return rc;
}

int image_store_put_source(const struct lifecycle *lc, int fd, int64_t size_bytes,
                           const char *digest, struct trk_err *err)
{
    trk_autofree char *url = trk_xasprintf("%s/api/v1/sources/%s", lc->config->image_builder_url,
                                           digest);
    struct trk_http_client *client = trk_http_client_new();
    int64_t deadline_ns = trk_now_ns() + PATIENCE_MS * TRK_NS_PER_MS;
    int64_t pause_ms = 50;
    int rc;
    for (;;) {
        rc = put(lc, client, url, fd, size_bytes, err);
        bool is_passing = rc == TRK_UNAVAILABLE || rc == TRK_BAD_GATEWAY;
        if (!is_passing || trk_now_ns() > deadline_ns) {
            break;
        }
        if (pause_ms == 50) {
            trk_log_warn("the image store is away; a source waits for it", "source", digest,
                         "error", err->text, NULL);
        }
        trk_sleep_ms(pause_ms);
        pause_ms = pause_ms < PAUSE_MAX_MS ? pause_ms * 2 : PAUSE_MAX_MS;
    }
    trk_http_client_free(client);
    if (rc == TRK_NO_SPACE) {
        return trk_err_set(err, TRK_NO_SPACE,
                           "keeping the source in the image store: its disk is full; when whoever "
                           "runs the platform has made room there, deploy again");
    }
    return rc < 0 ? trk_err_wrap(err, "keeping the source in the image store") : 0;
}

int image_store_retain(const struct lifecycle *lc, struct trk_http_client *client,
                       const json_t *in_use, struct trk_err *err)
{
    trk_autofree char *url = trk_xasprintf("%s/api/v1/retention", lc->config->image_builder_url);
    const struct trk_http_call call = {.method = "POST",
                                       .url = url,
                                       .auth_token = lc->internal_token,
                                       .json = in_use,
                                       .timeout_ms = RETAIN_MS};
    struct trk_http_answer answer = {0};
    int rc = trk_http_call(client, &call, &answer, err);
    if (rc == 0 && answer.status != 202) {
        rc = trk_http_answer_err(&answer, err);
    }
    trk_http_answer_fini(&answer);
    return rc < 0 ? trk_err_wrap(err, "telling the image store what is in use") : 0;
}
