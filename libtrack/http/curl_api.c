#include "libtrack/http/curl_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "libtrack/base/mem.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct curl_api api;
static char fault[512]; /* "" when loaded */

static void load(void)
{
    static const struct {
        const char *name;
        size_t offset;
    } symbols[] = {
        {"curl_easy_init", offsetof(struct curl_api, easy_init)},
        {"curl_easy_cleanup", offsetof(struct curl_api, easy_cleanup)},
        {"curl_easy_reset", offsetof(struct curl_api, easy_reset)},
        {"curl_easy_perform", offsetof(struct curl_api, easy_perform)},
        {"curl_easy_setopt", offsetof(struct curl_api, easy_setopt)},
        {"curl_easy_getinfo", offsetof(struct curl_api, easy_getinfo)},
        {"curl_easy_strerror", offsetof(struct curl_api, easy_strerror)},
        {"curl_slist_append", offsetof(struct curl_api, slist_append)},
        {"curl_slist_free_all", offsetof(struct curl_api, slist_free_all)},
    };
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        (void)snprintf(fault, sizeof(fault), "libcurl.so.4 cannot be loaded: %s", dlerror());
        return;
    }
    for (size_t i = 0; i < TRK_COUNT(symbols); i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (symbol == NULL) {
            (void)snprintf(fault, sizeof(fault), "libcurl.so.4 has no %s", symbols[i].name);
            return;
        }
        /* POSIX lets an object pointer of dlsym() be a function's; C has no cast for it */
        memcpy((char *)&api + symbols[i].offset, &symbol, sizeof(symbol));
    }
    CURLcode (*global_init)(long);
    void *symbol = dlsym(library, "curl_global_init");
    memcpy(&global_init, &symbol, sizeof(symbol));
    if (symbol == NULL || global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        (void)snprintf(fault, sizeof(fault), "libcurl.so.4 cannot be initialised");
    }
}

int curl_api_get(const struct curl_api **ret, struct trk_err *err)
{
    (void)pthread_once(&once, load);
    if (fault[0] != '\0') {
        return trk_err_set(err, TRK_UNAVAILABLE, "%s; install it with: apt-get install libcurl4",
                           fault);
    }
    *ret = &api;
    return 0;
}
