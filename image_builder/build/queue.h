/*
 * queue.h - builds as jobs on threads of their own, a bounded number at once.
 *
 * A job is shared by its thread and by the request that waits for it; who waits may give up, which
 * cancels the build. Any thread.
 */
#ifndef IMAGE_BUILDER_BUILD_QUEUE_H
#define IMAGE_BUILDER_BUILD_QUEUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "image_builder/image_builder.h"
#include "libtrack/base/buf.h"

struct build_queue;
struct build_job;

struct build_queue *build_queue_new(struct image_builder *ib, unsigned running_max);
/* Cancels what runs, waits for it up to grace_ms. False: builds still run and use the queue. */
bool build_queue_stop(struct build_queue *queue, int64_t grace_ms);
void build_queue_free(struct build_queue *queue);

/* Starts a build of the request's body (a reference is kept). TRK_TOO_MANY when too many wait. */
int build_job_start(struct build_queue *queue, const json_t *body, struct build_job **ret,
                    struct trk_err *err) TRK_MUST_CHECK;
void build_job_cancel(struct build_job *job);
void build_job_unref(struct build_job *job);
enum build_job_news { BUILD_JOB_NOTHING, BUILD_JOB_LINES, BUILD_JOB_DONE };
/* Waits for new log lines or the end, at most timeout_ms; lines (each ended by '\n') are moved to
 * `lines` (NULL: only the end is waited for). The end comes after the last lines. */
enum build_job_news build_job_wait(struct build_job *job, int64_t timeout_ms,
                                   struct trk_buf *lines);
/* The answer's "result" object, once it is done; returns owned. Once: two threads must not share
 * a JSON value's reference count. */
json_t *build_job_result(struct build_job *job);

#endif
