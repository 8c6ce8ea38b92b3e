#include "libtrack/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    enum trk_code code;
    struct trk_code_info info;
} codes[] = {
    {TRK_OK, {200, 0, ""}},
    {TRK_INVALID, {400, 70, "ValueError"}},
    {TRK_UNAUTHENTICATED, {401, 70, "UnauthorizedError"}},
    {TRK_FORBIDDEN, {403, 70, "ForbiddenError"}},
    {TRK_NOT_FOUND, {404, 70, "EntityNotFound"}},
    {TRK_METHOD, {405, 70, "MethodNotAllowed"}},
    {TRK_CONFLICT, {409, 70, "AlreadyExists"}},
    {TRK_GONE, {410, 70, "Gone"}},
    {TRK_TOO_LARGE, {413, 70, "TooLarge"}},
    {TRK_MEDIA_TYPE, {415, 70, "UnsupportedMediaType"}},
    {TRK_SCHEMA, {422, 70, "ValidationError"}},
    {TRK_TOO_MANY, {429, 70, "TooManyRequests"}},
    {TRK_HEADERS_TOO_LARGE, {431, 70, "HeadersTooLarge"}},
    {TRK_CANCELLED, {499, 130, "Cancelled"}},
    {TRK_INTERNAL, {500, 70, "RuntimeError"}},
    {TRK_BAD_GATEWAY, {502, 70, "BadGateway"}},
    {TRK_UNAVAILABLE, {503, 70, "Unavailable"}},
    {TRK_TIMEOUT, {504, 70, "Timeout"}},
    {TRK_NO_SPACE, {507, 70, "NoSpace"}},
};

const struct trk_code_info *trk_code_info(enum trk_code code)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].code == code) {
            return &codes[i].info;
        }
    }
    return trk_code_info(TRK_INTERNAL);
}

enum trk_code trk_code_from_http(int status)
{
    if (status >= 200 && status < 300) {
        return TRK_OK;
    }
    if (status == 500) {
        return TRK_BAD_GATEWAY;
    }
    for (size_t i = 1; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].info.http_status == status) {
            return codes[i].code;
        }
    }
    return status >= 400 && status < 500 ? TRK_INVALID : TRK_BAD_GATEWAY;
}

/* Cuts a text that filled its buffer on a UTF-8 boundary and marks the cut. */
static void mark_cut(char *text, size_t size)
{
    static const char mark[] = "\xe2\x80\xa6"; /* … */
    size_t end = size - sizeof(mark);
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80) {
        end--;
    }
    memcpy(text + end, mark, sizeof(mark));
}

static void format(char *text, size_t size, const char *fmt, va_list args) TRK_PRINTF(3, 0);
static void format(char *text, size_t size, const char *fmt, va_list args)
{
    int n = vsnprintf(text, size, fmt, args);
    if (n < 0) {
        text[0] = '\0';
    } else if ((size_t)n >= size && size > 8) {
        mark_cut(text, size);
    }
}

int trk_err_set(struct trk_err *err, enum trk_code code, const char *fmt, ...)
{
    if (err != NULL) {
        /* Through a second buffer: an argument may be the old text itself. */
        char text[TRK_ERR_TEXT_MAX];
        va_list args;
        va_start(args, fmt);
        format(text, sizeof(text), fmt, args);
        va_end(args);
        err->code = code;
        memcpy(err->text, text, strlen(text) + 1);
    }
    return code;
}

static enum trk_code code_from_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
        return TRK_NOT_FOUND;
    case ENOSPC:
    case EDQUOT:
        return TRK_NO_SPACE;
    case EACCES:
    case EPERM:
        return TRK_FORBIDDEN;
    case EEXIST:
        return TRK_CONFLICT;
    case ETIMEDOUT:
        return TRK_TIMEOUT;
    case ECONNREFUSED:
        return TRK_UNAVAILABLE;
    default:
        return TRK_INTERNAL;
    }
}

int trk_err_errno(struct trk_err *err, int errnum, const char *fmt, ...)
{
    enum trk_code code = code_from_errno(errnum);
    if (err != NULL) {
        char text[TRK_ERR_TEXT_MAX - 128];
        char reason[128];
        va_list args;
        va_start(args, fmt);
        format(text, sizeof(text), fmt, args);
        va_end(args);
        (void)trk_err_set(err, code, "%s: %s", text, strerror_r(errnum, reason, sizeof(reason)));
    }
    return code;
}

int trk_err_wrap(struct trk_err *err, const char *fmt, ...)
{
    if (err == NULL) {
        return TRK_INTERNAL;
    }
    char context[1024];
    va_list args;
    va_start(args, fmt);
    format(context, sizeof(context), fmt, args);
    va_end(args);
    return trk_err_set(err, err->code, "%s: %s", context, err->text);
}

int trk_err_append(struct trk_err *err, const char *fmt, ...)
{
    if (err == NULL) {
        return TRK_INTERNAL;
    }
    size_t len = strlen(err->text);
    if (len + 16 < sizeof(err->text)) {
        va_list args;
        va_start(args, fmt);
        format(err->text + len, sizeof(err->text) - len, fmt, args);
        va_end(args);
    }
    return err->code;
}

void trk_die_at(const char *file, int line, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)fprintf(stderr, "%s:%d: ", file, line);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
    abort();
}
