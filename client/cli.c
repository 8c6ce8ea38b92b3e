/* Output of the CLI. */
#include "client/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

bool cli_has_color(int fd)
{
    const char *no_color = getenv("NO_COLOR"); /* https://no-color.org: set and not empty */
    const char *term = getenv("TERM");
    return isatty(fd) == 1 && trk_str_is_empty(no_color) &&
           (term == NULL || strcmp(term, "dumb") != 0);
}

void cli_warn(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)fflush(stdout);
    (void)fputs(cli_has_color(STDERR_FILENO) ? "\033[33mwarning:\033[0m " : "warning: ", stderr);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

int cli_usage(struct cli *cli, struct trk_err *err, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    cli->is_usage_error = true;
    return trk_err_set(err, TRK_INVALID, "%s", text);
}

void cli_verbose(const struct cli *cli, const char *fmt, ...)
{
    if (!cli->is_verbose) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    (void)fflush(stdout);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

void cli_print_text(const char *text)
{
    trk_autofree char *copy = trk_xstrdup(text);
    if (!cli_has_color(STDOUT_FILENO)) {
        trk_strip_ansi(copy);
    }
    size_t len = strlen(copy);
    (void)fwrite(copy, 1, len, stdout);
    if (len > 0 && copy[len - 1] != '\n') {
        (void)fputc('\n', stdout);
    }
}
