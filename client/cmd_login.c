/* login, logout. */
#include <errno.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#include "client/cli.h"
#include "client/remote.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"

#define SECRET_MAX     4096
#define END_TIMEOUT_MS 5000

/* One line from stdin, not echoed on a terminal. *ret owned, without the newline. */
static int ask_secret(const char *prompt, char **ret, struct trk_err *err)
{
    struct termios before;
    bool is_terminal = tcgetattr(STDIN_FILENO, &before) == 0;
    if (is_terminal) {
        struct termios silent = before;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        (void)fputs(prompt, stderr);
        (void)fflush(stderr);
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    }
    char line[SECRET_MAX + 2];
    char *got = fgets(line, sizeof(line), stdin);
    if (is_terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        (void)fputc('\n', stderr);
    }
    if (got == NULL) {
        return trk_err_set(err, TRK_INVALID, "nothing was given: type it, or pipe it to stdin");
    }
    line[strcspn(line, "\r\n")] = '\0';
    *ret = trk_xstrdup(line);
    explicit_bzero(line, sizeof(line));
    return (*ret)[0] != '\0' ? 0 : trk_err_set(err, TRK_INVALID, "nothing was given");
}

static int save_token(const struct remote *remote, const char *token, struct trk_err *err)
{
    struct config_file *config = NULL;
    int rc = config_file_open(true, &config, err);
    if (rc < 0) {
        return rc;
    }
    config_file_set(config, "user_auths", remote->url, token != NULL ? json_string(token) : NULL);
    rc = config_file_save(config, err);
    config_file_close(config);
    return rc;
}

static int login_with_password(struct remote *remote, const char *username, struct trk_err *err)
{
    trk_autofree char *password = NULL;
    int rc = ask_secret("Password: ", &password, err);
    if (rc < 0) {
        return rc;
    }
    json_auto_t *body = json_pack("{s:s, s:s}", "username", username, "password", password);
    explicit_bzero(password, strlen(password));
    if (body == NULL) {
        return trk_err_set(err, TRK_INVALID, "user name and password must be UTF-8 text");
    }
    json_auto_t *answer = NULL;
    const struct remote_request request = {
        .method = "POST", .path = "/api/v1/users/login", .json = body, .context = "logging in"};
    const char *token = NULL;
    remote->token = NULL; /* an old one has no say in this */
    int status = 0;
    rc = remote_send(remote, &request, &status, &answer, err);
    if (status == 401) {
        return trk_err_set(err, TRK_UNAUTHENTICATED,
                           "logging in to %s: wrong user name or password", remote->shown);
    }
    if (rc == 0) {
        rc = trk_json_string(answer, "token", &token, err);
    }
    if (rc == 0) {
        rc = save_token(remote, token, err);
    }
    if (rc == 0) {
        (void)printf("logged in to %s as %s\n", remote->shown, username);
    }
    return rc;
}

static int login_with_token(struct remote *remote, const char *token, struct trk_err *err)
{
    for (const char *p = token; *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f) {
            return trk_err_set(err, TRK_INVALID,
                               "a token has no blanks and no characters beyond ASCII; was it "
                               "copied whole?");
        }
    }
    json_auto_t *answer = NULL;
    remote->token = token;
    const struct remote_request request = {.path = "/api/v1/users/validate_user_auth",
                                           .context = "checking the token"};
    int status = 0;
    int rc = remote_send(remote, &request, &status, &answer, err);
    if (status == 401) {
        return trk_err_set(err, TRK_UNAUTHENTICATED, "%s does not accept this token",
                           remote->shown);
    }
    if (rc == 0) {
        rc = save_token(remote, token, err);
    }
    if (rc == 0) {
        (void)printf("logged in to %s as %s\n", remote->shown,
                     trk_json_string_or(answer, "username", "?"));
    }
    return rc;
}

/* Tokens are JWTs: three parts, and longer than any alias. */
static bool looks_like_token(const char *word)
{
    const char *dot = strchr(word, '.');
    return strncmp(word, "eyJ", 3) == 0 && (dot != NULL || strlen(word) > 60) &&
           strchr(word, '/') == NULL;
}

int cmd_login(struct cli *cli, struct trk_err *err)
{
    const char *where = NULL, *token = NULL;
    if (cli->word_count == 2) {
        where = cli->words[0];
        token = cli->words[1];
        if (looks_like_token(where) && !looks_like_token(token)) {
            where = cli->words[1];
            token = cli->words[0];
        }
    } else if (cli->word_count == 1) {
        bool is_remote = cli->values[OPT_USERNAME] != NULL ||
                         (cli->values[OPT_REMOTE] == NULL && !looks_like_token(cli->words[0]));
        *(is_remote ? &where : &token) = cli->words[0];
    }
    if (where != NULL && cli->values[OPT_REMOTE] != NULL) {
        return cli_usage(cli, err, "the server is named twice: %s and --remote %s", where,
                         cli->values[OPT_REMOTE]);
    }
    if (token != NULL && cli->values[OPT_USERNAME] != NULL) {
        return cli_usage(cli, err, "either a token or --username");
    }
    struct remote remote;
    trk_autofree char *asked = NULL;
    int rc = remote_open_of(&remote, cli, where, err);
    if (rc < 0) {
        return rc;
    }
    if (cli->values[OPT_USERNAME] != NULL) {
        rc = login_with_password(&remote, cli->values[OPT_USERNAME], err);
    } else {
        if (token == NULL) {
            rc = ask_secret("Token: ", &asked, err);
            token = asked;
        }
        if (rc == 0) {
            rc = login_with_token(&remote, token, err);
        }
    }
    remote_close(&remote);
    return rc;
}

int cmd_logout(struct cli *cli, struct trk_err *err)
{
    struct remote remote;
    int rc = remote_open_of(&remote, cli, cli->words[0], err);
    if (rc < 0) {
        return rc;
    }
    bool was_in = remote.token != NULL;
    struct trk_err why = {0};
    const struct remote_request end = {.path = "/api/v1/users/logout",
                                       .timeout_ms = END_TIMEOUT_MS,
                                       .context = "ending the session"};
    if (was_in && remote_send(&remote, &end, NULL, NULL, &why) < 0) {
        (void)fprintf(stderr, "%s\nThe token is forgotten here; the session ends by itself.\n",
                      why.text);
    }
    rc = was_in ? save_token(&remote, NULL, err) : 0;
    if (rc == 0) {
        (void)printf(was_in ? "logged out of %s\n" : "you were not logged in to %s\n",
                     remote.shown);
    }
    remote_close(&remote);
    return rc;
}
