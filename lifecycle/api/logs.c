#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "lifecycle/api/api.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/deployment.h"

#define LOG_BYTES_MAX (16u << 20)

static int read_logs(struct trk_request *req, struct trk_buf *buf, struct trk_err *err)
{
    int64_t tail = trk_req_query_int(req, "tail", 20);
    return deploy_job_logs(api_lifecycle(req), trk_req_param(req, "name"), api_job_version(req),
                           tail > 0 ? (size_t)tail : 0, buf, err);
}

/* Where the last `tail` lines begin; 0: all. */
static const char *tail_of(const char *text, int64_t tail)
{
    if (tail <= 0) {
        return text;
    }
    const char *p = text + strlen(text);
    if (p > text && p[-1] == '\n') {
        p--;
    }
    while (p > text) {
        if (p[-1] == '\n' && --tail == 0) {
            break;
        }
        p--;
    }
    return p;
}

static int read_build_logs(struct trk_request *req, struct trk_buf *buf, struct trk_err *err)
{
    struct deployment *d;
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = deployment_store_last_of_job(conn, trk_req_mem(req), trk_req_param(req, "name"),
                                          api_job_version(req), &d, err);
    }
    if (rc < 0) {
        return rc;
    }
    const char *logs = d->build_logs != NULL ? d->build_logs : "";
    return trk_buf_adds(buf, tail_of(logs, trk_req_query_int(req, "tail", 0)));
}

DTO_ONE_TEXT(api_logs_dto, "Logs", "logs");

static int reply(struct trk_request *req, bool plain,
                 int (*read)(struct trk_request *req, struct trk_buf *buf, struct trk_err *err),
                 struct trk_err *err)
{
    struct trk_buf buf;
    trk_buf_init(&buf, LOG_BYTES_MAX);
    int rc = read(req, &buf, err);
    if (rc == 0) {
        trk_utf8_repair(buf.data, buf.len); /* a job may write anything */
    }
    if (rc == 0 && plain) {
        trk_strip_ansi(buf.data);
        rc = trk_reply_text(req, 200, "text/plain; charset=utf-8", buf.data);
    } else if (rc == 0) {
        rc = api_reply_dto(req, &api_logs_dto, &buf.data);
    }
    trk_buf_fini(&buf);
    return rc;
}

static int get_logs(struct trk_request *req, struct trk_err *err)
{
    return reply(req, false, read_logs, err);
}

static int get_logs_plain(struct trk_request *req, struct trk_err *err)
{
    return reply(req, true, read_logs, err);
}

static int get_build_logs(struct trk_request *req, struct trk_err *err)
{
    return reply(req, false, read_build_logs, err);
}

static int get_build_logs_plain(struct trk_request *req, struct trk_err *err)
{
    return reply(req, true, read_build_logs, err);
}

#define TAIL_20  "tail:int=20:lines from the end, 0 for all"
#define TAIL_ALL "tail:int=0:lines from the end, 0 for all"

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/job/{name}/{version}/logs",
     .access = "job:" SCOPE_READ_JOB,
     .query = TAIL_20,
     .response_schema = API_REF("Logs"),
     .handler = get_logs,
     .help = "What the job has written lately."},
    {.method = "GET",
     .path = "/api/v1/job/{name}/{version}/logs/plain",
     .access = "job:" SCOPE_READ_JOB,
     .query = TAIL_20,
     .handler = get_logs_plain,
     .help = "The same as plain text, without terminal colours."},
    {.method = "GET",
     .path = "/api/v1/job/{name}/{version}/build-logs",
     .access = "job:" SCOPE_READ_JOB,
     .query = TAIL_ALL,
     .response_schema = API_REF("Logs"),
     .handler = get_build_logs,
     .help = "How its image was built, at the last attempt."},
    {.method = "GET",
     .path = "/api/v1/job/{name}/{version}/build-logs/plain",
     .access = "job:" SCOPE_READ_JOB,
     .query = TAIL_ALL,
     .handler = get_build_logs_plain,
     .help = "The same as plain text, without terminal colours."},
};
API_TABLE(api_log_routes, "logs", routes);
