#include <ctype.h>
#include <stdio.h>

#include "client/cli.h"
#include "client/remote.h"
#include "client/table.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

#define HINT_MAX 300

struct column {
    const char *name; /* as in --column */
    const char *key;  /* of the job */
    bool is_time;
};
static const struct column columns[] = {
    {"job_type", "job_type_version", false},
    {"infrastructure", "infrastructure_target", false},
    {"deployed_by", "deployed_by", false},
    {"updated_at", "update_time", true},
    {"last_call_at", "last_call_time", true},
    {"pub_url", "pub_url", false},
    {"error", "error", false},
};

static int choose_columns(struct cli *cli, bool chosen[TRK_COUNT(columns)], struct trk_err *err)
{
    for (const char *const *name = cli->columns; *name != NULL; name++) {
        bool is_known = strcmp(*name, "all") == 0;
        for (size_t i = 0; i < TRK_COUNT(columns); i++) {
            if (strcmp(*name, "all") == 0 || strcmp(*name, columns[i].name) == 0) {
                chosen[i] = true;
                is_known = true;
            }
        }
        if (!is_known) {
            return cli_usage(cli, err,
                             "there is no column %s; there are job_type, infrastructure, "
                             "deployed_by, updated_at, last_call_at, pub_url, error, all",
                             *name);
        }
    }
    return 0;
}

static void add_upper(struct table *table, const char *text)
{
    trk_autofree char *upper = trk_xstrdup(text);
    for (char *p = upper; *p != '\0'; p++) {
        *p = (char)toupper((unsigned char)*p);
    }
    table_add(table, upper);
}

/* A cell is one line, and control characters would show as question marks. */
static void add_in_one_line(struct table *table, const char *text)
{
    trk_autofree char *line = trk_xstrdup(text);
    for (char *p = line; (p = strpbrk(p, "\r\n\t")) != NULL;) {
        *p = ' ';
    }
    table_add(table, line);
}

static void add_column(struct table *table, const struct column *column, const json_t *job)
{
    if (!column->is_time) {
        add_in_one_line(table, trk_json_string_or(job, column->key, "-"));
        return;
    }
    int64_t seconds = trk_json_int_or(job, column->key, 0);
    char text[32] = "-";
    if (seconds > 0) {
        trk_format_utc(seconds, "%Y-%m-%d %H:%M:%S", text, sizeof(text));
    }
    table_add(table, text);
}

static void print_jobs(const json_t *jobs, const bool chosen[TRK_COUNT(columns)])
{
    size_t count = 3;
    for (size_t i = 0; i < TRK_COUNT(columns); i++) {
        count += chosen[i] ? 1 : 0;
    }
    struct table *table = table_new(count);
    table_add(table, "NAME");
    table_add(table, "VERSION");
    table_add(table, "STATUS");
    for (size_t i = 0; i < TRK_COUNT(columns); i++) {
        if (chosen[i]) {
            add_upper(table, columns[i].name);
        }
    }
    size_t index;
    const json_t *job;
    json_array_foreach (jobs, index, job) {
        table_add(table, trk_json_string_or(job, "name", "?"));
        table_add(table, trk_json_string_or(job, "version", "?"));
        add_upper(table, trk_json_string_or(job, "status", "?"));
        for (size_t i = 0; i < TRK_COUNT(columns); i++) {
            if (chosen[i]) {
                add_column(table, &columns[i], job);
            }
        }
    }
    table_print(table, stdout);
    table_free(table);
}

/* The first line, cut between characters when it is long. Owned. */
static char *hint_of(const char *error)
{
    size_t len = strcspn(error, "\r\n");
    bool is_cut = len > HINT_MAX;
    if (is_cut) {
        for (len = HINT_MAX; len > 0 && ((unsigned char)error[len] & 0xc0) == 0x80;) {
            len--;
        }
    }
    return trk_xasprintf("%.*s%s", (int)len, error, is_cut ? "…" : "");
}

/* Why a job does not run is said without being asked for. */
static void print_hints(const json_t *jobs)
{
    struct table *table = table_new(2);
    size_t index, count = 0;
    const json_t *job;
    json_array_foreach (jobs, index, job) {
        const char *error = trk_json_string_or(job, "error", "");
        if (error[0] == '\0' || strcmp(trk_json_string_or(job, "status", ""), "running") == 0) {
            continue;
        }
        trk_autofree char *name = trk_xasprintf("%s %s:", trk_json_string_or(job, "name", "?"),
                                                trk_json_string_or(job, "version", "?"));
        trk_autofree char *hint = hint_of(error);
        table_add(table, name);
        add_in_one_line(table, hint);
        count++;
    }
    if (count > 0) {
        (void)puts("\nNot running:");
        table_print(table, stdout);
    }
    table_free(table);
}

static bool is_chosen(const char *name, const bool chosen[TRK_COUNT(columns)])
{
    for (size_t i = 0; i < TRK_COUNT(columns); i++) {
        if (chosen[i] && strcmp(columns[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

int cmd_list(struct cli *cli, struct trk_err *err)
{
    bool chosen[TRK_COUNT(columns)] = {false};
    struct remote remote;
    int rc = choose_columns(cli, chosen, err);
    if (rc == 0) {
        rc = remote_open_of(&remote, cli, cli->words[0], err);
    }
    if (rc < 0) {
        return rc;
    }
    json_auto_t *jobs = NULL;
    rc = remote_get(&remote, "/api/v1/job", "listing jobs", &jobs, err);
    if (rc == 0 && !json_is_array(jobs)) {
        rc = trk_err_set(err, TRK_BAD_GATEWAY, "listing jobs: the server's answer is no list");
    }
    if (rc == 0 && json_array_size(jobs) == 0) {
        (void)printf("No jobs deployed at %s.\n", remote.url);
    } else if (rc == 0) {
        (void)printf("List of all jobs (%zu) deployed at %s:\n", json_array_size(jobs), remote.url);
        print_jobs(jobs, chosen);
        if (!is_chosen("error", chosen)) {
            print_hints(jobs);
        }
    }
    remote_close(&remote);
    return rc;
}
