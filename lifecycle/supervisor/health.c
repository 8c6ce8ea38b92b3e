/*
 * health.c - asks jobs whether they are ready, in a few threads of its own: a job that hangs costs
 * one of them a second and the supervisor's loop nothing. The loop names the jobs and reads the
 * verdicts; news wakes it.
 *
 * A job counts as failing only when it was asked. What keeps this process itself from asking (no
 * descriptors left) is logged and says nothing about any job.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/supervisor/internal.h"

enum {
    PROBERS = 4,
    ASK_MS = 1000,
    FAILURES_MAX = 3,
    BACK_FIRST_MS = 100, /* pause while one that must come back is not ready; doubles later */
    BACK_FIRST_LOOKS = 20,
    IDLE_MS = 60000,
    LIVE_LINES = 12,
    LIVE_BYTES = 1500,
    SPARE_SOCKETS = 4,
    STACK_BYTES = 256 << 10,
};

struct patient {
    char id[64];
    char address[512];
    uint64_t serial;   /* another one whenever what was found out before does not count any more */
    bool is_running;   /* by its job's status; else it is waited for */
    bool is_asked;     /* a thread is at it */
    bool is_wanted;    /* named since the last sweep */
    bool is_ready;     /* at the last look */
    unsigned failures; /* in a row */
    int64_t next_ns;
    char *reason; /* of the last failure */
};

struct health {
    struct supervisor *supervisor;
    int64_t interval_ms;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t wake;
    bool stop;
    uint64_t blind_looks; /* in a row that this process itself was not able to take */
    uint64_t last_serial;
    struct patient *patients;
    size_t count;
    pthread_t threads[PROBERS];
    unsigned thread_count;
};

enum outcome { OUTCOME_READY, OUTCOME_NOT_READY, OUTCOME_UNKNOWN };

/* One look at one job. */
struct look {
    char address[512];
    uint64_t serial;
    bool is_explained; /* the reason will be read: ask the job for it too */
    enum outcome outcome;
    char *reason; /* owned; NULL when ready */
};

/* -- asking -- */

/* What the next connection may need; 0 or the errno that stands in its way. */
static int find_own_trouble(void)
{
    int fds[SPARE_SOCKETS], count = 0, trouble = 0;
    while (count < SPARE_SOCKETS && trouble == 0) {
        fds[count] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        trouble = fds[count] < 0 ? errno : 0;
        count += fds[count] >= 0;
    }
    while (count > 0) {
        (void)close(fds[--count]);
    }
    return trouble;
}

static int get(struct trk_http_client *client, const struct look *look, const char *path,
               struct trk_http_answer *ret, struct trk_err *err)
{
    /* A connection of its own: one that is kept would not show that new ones are not taken. */
    static const char *const headers[] = {"Connection: close", NULL};
    trk_autofree char *url = trk_xasprintf("http://%s%s", look->address, path);
    struct trk_http_call call = {.url = url,
                                 .headers = headers,
                                 .connect_timeout_ms = ASK_MS,
                                 .timeout_ms = ASK_MS,
                                 .answer_max_bytes = 1 << 20};
    return trk_http_call(client, &call, ret, err);
}

/* The first lines, whole characters only. */
static void cut(char *text)
{
    size_t len = 0;
    for (int lines = 0; text[len] != '\0' && len < LIVE_BYTES; len++) {
        if (text[len] == '\n' && ++lines == LIVE_LINES) {
            break;
        }
    }
    text[len] = '\0';
    trk_utf8_repair(text, len);
}

/* What /live says about it: "; /live answered …", owned. */
static char *explain(struct trk_http_client *client, const struct look *look)
{
    struct trk_http_answer answer;
    struct trk_err err = {0};
    json_auto_t *body = NULL;
    if (get(client, look, "/live", &answer, &err) < 0) {
        return trk_xasprintf("; /live: %s", err.text);
    }
    const char *said = NULL;
    if (trk_json_parse(answer.body, answer.body_len, &body, NULL) == 0) {
        said = trk_json_string_or(body, "error", NULL);
    }
    trk_autofree char *text = said != NULL ? trk_xstrdup(said) : NULL;
    if (text != NULL) {
        cut(text);
    }
    char *ret = trk_xasprintf("; /live answered status %d%s%s", answer.status,
                              text != NULL           ? ": "
                              : answer.status == 200 ? " (its class is being loaded)"
                                                     : "",
                              text != NULL ? text : "");
    trk_http_answer_fini(&answer);
    return ret;
}

static void ask(struct trk_http_client *client, struct look *look)
{
    struct trk_http_answer answer;
    struct trk_err err = {0};
    int rc = get(client, look, "/ready", &answer, &err);
    int trouble = rc < 0 && rc != TRK_TIMEOUT ? find_own_trouble() : 0;
    if (trouble != 0) {
        char text[128];
        look->outcome = OUTCOME_UNKNOWN;
        look->reason = trk_xstrdup(strerror_r(trouble, text, sizeof(text)));
        return;
    }
    if (rc < 0) {
        look->outcome = OUTCOME_NOT_READY;
        look->reason = trk_xasprintf("GET /ready: %s", err.text);
        return;
    }
    look->outcome = answer.status == 200 ? OUTCOME_READY : OUTCOME_NOT_READY;
    if (look->outcome == OUTCOME_NOT_READY) {
        trk_autofree char *more = look->is_explained ? explain(client, look) : NULL;
        look->reason = trk_xasprintf("GET /ready answered status %d%s", answer.status,
                                     more != NULL ? more : "");
    }
    trk_http_answer_fini(&answer);
}

/* -- the list; all of this under the mutex -- */

static struct patient *find(struct health *h, const char *id)
{
    for (size_t i = 0; i < h->count; i++) {
        if (strcmp(h->patients[i].id, id) == 0) {
            return &h->patients[i];
        }
    }
    return NULL;
}

static void forget(struct health *h, struct patient *p)
{
    free(p->reason);
    *p = h->patients[--h->count];
}

/* The one whose turn it is, or NULL and when the next one's comes. */
static struct patient *next_due(struct health *h, int64_t *ret_at_ns)
{
    struct patient *first = NULL;
    int64_t now = trk_now_ns();
    for (size_t i = 0; i < h->count; i++) {
        struct patient *p = &h->patients[i];
        if (!p->is_asked && (first == NULL || p->next_ns < first->next_ns)) {
            first = p;
        }
    }
    *ret_at_ns = first != NULL ? first->next_ns : now + IDLE_MS * TRK_NS_PER_MS;
    return first != NULL && first->next_ns <= now ? first : NULL;
}

static int64_t pause_ms(const struct health *h, const struct patient *p)
{
    int64_t ms = BACK_FIRST_MS;
    if (p->is_running || p->is_ready) {
        return h->interval_ms;
    }
    for (unsigned i = BACK_FIRST_LOOKS; i < p->failures && ms < h->interval_ms; i++) {
        ms *= 2;
    }
    return ms < h->interval_ms ? ms : h->interval_ms;
}

/* Said at the 1st, 2nd, 4th, 8th … time: it concerns every job. */
static void note_blindness(struct health *h, const struct look *look)
{
    if (look->outcome != OUTCOME_UNKNOWN) {
        if (h->blind_looks > 0) {
            trk_log_info("jobs can be asked for their health again", NULL);
        }
        h->blind_looks = 0;
        return;
    }
    h->blind_looks++;
    if ((h->blind_looks & (h->blind_looks - 1)) == 0) {
        char looks[24];
        (void)snprintf(looks, sizeof(looks), "%llu", (unsigned long long)h->blind_looks);
        trk_log_error("jobs cannot be asked for their health: this process opens no connections",
                      "reason", look->reason, "looks", looks, NULL);
    }
}

/* True when the loop should look at it. */
static bool take(struct health *h, struct look *look)
{
    struct patient *p = NULL;
    for (size_t i = 0; i < h->count && p == NULL; i++) {
        p = h->patients[i].serial == look->serial ? &h->patients[i] : NULL;
    }
    note_blindness(h, look);
    if (p == NULL) {
        return false; /* gone meanwhile, or another by now */
    }
    p->is_asked = false;
    if (look->outcome != OUTCOME_UNKNOWN) {
        p->is_ready = look->outcome == OUTCOME_READY;
        p->failures = p->is_ready ? 0 : p->failures + 1;
        free(p->reason);
        p->reason = TRK_STEAL(look->reason);
    }
    p->next_ns = trk_now_ns() + pause_ms(h, p) * TRK_NS_PER_MS;
    return p->is_running ? p->failures == FAILURES_MAX : p->is_ready;
}

static void wait_until(struct health *h, int64_t at_ns)
{
    struct timespec until = {.tv_sec = at_ns / TRK_NS_PER_S, .tv_nsec = at_ns % TRK_NS_PER_S};
    (void)pthread_cond_timedwait(&h->wake, &h->mutex, &until);
}

static void *prober_main(void *arg)
{
    struct health *h = arg;
    struct trk_http_client *client = trk_http_client_new();
    pthread_mutex_lock(&h->mutex);
    while (!h->stop) {
        int64_t at_ns;
        struct patient *p = next_due(h, &at_ns);
        if (p == NULL) {
            wait_until(h, at_ns);
            continue;
        }
        struct look look = {.serial = p->serial,
                            .is_explained = p->is_running && p->failures + 1 >= FAILURES_MAX};
        memcpy(look.address, p->address, sizeof(look.address));
        p->is_asked = true;
        pthread_mutex_unlock(&h->mutex);
        ask(client, &look);
        pthread_mutex_lock(&h->mutex);
        if (take(h, &look)) {
            pthread_mutex_unlock(&h->mutex);
            supervisor_wake(h->supervisor);
            pthread_mutex_lock(&h->mutex);
        }
        free(look.reason);
    }
    pthread_mutex_unlock(&h->mutex);
    trk_http_client_free(client);
    return NULL;
}

/* -- the loop's side -- */

/* One that runs is asked at a time of its own within the interval: not all at once. */
static int64_t first_pause_ms(const struct health *h, const struct patient *p)
{
    size_t len = strlen(p->id);
    const char *tail = p->id + (len > 8 ? len - 8 : 0);
    return p->is_running ? (int64_t)(strtoul(tail, NULL, 16) % (unsigned long)h->interval_ms) : 0;
}

static struct patient *admit(struct health *h, const char *id, const char *address, bool is_running)
{
    struct patient *p = find(h, id);
    if (p != NULL && p->is_running == is_running && strcmp(p->address, address) == 0) {
        return p;
    }
    if (p == NULL) {
        h->patients = trk_xrealloc(h->patients, (h->count + 1) * sizeof(*h->patients));
        p = &h->patients[h->count++];
        p->reason = NULL;
    }
    free(p->reason);
    *p = (struct patient){.serial = ++h->last_serial, .is_running = is_running};
    (void)snprintf(p->id, sizeof(p->id), "%s", id);
    (void)snprintf(p->address, sizeof(p->address), "%s", address);
    p->next_ns = trk_now_ns() + first_pause_ms(h, p) * TRK_NS_PER_MS;
    pthread_cond_broadcast(&h->wake);
    return p;
}

enum health_state health_of(struct health *h, const char *id, const char *address, bool is_running,
                            char **ret_reason)
{
    enum health_state state = HEALTH_UNKNOWN;
    pthread_mutex_lock(&h->mutex);
    struct patient *p = admit(h, id, address, is_running);
    p->is_wanted = true;
    if (p->is_ready) {
        state = HEALTH_READY;
    } else if (p->failures >= FAILURES_MAX) {
        state = HEALTH_FAILING;
        *ret_reason = trk_xasprintf("not ready at %u looks in a row: %s", p->failures, p->reason);
    }
    pthread_mutex_unlock(&h->mutex);
    return state;
}

void health_sweep(struct health *h)
{
    pthread_mutex_lock(&h->mutex);
    for (size_t i = h->count; i-- > 0;) {
        if (!h->patients[i].is_wanted) {
            forget(h, &h->patients[i]);
        } else {
            h->patients[i].is_wanted = false;
        }
    }
    pthread_mutex_unlock(&h->mutex);
}

void health_clear(struct health *h)
{
    pthread_mutex_lock(&h->mutex);
    while (h->count > 0) {
        forget(h, &h->patients[0]);
    }
    pthread_mutex_unlock(&h->mutex);
}

/* -- life -- */

struct health *health_start(struct supervisor *s, int64_t interval_ms, struct trk_err *err)
{
    struct health *h = trk_xcalloc(1, sizeof(*h));
    pthread_condattr_t condition;
    pthread_attr_t attr;
    h->supervisor = s;
    h->interval_ms = interval_ms;
    pthread_mutex_init(&h->mutex, NULL);
    pthread_condattr_init(&condition);
    pthread_condattr_setclock(&condition, CLOCK_MONOTONIC);
    pthread_cond_init(&h->wake, &condition);
    pthread_condattr_destroy(&condition);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (; h->thread_count < PROBERS; h->thread_count++) {
        if (pthread_create(&h->threads[h->thread_count], &attr, prober_main, h) != 0) {
            break;
        }
    }
    pthread_attr_destroy(&attr);
    if (h->thread_count == PROBERS) {
        return h;
    }
    (void)trk_err_set(err, TRK_INTERNAL, "starting the threads that ask jobs for their health");
    health_stop(h);
    return NULL;
}

void health_stop(struct health *h)
{
    if (h == NULL) {
        return;
    }
    pthread_mutex_lock(&h->mutex);
    h->stop = true;
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->mutex);
    for (unsigned i = 0; i < h->thread_count; i++) {
        pthread_join(h->threads[i], NULL);
    }
    health_clear(h);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->mutex);
    free(h->patients);
    free(h);
}
