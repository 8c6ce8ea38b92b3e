/*
 * config_file.h - ~/.racetrack/config.yaml: servers, aliases, tokens, git credentials.
 *
 * Compatible with the original's file: keys that we do not know are kept. Written atomically with
 * mode 0600; a change reads, changes and writes under a lock, so that two programs lose nothing.
 * One thread.
 *
 *     struct config_file *config;
 *     if (config_file_open(true, &config, err) < 0) ...       // true: to change it
 *     config_file_set(config, "user_auths", url, json_string(token));
 *     if (config_file_save(config, err) < 0) ...
 *     config_file_close(config);
 */
#ifndef CLIENT_CONFIG_FILE_H
#define CLIENT_CONFIG_FILE_H

#include <jansson.h>
#include <stdbool.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

#define CONFIG_DEFAULT_REMOTE "http://127.0.0.1:7002"

struct config_file;

/* Reads it (a missing one is empty); warns when others may read it. *ret owned. */
int config_file_open(bool to_change, struct config_file **ret, struct trk_err *err) TRK_MUST_CHECK;
void config_file_close(struct config_file *config);
const char *config_file_path(const struct config_file *config); /* borrows */
/* Only after config_file_open(true). */
int config_file_save(struct config_file *config, struct trk_err *err) TRK_MUST_CHECK;

/* lifecycle_url as written; the default when there is none. Borrows. */
const char *config_file_remote(const struct config_file *config);
/* Member `key` of section (an object); NULL when missing. Borrows. */
const json_t *config_file_get(const struct config_file *config, const char *section,
                              const char *key);
/* Sets member `key` of `section` (NULL: of the file itself); takes `value`; NULL removes. */
void config_file_set(struct config_file *config, const char *section, const char *key,
                     json_t *value);
/* Completed URL of an alias, a URL, or (NULL) the default remote. A word that is neither alias nor
 * address: TRK_NOT_FOUND with the aliases there are. *ret owned. */
int config_file_resolve(const struct config_file *config, const char *remote, char **ret,
                        struct trk_err *err) TRK_MUST_CHECK;
/* Alias that leads to this completed URL, for hints; NULL when there is none. Borrows. */
const char *config_file_alias_of(const struct config_file *config, const char *url);
/* An alias to suggest to somebody who named no server while none is the default; NULL when one is,
 * or when there are no aliases. Borrows. */
const char *config_file_suggestion(const struct config_file *config);
/* Token of a completed URL, or NULL. Borrows. */
const char *config_file_token(const struct config_file *config, const char *url);
/* Credentials for a git remote: exact remote, scheme://host/path, scheme://host, host. NULL: none.
 * Borrows. */
const json_t *config_file_git_credentials(const struct config_file *config, const char *remote);
/* The file as YAML with tokens and passwords as ***. */
int config_file_dump_hidden(const struct config_file *config, struct trk_buf *buf);

#endif
