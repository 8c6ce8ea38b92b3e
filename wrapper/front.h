/*
 * front.h - the process that callers talk to: one thread, one epoll loop, no user code.
 *
 * Parts: server.c (loop, listener, signals, timers), conn.c (bytes in and out of one connection),
 * handle.c (a parsed request to its answer), call.c (a call's way through concurrency limit, queue
 * and ring), worker.c (worker processes: start, watch, replace), job.c (what the worker announced),
 * health.c (probes, metrics), static.c (files), openapi.c and docs_page.c.
 *
 * All objects belong to the loop's thread. Freed connections and workers stay allocated until the
 * end of the loop turn, so that stale events find a closed object rather than another one's memory.
 */
#ifndef WRAPPER_FRONT_H
#define WRAPPER_FRONT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/proc.h"
#include "libtrack/http/h1.h"
#include "libtrack/metrics/metrics.h"
#include "wrapper/options.h"
#include "wrapper/ring.h"
#include "wrapper/route.h"

#define FRONT_SCRATCH        (64 * 1024)
#define FRONT_CONN_MAX       4096
#define FRONT_IDLE_NS        (120 * TRK_NS_PER_S)
#define FRONT_STALL_NS       (60 * TRK_NS_PER_S)   /* a request or answer without any progress */
#define FRONT_LINGER_NS      (300 * TRK_NS_PER_MS) /* idle connections when draining */
#define FRONT_METRICS_NS     (500 * TRK_NS_PER_MS) /* for the job's own metrics */
#define FRONT_RETIRE_NS      (30 * TRK_NS_PER_S)   /* other requests of a replaced worker */
#define FRONT_WAITING_MAX    2048                  /* calls kept while there is no worker */
#define FRONT_BIG_REQUEST    (64 * 1024) /* larger ones count against the room for large requests */
#define FRONT_BIG_ROOM       4           /* in units of the largest request */
#define FRONT_LOAD_TRIES     3           /* crashes while loading after which the job is not live */
#define FRONT_RESTART_MAX_NS (30 * TRK_NS_PER_S)
#define FRONT_STABLE_NS      (10 * TRK_NS_PER_S)

struct front;
struct conn;
struct worker;

enum source_kind { SOURCE_LISTENER, SOURCE_EVENT, SOURCE_SIGNAL, SOURCE_CONTROL, SOURCE_CONN };
struct source { /* first member of everything that epoll knows */
    enum source_kind kind;
};

/* -- calls -- */

enum call_state {
    CALL_LIMITED, /* waits for the concurrency limit */
    CALL_WAITING, /* waits for a worker or a slot */
    CALL_IN_RING,
};
struct answer {
    int status;
    const char *type; /* NULL: application/json */
    const char *data; /* valid during the callback */
    size_t len;
    int fd; /* >= 0: the body is in this file at `offset` instead; borrows */
    uint64_t offset;
};
struct call {
    struct call *prev, *next;
    enum call_state state;
    enum ring_kind kind;
    uint32_t endpoint;
    bool is_limited; /* counts for max_concurrency */
    struct worker *worker;
    int slot;
    int64_t running_ns; /* first seen running; 0 not yet */
    char *saved;        /* owned: head and body while it is in no ring */
    size_t head_len, body_len;
    /* Told exactly once, unless the call was abandoned. */
    void (*done)(void *owner, const struct answer *answer);
    void *owner; /* NULL: abandoned, its answer goes nowhere */
};
struct call_list {
    struct call *first, *last;
    size_t count;
};
void call_list_append(struct call_list *list, struct call *call);
void call_list_remove(struct call_list *list, struct call *call);

struct call_request {
    enum ring_kind kind;
    uint32_t endpoint;
    bool is_limited;
    const char *head; /* borrows during the call */
    size_t head_len;
    const char *body;
    size_t body_len;
    void (*done)(void *owner, const struct answer *answer);
    void *owner;
};
/* Starts a call: 0 and *ret (borrows, until `done`), or a status to answer with at once (429, 503,
 * 507), the reason being in `reason`. */
int call_start(struct front *front, const struct call_request *request, struct call **ret,
               char *reason, size_t reason_size);
/* The owner is gone: a call that has not begun is dropped, a running one ends unheard. */
void call_abandon(struct front *front, struct call *call);
/* The owner is gone, says the network, but a running call may still be heard. Returns whether the
 * call was dropped. */
bool call_drop_if_not_begun(struct front *front, struct call *call);
/* Answers an error and ends the call. */
void call_fail(struct front *front, struct call *call, int status, const char *type,
               const char *text);
/* Moves calls on, as limits and slots allow. */
void calls_pump(struct front *front);
/* Collects finished requests of a worker. */
void calls_reap(struct front *front, struct worker *worker);
/* Takes back what the worker has not begun; it waits again, in front. */
void calls_reclaim(struct front *front, struct worker *worker);
/* Answers 504 to those that run too long. */
void calls_check_timeouts(struct front *front, int64_t now);
/* Fails all that wait, because no worker will come. */
void calls_fail_waiting(struct front *front, const char *text);

/* -- workers -- */

enum worker_state { WORKER_LOADING, WORKER_READY, WORKER_RETIRED, WORKER_DEAD };
struct worker {
    struct source source; /* control pipe */
    struct front *front;
    struct worker *next;
    enum worker_state state;
    struct ring ring;
    struct trk_proc proc;
    int control_fd, life_fd;
    struct trk_buf control;
    bool is_killed; /* by us */
    const char *kill_reason;
    bool has_failed; /* said that loading failed */
    bool has_served;
    bool has_hung; /* a request ran past its time */
    int64_t started_ns;
    int64_t retired_ns;
    struct call_list calls; /* in its ring, oldest first */
    size_t abandoned;       /* of these, those nobody waits for */
    struct call *by_slot[RING_SLOTS];
};
void workers_start(struct front *front);
void worker_on_control(struct worker *worker);
/* SIGCHLD: some worker may have ended. */
void workers_reap(struct front *front);
/* Time-driven part: restarts, ends of retired workers. */
void workers_tick(struct front *front, int64_t now);
/* Its request hangs: start another, which then takes over. */
void worker_replace(struct worker *worker, const char *reason);
void worker_kill(struct worker *worker, const char *reason);
void workers_free_dead(struct front *front);
void workers_end_all(struct front *front);

/* -- what the worker announced -- */

struct job_endpoint {
    char *path, *method;
    struct trk_series *errors, *duration, *started; /* metrics of this endpoint */
};
struct job_static {
    char *path, *file, *mime; /* mime "": by the file's name */
    bool is_directory;
};
struct job {
    struct job_endpoint *endpoints;
    size_t endpoint_count;
    struct job_static *statics;
    size_t static_count;
    bool has_metrics;
    char *parameters; /* JSON of /api/v1/parameters */
    char *openapi;    /* JSON */
};
/* Takes over the announcement (borrowed). */
int job_load(struct front *front, const json_t *announcement, struct trk_err *err) TRK_MUST_CHECK;
void job_reset(struct job *job);
/* Index or -1; *ret_known says whether the path exists with another method. */
int job_find_endpoint(const struct job *job, const char *path, struct trk_h1_slice method,
                      bool *ret_known);
/* Longest static entry for a path, *ret_rest the part below a directory. NULL when there is none.
 */
const struct job_static *job_find_static(const struct job *job, const char *path,
                                         const char **ret_rest);
char *job_openapi(const struct wrapper_options *options, const json_t *announcement);
extern const char docs_page[];

/* -- connections -- */

enum conn_state {
    CONN_READING,  /* waits for a request or for the rest of one */
    CONN_CALLING,  /* waits for its call */
    CONN_SCRAPING, /* waits for the job's own metrics */
    CONN_WRITING,  /* the answer is not out yet */
    CONN_CLOSED,
};
struct conn {
    struct source source;
    struct front *front;
    struct conn *prev, *next;
    int fd;
    enum conn_state state;
    bool can_read;   /* edge-triggered: there may be bytes */
    bool keep_alive; /* after the current answer */
    bool is_head;    /* the current request is HEAD */
    bool is_http10;
    bool peer_closed;   /* its sending side */
    bool has_continued; /* 100 was sent for the current request */
    bool is_chunked;    /* body being decoded in `in` */
    bool is_lingering;  /* refused: discards what still comes, then closes */
    struct trk_h1_chunked chunked;
    struct trk_buf in;                 /* bytes of requests not handled yet */
    size_t head_len, body_end, raw_at; /* of a chunked request in `in` */
    size_t need;                       /* bytes of `in` before parsing again makes sense */
    size_t room;                       /* of the room for large requests, held until the answer */
    struct trk_buf out;                /* answer bytes not sent yet */
    int file_fd; /* then this file, from file_at up to file_end; -1 none; owned */
    uint64_t file_at, file_end;
    struct call *call;
    int endpoint;      /* of the current call, for its metrics; -1 none */
    int64_t begun_ns;  /* start of the current request */
    int64_t active_ns; /* last progress */
};
void conn_accept(struct front *front);
void conn_on_event(struct conn *conn, uint32_t events);
void conn_close(struct conn *conn);
/* Goes on with what the peer has sent meanwhile, after an answer that came later. */
void conn_resume(struct conn *conn);
/* Sends what is left of the answer; true when everything is out. */
bool conn_flush(struct conn *conn);
/* The answer is out: on to the next request, or to the end. */
void conn_answered(struct conn *conn);
void conn_give_room(struct conn *conn);
void conns_check_timeouts(struct front *front, int64_t now);
void conns_free_closed(struct front *front);

struct reply {
    int status;
    const char *type;    /* NULL: application/json */
    const char *headers; /* further lines "K: V\r\n", or NULL */
    const char *data;
    size_t len;
    int file_fd; /* takes; -1: none. Then the body is its first `len` bytes */
    bool must_close;
};
void conn_reply(struct conn *conn, const struct reply *reply);
void conn_reply_json(struct conn *conn, int status, json_t *takes);
/* {"error","type"} */
void conn_reply_error(struct conn *conn, int status, const char *type, const char *text);
const char *http_reason(int status);

struct exchange { /* one parsed request; all borrowed */
    const struct trk_h1_request *request;
    const char *head;
    size_t head_len;
    const char *body;
    size_t body_len;
};
void handle_request(struct conn *conn, const struct exchange *exchange);
/* Error JSON for a call that the front itself fails. Returns owned text. */
char *error_json(int status, const char *type, const char *text);

/* -- probes, metrics, files -- */

bool front_is_ready(const struct front *front);
bool front_is_live(const struct front *front);
void health_live(struct conn *conn);
void health_ready(struct conn *conn);
/* is_fatman: in the words of that era. */
void health_health(struct conn *conn, bool is_fatman);
void scrape_start(struct conn *conn);
void scrape_check_timeout(struct front *front, int64_t now);
void metrics_init(struct front *front);
void metrics_call_started(struct front *front, int endpoint);
void metrics_call_done(struct front *front, int endpoint, int status, int64_t began_ns,
                       int64_t now);
void static_serve(struct conn *conn, const struct job_static *entry, const char *rest);
const char *static_mime(const char *file_name);

struct front {
    struct wrapper_options options;
    int epoll_fd, listener_fd, event_fd, signal_fd;
    struct source listener, event, signal;
    char host[64]; /* where it listens, as numbers */
    int port;
    bool is_draining, is_ended;
    int64_t now_ns; /* of this loop turn */
    int64_t drain_ns;
    int64_t next_sweep_ns, next_tick_ns;
    uint64_t big_room; /* held by large requests */
    struct conn *conns, *closed_conns;
    size_t conn_count;
    /* workers: the current one gets new requests, `loading` takes over when it has loaded */
    struct worker *workers, *current, *loading;
    bool has_loaded;     /* some worker has been ready before */
    bool is_failed;      /* given up for now; `failure` says why */
    char *failure;       /* text of the last load failure, or NULL */
    unsigned load_tries; /* in a row */
    unsigned restarts;   /* in a row */
    int64_t restart_ns;  /* 0: none planned */
    struct job job;
    /* calls */
    struct call_list limited, waiting;
    size_t active; /* that count for max_concurrency */
    size_t in_ring;
    /* metrics */
    struct trk_metrics *metrics;
    struct trk_metric *errors_total, *duration, *started_total, *done_total,
        *endpoint_started_total, *last_call;
    struct call *scrape; /* asking the worker */
    int64_t scrape_ns;   /* deadline of those who wait */
    char *scraped;       /* last text of the job's own metrics */
    size_t scraped_len;
    char date[64]; /* "Date: …\r\n" of this second */
    int64_t date_s;
    char scratch[FRONT_SCRATCH];
};
/* Runs until drained; returns the exit code. */
int front_run(struct front *front, struct trk_err *err);

#endif
