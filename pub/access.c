#include "pub/access.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"

#define LINE_MAX_BYTES 4096 /* longer paths and callers are left out */

int pub_access_open(const char *path, int *ret_fd, struct trk_err *err)
{
    *ret_fd = -1;
    if (path[0] == '\0') {
        return 0;
    }
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        return trk_err_errno(err, errno, "PUB_ACCESS_LOG: opening %s", path);
    }
    *ret_fd = fd;
    return 0;
}

/* A full disk costs lines, not calls. */
static void flush(struct pub_access *a)
{
    pub_timer_cancel(&a->timer);
    if (a->len > 0) {
        (void)!write(a->fd, a->buffer, a->len);
    }
    a->len = 0;
}

static void on_timer(struct pub_timer *timer)
{
    flush(PUB_CONTAINER(timer, struct pub_access, timer));
}

void pub_access_init(struct pub_access *a, struct pub_loop *loop, int fd)
{
    *a = (struct pub_access){.loop = loop, .fd = fd, .second = -1, .timer = {.on_fire = on_timer}};
    a->buffer = fd >= 0 ? trk_xmalloc(PUB_ACCESS_BUFFER) : NULL;
}

void pub_access_fini(struct pub_access *a)
{
    if (a->buffer != NULL) {
        flush(a);
        free(TRK_STEAL(a->buffer));
    }
}

static void add_time(struct pub_access *a, struct pub_text *t)
{
    int64_t now_ms = trk_wall_ms();
    if (now_ms / 1000 != a->second) {
        a->second = now_ms / 1000;
        trk_format_utc(a->second, "%Y-%m-%dT%H:%M:%S", a->date, sizeof(a->date));
    }
    const char ms[] = {'.',
                       (char)('0' + now_ms % 1000 / 100),
                       (char)('0' + now_ms % 100 / 10),
                       (char)('0' + now_ms % 10),
                       'Z',
                       ' '};
    pub_text_adds(t, a->date);
    pub_text_add(t, ms, sizeof(ms));
}

static void add_duration(struct pub_text *t, int64_t ns)
{
    uint64_t us = (uint64_t)(ns < 0 ? 0 : ns) / 1000;
    const char part[] = {'.', (char)('0' + us % 1000 / 100), (char)('0' + us % 100 / 10),
                         (char)('0' + us % 10), ' '};
    pub_text_u64(t, us / 1000);
    pub_text_add(t, part, sizeof(part));
}

static bool write_line(struct pub_access *a, const struct pub_access_line *line, size_t size)
{
    const char *query = memchr(line->request.at, '?', line->request.len);
    size_t request_len = query != NULL ? (size_t)(query - line->request.at) : line->request.len;
    struct pub_text t;
    pub_text_init(&t, a->buffer + a->len, size);
    add_time(a, &t);
    pub_text_adds(&t, line->peer);
    pub_text_add(&t, " ", 1);
    pub_text_add(&t, line->request.at, request_len);
    pub_text_adds(&t, request_len == 0 ? "- - " : " ");
    pub_text_u64(&t, (uint64_t)line->status);
    pub_text_add(&t, " ", 1);
    add_duration(&t, line->duration_ns);
    pub_text_adds(&t, line->tracing_id);
    pub_text_add(&t, " ", 1);
    pub_text_json(&t, line->caller, line->caller != NULL ? strlen(line->caller) : 0);
    pub_text_add(&t, "\n", 1);
    if (!t.overflow) {
        a->len += pub_text_len(&t);
    }
    return !t.overflow;
}

void pub_access_note(struct pub_access *a, const struct pub_access_line *line)
{
    if (a->fd < 0) {
        return;
    }
    if (PUB_ACCESS_BUFFER - a->len < LINE_MAX_BYTES) {
        flush(a);
    }
    if (!write_line(a, line, LINE_MAX_BYTES)) {
        struct pub_access_line rest = *line;
        rest.request.len = 0;
        rest.caller = NULL;
        (void)write_line(a, &rest, LINE_MAX_BYTES);
    }
    if (!pub_timer_is_set(&a->timer)) {
        pub_timer_set(&a->loop->wheel, &a->timer, a->loop->now_ns + TRK_NS_PER_S / 2);
    }
}
