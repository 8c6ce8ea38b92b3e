/*
 * log.h - a build's log: lines without secrets, in a file and in memory, bounded.
 *
 * Every line loses the values of the build's secrets, user names and passwords in URLs, and
 * terminal escapes before it goes anywhere. A log that grows past its cap keeps its beginning and
 * its end. Any thread.
 */
#ifndef IMAGE_BUILDER_BUILD_LOG_H
#define IMAGE_BUILDER_BUILD_LOG_H

#include <stddef.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

struct build_log;

/* Values to hide; what has less than four characters can not be hidden. Zeroed by fini. */
struct build_secrets {
    char **values;
    size_t count;
};
void build_secrets_add(struct build_secrets *secrets, const char *value); /* each line of it */
void build_secrets_fini(struct build_secrets *secrets);
/* Replaces them, and what stands before '@' in URLs, by ***; appends to out. */
void build_secrets_hide(const struct build_secrets *secrets, const char *text, size_t len,
                        struct trk_buf *out);
/* Does `bytes` contain one of the values that are long enough (8) to be no accident? */
bool build_secrets_occur(const struct build_secrets *secrets, const void *bytes, size_t len);

/* `path` is replaced. `secrets` borrows. on_line (may be NULL) gets each line as it is complete. */
int build_log_open(const char *path, size_t max_bytes, const struct build_secrets *secrets,
                   void (*on_line)(void *ctx, const char *line), void *ctx, struct build_log **ret,
                   struct trk_err *err) TRK_MUST_CHECK;
void build_log_close(struct build_log *log); /* writes the end of the file; takes NULL */
void build_log_add(struct build_log *log, const char *bytes, size_t len);
void build_log_printf(struct build_log *log, const char *fmt, ...) TRK_PRINTF(2, 3);
/* All of it as it is kept; returns owned. */
char *build_log_text(struct build_log *log);
/* Lines from here on belong to another step. */
void build_log_begin_step(struct build_log *log);
/* The last lines of the current step, at most `max_bytes`, appended to `out`. */
void build_log_tail(struct build_log *log, size_t lines, size_t max_bytes, struct trk_buf *out);

#endif
