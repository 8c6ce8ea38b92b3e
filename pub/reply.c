#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "pub/client.h"
#include "pub/text.h"

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {414, "URI Too Long"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < TRK_COUNT(reasons); i++) {
        if (reasons[i].status == status) {
            return reasons[i].text;
        }
    }
    return "Error";
}

/* `fields` are whole lines, without the last one's end. */
static void reply(struct pub_client *c, int status, const char *fields, const char *body,
                  size_t len)
{
    struct pub_worker *w = c->worker;
    char head[1024];
    struct pub_text t;
    pub_text_init(&t, head, sizeof(head));
    /* A body that has not come is not waited for. */
    c->keep_alive = c->keep_alive && c->in.is_done && !w->is_draining;
    pub_text_adds(&t, "HTTP/1.1 ");
    pub_text_u64(&t, (uint64_t)status);
    pub_text_adds(&t, " ");
    pub_text_adds(&t, reason(status));
    pub_text_adds(&t, "\r\n");
    pub_text_adds(&t, fields);
    if (status != 204) {
        pub_text_adds(&t, "\r\nContent-Length: ");
        pub_text_u64(&t, len);
    }
    pub_text_adds(&t, "\r\n");
    pub_text_adds(&t, w->shared->config->tracing_header);
    pub_text_adds(&t, ": ");
    pub_text_adds(&t, c->tracing_id);
    if (status == 503) {
        pub_text_adds(&t, "\r\nRetry-After: 1");
    }
    if (!c->keep_alive) {
        pub_text_adds(&t, "\r\nConnection: close");
    } else if (c->minor == 0) {
        pub_text_adds(&t, "\r\nConnection: keep-alive");
    }
    pub_text_adds(&t, "\r\n\r\n");
    trk_assert(!t.overflow);
    size_t head_len = pub_text_len(&t);
    size_t body_len = c->is_head ? 0 : len;
    pub_block_add(&c->to_client, head, head_len);
    pub_block_add(&c->to_client, body, body_len);
    if (c->target == NULL) { /* others end with their call */
        pub_call_note(c, status);
    }
    c->is_writable = true;
    c->state = PUB_CLIENT_REPLY;
}

void pub_reply(struct pub_client *c, int status, const char *content_type, const char *body,
               size_t len)
{
    char fields[256];
    (void)snprintf(fields, sizeof(fields), "Content-Type: %s\r\nX-Content-Type-Options: nosniff",
                   content_type);
    reply(c, status, fields, body, len);
}

void pub_reply_allow(struct pub_client *c, int status)
{
    reply(c, status, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", "", 0);
}

/* The answer's body is made here, not in the scratch memory that `text` may lie in. */
void pub_reply_error(struct pub_client *c, int status, const char *prefix, const char *text)
{
    char body[8192];
    char whole[4096];
    struct pub_text t;
    (void)snprintf(whole, sizeof(whole), "%s%s", prefix, text);
    pub_text_init(&t, body, sizeof(body));
    pub_text_adds(&t, "{\"error\":");
    pub_text_json(&t, whole, strlen(whole));
    pub_text_adds(&t, ",\"requestId\":");
    pub_text_json(&t, c->tracing_id, strlen(c->tracing_id));
    pub_text_adds(&t, "}\n");
    if (t.overflow) { /* six bytes for each of many odd characters: do without */
        pub_reply_error(c, status, prefix, "");
        return;
    }
    pub_reply(c, status, "application/json", body, pub_text_len(&t));
}

void pub_reply_job_error(struct pub_client *c, int status, const char *text, const char *detail)
{
    const struct pub_target *target = c->target;
    char body[8192];
    char whole[1024];
    struct pub_text t;
    (void)snprintf(whole, sizeof(whole), "Reverse proxy error: %s%s%s", text,
                   detail[0] != '\0' ? ": " : "", detail);
    pub_text_init(&t, body, sizeof(body));
    pub_text_adds(&t, "{\"error\":");
    pub_text_json(&t, whole, strlen(whole));
    pub_text_adds(&t, ",\"jobName\":");
    pub_text_json(&t, target->job, strlen(target->job));
    pub_text_adds(&t, ",\"jobVersion\":");
    pub_text_json(&t, target->version, strlen(target->version));
    pub_text_adds(&t, ",\"jobStatus\":");
    pub_text_json(&t, target->status, strlen(target->status));
    pub_text_adds(&t, ",\"requestId\":");
    pub_text_json(&t, c->tracing_id, strlen(c->tracing_id));
    pub_text_adds(&t, ",\"caller\":");
    pub_text_json(&t, c->caller, c->caller != NULL ? strlen(c->caller) : 0);
    pub_text_adds(&t, "}\n");
    if (t.overflow) {
        pub_reply_error(c, status, "Reverse proxy error: ", text);
        return;
    }
    pub_reply(c, status, "application/json", body, pub_text_len(&t));
}

bool pub_reply_step(struct pub_client *c)
{
    if (c->has_error) {
        pub_client_close(c);
        return false;
    }
    if (!c->is_writable) {
        return false;
    }
    bool is_full;
    size_t before = c->to_client.at;
    if (pub_send_block(c->watch.fd, &c->to_client, &is_full) < 0) {
        pub_client_close(c);
        return false;
    }
    if (!is_full) {
        pub_client_next(c);
        return true;
    }
    c->is_writable = false;
    if (c->to_client.at > before || !pub_timer_is_set(&c->timer)) {
        pub_client_arm(c, c->worker->shared->config->idle_timeout_ms);
    }
    return false;
}
