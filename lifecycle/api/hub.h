/*
 * hub.h - one fan-out of the events for all who follow them: gateways, dashboards, users.
 *
 * A thread of the hub reads registry_event once (a notification wakes it, and a look every few
 * seconds covers one that went astray), asks the database once what the changed keys are now, and
 * puts the finished bytes into a bounded ring. A stream follows the ring at its own pace; one that
 * falls behind its end, or whose hub cannot ask the database, ends: its reader comes back and says
 * what it has seen last.
 *
 *     struct hub_reader r;
 *     hub_join(hub, &r, err);                 // from now on nothing is missed
 *     while ((news = hub_next(&r, 5000, &message)) == HUB_MESSAGE) { …; hub_message_unref(message);
 * } hub_leave(&r);
 */
#ifndef LIFECYCLE_API_HUB_H
#define LIFECYCLE_API_HUB_H

#include <stdatomic.h>
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/pg/pg.h"
#include "lifecycle/lifecycle.h"
#include "lifecycle/store/event.h"

#define HUB_HEARTBEAT_MS 5000

enum hub_audience {
    HUB_GATEWAY, /* the changed records of a batch of events, for gateways */
    HUB_EVENT,   /* one event as it stands in the table */
};
/* Immutable; counted. */
struct hub_message {
    atomic_uint refs;
    enum hub_audience audience;
    int64_t id;                         /* of the (last) event */
    const char *kind;                   /* HUB_EVENT */
    const char *job_name, *job_version; /* HUB_EVENT; or NULL */
    size_t len;
    const char *text; /* server-sent events, ended by an empty line */
};
void hub_message_unref(struct hub_message *message);
/* HUB_EVENT of a row; returns owned. */
struct hub_message *hub_event_message(const struct event *event);

struct hub_reader {
    struct event_hub *hub;
    uint64_t next;   /* number of the message */
    uint64_t breaks; /* what the hub counted when it joined */
};
/* TRK_UNAVAILABLE: too many streams, or the hub has not begun. */
int hub_join(struct event_hub *hub, struct hub_reader *ret, struct trk_err *err) TRK_MUST_CHECK;
void hub_leave(struct hub_reader *reader);
enum hub_news { HUB_MESSAGE, HUB_QUIET, HUB_ENDED };
/* Waits up to timeout_ms. HUB_MESSAGE: *ret is counted for the caller. */
enum hub_news hub_next(struct hub_reader *reader, int64_t timeout_ms, struct hub_message **ret);

/* The records that the events have changed, as the gateway stream's events. Appends; the last one
 * carries the id of the last event. Nothing when they concern no gateway. */
int hub_render(struct lifecycle *lc, struct trk_pg *conn, const struct event *events, size_t count,
               struct trk_buf *out, struct trk_err *err) TRK_MUST_CHECK;
/* Everything there is, likewise, without the frame around it. */
int hub_render_all(struct lifecycle *lc, struct trk_pg *conn, struct trk_buf *out, size_t *ret_jobs,
                   size_t *ret_subjects, struct trk_err *err) TRK_MUST_CHECK;
/* `event: settings`. */
int hub_render_settings(struct trk_pg *conn, struct trk_buf *out,
                        struct trk_err *err) TRK_MUST_CHECK;

#endif
