#include "client/remote.h"

#include "client/url.h"
#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"

int remote_open(struct remote *remote, const char *name, struct trk_err *err)
{
    struct remote r = {0};
    int rc = config_file_open(false, &r.config, err);
    if (rc == 0) {
        rc = config_file_resolve(r.config, name, &r.url, err);
    }
    if (rc < 0) {
        remote_close(&r);
        return rc;
    }
    bool is_alias = name != NULL &&
                    config_file_get(r.config, "lifecycle_url_aliases", name) != NULL;
    const char *alias = is_alias ? name : config_file_alias_of(r.config, r.url);
    r.shown = trk_xstrdup(alias != NULL ? alias : r.url);
    r.token = config_file_token(r.config, r.url);
    r.suggestion = name == NULL ? config_file_suggestion(r.config) : NULL;
    r.http = trk_http_client_new();
    *remote = r;
    return 0;
}

int remote_open_of(struct remote *remote, struct cli *cli, const char *word, struct trk_err *err)
{
    const char *option = cli->values[OPT_REMOTE];
    if (option != NULL && word != NULL && strcmp(option, word) != 0) {
        return cli_usage(cli, err, "two servers are named: %.200s and --remote %.200s", word,
                         option);
    }
    int rc = remote_open(remote, option != NULL ? option : word, err);
    if (rc == 0) {
        cli_verbose(cli, "server: %s%s", remote->url,
                    remote->token != NULL ? "" : " (not logged in)");
    }
    return rc;
}

void remote_close(struct remote *remote)
{
    trk_http_client_free(remote->http);
    config_file_close(remote->config);
    free(remote->url);
    free(remote->shown);
    *remote = (struct remote){0};
}

static int say_login(const struct remote *remote, struct trk_err *err)
{
    return trk_err_append(err, "\nTo log in, type: racetrack login --username NAME --remote %s",
                          remote->shown);
}

static int say_unreachable(const struct remote *remote, struct trk_err *err)
{
    if (remote->suggestion != NULL) {
        return trk_err_append(err,
                              "\nNo server was named, and none is the default. Add --remote %s, or "
                              "type once: racetrack set remote %s",
                              remote->suggestion, remote->suggestion);
    }
    if (url_is_local(remote->url)) {
        return trk_err_append(err, "\nIs it running? In the checkout, type: make status, and make "
                                   "up to start it. Another server: racetrack set remote URL");
    }
    return trk_err_append(err,
                          "\nThe address is %s; to choose another server: --remote, or "
                          "racetrack set remote URL",
                          remote->url);
}

static int explain_status(const struct remote *remote, const struct trk_http_answer *answer,
                          const char *context, struct trk_err *err)
{
    (void)trk_http_answer_err(answer, err);
    (void)trk_err_wrap(err, "%s", context);
    if (answer->status == 401) {
        return remote->token == NULL
                   ? say_login(remote, err)
                   : trk_err_append(err,
                                    "\nThe remembered token is not valid (any more). Log in "
                                    "again: racetrack login --username NAME --remote %s",
                                    remote->shown);
    }
    return err->code;
}

int remote_send(struct remote *remote, const struct remote_request *request, int *ret_status,
                json_t **ret, struct trk_err *err)
{
    trk_autofree char *url = trk_xasprintf("%s%s", remote->url, request->path);
    static const char *const headers[] = {"Accept: application/json", NULL};
    const struct trk_http_call call = {.method = request->method,
                                       .url = url,
                                       .headers = headers,
                                       .auth_token = remote->token,
                                       .json = request->json,
                                       .timeout_ms = request->timeout_ms,
                                       .answer_max_bytes = (size_t)64 << 20};
    struct trk_http_answer answer = {0};
    if (ret_status != NULL) {
        *ret_status = 0;
    }
    int rc = trk_http_call(remote->http, &call, &answer, err);
    if (rc < 0) {
        (void)trk_err_wrap(err, "%s", request->context);
        return rc == TRK_UNAVAILABLE ? say_unreachable(remote, err) : rc;
    }
    if (ret_status != NULL) {
        *ret_status = answer.status;
    }
    if (answer.status < 200 || answer.status > 299) {
        rc = explain_status(remote, &answer, request->context, err);
    } else if (ret != NULL) {
        rc = trk_http_answer_json(&answer, ret, err);
        if (rc < 0) {
            rc = trk_err_wrap(err, "%s: %s is no Racetrack server", request->context, remote->url);
        }
    }
    trk_http_answer_fini(&answer);
    return rc;
}

int remote_get(struct remote *remote, const char *path, const char *context, json_t **ret,
               struct trk_err *err)
{
    const struct remote_request request = {.path = path, .context = context};
    return remote_send(remote, &request, NULL, ret, err);
}

int remote_require_login(struct remote *remote, struct trk_err *err)
{
    if (remote->token != NULL) {
        return 0;
    }
    json_auto_t *info = NULL;
    int rc = remote_get(remote, "/api/v1/info", "asking the server", &info, err);
    if (rc < 0 || !trk_json_bool_or(info, "auth_required", true)) {
        return rc;
    }
    (void)trk_err_set(err, TRK_UNAUTHENTICATED, "you are not logged in to %s", remote->shown);
    return say_login(remote, err);
}

char *remote_job_path(const char *name, const char *version, const char *suffix)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 64 * 1024);
    (void)trk_buf_adds(&buf, "/api/v1/job/");
    (void)trk_url_encode(&buf, name, strlen(name), NULL);
    (void)trk_buf_addc(&buf, '/');
    (void)trk_url_encode(&buf, version, strlen(version), NULL);
    (void)trk_buf_adds(&buf, suffix);
    return trk_buf_steal(&buf, NULL);
}

int remote_pub_url(struct remote *remote, char **ret, struct trk_err *err)
{
    json_auto_t *info = NULL;
    int rc = remote_get(remote, "/api/v1/info", "asking where jobs are called", &info, err);
    const char *url = NULL;
    if (rc == 0) {
        rc = trk_json_string(info, "external_pub_url", &url, err);
    }
    if (rc == 0) {
        *ret = trk_xstrdup(url);
    }
    return rc;
}
