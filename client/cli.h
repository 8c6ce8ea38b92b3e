/*
 * cli.h - what the commands of `racetrack` share: the command table, parsed arguments, output.
 *
 * One file a command (or a family of them) fills `struct command` entries in commands.c. A command
 * returns 0 or a negative error code; main() prints the error and makes the exit status of it
 * (0 fine, 2 wrong usage, 70 failed, 130 interrupted). One thread, but for the progress line.
 */
#ifndef CLIENT_CLI_H
#define CLIENT_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "libtrack/base/err.h"

enum cli_option_id {
    OPT_HELP,
    OPT_VERBOSE,
    OPT_REMOTE,
    OPT_FORCE,
    OPT_BUILD_CONTEXT,
    OPT_CONTEXT_LOCAL,
    OPT_CONTEXT_GIT,
    OPT_EXTRA_VARS,
    OPT_NO_CACHE,
    OPT_VERSION,
    OPT_TAIL,
    OPT_FOLLOW,
    OPT_CURL,
    OPT_USERNAME,
    OPT_QUIET,
    OPT_COLUMN,
    OPT_COUNT,
};
struct cli_option {
    enum cli_option_id id;
    char letter; /* 0: none */
    const char *name;
    const char *argument; /* NULL: a flag */
    bool repeats;
    const char *help;
};
/* Indexed by id. */
extern const struct cli_option cli_options[OPT_COUNT];

#define CLI_WORDS_MAX     8
#define CLI_REPEATS_MAX   64
#define CLI_USAGE_EXIT    2
#define CLI_INTERRUPTED   130
#define CLI_OPTION(id)    (1U << (id))
#define CLI_BUILD_OPTIONS (CLI_OPTION(OPT_REMOTE) | CLI_OPTION(OPT_EXTRA_VARS))

struct cli {
    const struct command *command;
    const char *words[CLI_WORDS_MAX + 1]; /* what is left beside the options; NULL-terminated */
    size_t word_count;
    const char *values[OPT_COUNT];               /* NULL: not given; flags: "" */
    const char *extra_vars[CLI_REPEATS_MAX + 1]; /* NULL-terminated */
    const char *columns[CLI_REPEATS_MAX + 1];
    bool is_verbose;
    bool is_usage_error; /* the error is a wrong usage: exit status 2 */
};

struct command {
    const char *name;      /* "deploy", "config alias set" */
    const char *arguments; /* "[WORKDIR] [REMOTE]" */
    size_t words_min, words_max;
    unsigned options; /* CLI_OPTION()s, beside --help and --verbose */
    int (*run)(struct cli *cli, struct trk_err *err);
    const char *help;  /* one line */
    const char *notes; /* more for --help, or NULL */
    bool is_alias;     /* another spelling: not in the list of commands */
};
extern const struct command commands[];
extern const size_t command_count;

/* commands.c: the command whose name is the longest sequence of `words` (NULL: none);
 * *ret_used words belong to its name. */
const struct command *command_find(const char *const *words, size_t count, size_t *ret_used);
void command_print_list(void);
void command_print_help(const struct command *command);
/* Parses the options and words behind the command's name. 0; TRK_INVALID with a text for the user.
 */
int cli_parse(struct cli *cli, int argc, char **argv, struct trk_err *err) TRK_MUST_CHECK;

/* For what only the command itself can see: makes it a usage error. Returns the code. */
int cli_usage(struct cli *cli, struct trk_err *err, const char *fmt, ...) TRK_PRINTF(3, 4);

/* cli.c: output. Results go to stdout; progress, warnings and errors to stderr. */
bool cli_has_color(int fd); /* a terminal, and NO_COLOR unset */
void cli_warn(const char *fmt, ...) TRK_PRINTF(1, 2);
void cli_verbose(const struct cli *cli, const char *fmt, ...) TRK_PRINTF(2, 3);
/* Writes text of a server: without ANSI sequences' harm when stdout is a terminal. */
void cli_print_text(const char *text);

/* One function a command. */
int cmd_deploy(struct cli *cli, struct trk_err *err);
int cmd_validate(struct cli *cli, struct trk_err *err);
int cmd_list(struct cli *cli, struct trk_err *err);
int cmd_logs(struct cli *cli, struct trk_err *err);
int cmd_build_logs(struct cli *cli, struct trk_err *err);
int cmd_delete(struct cli *cli, struct trk_err *err);
int cmd_call(struct cli *cli, struct trk_err *err);
int cmd_login(struct cli *cli, struct trk_err *err);
int cmd_logout(struct cli *cli, struct trk_err *err);
int cmd_version(struct cli *cli, struct trk_err *err);
int cmd_set_remote(struct cli *cli, struct trk_err *err);
int cmd_set_alias(struct cli *cli, struct trk_err *err);
int cmd_set_credentials(struct cli *cli, struct trk_err *err);
int cmd_get_remote(struct cli *cli, struct trk_err *err);
int cmd_get_pub(struct cli *cli, struct trk_err *err);
int cmd_get_auth_token(struct cli *cli, struct trk_err *err);
int cmd_get_config(struct cli *cli, struct trk_err *err);

#endif
