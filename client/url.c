#include "client/url.h"

#include <ctype.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

static int check_characters(const char *text, struct trk_err *err)
{
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || *p == '\x7f' || strchr("\"<>\\^`{|}", *p) != NULL) {
            return trk_err_set(err, TRK_INVALID,
                               "%.200s is no address: it has a character that "
                               "addresses do not have",
                               text);
        }
    }
    return 0;
}

int url_complete(const char *text, char **ret, struct trk_err *err)
{
    int rc = check_characters(text, err);
    if (rc < 0) {
        return rc;
    }
    const char *scheme_end = strstr(text, "://");
    const char *rest = scheme_end != NULL ? scheme_end + 3 : text;
    size_t scheme_len = scheme_end != NULL ? (size_t)(scheme_end - text) : 5;
    const char *scheme = scheme_end != NULL ? text : "https";
    if (!((scheme_len == 4 && strncasecmp(scheme, "http", 4) == 0) ||
          (scheme_len == 5 && strncasecmp(scheme, "https", 5) == 0))) {
        return trk_err_set(err, TRK_INVALID,
                           "%.200s: a server is addressed with http:// or https://", text);
    }
    size_t host_len = strcspn(rest, "/?#");
    if (host_len == 0) {
        return trk_err_set(err, TRK_INVALID, "%.200s names no host", text);
    }
    if (memchr(rest, '@', host_len) != NULL) {
        return trk_err_set(err, TRK_INVALID,
                           "a server's address holds no user name: log in with racetrack login");
    }
    const char *path = rest + host_len;
    if (strpbrk(path, "?#") != NULL) {
        return trk_err_set(err, TRK_INVALID, "%.200s: a server's address ends with its path", text);
    }
    size_t path_len = strlen(path);
    while (path_len > 0 && path[path_len - 1] == '/') {
        path_len--;
    }
    if (path_len == 0) {
        path = "/lifecycle";
        path_len = strlen(path);
    }
    *ret = trk_xasprintf("%s://%.*s%.*s", scheme_len == 4 ? "http" : "https", (int)host_len, rest,
                         (int)path_len, path);
    return 0;
}

/* The host of a complete URL, without port and brackets. */
static void host_of(const char *url, const char **ret, size_t *ret_len)
{
    const char *host = strstr(url, "://");
    host = host != NULL ? host + 3 : url;
    if (*host == '[') {
        *ret = host + 1;
        *ret_len = strcspn(host + 1, "]");
        return;
    }
    *ret = host;
    *ret_len = strcspn(host, ":/?#");
}

bool url_is_local(const char *url)
{
    const char *host;
    size_t len;
    host_of(url, &host, &len);
    if ((len == 9 && strncasecmp(host, "localhost", 9) == 0) ||
        (len == 3 && strncmp(host, "::1", 3) == 0)) {
        return true;
    }
    /* 127.x.y.z, not a name that begins so */
    if (len < 5 || strncmp(host, "127.", 4) != 0) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (isdigit((unsigned char)host[i]) == 0 && host[i] != '.') {
            return false;
        }
    }
    return true;
}

bool url_looks_like_one(const char *text)
{
    return strpbrk(text, ".:/") != NULL || strcmp(text, "localhost") == 0;
}
