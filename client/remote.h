/*
 * remote.h - a server that commands talk to: its URL, our token for it, requests with errors that
 * say what to do. One thread.
 *
 *     struct remote remote;
 *     if (remote_open(&remote, name, err) < 0) ...
 *     json_auto_t *jobs = NULL;
 *     rc = remote_get(&remote, "/api/v1/job", "listing jobs", &jobs, err);
 *     remote_close(&remote);
 */
#ifndef CLIENT_REMOTE_H
#define CLIENT_REMOTE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/cli.h"
#include "client/config_file.h"
#include "libtrack/base/err.h"
#include "libtrack/http/http_client.h"

struct remote {
    struct config_file *config;
    char *url;   /* complete: http://127.0.0.1:7202/lifecycle */
    char *shown; /* what a person types for it: the alias given, else one that leads there, else the
                    URL */
    const char *token;      /* borrows from config; NULL: not logged in */
    const char *suggestion; /* an alias, when nobody chose this server; borrows from config */
    struct trk_http_client *http;
};

/* `name`: alias, URL or NULL (the default remote). On failure nothing is left to close. */
int remote_open(struct remote *remote, const char *name, struct trk_err *err) TRK_MUST_CHECK;
/* The remote that --remote or this positional word (may be NULL) names; a usage error when they
 * name different ones. */
int remote_open_of(struct remote *remote, struct cli *cli, const char *word,
                   struct trk_err *err) TRK_MUST_CHECK;
void remote_close(struct remote *remote);
/* 0, or TRK_UNAUTHENTICATED with what to type, when the server wants a token and we have none. */
int remote_require_login(struct remote *remote, struct trk_err *err) TRK_MUST_CHECK;

struct remote_request {
    const char *method;  /* NULL: GET */
    const char *path;    /* "/api/v1/job" */
    const json_t *json;  /* borrows; or NULL */
    int64_t timeout_ms;  /* 0: 30 s */
    const char *context; /* "listing jobs": stands in front of an error */
};
/* A 2xx answer's JSON in *ret (owned; may be NULL to ask not). Errors: what http_client says, the
 * server's {"error"} with its reason phrase, and a hint what to do. *ret_status (may be NULL): the
 * status, 0 when there was no answer. */
int remote_send(struct remote *remote, const struct remote_request *request, int *ret_status,
                json_t **ret, struct trk_err *err) TRK_MUST_CHECK;
int remote_get(struct remote *remote, const char *path, const char *context, json_t **ret,
               struct trk_err *err) TRK_MUST_CHECK;
/* "/api/v1/job/NAME/VERSION" + suffix, encoded. Returns owned. */
char *remote_job_path(const char *name, const char *version, const char *suffix);
/* Where the server's jobs are called, from its info: "http://…/pub". *ret owned. */
int remote_pub_url(struct remote *remote, char **ret, struct trk_err *err) TRK_MUST_CHECK;

#endif
