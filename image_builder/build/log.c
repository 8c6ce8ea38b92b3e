#include "image_builder/build/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdarg.h>

#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define LINE_MAX_BYTES 8192
#define HIDDEN_MIN     4
#define CERTAIN_MIN    8

struct build_log {
    pthread_mutex_t lock; /* a build's proxy writes into it, too */
    int fd;
    size_t max_bytes;
    const struct build_secrets *secrets;
    void (*on_line)(void *ctx, const char *line);
    void *ctx;
    struct trk_buf line; /* not yet complete */
    struct trk_buf head; /* half of the cap; in the file as well */
    struct trk_buf tail; /* the other half, once the head is full */
    size_t dropped;
    bool is_file_broken;
    size_t step_lines; /* since the current step began */
};

/* ---- secrets ---- */

void build_secrets_add(struct build_secrets *secrets, const char *value)
{
    while (value != NULL && *value != '\0') {
        size_t len = strcspn(value, "\r\n");
        if (len >= HIDDEN_MIN) {
            secrets->values = trk_xrealloc(secrets->values,
                                           (secrets->count + 1) * sizeof(*secrets->values));
            secrets->values[secrets->count++] = trk_xstrndup(value, len);
        }
        value += len;
        value += strspn(value, "\r\n");
    }
}

void build_secrets_fini(struct build_secrets *secrets)
{
    for (size_t i = 0; i < secrets->count; i++) {
        sodium_memzero(secrets->values[i], strlen(secrets->values[i]));
        free(secrets->values[i]);
    }
    free(secrets->values);
    *secrets = (struct build_secrets){0};
}

bool build_secrets_occur(const struct build_secrets *secrets, const void *bytes, size_t len)
{
    for (size_t i = 0; i < secrets->count; i++) {
        size_t n = strlen(secrets->values[i]);
        if (n >= CERTAIN_MIN && memmem(bytes, len, secrets->values[i], n) != NULL) {
            return true;
        }
    }
    return false;
}

/* Length of the longest secret at `text`, 0 for none. */
static size_t secret_at(const struct build_secrets *secrets, const char *text, size_t len)
{
    size_t longest = 0;
    for (size_t i = 0; secrets != NULL && i < secrets->count; i++) {
        size_t n = strlen(secrets->values[i]);
        if (n > longest && n <= len && memcmp(text, secrets->values[i], n) == 0) {
            longest = n;
        }
    }
    return longest;
}

/* Length of "user:password" behind "://", up to the '@'; 0 for none (RFC 3986 §3.2.1). */
static size_t userinfo_at(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '@') {
            return i;
        }
        if (c <= ' ' || strchr("/?#\"'<>", c) != NULL) {
            return 0;
        }
    }
    return 0;
}

void build_secrets_hide(const struct build_secrets *secrets, const char *text, size_t len,
                        struct trk_buf *out)
{
    for (size_t i = 0; i < len;) {
        size_t hidden = secret_at(secrets, text + i, len - i);
        if (hidden == 0 && i >= 3 && memcmp(text + i - 3, "://", 3) == 0) {
            hidden = userinfo_at(text + i, len - i);
        }
        if (hidden > 0) {
            (void)trk_buf_adds(out, "***");
            i += hidden;
        } else {
            (void)trk_buf_addc(out, text[i++]);
        }
    }
}

/* ---- the log ---- */

int build_log_open(const char *path, size_t max_bytes, const struct build_secrets *secrets,
                   void (*on_line)(void *ctx, const char *line), void *ctx, struct build_log **ret,
                   struct trk_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) {
        return trk_err_errno(err, errno, "creating the build log %s", path);
    }
    struct build_log *log = trk_xcalloc(1, sizeof(*log));
    *log = (struct build_log){
        .fd = fd, .max_bytes = max_bytes, .secrets = secrets, .on_line = on_line, .ctx = ctx};
    (void)pthread_mutex_init(&log->lock, NULL);
    trk_buf_init(&log->line, LINE_MAX_BYTES);
    trk_buf_init(&log->head, max_bytes / 2 + 2 * LINE_MAX_BYTES);
    trk_buf_init(&log->tail, max_bytes / 2 + 2 * LINE_MAX_BYTES);
    *ret = log;
    return 0;
}

/* A log that can not be written is no reason to fail a build; the text in memory remains. */
static void write_file(struct build_log *log, const char *bytes, size_t len)
{
    struct trk_err err = {0};
    if (!log->is_file_broken && trk_write_all(log->fd, bytes, len, &err) < 0) {
        log->is_file_broken = true;
        trk_log_warn("a build log can not be written", "error", err.text, NULL);
    }
}

static void keep_line(struct build_log *log, const char *line, size_t len)
{
    if (log->tail.len == 0 && log->head.len + len <= log->max_bytes / 2) {
        (void)trk_buf_add(&log->head, line, len);
        write_file(log, line, len);
        return;
    }
    (void)trk_buf_add(&log->tail, line, len);
    size_t cap = log->max_bytes / 2;
    if (log->tail.len > cap) {
        const char *from = log->tail.data + (log->tail.len - cap);
        const char *newline = memchr(from, '\n', cap);
        size_t cut = newline != NULL ? (size_t)(newline + 1 - log->tail.data) : log->tail.len - cap;
        log->dropped += cut;
        trk_buf_consume(&log->tail, cut);
    }
}

static void end_line(struct build_log *log)
{
    struct trk_buf shown;
    trk_buf_init(&shown, 4 * LINE_MAX_BYTES); /* *** may be longer than what it hides */
    trk_strip_ansi(log->line.data);
    build_secrets_hide(log->secrets, log->line.data, strlen(log->line.data), &shown);
    trk_utf8_repair(shown.data, shown.len);
    if (log->on_line != NULL) {
        log->on_line(log->ctx, shown.data);
    }
    (void)trk_buf_addc(&shown, '\n');
    log->step_lines++;
    keep_line(log, shown.data, shown.len);
    trk_buf_fini(&shown);
    trk_buf_reset(&log->line);
}

static void add(struct build_log *log, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == '\n') {
            end_line(log);
        } else if (bytes[i] != '\0' && bytes[i] != '\r') {
            if (log->line.len == LINE_MAX_BYTES) {
                end_line(log);
            }
            (void)trk_buf_addc(&log->line, bytes[i]);
        }
    }
}

void build_log_add(struct build_log *log, const char *bytes, size_t len)
{
    (void)pthread_mutex_lock(&log->lock);
    add(log, bytes, len);
    (void)pthread_mutex_unlock(&log->lock);
}

void build_log_printf(struct build_log *log, const char *fmt, ...)
{
    struct trk_buf text;
    trk_buf_init(&text, 4 * LINE_MAX_BYTES);
    va_list args;
    va_start(args, fmt);
    (void)trk_buf_vaddf(&text, fmt, args);
    va_end(args);
    (void)pthread_mutex_lock(&log->lock);
    if (log->line.len > 0) {
        end_line(log);
    }
    add(log, text.data, text.len);
    add(log, "\n", 1);
    (void)pthread_mutex_unlock(&log->lock);
    trk_buf_fini(&text);
}

static void put_rest(const struct build_log *log, struct trk_buf *out)
{
    if (log->dropped > 0) {
        (void)trk_buf_addf(out, "[... %zu bytes left out ...]\n", log->dropped);
    }
    (void)trk_buf_add(out, log->tail.data, log->tail.len);
}

char *build_log_text(struct build_log *log)
{
    struct trk_buf text;
    trk_buf_init(&text, log->max_bytes + 8 * LINE_MAX_BYTES);
    (void)pthread_mutex_lock(&log->lock);
    if (log->line.len > 0) {
        end_line(log);
    }
    (void)trk_buf_add(&text, log->head.data, log->head.len);
    put_rest(log, &text);
    (void)pthread_mutex_unlock(&log->lock);
    return trk_buf_steal(&text, NULL);
}

void build_log_begin_step(struct build_log *log)
{
    (void)pthread_mutex_lock(&log->lock);
    log->step_lines = 0;
    (void)pthread_mutex_unlock(&log->lock);
}

void build_log_tail(struct build_log *log, size_t lines, size_t max_bytes, struct trk_buf *out)
{
    trk_autofree char *text = build_log_text(log);
    (void)pthread_mutex_lock(&log->lock);
    lines = lines < log->step_lines ? lines : log->step_lines;
    (void)pthread_mutex_unlock(&log->lock);
    size_t len = strlen(text);
    const char *end = text + len;
    const char *from = end;
    while (lines > 0 && from > text && (size_t)(end - from) < max_bytes) {
        const char *line = from - 1; /* the newline that ends it */
        while (line > text && line[-1] != '\n') {
            line--;
        }
        if ((size_t)(end - line) > max_bytes) {
            break;
        }
        from = line;
        lines--;
    }
    (void)trk_buf_add(out, from, (size_t)(end - from));
}

void build_log_close(struct build_log *log)
{
    if (log == NULL) {
        return;
    }
    if (log->line.len > 0) {
        end_line(log);
    }
    struct trk_buf rest;
    trk_buf_init(&rest, log->max_bytes + 8 * LINE_MAX_BYTES);
    put_rest(log, &rest);
    if (rest.len > 0) {
        write_file(log, rest.data, rest.len);
    }
    trk_buf_fini(&rest);
    trk_buf_fini(&log->line);
    trk_buf_fini(&log->head);
    trk_buf_fini(&log->tail);
    (void)close(log->fd);
    (void)pthread_mutex_destroy(&log->lock);
    free(log);
}
