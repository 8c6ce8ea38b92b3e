#include "libtrack/base/mem.h"

#include <stdarg.h>

static void *checked(void *p)
{
    if (p == NULL) {
        trk_die("out of memory");
    }
    return p;
}

void *trk_xmalloc(size_t size_bytes)
{
    return checked(malloc(size_bytes > 0 ? size_bytes : 1));
}

void *trk_xcalloc(size_t count, size_t size_bytes)
{
    return checked(calloc(count > 0 ? count : 1, size_bytes > 0 ? size_bytes : 1));
}

void *trk_xrealloc(void *p, size_t size_bytes)
{
    return checked(realloc(p, size_bytes > 0 ? size_bytes : 1));
}

char *trk_xstrdup(const char *s)
{
    return checked(strdup(s));
}

char *trk_xstrndup(const char *s, size_t len)
{
    return checked(strndup(s, len));
}

char *trk_xasprintf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    return checked(n < 0 ? NULL : text);
}
