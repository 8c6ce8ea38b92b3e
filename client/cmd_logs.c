/* logs, build-logs. */
#include <stdio.h>

#include "client/cli.h"
#include "client/job_ref.h"
#include "client/log_overlap.h"
#include "client/remote.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"

#define FOLLOW_TAIL     2000
#define FOLLOW_PAUSE_MS 500
#define FOLLOW_RETRY_MS 2000
#define TAIL_DEFAULT    20
#define TAIL_MAX        1000000

static int tail_of(struct cli *cli, int64_t otherwise, int64_t *ret, struct trk_err *err)
{
    *ret = otherwise;
    if (cli->values[OPT_TAIL] == NULL) {
        return 0;
    }
    struct trk_err ignored = {0};
    if (trk_parse_int64(cli->values[OPT_TAIL], 0, TAIL_MAX, ret, &ignored) < 0) {
        return cli_usage(cli, err, "--tail is a number of lines from 0 (all) to %d", TAIL_MAX);
    }
    return 0;
}

static int fetch(struct remote *remote, const struct job_ref *job, const char *kind, int64_t tail,
                 char **ret, int *ret_status, struct trk_err *err)
{
    trk_autofree char *suffix = trk_xasprintf("/%s?tail=%lld", kind, (long long)tail);
    trk_autofree char *path = remote_job_path(job->name, job->version, suffix);
    json_auto_t *answer = NULL;
    const char *text = NULL;
    const struct remote_request request = {.path = path, .context = "reading logs"};
    int rc = remote_send(remote, &request, ret_status, &answer, err);
    if (rc == 0) {
        rc = trk_json_string(answer, "logs", &text, err);
    }
    if (rc == 0) {
        *ret = trk_xstrdup(text);
    }
    return rc;
}

/* The last `lines` lines of `text`; 0: all. */
static const char *last_lines(const char *text, int64_t lines)
{
    const char *at = text + strlen(text);
    if (lines == 0) {
        return text;
    }
    if (at > text && at[-1] == '\n') {
        at--;
    }
    while (at > text && (at[-1] != '\n' || --lines > 0)) {
        at--;
    }
    return at;
}

static void print_if_any(const char *text)
{
    if (*text != '\0') {
        cli_print_text(text);
    }
}

/* Prints the last `tail` lines, then new ones until Ctrl-C. A job that is being replaced or a
 * server that restarts is waited for. */
static int follow(struct remote *remote, const struct job_ref *job, int64_t tail,
                  struct trk_err *err)
{
    int64_t window = tail > FOLLOW_TAIL ? tail : FOLLOW_TAIL;
    trk_autofree char *shown = NULL;
    int status = 0;
    int rc = fetch(remote, job, "logs", tail == 0 ? 0 : window, &shown, &status, err);
    if (rc < 0) {
        return rc;
    }
    print_if_any(last_lines(shown, tail));
    bool is_lost = false;
    while (fflush(stdout) == 0 && !ferror(stdout)) { /* until nobody reads any more */
        trk_sleep_ms(is_lost ? FOLLOW_RETRY_MS : FOLLOW_PAUSE_MS);
        trk_autofree char *now = NULL;
        rc = fetch(remote, job, "logs", window, &now, &status, err);
        if (rc < 0 && status != 0 && status < 500) {
            return rc;
        }
        if (rc < 0 && !is_lost) {
            cli_warn("%s\nTrying again", err->text);
        }
        is_lost = rc < 0;
        if (!is_lost) {
            print_if_any(now + log_overlap(shown, now));
            free(shown);
            shown = TRK_STEAL(now);
        }
    }
    return 0;
}

static int show(struct cli *cli, const char *kind, int64_t tail_default, struct trk_err *err)
{
    int64_t tail;
    struct job_ref job;
    struct remote remote;
    trk_autofree char *text = NULL;
    int rc = tail_of(cli, tail_default, &tail, err);
    if (rc == 0) {
        rc = job_ref_of(&job, cli, "latest", err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = remote_open_of(&remote, cli, job.remote, err);
    if (rc < 0) {
        rc = job_ref_explain(&job, err);
        job_ref_fini(&job);
        return rc;
    }
    if (cli->values[OPT_FOLLOW] != NULL) {
        rc = follow(&remote, &job, tail, err);
    } else {
        rc = fetch(&remote, &job, kind, tail, &text, NULL, err);
        print_if_any(rc == 0 ? text : "");
    }
    remote_close(&remote);
    rc = rc < 0 ? job_ref_explain(&job, err) : rc;
    job_ref_fini(&job);
    return rc;
}

int cmd_logs(struct cli *cli, struct trk_err *err)
{
    return show(cli, "logs", TAIL_DEFAULT, err);
}

int cmd_build_logs(struct cli *cli, struct trk_err *err)
{
    return show(cli, "build-logs", 0, err);
}
