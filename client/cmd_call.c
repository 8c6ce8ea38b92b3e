/* call: one request to a job through the gateway. */
#include <stdio.h>

#include "client/cli.h"
#include "client/remote.h"
#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"

#define CALL_TIMEOUT_MS (2 * 60 * 60 * INT64_C(1000))
#define ANSWER_MAX      ((size_t)256 << 20)

/* JSON, or YAML as the more lenient spelling of it. */
static int parse_payload(const char *text, json_t **ret, struct trk_err *err)
{
    struct trk_err ignored = {0};
    if (trk_json_parse(text, strlen(text), ret, &ignored) == 0) {
        return 0;
    }
    int rc = trk_yaml_parse(text, strlen(text), "the payload", ret, err);
    if (rc == 0 && !json_is_object(*ret)) {
        json_decref(TRK_STEAL(*ret));
        rc = trk_err_set(err, TRK_INVALID,
                         "the payload is no object; for instance: '{\"numbers\": [40, 2]}'");
    }
    return rc;
}

/* Text within single quotes of a POSIX shell. */
static void add_quoted(struct trk_buf *buf, const char *text)
{
    (void)trk_buf_addc(buf, '\'');
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            (void)trk_buf_adds(buf, "'\\''");
        } else {
            (void)trk_buf_addc(buf, *text);
        }
    }
    (void)trk_buf_addc(buf, '\'');
}

static void print_curl(const struct remote *remote, const char *url, const json_t *payload)
{
    trk_autofree char *body = trk_json_text(payload);
    struct trk_buf buf;
    trk_buf_init(&buf, (size_t)4 << 20);
    (void)trk_buf_adds(&buf, "curl -X POST ");
    add_quoted(&buf, url);
    (void)trk_buf_adds(&buf, " \\\n  -H 'Content-Type: application/json' \\\n  -d ");
    add_quoted(&buf, body);
    if (remote->token != NULL) {
        /* Looked up by the shell that runs it: the token is neither printed nor kept in a history,
         * and reaches curl through a file descriptor. */
        (void)trk_buf_adds(&buf, " \\\n  -H @<(echo \"X-Racetrack-Auth: $(racetrack get "
                                 "auth-token --remote ");
        add_quoted(&buf, remote->shown);
        (void)trk_buf_adds(&buf, ")\")");
    }
    (void)printf("%s\n", buf.data);
    trk_buf_fini(&buf);
}

static void print_answer(const struct trk_http_answer *answer)
{
    json_auto_t *value = NULL;
    struct trk_err ignored = {0};
    char *pretty = NULL;
    if (strstr(answer->content_type, "json") != NULL &&
        trk_json_parse(answer->body, answer->body_len, &value, &ignored) == 0) {
        pretty = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    }
    if (pretty != NULL) {
        (void)printf("%s\n", pretty);
        free(pretty);
    } else {
        (void)fwrite(answer->body, 1, answer->body_len, stdout);
        if (answer->body_len > 0 && answer->body[answer->body_len - 1] != '\n') {
            (void)fputc('\n', stdout);
        }
    }
}

static int send_call(struct remote *remote, const char *url, const json_t *payload,
                     const char *name, struct trk_err *err)
{
    const struct trk_http_call call = {.method = "POST",
                                       .url = url,
                                       .auth_token = remote->token,
                                       .json = payload,
                                       .timeout_ms = CALL_TIMEOUT_MS,
                                       .answer_max_bytes = ANSWER_MAX};
    struct trk_http_answer answer = {0};
    int rc = trk_http_call(remote->http, &call, &answer, err);
    if (rc < 0) {
        return trk_err_wrap(err, "calling %s", name);
    }
    if (answer.status < 200 || answer.status > 299) {
        (void)trk_http_answer_err(&answer, err);
        rc = trk_err_wrap(err, "calling %s: %d", name, answer.status);
        if (answer.status == 401) {
            rc = trk_err_append(err,
                                "\nTo log in, type: racetrack login --username NAME --remote "
                                "%s",
                                remote->shown);
        }
    } else {
        print_answer(&answer);
    }
    trk_http_answer_fini(&answer);
    return rc;
}

int cmd_call(struct cli *cli, struct trk_err *err)
{
    const char *name = cli->words[0];
    const char *endpoint = cli->words[1];
    const char *version = cli->values[OPT_VERSION] != NULL ? cli->values[OPT_VERSION] : "latest";
    json_auto_t *payload = NULL;
    struct remote remote;
    trk_autofree char *pub = NULL;
    int rc = parse_payload(cli->words[2], &payload, err);
    if (rc == 0) {
        rc = remote_open_of(&remote, cli, cli->words[3], err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = remote_pub_url(&remote, &pub, err);
    if (rc == 0) {
        trk_autofree char *job = remote_job_path(name, version, "");
        /* remote_job_path begins with /api/v1, the gateway's with /job */
        trk_autofree char *url = trk_xasprintf("%s%s%s%s", pub, job + strlen("/api/v1"),
                                               endpoint[0] == '/' ? "" : "/", endpoint);
        cli_verbose(cli, "POST %s", url);
        if (cli->values[OPT_CURL] != NULL) {
            print_curl(&remote, url, payload);
        } else {
            rc = send_call(&remote, url, payload, name, err);
        }
    }
    remote_close(&remote);
    return rc;
}
