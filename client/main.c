/* racetrack: deploys, calls and looks after jobs. The commands are in commands.c and cmd_*.c. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "client/cli.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

static int print_error(const char *text)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s %s\n",
                  cli_has_color(STDERR_FILENO) ? "\033[31merror:\033[0m" : "error:", text);
    return -1;
}

static int usage_error(const struct command *command, const char *text)
{
    (void)print_error(text);
    if (command != NULL) {
        (void)fprintf(stderr, "usage: racetrack %s [OPTIONS] %s\nmore: racetrack %s --help\n",
                      command->name, command->arguments, command->name);
    } else {
        (void)fputs("racetrack --help lists the commands\n", stderr);
    }
    return CLI_USAGE_EXIT;
}

/* Words up to the first option, for finding the command. */
static size_t leading_words(int argc, char **argv, int from, const char *words[CLI_WORDS_MAX])
{
    size_t count = 0;
    for (int i = from; i < argc && argv[i][0] != '-' && count < CLI_WORDS_MAX; i++) {
        words[count++] = argv[i];
    }
    return count;
}

static int no_command(const char *const *words, size_t count)
{
    if (count == 0) {
        command_print_list();
        return CLI_USAGE_EXIT;
    }
    /* "racetrack config": the beginning of some commands */
    size_t len = strlen(words[0]);
    bool begins = false;
    for (size_t i = 0; i < command_count; i++) {
        if (strncmp(commands[i].name, words[0], len) == 0 && commands[i].name[len] == ' ') {
            if (!begins) {
                (void)fprintf(stderr, "error: %s what? There are:\n", words[0]);
            }
            begins = true;
            (void)fprintf(stderr, "  racetrack %s %s\n", commands[i].name, commands[i].arguments);
        }
    }
    if (begins) {
        return CLI_USAGE_EXIT;
    }
    trk_autofree char *text = trk_xasprintf("there is no command %.100s", words[0]);
    return usage_error(NULL, text);
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    int first = 1;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--help") == 0 || strcmp(argv[first], "-h") == 0) {
            command_print_list();
            return 0;
        }
        if (strcmp(argv[first], "--version") == 0) {
            struct trk_err ignored = {0};
            return cmd_version(&cli, &ignored);
        }
        if (strcmp(argv[first], "-v") != 0 && strcmp(argv[first], "--verbose") != 0) {
            trk_autofree char *text = trk_xasprintf("unknown option %.100s", argv[first]);
            return usage_error(NULL, text);
        }
        cli.is_verbose = true;
    }
    const char *words[CLI_WORDS_MAX] = {0};
    size_t count = leading_words(argc, argv, first, words);
    size_t used = 0;
    cli.command = command_find(words, count, &used);
    if (cli.command == NULL) {
        return no_command(words, count);
    }
    struct trk_err err = {0};
    int skip = first + (int)used - 1; /* getopt takes the last word of the name for argv[0] */
    if (cli_parse(&cli, argc - skip, argv + skip, &err) < 0) {
        return usage_error(cli.command, err.text);
    }
    if (cli.values[OPT_HELP] != NULL) {
        command_print_help(cli.command);
        return 0;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    trk_log_init_from_env();
    trk_json_init();
    int rc = cli.command->run(&cli, &err);
    if (rc == 0 && (fflush(stdout) != 0 || ferror(stdout))) {
        rc = trk_err_set(&err, TRK_INTERNAL, "writing the output failed");
    }
    if (rc < 0 && cli.is_usage_error) {
        return usage_error(cli.command, err.text);
    }
    if (rc < 0) {
        (void)print_error(err.text);
        return err.code == TRK_CANCELLED ? CLI_INTERRUPTED : trk_code_info(err.code)->exit_code;
    }
    return 0;
}
