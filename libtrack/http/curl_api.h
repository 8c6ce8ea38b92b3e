/*
 * curl_api.h - libcurl, loaded when the first request is made.
 *
 * A program linked to libcurl spends 4-6 ms in its start on libraries that most runs never use
 * (`racetrack version` has 5 ms in all), so it is opened by hand. For http_client.c only; any
 * thread.
 */
#ifndef LIBTRACK_CURL_API_H
#define LIBTRACK_CURL_API_H

#include <curl/curl.h>

#include "libtrack/base/err.h"

struct curl_api {
    CURL *(*easy_init)(void);
    void (*easy_cleanup)(CURL *handle);
    void (*easy_reset)(CURL *handle);
    CURLcode (*easy_perform)(CURL *handle);
    /* Variadic and unchecked: options of type LONG take a long, OFF_T ones a curl_off_t. */
    CURLcode (*easy_setopt)(CURL *handle, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *handle, CURLINFO info, ...);
    const char *(*easy_strerror)(CURLcode code);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
};
/* Valid as long as the process. TRK_UNAVAILABLE when there is no libcurl to load. */
int curl_api_get(const struct curl_api **ret, struct trk_err *err) TRK_MUST_CHECK;

#endif
