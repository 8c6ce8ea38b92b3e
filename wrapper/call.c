#include "wrapper/front.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"

void call_list_append(struct call_list *list, struct call *call)
{
    call->next = NULL;
    call->prev = list->last;
    *(list->last != NULL ? &list->last->next : &list->first) = call;
    list->last = call;
    list->count++;
}

static void call_list_prepend(struct call_list *list, struct call *call)
{
    call->prev = NULL;
    call->next = list->first;
    *(list->first != NULL ? &list->first->prev : &list->last) = call;
    list->first = call;
    list->count++;
}

void call_list_remove(struct call_list *list, struct call *call)
{
    *(call->prev != NULL ? &call->prev->next : &list->first) = call->next;
    *(call->next != NULL ? &call->next->prev : &list->last) = call->prev;
    call->prev = call->next = NULL;
    list->count--;
}

static void save(struct call *call, const char *head, size_t head_len, const char *body,
                 size_t body_len)
{
    call->saved = trk_xmalloc(head_len + body_len + 1);
    memcpy(call->saved, head, head_len);
    if (body_len > 0) {
        memcpy(call->saved + head_len, body, body_len);
    }
    call->head_len = head_len;
    call->body_len = body_len;
}

static bool has_free_limit(const struct front *front)
{
    return front->options.max_concurrency == 0 ||
           (int64_t)front->active < front->options.max_concurrency;
}

/* Unlinked already. */
static void call_free(struct front *front, struct call *call)
{
    if (call->is_limited && call->state != CALL_LIMITED) {
        front->active--;
    }
    free(call->saved);
    free(call);
}

static void unlink_call(struct front *front, struct call *call)
{
    switch (call->state) {
    case CALL_LIMITED:
        call_list_remove(&front->limited, call);
        break;
    case CALL_WAITING:
        call_list_remove(&front->waiting, call);
        break;
    case CALL_IN_RING:
        call_list_remove(&call->worker->calls, call);
        call->worker->by_slot[call->slot] = NULL;
        front->in_ring--;
        if (call->owner == NULL) {
            call->worker->abandoned--;
        }
        break;
    }
}

/* Puts the call into the current worker's ring: 0, -EAGAIN (wait), or another -errno. */
static int submit(struct front *front, struct call *call, const struct ring_payload *payload)
{
    struct worker *worker = front->current;
    if (worker == NULL) {
        return -EAGAIN;
    }
    int slot = ring_front_submit(&worker->ring, call->kind, call->endpoint, payload);
    if (slot == -EPROTO) {
        worker_kill(worker, "it wrote nonsense into the memory it shares with its front");
        return -EAGAIN;
    }
    if (slot < 0) {
        return slot;
    }
    call->state = CALL_IN_RING;
    call->worker = worker;
    call->slot = slot;
    call->running_ns = 0;
    worker->by_slot[slot] = call;
    call_list_append(&worker->calls, call);
    front->in_ring++;
    return 0;
}

static int refuse(int status, char *reason, size_t size, const char *text)
{
    (void)snprintf(reason, size, "%s", text);
    return status;
}

/* Will a worker come that can take calls? 0, or the status that says no. */
static int check_available(const struct front *front, char *reason, size_t size)
{
    if (front->current != NULL) {
        return 0;
    }
    if (front->is_failed) {
        const char *text = front->failure != NULL ? front->failure : "the job failed to load";
        return refuse(503, reason, size, text);
    }
    if (!front->has_loaded) {
        return refuse(503, reason, size, "the job is still loading, try again in a moment");
    }
    if (front->waiting.count >= FRONT_WAITING_MAX) {
        return refuse(503, reason, size, "too many requests wait for the job's restart");
    }
    return 0;
}

int call_start(struct front *front, const struct call_request *r, struct call **ret, char *reason,
               size_t reason_size)
{
    int status = check_available(front, reason, reason_size);
    if (status != 0) {
        return status;
    }
    bool must_queue = r->is_limited && (!has_free_limit(front) || front->limited.count > 0);
    int64_t queue_max = front->options.max_concurrency_queue;
    if (must_queue && queue_max >= 0 && (int64_t)front->limited.count >= queue_max) {
        (void)snprintf(reason, reason_size,
                       "too many requests waiting in a queue (%zu, at most %lld run at once), try "
                       "again later",
                       front->limited.count, (long long)front->options.max_concurrency);
        return 429;
    }
    struct call *call = trk_xcalloc(1, sizeof(*call));
    call->kind = r->kind;
    call->endpoint = r->endpoint;
    call->is_limited = r->is_limited;
    call->done = r->done;
    call->owner = r->owner;
    if (must_queue) {
        call->state = CALL_LIMITED;
        save(call, r->head, r->head_len, r->body, r->body_len);
        call_list_append(&front->limited, call);
        *ret = call;
        return 0;
    }
    const struct ring_payload payload = {r->head, r->head_len, r->body, r->body_len};
    /* In turn: nobody overtakes those who wait already. */
    int code = front->waiting.count > 0 ? -EAGAIN : submit(front, call, &payload);
    if (code < 0 && code != -EAGAIN) {
        free(call);
        return refuse(507, reason, reason_size, "there is no memory for a request of this size");
    }
    front->active += call->is_limited ? 1 : 0;
    if (code == -EAGAIN) {
        call->state = CALL_WAITING;
        save(call, r->head, r->head_len, r->body, r->body_len);
        call_list_append(&front->waiting, call);
    }
    *ret = call;
    return 0;
}

bool call_drop_if_not_begun(struct front *front, struct call *call)
{
    if (call->state == CALL_IN_RING &&
        !ring_front_reclaim(&call->worker->ring, call->slot, NULL, NULL, NULL)) {
        return false;
    }
    unlink_call(front, call);
    call_free(front, call);
    return true;
}

void call_abandon(struct front *front, struct call *call)
{
    if (!call_drop_if_not_begun(front, call)) {
        call->owner = NULL;
        call->worker->abandoned++;
    }
}

static void tell(struct call *call, const struct answer *answer)
{
    void *owner = call->owner;
    if (owner != NULL) {
        if (call->state == CALL_IN_RING) {
            call->worker->abandoned++; /* undone by unlink_call */
        }
        call->owner = NULL;
        call->done(owner, answer);
    }
}

void call_fail(struct front *front, struct call *call, int status, const char *type,
               const char *text)
{
    trk_autofree char *json = error_json(status, type, text);
    const struct answer answer = {
        .status = status, .data = json, .len = strlen(json), .fd = -1, .type = NULL};
    unlink_call(front, call);
    call->state = call->state == CALL_LIMITED ? CALL_LIMITED : CALL_WAITING;
    tell(call, &answer);
    call_free(front, call);
}

static void submit_waiting(struct front *front)
{
    while (front->waiting.first != NULL && front->current != NULL) {
        struct call *call = front->waiting.first;
        const struct ring_payload payload = {call->saved, call->head_len,
                                             call->saved + call->head_len, call->body_len};
        call_list_remove(&front->waiting, call);
        int code = submit(front, call, &payload);
        if (code == -EAGAIN) {
            call_list_prepend(&front->waiting, call);
            return;
        }
        if (code < 0) {
            call_list_prepend(&front->waiting, call);
            call_fail(front, call, 507, "NoSpace", "there is no memory for a request of this size");
            continue;
        }
        free(TRK_STEAL(call->saved));
    }
}

void calls_pump(struct front *front)
{
    submit_waiting(front);
    while (front->limited.first != NULL && has_free_limit(front) && front->current != NULL &&
           front->waiting.first == NULL) {
        struct call *call = front->limited.first;
        call_list_remove(&front->limited, call);
        call->state = CALL_WAITING;
        front->active++;
        call_list_append(&front->waiting, call);
        submit_waiting(front);
    }
}

static void finish(struct front *front, struct worker *worker, struct call *call)
{
    struct ring_result result;
    int slot = call->slot;
    if (ring_front_result(&worker->ring, slot, &result) < 0) {
        worker_kill(worker, "it wrote nonsense into the memory it shares with its front");
        call_fail(front, call, 502, "WorkerBroken", "the job's process gave an unreadable answer");
        ring_front_release(&worker->ring, slot);
        return;
    }
    const struct answer answer = {
        .status = result.status,
        .type = result.type[0] != '\0' ? result.type : NULL,
        .data = result.data,
        .len = (size_t)result.len,
        .fd = result.big ? worker->ring.memfd : -1,
        .offset = result.offset,
    };
    worker->has_served = true;
    tell(call, &answer);
    unlink_call(front, call);
    ring_front_release(&worker->ring, slot);
    call_free(front, call);
}

void calls_reap(struct front *front, struct worker *worker)
{
    bool any = false;
    /* No more than a full ring a turn: a worker that goes on saying so must not hold the loop. */
    for (unsigned i = 0; i < RING_CQ; i++) {
        int slot = ring_front_reap(&worker->ring);
        if (slot < 0) {
            break;
        }
        struct call *call = worker->by_slot[slot];
        if (call != NULL) {
            finish(front, worker, call);
            any = true;
        }
    }
    if (any && (front->waiting.first != NULL || front->limited.first != NULL)) {
        calls_pump(front);
    }
}

void calls_reclaim(struct front *front, struct worker *worker)
{
    struct call *previous;
    for (struct call *call = worker->calls.last; call != NULL; call = previous) {
        previous = call->prev;
        char *bytes = NULL;
        size_t head_len = 0, body_len = 0;
        if (!ring_front_reclaim(&worker->ring, call->slot, &bytes, &head_len, &body_len)) {
            continue;
        }
        unlink_call(front, call);
        if (call->owner == NULL) {
            free(bytes);
            call_free(front, call);
            continue;
        }
        call->saved = bytes;
        call->head_len = head_len;
        call->body_len = body_len;
        call->state = CALL_WAITING;
        call->worker = NULL;
        call_list_prepend(&front->waiting, call);
    }
}

static void time_out(struct front *front, struct call *call)
{
    struct worker *worker = call->worker;
    char text[160];
    (void)snprintf(text, sizeof(text),
                   "the request ran longer than the limit of %g s (request_timeout_s)",
                   (double)front->options.request_timeout_ns / (double)TRK_NS_PER_S);
    trk_autofree char *json = error_json(504, "RequestTimeout", text);
    const struct answer answer = {.status = 504, .data = json, .len = strlen(json), .fd = -1};
    tell(call, &answer); /* stays in the ring, unheard, until its worker is gone */
    worker_replace(worker, "a request ran longer than request_timeout_s");
}

void calls_check_timeouts(struct front *front, int64_t now)
{
    for (struct worker *worker = front->workers; worker != NULL; worker = worker->next) {
        struct call *next;
        for (struct call *call = worker->calls.first; call != NULL; call = next) {
            next = call->next;
            if (call->running_ns == 0 && ring_front_is_begun(&worker->ring, call->slot)) {
                call->running_ns = now;
            } else if (call->running_ns != 0 && call->owner != NULL &&
                       now - call->running_ns > front->options.request_timeout_ns) {
                time_out(front, call);
            }
        }
    }
}

void calls_fail_waiting(struct front *front, const char *text)
{
    while (front->waiting.first != NULL) {
        call_fail(front, front->waiting.first, 503, "JobNotAvailable", text);
    }
    while (front->limited.first != NULL) {
        call_fail(front, front->limited.first, 503, "JobNotAvailable", text);
    }
}
