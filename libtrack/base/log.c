#include "libtrack/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/str.h"

#define LINE_MAX_BYTES (64 * 1024)

static struct trk_log_options settings = {.level = TRK_LOG_INFO, .fd = -1};
static _Thread_local const char *tracing_id;
static const char *const names[] = {"debug", "info", "warn", "error"};
static const char *const text_names[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};

void trk_log_init(const struct trk_log_options *options)
{
    settings = *options;
}

int trk_log_level_parse(const char *name, enum trk_log_level *ret_level)
{
    for (int i = 0; i < 4; i++) {
        if (strcasecmp(name, names[i]) == 0 || (i == 2 && strcasecmp(name, "warning") == 0)) {
            *ret_level = (enum trk_log_level)i;
            return 0;
        }
    }
    return -1;
}

void trk_log_init_from_env(void)
{
    const char *level = getenv("LOG_LEVEL");
    const char *structured = getenv("LOG_STRUCTURED");
    if (level != NULL) {
        (void)trk_log_level_parse(level, &settings.level);
    }
    settings.structured = structured != NULL &&
                          (strcasecmp(structured, "true") == 0 || strcmp(structured, "1") == 0);
}

bool trk_log_is_enabled(enum trk_log_level level)
{
    return level >= settings.level;
}

void trk_log_set_tracing_id(const char *id)
{
    tracing_id = id;
}

/* As much of a text as can go out as it is: no control character of C0 or C1 (a terminal obeys
 * both), nothing that is not UTF-8. 0: the next byte or character must be written otherwise. */
static size_t plain_length(const char *s, size_t len)
{
    size_t n = trk_utf8_sequence(s, len);
    unsigned char first = (unsigned char)s[0];
    bool is_control = n == 1 ? first < 0x20 || first == 0x7F
                             : n == 2 && first == 0xC2 && (unsigned char)s[1] < 0xA0;
    return is_control ? 0 : n;
}

/* The content of a JSON string, or of a line of text. */
static void add_escaped(struct trk_buf *buf, const char *s, bool json)
{
    for (size_t len = strlen(s); len > 0;) {
        unsigned char c = (unsigned char)*s;
        size_t n = plain_length(s, len);
        if (json && (c == '"' || c == '\\')) {
            (void)trk_buf_addc(buf, '\\');
            (void)trk_buf_addc(buf, (char)c);
        } else if (n > 0) {
            (void)trk_buf_add(buf, s, n);
        } else if (c == '\n') {
            (void)trk_buf_adds(buf, "\\n");
        } else if (json && c >= 0x80 && trk_utf8_sequence(s, len) == 0) {
            (void)trk_buf_adds(buf, "\\ufffd");
        } else {
            bool is_c1 = c == 0xC2 && trk_utf8_sequence(s, len) == 2;
            n = is_c1 ? 2 : 1;
            (void)trk_buf_addf(buf, json ? "\\u%04x" : "\\x%02x", is_c1 ? (unsigned char)s[1] : c);
        }
        n = n > 0 ? n : 1;
        s += n;
        len -= n;
    }
}

static void add_pair(struct trk_buf *buf, const char *key, const char *value, const char *separator)
{
    if (settings.structured) {
        (void)trk_buf_addf(buf, ",\"%s\":\"", key);
        add_escaped(buf, value, true);
        (void)trk_buf_addc(buf, '"');
    } else {
        (void)trk_buf_addf(buf, "%s%s=", separator, key);
        add_escaped(buf, value, false);
    }
}

static void write_line(struct trk_buf *buf)
{
    int fd = settings.fd >= 0 ? settings.fd : STDERR_FILENO;
    size_t done = 0;
    while (done < buf->len) {
        ssize_t n = write(fd, buf->data + done, buf->len - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return; /* a full disk must not stop the service */
        }
        done += (size_t)n;
    }
}

void trk_log(enum trk_log_level level, const char *message, ...)
{
    if (!trk_log_is_enabled(level)) {
        return;
    }
    struct trk_buf buf;
    trk_buf_init(&buf, LINE_MAX_BYTES);
    char time_text[32];
    int64_t now_ms = trk_wall_ms();
    trk_format_utc(now_ms / 1000, settings.structured ? "%Y-%m-%dT%H:%M:%S" : "%Y-%m-%d %H:%M:%S",
                   time_text, sizeof(time_text));
    if (settings.structured) {
        (void)trk_buf_addf(&buf, "{\"time\":\"%s.%03dZ\",\"lvl\":\"%s\",\"msg\":\"", time_text,
                           (int)(now_ms % 1000), names[level]);
        add_escaped(&buf, message, true);
        (void)trk_buf_addc(&buf, '"');
    } else {
        (void)trk_buf_addf(&buf, "[%s.%03d] %s ", time_text, (int)(now_ms % 1000),
                           text_names[level]);
        add_escaped(&buf, message, false);
    }
    va_list args;
    va_start(args, message);
    const char *key;
    while ((key = va_arg(args, const char *)) != NULL) {
        const char *value = va_arg(args, const char *);
        if (value != NULL) {
            add_pair(&buf, key, value, ", ");
        }
    }
    va_end(args);
    if (tracing_id != NULL) {
        add_pair(&buf, "tracing_id", tracing_id, ", ");
    }
    if (buf.failed) {
        buf.failed = false;
        buf.cap_bytes += 8; /* room for the closing of a cut line */
        (void)trk_buf_adds(&buf, settings.structured ? "\"" : "...");
    }
    buf.cap_bytes += 8;
    (void)trk_buf_adds(&buf, settings.structured ? "}\n" : "\n");
    int saved = errno;
    write_line(&buf);
    errno = saved;
    trk_buf_fini(&buf);
}
