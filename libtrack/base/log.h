/*
 * log.h - one structured line an event, as text or as JSON.
 *
 * Text: `[2026-01-31 12:00:00.123] INFO  deployed job, job=adder, tracing_id=…`; JSON with one
 * object a line when structured. Values are escaped: user bytes never reach the log raw. Level and
 * form come from LOG_LEVEL (debug|info|warn|error, default info) and LOG_STRUCTURED (true|false).
 * Lines go to stderr in one write each; any thread. The tracing id of the thread's current request
 * is added by itself.
 *
 *     trk_log_info("deployed job", "job", name, "version", version, NULL);
 *     trk_log_error("deploying failed", "error", err.text, NULL);
 */
#ifndef LIBTRACK_LOG_H
#define LIBTRACK_LOG_H

#include <stdbool.h>

enum trk_log_level { TRK_LOG_DEBUG, TRK_LOG_INFO, TRK_LOG_WARN, TRK_LOG_ERROR };

struct trk_log_options {
    enum trk_log_level level;
    bool structured;
    int fd; /* borrows; -1: stderr */
};
void trk_log_init(const struct trk_log_options *options);
/* From LOG_LEVEL and LOG_STRUCTURED; unknown values mean the default. */
void trk_log_init_from_env(void);
/* 0 and *ret_level, or -1 for an unknown name. */
int trk_log_level_parse(const char *name, enum trk_log_level *ret_level);
bool trk_log_is_enabled(enum trk_log_level level);

/* message, then pairs of `const char *key, const char *value` up to NULL; a NULL value is left out.
 */
void trk_log(enum trk_log_level level, const char *message, ...) __attribute__((sentinel));
#define trk_log_debug(...)                                                                         \
    do {                                                                                           \
        if (trk_log_is_enabled(TRK_LOG_DEBUG)) {                                                   \
            trk_log(TRK_LOG_DEBUG, __VA_ARGS__);                                                   \
        }                                                                                          \
    } while (0)
#define trk_log_info(...)  trk_log(TRK_LOG_INFO, __VA_ARGS__)
#define trk_log_warn(...)  trk_log(TRK_LOG_WARN, __VA_ARGS__)
#define trk_log_error(...) trk_log(TRK_LOG_ERROR, __VA_ARGS__)

/* Borrows `id` until the next call on this thread; NULL clears. */
void trk_log_set_tracing_id(const char *id);

#endif
