/*
 * env.c - a job's environment, and where in it the gateway is: from within the job's own network it
 * is reached through the keeper, so PUB_URL names 127.0.0.1 there.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/infra/process/internal.h"

#define PUB_VARIABLE "PUB_URL="

enum { PORT_MIN = 1024, PORT_OTHERWISE = 7205 };

/* Unless the buffer has a variable of that name. */
static void add_unless_given(struct trk_buf *buf, const char *entry)
{
    size_t name = strcspn(entry, "=") + 1;
    for (size_t at = 0; at < buf->len; at += strlen(buf->data + at) + 1) {
        if (strncmp(buf->data + at, entry, name) == 0) {
            return;
        }
    }
    (void)trk_buf_add(buf, entry, strlen(entry) + 1);
}

/* Numeric "host:port" of the URL's authority. */
static int resolve(const char *url, const char *authority, size_t len, struct job_gateway *ret,
                   struct trk_err *err)
{
    trk_autofree char *host = trk_xstrndup(authority, len);
    char *port = strrchr(host, ':');
    if (port != NULL && strchr(port, ']') == NULL) {
        *port++ = '\0';
    } else {
        port = NULL;
    }
    char *name = host;
    if (host[0] == '[' && strchr(host, ']') != NULL) {
        name++;
        *strchr(host, ']') = '\0';
    }
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int code = getaddrinfo(name, port != NULL ? port : "80", &hints, &found);
    if (code != 0) {
        return trk_err_set(err, TRK_UNAVAILABLE, "INTERNAL_PUB_URL %s: %s", url,
                           gai_strerror(code));
    }
    char address[INET6_ADDRSTRLEN] = "", number[8] = "";
    (void)getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof(address), number,
                      sizeof(number), NI_NUMERICHOST | NI_NUMERICSERV);
    bool is_v6 = found->ai_family == AF_INET6;
    freeaddrinfo(found);
    snprintf(ret->address, sizeof(ret->address), "%s%s%s:%s", is_v6 ? "[" : "", address,
             is_v6 ? "]" : "", number);
    ret->port = atoi(number) < PORT_MIN ? PORT_OTHERWISE : atoi(number);
    return 0;
}

/* The same URL as the job is to know it, with the terminating NUL. */
static int add_gateway(const char *url, struct job_gateway *ret, struct trk_buf *out,
                       struct trk_err *err)
{
    if (!trk_str_has_prefix(url, "http://")) {
        return trk_err_set(err, TRK_INVALID,
                           "INTERNAL_PUB_URL is %s: jobs of the process target need an http:// "
                           "address",
                           url);
    }
    const char *authority = url + strlen("http://");
    size_t len = strcspn(authority, "/?#");
    int rc = resolve(url, authority, len, ret, err);
    if (rc == 0) {
        (void)trk_buf_addf(out, PUB_VARIABLE "http://127.0.0.1:%d%s", ret->port, authority + len);
        (void)trk_buf_addc(out, '\0');
    }
    return rc;
}

/* The environment as it was sealed; in a network of its own (gateway not NULL) the job is told
 * another PUB_URL. */
static int add_entries(const char *entries, size_t len, struct job_gateway *gateway,
                       struct trk_buf *buf, struct trk_err *err)
{
    for (const char *entry = entries; entry < entries + len; entry += strlen(entry) + 1) {
        const char *url = entry + strlen(PUB_VARIABLE);
        if (gateway != NULL && trk_str_has_prefix(entry, PUB_VARIABLE) && *url != '\0') {
            if (add_gateway(url, gateway, buf, err) < 0) {
                return err->code;
            }
        } else {
            (void)trk_buf_add(buf, entry, strlen(entry) + 1);
        }
    }
    return 0;
}

int process_env_open(const struct process_target *p, const char *id, const json_t *doc,
                     struct job_gateway *gateway, struct trk_buf *buf, struct trk_err *err)
{
    const char *sealed = workload_text(doc, "env");
    trk_autofree void *bytes = NULL, *plain = NULL;
    size_t len, plain_len;
    if (trk_base64_decode(sealed, strlen(sealed), &bytes, &len, err) < 0 ||
        trk_unseal(p->secret_key, id, bytes, len, &plain, &plain_len, err) < 0) {
        return trk_err_wrap(err, "opening the environment of generation %s", id);
    }
    static const char *const defaults[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp",
                                           "LANG=C.UTF-8"};
    /* The mark first: whoever looks for it need not read all of a long environment. */
    (void)trk_buf_addf(buf, "%s=%s", JOB_MARK, id);
    (void)trk_buf_addc(buf, '\0');
    int rc = add_entries(plain, plain_len, gateway, buf, err);
    explicit_bzero(plain, plain_len);
    if (rc < 0) {
        return rc;
    }
    const json_t *image_env = json_object_get(doc, "image_env");
    for (size_t i = 0; i < json_array_size(image_env); i++) {
        const char *entry = json_string_value(json_array_get(image_env, i));
        if (entry != NULL) {
            add_unless_given(buf, entry);
        }
    }
    for (size_t i = 0; i < TRK_COUNT(defaults); i++) {
        add_unless_given(buf, defaults[i]);
    }
    if (buf->failed) {
        return trk_err_set(err, TRK_TOO_LARGE, "the job's environment exceeds %zu bytes",
                           buf->cap_bytes);
    }
    return 0;
}
