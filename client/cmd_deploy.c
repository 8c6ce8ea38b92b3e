/* deploy: manifest and files in, then the phases of the deployment until it is done. */
#include <stdio.h>

#include "client/build_context.h"
#include "client/cli.h"
#include "client/manifest_input.h"
#include "client/progress.h"
#include "client/remote.h"
#include "client/url.h"
#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/manifest/manifest.h"
#include "libtrack/manifest/secret_files.h"
#include "libtrack/source/secret_file.h"

#define SUBMIT_TIMEOUT_MS (10 * 60 * INT64_C(1000)) /* an upload over a slow line */
#define POLL_WAIT_MS      10000
#define POLL_TIMEOUT_MS   (POLL_WAIT_MS + 20000)
#define DEADLINE_S        3600
#define RETRY_MAX_MS      3000
#define PATIENCE_S        60 /* without any answer; RACETRACK_PATIENCE_S overrides */

/* What the options ask for; NULL: the default rule. */
static int wanted_context(struct cli *cli, const char **ret, struct trk_err *err)
{
    const char *wanted = cli->values[OPT_BUILD_CONTEXT];
    if (cli->values[OPT_CONTEXT_LOCAL] != NULL) {
        wanted = "local";
    } else if (cli->values[OPT_CONTEXT_GIT] != NULL) {
        wanted = "git";
    }
    if (wanted != NULL && strcmp(wanted, "default") == 0) {
        wanted = NULL;
    }
    if (wanted != NULL && strcmp(wanted, "local") != 0 && strcmp(wanted, "git") != 0) {
        return cli_usage(cli, err, "--build-context is local, git or default, not %s", wanted);
    }
    *ret = wanted;
    return 0;
}

/* By default only samples on this machine are uploaded; real jobs come from their repository. */
static bool is_local_context(const char *wanted, const json_t *manifest, const char *url)
{
    if (wanted != NULL) {
        return strcmp(wanted, "local") == 0;
    }
    return url_is_local(url) &&
           strcmp(trk_json_string_or(manifest, "owner_email", ""), "sample@example.com") == 0;
}

static int add_context(json_t *body, const struct cli *cli, const struct manifest_input *input,
                       struct trk_err *err)
{
    struct build_context context = {0};
    int rc = build_context_pack(input->folder, input->manifest, &context, err);
    if (rc < 0) {
        return rc;
    }
    cli_verbose(cli, "uploading %zu files, %zu KiB packed", context.file_count,
                (context.len + 1023) / 1024);
    struct trk_buf text;
    trk_buf_init(&text, BUILD_CONTEXT_BYTES_MAX / 3 * 4 + 64);
    rc = trk_base64_encode(&text, context.bytes, context.len);
    build_context_fini(&context);
    if (rc == 0) {
        (void)json_object_set_new(body, "build_context", json_stringn_nocheck(text.data, text.len));
    } else {
        rc = trk_err_set(err, TRK_TOO_LARGE, "the packed files are too large to upload");
    }
    trk_buf_fini(&text);
    return rc;
}

static int add_secrets(json_t *body, const struct manifest_input *input, struct trk_err *err)
{
    json_auto_t *secrets = json_pack("{s:{}, s:{}}", "build_env", "runtime_env");
    bool has_any = false;
    for (size_t i = 0; i < TRK_SECRET_FILES; i++) {
        const char *path = trk_secret_path(input->manifest, &trk_secret_fields[i]);
        if (path == NULL) {
            continue;
        }
        json_t *variables = NULL;
        int rc = trk_secret_file_read(input->folder, path, &variables, err);
        if (rc < 0) {
            return rc;
        }
        (void)json_object_set_new(secrets, trk_secret_fields[i].key, variables);
        has_any = true;
    }
    if (has_any) {
        (void)json_object_set(body, "secret_vars", secrets);
    }
    return 0;
}

static int make_body(struct cli *cli, const struct manifest_input *input, const char *wanted,
                     const struct remote *remote, json_t *body, struct trk_err *err)
{
    (void)json_object_set(body, "manifest", input->manifest);
    if (input->text != NULL) {
        (void)json_object_set_new(body, "manifest_yaml", json_string(input->text));
    }
    (void)json_object_set_new(body, "force", json_boolean(cli->values[OPT_FORCE] != NULL));
    (void)json_object_set_new(body, "build_flags",
                              cli->values[OPT_NO_CACHE] != NULL ? json_pack("[s]", "--no-cache")
                                                                : json_array());
    const char *git = trk_json_string_or(json_object_get(input->manifest, "git"), "remote", "");
    json_t *credentials = NULL;
    const json_t *known = config_file_git_credentials(remote->config, git);
    if (json_is_object(known)) {
        credentials = json_pack("{s:s, s:s}", "username", trk_json_string_or(known, "username", ""),
                                "password", trk_json_string_or(known, "password", ""));
    }
    if (credentials != NULL) {
        (void)json_object_set_new(body, "git_credentials", credentials);
    }
    int rc = add_secrets(body, input, err);
    if (rc < 0) {
        return rc;
    }
    if (is_local_context(wanted, input->manifest, remote->url)) {
        return add_context(body, cli, input, err);
    }
    cli_verbose(cli, "the server will clone %s", git);
    return 0;
}

struct deployment {
    struct remote *remote;
    struct progress *progress;
    const char *id, *name, *version;
    char phase[256];
    size_t warnings_shown; /* bytes */
};

/* Lines of the deployment's warnings that were not printed yet. */
static void show_warnings(struct deployment *d, const json_t *state)
{
    const char *text = trk_json_string_or(state, "warnings", "");
    size_t len = strlen(text);
    if (len <= d->warnings_shown) {
        return;
    }
    const char *line = text + d->warnings_shown;
    while (*line != '\0') {
        size_t line_len = strcspn(line, "\n");
        if (line_len > 0) {
            bool is_news = strncmp(line, "unchanged", 9) == 0; /* no harm done */
            progress_note(d->progress, "%s%.*s", is_news ? "" : "warning: ", (int)line_len, line);
        }
        line += line_len + (line[line_len] == '\n' ? 1 : 0);
    }
    d->warnings_shown = len;
}

static int ask(struct deployment *d, int64_t wait_ms, int *ret_status, json_t **ret,
               struct trk_err *err)
{
    struct trk_buf path;
    trk_buf_init(&path, 4096);
    (void)trk_buf_adds(&path, "/api/v1/deploy/");
    (void)trk_url_encode(&path, d->id, strlen(d->id), NULL);
    (void)trk_buf_addf(&path, "?wait_ms=%lld&status=in_progress&phase=", (long long)wait_ms);
    (void)trk_url_encode(&path, d->phase, strlen(d->phase), NULL);
    const struct remote_request request = {
        .path = path.data, .timeout_ms = POLL_TIMEOUT_MS, .context = "asking for the deployment"};
    int rc = remote_send(d->remote, &request, ret_status, ret, err);
    trk_buf_fini(&path);
    return rc;
}

/* The server answered nothing, or a 5xx: it may be restarting, and the deployment goes on. */
static bool is_worth_retrying(int http_status)
{
    return http_status == 0 || http_status >= 500;
}

static int finished(const struct deployment *d, const json_t *state, struct trk_err *err)
{
    const char *status = trk_json_string_or(state, "status", "");
    if (strcmp(status, "done") == 0) {
        const char *url = trk_json_string_or(json_object_get(state, "job"), "pub_url", NULL);
        (void)printf("%7.1f s  %s %s is running%s%s\n", progress_elapsed_s(d->progress), d->name,
                     d->version, url != NULL ? ": " : "", url != NULL ? url : "");
        return 0;
    }
    const char *error = trk_json_string_or(state, "error", "the server gives no reason");
    (void)trk_err_set(err, TRK_INVALID, "deploying %s %s failed: %s", d->name, d->version, error);
    return trk_err_append(err,
                          "\nThe build's output: racetrack build-logs %s --version %s "
                          "--remote %s",
                          d->name, d->version, d->remote->shown);
}

static int64_t patience_s(void)
{
    const char *text = getenv("RACETRACK_PATIENCE_S");
    int64_t seconds;
    return text != NULL && trk_parse_int64(text, 1, DEADLINE_S, &seconds, NULL) == 0 ? seconds
                                                                                     : PATIENCE_S;
}

static int give_up(const struct deployment *d, int64_t silent_s, struct trk_err *err)
{
    return trk_err_append(err,
                          "\nNo answer for %lld s: the deployment %s of %s %s may go on at the "
                          "server. When that runs again, look with:\n"
                          "  racetrack list --remote %s\n"
                          "  racetrack build-logs %s --version %s --remote %s",
                          (long long)silent_s, d->id, d->name, d->version, d->remote->shown,
                          d->name, d->version, d->remote->shown);
}

/* Until the deployment has ended. Long-polls; a server that answers at once is asked with pauses.
 */
static int follow(struct deployment *d, struct trk_err *err)
{
    int64_t pause_ms = 50, patience = patience_s();
    int64_t heard_ns = trk_now_ns();
    bool is_lost = false;
    while (progress_elapsed_s(d->progress) < DEADLINE_S) {
        json_auto_t *state = NULL;
        struct trk_err problem = {0};
        int status = 0;
        int64_t begin = trk_now_ns();
        int rc = ask(d, POLL_WAIT_MS, &status, &state, &problem);
        if (rc < 0 && !is_worth_retrying(status)) {
            *err = problem;
            return rc;
        }
        if (rc < 0) {
            if (!is_lost) {
                progress_note(d->progress, "%s\nThe deployment goes on; trying again",
                              problem.text);
            }
            is_lost = true;
            int64_t silent_s = (trk_now_ns() - heard_ns) / TRK_NS_PER_S;
            if (silent_s >= patience) {
                *err = problem;
                return give_up(d, silent_s, err);
            }
            trk_sleep_ms(pause_ms);
            pause_ms = pause_ms * 2 < RETRY_MAX_MS ? pause_ms * 2 : RETRY_MAX_MS;
            continue;
        }
        heard_ns = trk_now_ns();
        if (is_lost) {
            progress_note(d->progress, "connected again");
            is_lost = false;
            pause_ms = 50;
        }
        show_warnings(d, state);
        const char *phase = trk_json_string_or(state, "phase", "");
        bool is_new_phase = phase[0] != '\0' && strcmp(phase, d->phase) != 0;
        if (is_new_phase) {
            progress_phase(d->progress, phase);
            (void)snprintf(d->phase, sizeof(d->phase), "%s", phase);
        }
        if (strcmp(trk_json_string_or(state, "status", ""), "in_progress") != 0) {
            return finished(d, state, err);
        }
        bool was_quick = trk_now_ns() - begin < pause_ms * TRK_NS_PER_MS;
        if (!is_new_phase && was_quick) {
            trk_sleep_ms(pause_ms);
            pause_ms = pause_ms * 2 < RETRY_MAX_MS ? pause_ms * 2 : RETRY_MAX_MS;
        } else {
            pause_ms = 50;
        }
    }
    return trk_err_set(err, TRK_TIMEOUT,
                       "the deployment %s has not ended within an hour; it goes on at the server. "
                       "To look: racetrack list --remote %s",
                       d->id, d->remote->shown);
}

static int submit_and_follow(struct remote *remote, const struct manifest_input *input,
                             const json_t *body, struct trk_err *err)
{
    struct deployment d = {
        .remote = remote,
        .name = trk_json_string_or(input->manifest, "name", ""),
        .version = trk_manifest_version(input->manifest),
    };
    (void)printf("deploying %s %s to %s\n", d.name, d.version, remote->shown);
    (void)fflush(stdout);
    json_auto_t *answer = NULL;
    const struct remote_request request = {.method = "POST",
                                           .path = "/api/v1/deploy",
                                           .json = body,
                                           .timeout_ms = SUBMIT_TIMEOUT_MS,
                                           .context = "deploying"};
    int rc = remote_send(remote, &request, NULL, &answer, err);
    if (rc == 0) {
        rc = trk_json_string(answer, "id", &d.id, err);
    }
    if (rc < 0) {
        return rc;
    }
    trk_autofree char *interrupt_text = trk_xasprintf(
        "interrupted; the deployment %s goes on at the server. To look:\n"
        "  racetrack list --remote %s\n  racetrack build-logs %s --version %s --remote %s",
        d.id, remote->shown, d.name, d.version, remote->shown);
    d.progress = progress_start(interrupt_text);
    rc = follow(&d, err);
    progress_stop(d.progress);
    return rc;
}

int cmd_deploy(struct cli *cli, struct trk_err *err)
{
    struct manifest_input input;
    struct remote remote;
    const char *wanted = NULL;
    int rc = wanted_context(cli, &wanted, err);
    if (rc < 0) {
        return rc;
    }
    rc = manifest_input_load(&input, cli, cli->word_count > 0 ? cli->words[0] : ".", err);
    if (rc < 0) {
        return rc;
    }
    rc = remote_open_of(&remote, cli, cli->word_count > 1 ? cli->words[1] : NULL, err);
    if (rc < 0) {
        manifest_input_fini(&input);
        return rc;
    }
    json_auto_t *body = json_object();
    rc = remote_require_login(&remote, err);
    if (rc == 0) {
        rc = make_body(cli, &input, wanted, &remote, body, err);
    }
    if (rc == 0) {
        rc = submit_and_follow(&remote, &input, body, err);
    }
    remote_close(&remote);
    manifest_input_fini(&input);
    return rc;
}
