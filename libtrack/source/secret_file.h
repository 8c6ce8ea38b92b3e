/*
 * secret_file.h - files of KEY=VALUE lines that a manifest names (secret_build_env_file,
 * secret_runtime_env_file).
 */
#ifndef LIBTRACK_SECRET_FILE_H
#define LIBTRACK_SECRET_FILE_H

#include <jansson.h>

#include "libtrack/base/err.h"

/* Lines KEY=VALUE; blank lines, lines that begin with # or ;, and [sections] are passed over; case
 * is kept; blanks around, and quotes around a whole value, are dropped. `name` is for errors, which
 * never show a value. *ret owned: an object of strings. */
int trk_secret_lines_parse(const char *text, const char *name, json_t **ret,
                           struct trk_err *err) TRK_MUST_CHECK;
/* Reads `path` relative to `folder`. */
int trk_secret_file_read(const char *folder, const char *path, json_t **ret,
                         struct trk_err *err) TRK_MUST_CHECK;

#endif
