/* After 101 (Switching Protocols): bytes both ways until both sides have ended theirs. */
#include <errno.h>
#include <sys/socket.h>

#include "libtrack/base/clock.h"
#include "pub/client.h"

void pub_tunnel_begin(struct pub_client *c, size_t head_len)
{
    pub_flow_begin(&c->out, 0, head_len, TRK_H1_UNTIL_CLOSE, 0);
    (void)pub_flow_check(&c->out);
    /* Early bytes of the client lie behind its request. */
    pub_flow_begin(&c->in, 0, c->in.checked, TRK_H1_UNTIL_CLOSE, 0);
    (void)pub_flow_check(&c->in);
    c->keep_alive = false;
    c->state = PUB_CLIENT_TUNNEL;
}

enum side { NOTHING, PROGRESS, BROKEN };

/* Moves bytes of one direction. */
static enum side pump(struct pub_flow *flow, int from, bool *is_readable, int to, bool *is_writable)
{
    enum side result = NOTHING;
    if (*is_writable && pub_flow_pending(flow) > 0) {
        ssize_t n = send(to, flow->bytes + flow->sent, pub_flow_pending(flow), MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return BROKEN;
        }
        *is_writable = n == (ssize_t)pub_flow_pending(flow);
        if (n > 0) {
            flow->sent += (size_t)n;
            result = PROGRESS;
        }
    }
    if (!*is_readable || flow->is_done) {
        return result;
    }
    size_t room = pub_flow_room(flow);
    if (room == 0) {
        return result;
    }
    ssize_t n = recv(from, flow->bytes + flow->len, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        *is_readable = false;
        return result;
    }
    if (n < 0) {
        return BROKEN;
    }
    flow->len += (size_t)n;
    flow->checked = flow->len;
    flow->is_done = n == 0;
    return PROGRESS;
}

static void pass_end(struct pub_flow *flow, int to)
{
    if (flow->is_done && pub_flow_pending(flow) == 0 && flow->body != TRK_H1_NO_BODY) {
        flow->body = TRK_H1_NO_BODY; /* said once */
        (void)shutdown(to, SHUT_WR);
    }
}

/* Until it is silent for too long, or its token ends. */
static void arm(struct pub_client *c)
{
    int64_t ms = c->worker->shared->config->tunnel_timeout_ms;
    if (c->pass != NULL && c->pass->ends_s != 0) {
        int64_t left_ms = c->pass->ends_s * 1000 - trk_wall_ms();
        ms = left_ms < 0 ? 0 : left_ms < ms ? left_ms : ms;
    }
    pub_client_arm(c, ms);
}

bool pub_tunnel_step(struct pub_client *c)
{
    bool is_full = false;
    bool ever = false;
    enum side progress = PROGRESS;
    if (pub_send_block(c->watch.fd, &c->to_client, &is_full) < 0) {
        progress = BROKEN;
    }
    bool can_write = c->is_writable && !is_full;
    while (progress == PROGRESS) {
        enum side up = pump(&c->in, c->watch.fd, &c->is_readable, c->up->watch.fd,
                            &c->up->is_writable);
        enum side down = pump(&c->out, c->up->watch.fd, &c->up->is_readable, c->watch.fd,
                              &can_write);
        progress = up > down ? up : down;
        pass_end(&c->in, c->up->watch.fd);
        if (c->to_client.bytes == NULL) {
            pass_end(&c->out, c->watch.fd);
        }
        ever |= progress == PROGRESS;
    }
    c->is_writable = can_write;
    bool is_over = c->in.body == TRK_H1_NO_BODY && c->out.body == TRK_H1_NO_BODY;
    if (progress == BROKEN || is_over) {
        pub_call_end(c, 101, false);
        pub_client_close(c);
    } else if (ever) {
        arm(c);
    }
    return false;
}
