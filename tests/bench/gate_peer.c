/* Bare libmicrohttpd, thread per connection as our services have it, for gate.py: answers each
 * request at once with 200. Prints its port.
 *
 *     gate_peer
 */
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum MHD_Result answer(void *cls, struct MHD_Connection *mhd, const char *url,
                              const char *method, const char *version, const char *bytes,
                              size_t *len, void **state)
{
    static char body[] = "{\"service\":\"image-builder\",\"live\":true}";
    static int seen;
    (void)cls, (void)url, (void)method, (void)version, (void)bytes, (void)len;
    if (*state == NULL) {
        *state = &seen;
        return MHD_YES;
    }
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(body), body,
                                                                    MHD_RESPMEM_PERSISTENT);
    (void)MHD_add_response_header(response, "Content-Type", "application/json");
    enum MHD_Result result = MHD_queue_response(mhd, 200, response);
    MHD_destroy_response(response);
    return result;
}

int main(void)
{
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL,
        NULL, answer, NULL, MHD_OPTION_CONNECTION_LIMIT, 1000U, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)65536, MHD_OPTION_END);
    if (daemon == NULL) {
        return 1;
    }
    (void)printf("%d\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    (void)fflush(stdout);
    (void)pause();
    return 0;
}
