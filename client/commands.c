/* The command table, its help, and the parser of arguments that both come from. */
#include <getopt.h>
#include <stdio.h>

#include "client/cli.h"
#include "libtrack/base/mem.h"

const struct cli_option cli_options[OPT_COUNT] = {
    [OPT_HELP] = {OPT_HELP, 'h', "help", NULL, false, "show this help"},
    [OPT_VERBOSE] = {OPT_VERBOSE, 'v', "verbose", NULL, false, "say what is being done"},
    [OPT_REMOTE] = {OPT_REMOTE, 0, "remote", "REMOTE", false, "alias or URL of the server"},
    [OPT_FORCE] = {OPT_FORCE, 0, "force", NULL, false, "replace a version that runs already"},
    [OPT_BUILD_CONTEXT] = {OPT_BUILD_CONTEXT, 0, "build-context", "local|git|default", false,
                           "upload the folder, or let the server clone git.remote"},
    [OPT_CONTEXT_LOCAL] = {OPT_CONTEXT_LOCAL, 0, "context-local", NULL, false,
                           "same as --build-context local"},
    [OPT_CONTEXT_GIT] = {OPT_CONTEXT_GIT, 0, "context-git", NULL, false,
                         "same as --build-context git"},
    [OPT_EXTRA_VARS] = {OPT_EXTRA_VARS, 'e', "extra-vars", "KEY=VALUE", true,
                        "set a field of the manifest, for instance -e git.branch=main"},
    [OPT_NO_CACHE] = {OPT_NO_CACHE, 0, "no-cache", NULL, false, "build everything anew"},
    [OPT_VERSION] = {OPT_VERSION, 0, "version", "VERSION", false, "version of the job"},
    [OPT_TAIL] = {OPT_TAIL, 0, "tail", "N", false, "last N lines; 0: all"},
    [OPT_FOLLOW] = {OPT_FOLLOW, 'f', "follow", NULL, false, "go on showing new lines"},
    [OPT_CURL] = {OPT_CURL, 0, "curl", NULL, false, "print the curl command instead of calling"},
    [OPT_USERNAME] = {OPT_USERNAME, 0, "username", "NAME", false,
                      "log in with a password (asked for, or read from stdin)"},
    [OPT_QUIET] = {OPT_QUIET, 'q', "quiet", NULL, false, "print only the value"},
    [OPT_COLUMN] = {OPT_COLUMN, 'c', "column", "COLUMN", true,
                    "further column: job_type, infrastructure, deployed_by, updated_at, "
                    "last_call_at, pub_url, error, all"},
};

#define REMOTE CLI_OPTION(OPT_REMOTE)

#define JOB_FORMS                                                                                  \
    "The job is named by NAME and --version, or by a folder with its manifest (default: the "      \
    "current\nfolder). A word that is no such folder is a NAME. The server may follow, or "        \
    "--remote "                                                                                    \
    "names it."

const struct command commands[] = {
    {"deploy", "[WORKDIR] [REMOTE]", 0, 2,
     CLI_BUILD_OPTIONS | CLI_OPTION(OPT_FORCE) | CLI_OPTION(OPT_BUILD_CONTEXT) |
         CLI_OPTION(OPT_CONTEXT_LOCAL) | CLI_OPTION(OPT_CONTEXT_GIT) | CLI_OPTION(OPT_NO_CACHE),
     cmd_deploy, "build and run the job of a folder",
     "WORKDIR holds job.yaml (default: the current folder). A manifest on stdin takes the place "
     "of\n"
     "job.yaml; in scripts without one, redirect stdin from /dev/null.\n"
     "A server that gives no answer for a minute (RACETRACK_PATIENCE_S: other seconds) is given "
     "up;\n"
     "the deployment goes on when it is back.",
     false},
    {"validate", "[PATH]", 0, 1, CLI_OPTION(OPT_EXTRA_VARS), cmd_validate,
     "check a manifest and print it as it takes effect", NULL, false},
    {"list", "[REMOTE]", 0, 1, REMOTE | CLI_OPTION(OPT_COLUMN), cmd_list, "list the jobs", NULL,
     false},
    {"logs", "[NAME|WORKDIR] [REMOTE]", 0, 2,
     REMOTE | CLI_OPTION(OPT_VERSION) | CLI_OPTION(OPT_TAIL) | CLI_OPTION(OPT_FOLLOW), cmd_logs,
     "show what a job printed", JOB_FORMS, false},
    {"build-logs", "[NAME|WORKDIR] [REMOTE]", 0, 2,
     REMOTE | CLI_OPTION(OPT_VERSION) | CLI_OPTION(OPT_TAIL), cmd_build_logs,
     "show how a job's image was built", JOB_FORMS, false},
    {"delete", "[NAME|WORKDIR] [REMOTE]", 0, 2, REMOTE | CLI_OPTION(OPT_VERSION), cmd_delete,
     "stop a job and remove it", JOB_FORMS "\nWith NAME, --version is required.", false},
    {"call", "NAME ENDPOINT PAYLOAD [REMOTE]", 3, 4,
     REMOTE | CLI_OPTION(OPT_VERSION) | CLI_OPTION(OPT_CURL), cmd_call, "call an endpoint of a job",
     "PAYLOAD is JSON or YAML, for instance:\n"
     "  racetrack call adder /api/v1/perform '{\"numbers\": [40, 2]}'",
     false},
    {"login", "[REMOTE] [TOKEN]", 0, 2, REMOTE | CLI_OPTION(OPT_USERNAME), cmd_login,
     "remember a token for a server",
     "racetrack login dev TOKEN        the server first\n"
     "racetrack login TOKEN --remote dev\n"
     "racetrack login --username NAME  asks for the password\n"
     "racetrack login                  asks for the token, so that it is in no shell history",
     false},
    {"logout", "[REMOTE]", 0, 1, REMOTE, cmd_logout, "forget the token of a server", NULL, false},
    {"version", "", 0, 0, 0, cmd_version, "print the version of this program", NULL, false},
    {"set remote", "REMOTE", 1, 1, 0, cmd_set_remote, "choose the server used by default", NULL,
     false},
    {"set alias", "NAME URL", 2, 2, 0, cmd_set_alias, "name a server", NULL, false},
    {"set credentials", "REPO_URL USERNAME TOKEN", 3, 3, 0, cmd_set_credentials,
     "remember how the server may read a git repository", NULL, false},
    {"get remote", "", 0, 0, REMOTE | CLI_OPTION(OPT_QUIET), cmd_get_remote,
     "print the server used by default", NULL, false},
    {"get pub", "", 0, 0, REMOTE | CLI_OPTION(OPT_QUIET), cmd_get_pub,
     "print the address where the server's jobs are called", NULL, false},
    {"get auth-token", "", 0, 0, REMOTE | CLI_OPTION(OPT_QUIET), cmd_get_auth_token,
     "print the remembered token of a server", NULL, false},
    {"get config", "", 0, 0, 0, cmd_get_config, "print the configuration, tokens hidden", NULL,
     false},
    /* the spellings of the 2.2 client */
    {"config show", "", 0, 0, 0, cmd_get_config, "same as get config", NULL, true},
    {"config racetrack_url", "URL", 1, 1, 0, cmd_set_remote, "same as set remote", NULL, true},
    {"config alias set", "NAME URL", 2, 2, 0, cmd_set_alias, "same as set alias", NULL, true},
    {"config credentials set", "REPO_URL USERNAME TOKEN", 3, 3, 0, cmd_set_credentials,
     "same as set credentials", NULL, true},
};
const size_t command_count = TRK_COUNT(commands);

/* How many leading `words` spell the name; 0: they do not. */
static size_t match_name(const char *name, const char *const *words, size_t count)
{
    for (size_t used = 0; used < count; used++) {
        size_t len = strlen(words[used]);
        if (strncmp(name, words[used], len) != 0 || (name[len] != ' ' && name[len] != '\0')) {
            return 0;
        }
        if (name[len] == '\0') {
            return used + 1;
        }
        name += len + 1;
    }
    return 0;
}

const struct command *command_find(const char *const *words, size_t count, size_t *ret_used)
{
    const struct command *found = NULL;
    size_t best = 0;
    for (size_t i = 0; i < command_count; i++) {
        size_t used = match_name(commands[i].name, words, count);
        if (used > best) {
            best = used;
            found = &commands[i];
        }
    }
    *ret_used = best;
    return found;
}

void command_print_list(void)
{
    (void)puts("Usage: racetrack [-v] COMMAND [OPTIONS] [ARGUMENTS]\n\nCommands:");
    for (size_t i = 0; i < command_count; i++) {
        if (!commands[i].is_alias) {
            (void)printf("  %-16s %s\n", commands[i].name, commands[i].help);
        }
    }
    (void)puts("\nEach command explains itself: racetrack COMMAND --help\n"
               "The 2.2 client's spellings work too: config show|racetrack_url|alias set|"
               "credentials set.\n"
               "Exit status: 0 done, 2 wrong usage, 70 failed, 130 interrupted.");
}

static unsigned allowed_options(const struct command *command)
{
    return command->options | CLI_OPTION(OPT_HELP) | CLI_OPTION(OPT_VERBOSE);
}

void command_print_help(const struct command *command)
{
    (void)printf("Usage: racetrack %s [OPTIONS]%s%s\n\n%s\n", command->name,
                 command->arguments[0] != '\0' ? " " : "", command->arguments, command->help);
    if (command->notes != NULL) {
        (void)printf("\n%s\n", command->notes);
    }
    (void)puts("\nOptions:");
    for (size_t i = 0; i < OPT_COUNT; i++) {
        if ((allowed_options(command) & CLI_OPTION(i)) == 0) {
            continue;
        }
        const struct cli_option *option = &cli_options[i];
        char letter[8] = "    ";
        if (option->letter != 0) {
            (void)snprintf(letter, sizeof(letter), "-%c, ", option->letter);
        }
        trk_autofree char *left = trk_xasprintf("%s--%s%s%s", letter, option->name,
                                                option->argument != NULL ? " " : "",
                                                option->argument != NULL ? option->argument : "");
        (void)printf("  %-38s %s\n", left, option->help);
    }
}

static int take_option(struct cli *cli, const struct cli_option *option, const char *value,
                       struct trk_err *err)
{
    cli->values[option->id] = value != NULL ? value : "";
    if (!option->repeats) {
        return 0;
    }
    const char **list = option->id == OPT_COLUMN ? cli->columns : cli->extra_vars;
    size_t count = 0;
    while (list[count] != NULL) {
        count++;
    }
    if (count == CLI_REPEATS_MAX) {
        return trk_err_set(err, TRK_INVALID, "--%s is given more than %d times", option->name,
                           CLI_REPEATS_MAX);
    }
    list[count] = value;
    return 0;
}

static int unknown_option(const struct cli *cli, const char *text, int id, struct trk_err *err)
{
    if (id >= 0 && id < OPT_COUNT) {
        return trk_err_set(err, TRK_INVALID, "%s does not know --%s", cli->command->name,
                           cli_options[id].name);
    }
    return trk_err_set(err, TRK_INVALID, "unknown option %s", text);
}

#define LONG_BASE 256 /* getopt_long's value of option id is LONG_BASE + id */

static const struct cli_option *option_of(int value)
{
    for (size_t i = 0; i < OPT_COUNT; i++) {
        if (value == LONG_BASE + (int)i || (value < LONG_BASE && value == cli_options[i].letter)) {
            return &cli_options[i];
        }
    }
    return NULL;
}

int cli_parse(struct cli *cli, int argc, char **argv, struct trk_err *err)
{
    struct option longs[OPT_COUNT + 1] = {0};
    char letters[2 * OPT_COUNT + 2] = ":";
    size_t end = 1;
    for (size_t i = 0; i < OPT_COUNT; i++) {
        int has_argument = cli_options[i].argument != NULL ? required_argument : no_argument;
        longs[i] = (struct option){cli_options[i].name, has_argument, NULL, LONG_BASE + (int)i};
        if (cli_options[i].letter != 0) {
            letters[end++] = cli_options[i].letter;
            if (has_argument == required_argument) {
                letters[end++] = ':';
            }
        }
    }
    opterr = 0;
    optind = 0; /* starts anew: tests parse more than once */
    for (int value; (value = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        const struct cli_option *option = option_of(value == ':' ? optopt : value);
        if (value == ':') {
            return trk_err_set(err, TRK_INVALID, "--%s needs a value: %s",
                               option != NULL ? option->name : "?",
                               option != NULL ? option->argument : "");
        }
        if (value == '?' || option == NULL) {
            return unknown_option(cli, argv[optind - 1], -1, err);
        }
        if ((allowed_options(cli->command) & CLI_OPTION(option->id)) == 0) {
            return unknown_option(cli, argv[optind - 1], (int)option->id, err);
        }
        int rc = take_option(cli, option, optarg, err);
        if (rc < 0) {
            return rc;
        }
    }
    cli->is_verbose = cli->is_verbose || cli->values[OPT_VERBOSE] != NULL;
    for (; optind < argc; optind++) {
        if (cli->word_count == cli->command->words_max) {
            return trk_err_set(err, TRK_INVALID, "%s: unexpected argument %.200s",
                               cli->command->name, argv[optind]);
        }
        cli->words[cli->word_count++] = argv[optind];
    }
    if (cli->word_count < cli->command->words_min && cli->values[OPT_HELP] == NULL) {
        return trk_err_set(err, TRK_INVALID, "%s needs %s", cli->command->name,
                           cli->command->arguments);
    }
    return 0;
}
