#include "client/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "client/cli.h"
#include "client/url.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"

struct config_file {
    char *path;
    json_t *root; /* an object */
    int lock_fd;  /* held while it is to be changed */
};

static const char *home_folder(void)
{
    const char *home = getenv("HOME");
    if (!trk_str_is_empty(home)) {
        return home;
    }
    const struct passwd *user = getpwuid(getuid());
    return user != NULL && user->pw_dir != NULL ? user->pw_dir : "/";
}

static int parse(struct config_file *config, const char *bytes, size_t len, struct trk_err *err)
{
    json_auto_t *root = NULL;
    int rc = trk_yaml_parse(bytes, len, config->path, &root, err);
    if (rc < 0) {
        return rc;
    }
    if (json_is_null(root)) { /* an empty file */
        return 0;
    }
    if (!json_is_object(root)) {
        return trk_err_set(err, TRK_INVALID, "%s holds no settings: a mapping is expected",
                           config->path);
    }
    static const char *const sections[] = {"lifecycle_url_aliases", "git_credentials",
                                           "user_auths"};
    for (size_t i = 0; i < TRK_COUNT(sections); i++) {
        const json_t *section = json_object_get(root, sections[i]);
        if (section != NULL && !json_is_object(section) && !json_is_null(section)) {
            return trk_err_set(err, TRK_INVALID, "%s: %s must be a mapping", config->path,
                               sections[i]);
        }
    }
    json_decref(config->root);
    config->root = json_incref(root);
    return 0;
}

static int lock_folder(struct config_file *config, struct trk_err *err)
{
    trk_autofree char *folder = trk_xstrndup(config->path, strlen(config->path) - 12);
    int rc = trk_mkdir_p(folder, 0700, err);
    if (rc < 0) {
        return rc;
    }
    config->lock_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (config->lock_fd < 0 || flock(config->lock_fd, LOCK_EX) < 0) {
        return trk_err_errno(err, errno, "locking %s", folder);
    }
    return 0;
}

static int load(struct config_file *config, struct trk_err *err)
{
    struct stat st;
    if (stat(config->path, &st) < 0) {
        return errno == ENOENT ? 0 : trk_err_errno(err, errno, "%s", config->path);
    }
    if ((st.st_mode & 077) != 0) {
        cli_warn("%s can be read by others although it holds tokens; type: chmod 600 %s",
                 config->path, config->path);
    }
    trk_autofree char *bytes = NULL;
    size_t len = 0;
    int rc = trk_file_read(config->path, TRK_YAML_BYTES_MAX, &bytes, &len, err);
    return rc < 0 ? rc : parse(config, bytes, len, err);
}

int config_file_open(bool to_change, struct config_file **ret, struct trk_err *err)
{
    struct config_file *config = trk_xcalloc(1, sizeof(*config));
    config->path = trk_xasprintf("%s/.racetrack/config.yaml", home_folder());
    config->root = json_object();
    config->lock_fd = -1;
    int rc = to_change ? lock_folder(config, err) : 0;
    if (rc == 0) {
        rc = load(config, err);
    }
    if (rc < 0) {
        config_file_close(config);
        return rc;
    }
    *ret = config;
    return 0;
}

void config_file_close(struct config_file *config)
{
    if (config == NULL) {
        return;
    }
    if (config->lock_fd >= 0) {
        (void)close(config->lock_fd);
    }
    json_decref(config->root);
    free(config->path);
    free(config);
}

const char *config_file_path(const struct config_file *config)
{
    return config->path;
}

int config_file_save(struct config_file *config, struct trk_err *err)
{
    trk_assert(config->lock_fd >= 0);
    struct trk_buf buf;
    trk_buf_init(&buf, TRK_YAML_BYTES_MAX);
    int rc = trk_yaml_dump(config->root, &buf);
    if (rc < 0) {
        (void)trk_err_set(err, TRK_TOO_LARGE, "%s would grow past %d KiB", config->path,
                          TRK_YAML_BYTES_MAX / 1024);
    } else {
        /* A link (a file kept elsewhere) stays a link. */
        trk_autofree char *real = realpath(config->path, NULL);
        rc = trk_file_write(real != NULL ? real : config->path, buf.data, buf.len, 0600, err);
    }
    trk_buf_fini(&buf);
    return rc;
}

const char *config_file_remote(const struct config_file *config)
{
    const char *remote = trk_json_string_or(config->root, "lifecycle_url", NULL);
    return trk_str_is_empty(remote) ? CONFIG_DEFAULT_REMOTE : remote;
}

const json_t *config_file_get(const struct config_file *config, const char *section,
                              const char *key)
{
    return json_object_get(json_object_get(config->root, section), key);
}

void config_file_set(struct config_file *config, const char *section, const char *key,
                     json_t *value)
{
    json_t *object = config->root;
    if (section != NULL) {
        object = json_object_get(config->root, section);
        if (!json_is_object(object)) {
            (void)json_object_set_new(config->root, section, json_object());
            object = json_object_get(config->root, section);
        }
    }
    if (value == NULL) {
        (void)json_object_del(object, key);
    } else {
        (void)json_object_set_new(object, key, value);
    }
}

static int unknown_alias(const struct config_file *config, const char *remote, struct trk_err *err)
{
    (void)trk_err_set(err, TRK_NOT_FOUND, "%.200s is neither an alias nor an address. ", remote);
    json_t *aliases = json_object_get(config->root, "lifecycle_url_aliases");
    if (json_object_size(aliases) == 0) {
        return trk_err_append(err,
                              "There are no aliases yet; to make one, type: racetrack set "
                              "alias %.100s URL",
                              remote);
    }
    (void)trk_err_append(err, "The aliases are:");
    const char *name;
    const json_t *url;
    json_object_foreach (aliases, name, url) {
        (void)trk_err_append(err, "\n  %s  %s", name, json_string_value(url));
    }
    return trk_err_append(err, "\nTo make one, type: racetrack set alias %.100s URL", remote);
}

int config_file_resolve(const struct config_file *config, const char *remote, char **ret,
                        struct trk_err *err)
{
    if (remote == NULL) {
        remote = config_file_remote(config);
    }
    const json_t *alias = config_file_get(config, "lifecycle_url_aliases", remote);
    if (json_is_string(alias)) {
        return url_complete(json_string_value(alias), ret, err);
    }
    if (!url_looks_like_one(remote)) {
        return unknown_alias(config, remote, err);
    }
    return url_complete(remote, ret, err);
}

const char *config_file_alias_of(const struct config_file *config, const char *url)
{
    const char *name;
    json_t *alias;
    json_object_foreach (json_object_get(config->root, "lifecycle_url_aliases"), name, alias) {
        struct trk_err ignored = {0};
        trk_autofree char *complete = NULL;
        if (json_is_string(alias) &&
            url_complete(json_string_value(alias), &complete, &ignored) == 0 &&
            strcmp(complete, url) == 0) {
            return name;
        }
    }
    return NULL;
}

const char *config_file_suggestion(const struct config_file *config)
{
    const char *remote = trk_json_string_or(config->root, "lifecycle_url", NULL);
    json_t *aliases = json_object_get(config->root, "lifecycle_url_aliases");
    return trk_str_is_empty(remote) ? json_object_iter_key(json_object_iter(aliases)) : NULL;
}

const char *config_file_token(const struct config_file *config, const char *url)
{
    const char *token = json_string_value(config_file_get(config, "user_auths", url));
    return trk_str_is_empty(token) ? NULL : token;
}

const json_t *config_file_git_credentials(const struct config_file *config, const char *remote)
{
    const json_t *found = config_file_get(config, "git_credentials", remote);
    const char *host = strstr(remote, "://");
    if (found != NULL || host == NULL) {
        return found;
    }
    host += 3;
    const char *at = strchr(host, '@');
    size_t host_len = strcspn(host, "/?#");
    if (at != NULL && at < host + host_len) {
        host_len -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    size_t path_len = strcspn(host, "?#");
    int scheme_len = (int)(strstr(remote, "://") - remote);
    trk_autofree char *with_path = trk_xasprintf("%.*s://%.*s", scheme_len, remote, (int)path_len,
                                                 host);
    trk_autofree char *with_host = trk_xasprintf("%.*s://%.*s", scheme_len, remote, (int)host_len,
                                                 host);
    trk_autofree char *only_host = trk_xstrndup(host, host_len);
    const char *const tries[] = {with_path, with_host, only_host};
    for (size_t i = 0; found == NULL && i < TRK_COUNT(tries); i++) {
        found = config_file_get(config, "git_credentials", tries[i]);
    }
    return found;
}

int config_file_dump_hidden(const struct config_file *config, struct trk_buf *buf)
{
    json_auto_t *copy = json_deep_copy(config->root);
    const char *key;
    json_t *value;
    void *next;
    json_t *auths = json_object_get(copy, "user_auths");
    json_object_foreach_safe(auths, next, key, value)
    {
        (void)json_object_set_new(auths, key, json_string("***"));
    }
    json_object_foreach (json_object_get(copy, "git_credentials"), key, value) {
        if (json_is_object(value)) {
            (void)json_object_set_new(value, "password", json_string("***"));
        }
    }
    return trk_yaml_dump(copy, buf);
}
