/*
 * events.h - lifecycle's event stream: what changed leaves every thread's cache at once.
 *
 * Runs on the first worker's loop. The connection is made again for ever, with a growing, jittered
 * pause, from the last event's id on. While it is down shared->is_stream_open is false and
 * decisions are asked for again after a short time.
 */
#ifndef PUB_EVENTS_H
#define PUB_EVENTS_H

#include "pub/worker.h"

struct pub_events;
/* On the worker's thread, or before it starts. Returns owned. */
struct pub_events *pub_events_new(struct pub_worker *w);
void pub_events_free(struct pub_events *events);

#endif
