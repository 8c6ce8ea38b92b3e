#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_internal.h"

int trk_http_live_handler(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    return trk_reply_json(
        req, 200, json_pack("{s:s, s:b}", "service", req->server->options.service, "live", 1));
}

int trk_http_ready_handler(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    return trk_reply_json(
        req, 200, json_pack("{s:s, s:b}", "service", req->server->options.service, "ready", 1));
}

int trk_http_metrics_handler(struct trk_request *req, struct trk_err *err)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 256 << 20);
    int rc = trk_metrics_render(req->server->options.metrics, &buf);
    size_t len;
    char *text = trk_buf_steal(&buf, &len);
    if (rc < 0) {
        free(text);
        return trk_err_set(err, TRK_INTERNAL, "the metrics do not fit");
    }
    return trk_reply_bytes(req, 200, "text/plain; version=0.0.4; charset=utf-8", text, len);
}

/* Made on first use: a service that nobody asks for its docs starts faster and stays smaller. */
static void make_pages(struct trk_http_server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    if (server->openapi == NULL) {
        json_auto_t *document = trk_http_openapi(&server->options);
        server->openapi = trk_json_text(document);
        server->docs = http_docs_page(document, &server->docs_policy);
    }
    (void)pthread_mutex_unlock(&server->lock);
}

int http_get_openapi(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    make_pages(req->server);
    return trk_reply_text(req, 200, "application/json", req->server->openapi);
}

int http_get_docs(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    make_pages(req->server);
    (void)trk_reply_header(req, "Content-Security-Policy", req->server->docs_policy);
    (void)trk_reply_header(req, "X-Frame-Options", "DENY");
    (void)trk_reply_header(req, "Referrer-Policy", "no-referrer");
    return trk_reply_text(req, 200, "text/html; charset=utf-8", req->server->docs);
}
