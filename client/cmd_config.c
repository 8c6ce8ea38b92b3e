/* set, get and the older spellings below config: what ~/.racetrack/config.yaml holds. */
#include <stdio.h>

#include "client/cli.h"
#include "client/config_file.h"
#include "client/remote.h"
#include "client/url.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/yaml.h"

/* Opens, sets one value, saves. Takes `value`. */
static int change(const char *section, const char *key, json_t *value, struct trk_err *err)
{
    struct config_file *config = NULL;
    int rc = config_file_open(true, &config, err);
    if (rc < 0) {
        json_decref(value);
        return rc;
    }
    config_file_set(config, section, key, value);
    rc = config_file_save(config, err);
    config_file_close(config);
    return rc;
}

int cmd_set_remote(struct cli *cli, struct trk_err *err)
{
    struct config_file *config = NULL;
    trk_autofree char *url = NULL;
    int rc = config_file_open(true, &config, err);
    if (rc < 0) {
        return rc;
    }
    rc = config_file_resolve(config, cli->words[0], &url, err);
    if (rc == 0) {
        config_file_set(config, NULL, "lifecycle_url", json_string(cli->words[0]));
        rc = config_file_save(config, err);
    }
    config_file_close(config);
    if (rc == 0) {
        (void)printf("the default server is %s now (%s)\n", cli->words[0], url);
    }
    return rc;
}

int cmd_set_alias(struct cli *cli, struct trk_err *err)
{
    const char *name = cli->words[0];
    trk_autofree char *url = NULL;
    if (name[0] == '\0' || url_looks_like_one(name)) {
        return trk_err_set(err, TRK_INVALID,
                           "%.200s cannot be an alias: choose a word without . : and /", name);
    }
    int rc = url_complete(cli->words[1], &url, err);
    if (rc < 0) {
        return rc;
    }
    rc = change("lifecycle_url_aliases", name, json_string(cli->words[1]), err);
    if (rc == 0) {
        (void)printf("%s means %s now\n", name, url);
    }
    return rc;
}

int cmd_set_credentials(struct cli *cli, struct trk_err *err)
{
    json_t *value = json_pack("{s:s, s:s}", "username", cli->words[1], "password", cli->words[2]);
    if (value == NULL) {
        return trk_err_set(err, TRK_INVALID, "user name and token must be UTF-8 text");
    }
    int rc = change("git_credentials", cli->words[0], value, err);
    if (rc == 0) {
        (void)printf("credentials for %s are remembered\n", cli->words[0]);
    }
    return rc;
}

int cmd_get_remote(struct cli *cli, struct trk_err *err)
{
    struct remote remote;
    int rc = remote_open_of(&remote, cli, NULL, err);
    if (rc < 0) {
        return rc;
    }
    const char *name = cli->values[OPT_REMOTE] != NULL ? cli->values[OPT_REMOTE]
                                                       : config_file_remote(remote.config);
    if (cli->values[OPT_QUIET] != NULL) {
        (void)printf("%s\n", remote.url);
    } else if (strcmp(name, remote.url) == 0) {
        (void)printf("server: %s\n", remote.url);
    } else {
        (void)printf("server: %s (%s)\n", name, remote.url);
    }
    remote_close(&remote);
    return 0;
}

int cmd_get_pub(struct cli *cli, struct trk_err *err)
{
    struct remote remote;
    trk_autofree char *pub = NULL;
    int rc = remote_open_of(&remote, cli, NULL, err);
    if (rc < 0) {
        return rc;
    }
    rc = remote_pub_url(&remote, &pub, err);
    if (rc == 0) {
        (void)printf("%s%s\n", cli->values[OPT_QUIET] != NULL ? "" : "jobs of this server: ", pub);
    }
    remote_close(&remote);
    return rc;
}

int cmd_get_auth_token(struct cli *cli, struct trk_err *err)
{
    struct remote remote;
    int rc = remote_open_of(&remote, cli, NULL, err);
    if (rc < 0) {
        return rc;
    }
    if (remote.token != NULL) {
        (void)printf("%s\n", remote.token);
    } else {
        rc = trk_err_set(err, TRK_UNAUTHENTICATED,
                         "you are not logged in to %s\nTo log in, type: racetrack login "
                         "--username NAME --remote %s",
                         remote.shown, remote.shown);
    }
    remote_close(&remote);
    return rc;
}

int cmd_get_config(struct cli *cli, struct trk_err *err)
{
    struct config_file *config = NULL;
    int rc = config_file_open(false, &config, err);
    if (rc < 0) {
        return rc;
    }
    cli_verbose(cli, "file: %s", config_file_path(config));
    struct trk_buf buf;
    trk_buf_init(&buf, 2 * TRK_YAML_BYTES_MAX);
    rc = config_file_dump_hidden(config, &buf);
    if (rc < 0) {
        rc = trk_err_set(err, TRK_TOO_LARGE, "the configuration is too large to print");
    } else {
        (void)fwrite(buf.data, 1, buf.len, stdout);
    }
    trk_buf_fini(&buf);
    config_file_close(config);
    return rc;
}
