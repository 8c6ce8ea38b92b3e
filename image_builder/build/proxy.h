/*
 * proxy.h - the only way out of a build's sandbox: an HTTP proxy (RFC 9110 §9.3.6 CONNECT, RFC 9112
 * §3.2.2 absolute form) on a unix socket, which connects to what the rules allow and to nothing
 * else. One for each command, on threads of its own. With a secret it is for a command outside of
 * the sandbox: on a port of 127.0.0.1, for whoever shows the secret.
 *
 *     if (proxy_start(&options, &proxy, err) < 0) …
 *     …                  the command runs
 *     proxy_stop(proxy); all its connections end
 */
#ifndef IMAGE_BUILDER_BUILD_PROXY_H
#define IMAGE_BUILDER_BUILD_PROXY_H

#include "image_builder/build/network.h"

struct proxy;
struct proxy_options {
    const char *folder;         /* the socket's place; it is called proxy.sock there */
    const char *secret;         /* instead of a folder: the password, with the user name "build" */
    struct network_rules rules; /* taken, also when it fails */
    /* The operator's own proxies ("http://user:password@host:port", "" or NULL: none), and what is
     * reached without them ("host,.domain,*"). From the environment: they outlive all. */
    const char *http_proxy, *https_proxy, *no_proxy;
    /* Says once for each host that was refused or could not be reached; any thread, one at a
     * time, not after proxy_stop. */
    void (*on_trouble)(void *ctx, const char *text);
    void *ctx;
};
int proxy_start(const struct proxy_options *options, struct proxy **ret,
                struct trk_err *err) TRK_MUST_CHECK;
unsigned proxy_port(const struct proxy *proxy); /* of one with a secret */
/* Does not wait for a connection that hangs: it ends by itself. Takes NULL. */
void proxy_stop(struct proxy *proxy);

#endif
