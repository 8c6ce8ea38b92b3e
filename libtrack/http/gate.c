#include "libtrack/http/gate.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/gate_internal.h"

#define BATCH          128
#define ACCEPTS_A_TURN 64
/* A short answer must fit, see http_gate_pass_answer(). */
#define PAIR_ROOM  (256 * 1024)
#define PAIRS_KEPT 4 /* idle ones beyond these go, an eighth each second */
/* Descriptors that are not for clients: the service's files, database, children. */
#define FDS_RESERVED  512
#define FDS_WANTED    65536
#define TRIM_PAUSE_NS (5 * TRK_NS_PER_S)

enum command { COMMAND_NONE, COMMAND_DRAIN, COMMAND_CUT, COMMAND_END };

int gate_watch_add(struct http_gate *gate, struct gate_watch *watch)
{
    static const uint32_t events[] = {[GATE_WAKE] = EPOLLIN,
                                      [GATE_LISTENER] = EPOLLIN,
                                      [GATE_CLIENT] = GATE_EVENTS | EPOLLOUT,
                                      [GATE_PAIR] = EPOLLET}; /* its end only */
    struct epoll_event event = {.events = events[watch->kind], .data.ptr = watch};
    return epoll_ctl(gate->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event);
}

void gate_watch_pair(struct http_gate *gate, struct http_pair *pair, uint32_t events)
{
    struct epoll_event event = {.events = EPOLLET | events, .data.ptr = &pair->watch};
    if (pair->events != events && pair->watch.fd >= 0) {
        pair->events = events;
        (void)epoll_ctl(gate->epoll_fd, EPOLL_CTL_MOD, pair->watch.fd, &event);
    }
}

static void watch_close(struct gate_watch *watch)
{
    if (watch->fd >= 0) {
        (void)close(watch->fd);
        watch->fd = -1;
    }
}

/* -- pairs -- */

/* How a pair gets through MHD_add_connection, which hands on the client's address. */
struct pair_address {
    sa_family_t family;
    struct http_pair *pair;
};

static void pair_unref(struct http_pair *pair)
{
    if (atomic_fetch_sub(&pair->refs, 1) == 1) {
        free(pair);
    }
}

void http_gate_on_connection(void *cls, struct MHD_Connection *mhd, void **socket_ctx,
                             enum MHD_ConnectionNotificationCode code)
{
    (void)cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct pair_address address;
        memcpy(&address,
               MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr,
               sizeof(address));
        *socket_ctx = address.pair;
    } else if (*socket_ctx != NULL) {
        pair_unref(*socket_ctx);
        *socket_ctx = NULL;
    }
}

int http_pair_fd(const struct http_pair *pair)
{
    return pair->mhd_fd;
}

const char *http_pair_peer(const struct http_pair *pair)
{
    return pair->peer;
}

static struct http_pair *pair_new(struct http_gate *gate)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) {
        return NULL;
    }
    struct http_pair *pair = trk_xcalloc(1, sizeof(*pair));
    pair->watch = (struct gate_watch){.fd = fds[0], .kind = GATE_PAIR, .is_writable = true};
    pair->mhd_fd = fds[1];
    atomic_store(&pair->refs, 2);
    int room = PAIR_ROOM;
    (void)setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    struct pair_address address;
    memset(&address, 0, sizeof(address));
    address.family = AF_UNIX;
    address.pair = pair;
    if (gate_watch_add(gate, &pair->watch) < 0) {
        (void)close(fds[0]);
        (void)close(fds[1]);
        free(pair);
        return NULL;
    }
    /* Closes its end when it fails. */
    if (MHD_add_connection(gate->server->daemon, fds[1], (struct sockaddr *)&address,
                           sizeof(address)) != MHD_YES) {
        pair_unref(pair);
        gate_pair_give(gate, pair, false);
        return NULL;
    }
    return pair;
}

struct http_pair *gate_pair_take(struct http_gate *gate, struct gate_conn *c)
{
    struct http_pair *pair = TAILQ_FIRST(&gate->idle);
    if (pair != NULL) {
        TAILQ_REMOVE(&gate->idle, pair, idle);
        gate->idle_count--;
    } else if ((pair = pair_new(gate)) == NULL) {
        return NULL;
    }
    pair->conn = c;
    memcpy(pair->peer, c->peer, sizeof(pair->peer));
    gate->running++;
    return pair;
}

static void pair_bury(struct http_gate *gate, struct http_pair *pair)
{
    watch_close(&pair->watch);
    pair->next_grave = gate->pair_graves;
    gate->pair_graves = pair;
}

void gate_pair_give(struct http_gate *gate, struct http_pair *pair, bool can_reuse)
{
    gate->running -= pair->conn != NULL;
    pair->conn = NULL;
    if (can_reuse && !pair->watch.has_fin) {
        gate_watch_pair(gate, pair, 0);
        TAILQ_INSERT_HEAD(&gate->idle, pair, idle);
        gate->idle_count++;
    } else {
        pair_bury(gate, pair);
    }
}

static void close_idle_pair(struct http_gate *gate, struct http_pair *pair)
{
    TAILQ_REMOVE(&gate->idle, pair, idle);
    gate->idle_count--;
    pair_bury(gate, pair);
}

/* -- places -- */

bool gate_has_place(const struct http_gate *gate, bool is_upload)
{
    return gate->running < gate->running_max &&
           (!is_upload || gate->uploads < (gate->running_max + 1) / 2);
}

static void start_waiting(struct http_gate *gate)
{
    for (int is_upload = 0; is_upload < 2; is_upload++) {
        struct gate_conn *c;
        while ((c = TAILQ_FIRST(&gate->waiting[is_upload])) != NULL &&
               gate_has_place(gate, is_upload)) {
            gate_exchange_start(c);
            gate_conn_run(c);
        }
    }
}

/* -- accepting -- */

/* Closes the connection that has been without a request for the longest time. */
static bool evict(struct http_gate *gate)
{
    struct gate_conn *c;
    TAILQ_FOREACH(c, &gate->all, all)
    {
        if (c->state == GATE_HEAD || c->state == GATE_LINGER) {
            gate_conn_close(c);
            return true;
        }
    }
    return false;
}

static void set_listening(struct http_gate *gate, bool listens)
{
    gate->is_deaf = !listens;
    for (size_t i = 0; i < gate->listener_count; i++) {
        struct epoll_event event = {.events = listens ? EPOLLIN : 0,
                                    .data.ptr = &gate->listeners[i]};
        (void)epoll_ctl(gate->epoll_fd, EPOLL_CTL_MOD, gate->listeners[i].fd, &event);
    }
}

static void accept_some(struct http_gate *gate, const struct gate_watch *listener)
{
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        if (gate->conn_count >= gate->conn_max && !evict(gate)) {
            set_listening(gate, false);
            return;
        }
        struct sockaddr_storage peer = {0};
        socklen_t len = sizeof(peer);
        int fd = accept4(listener->fd, (struct sockaddr *)&peer, &len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            gate_conn_new(gate, fd, (struct sockaddr *)&peer);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            trk_log_warn("no descriptor for a connection", "error", strerror(errno), NULL);
            if (!evict(gate)) {
                set_listening(gate, false);
            }
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            return;
        }
    }
}

/* -- the loop -- */

static void close_listeners(struct http_gate *gate)
{
    for (size_t i = 0; i < gate->listener_count; i++) {
        watch_close(&gate->listeners[i]);
    }
}

static void close_conns(struct http_gate *gate, bool with_requests)
{
    struct gate_conn *c = TAILQ_FIRST(&gate->all);
    while (c != NULL) {
        struct gate_conn *next = TAILQ_NEXT(c, all);
        if (with_requests || (c->state == GATE_HEAD && c->in.len == 0)) {
            gate_conn_close(c);
        }
        c = next;
    }
}

/* True at the end. */
static bool obey(struct http_gate *gate)
{
    uint64_t count;
    (void)!read(gate->wake.fd, &count, sizeof(count));
    int command = atomic_load(&gate->command);
    if (command >= COMMAND_DRAIN) {
        gate->is_draining = true;
        close_listeners(gate);
        close_conns(gate, command >= COMMAND_CUT);
    }
    return command == COMMAND_END;
}

/* What large requests leave behind in pieces goes back to the system, now and then. */
static void trim(struct http_gate *gate)
{
    if (gate->now_ns >= gate->trim_ns && atomic_exchange(&gate->server->wants_trim, false)) {
        gate->trim_ns = gate->now_ns + TRIM_PAUSE_NS;
        (void)malloc_trim(0);
    }
}

static void tick(struct http_gate *gate)
{
    gate->tick_ns = gate->now_ns + TRK_NS_PER_S;
    trim(gate);
    struct gate_conn *c = TAILQ_FIRST(&gate->all);
    while (c != NULL) {
        struct gate_conn *next = TAILQ_NEXT(c, all);
        if (c->deadline_ns != 0 && gate->now_ns > c->deadline_ns) {
            gate_conn_expire(c);
        }
        c = next;
    }
    size_t spare = gate->idle_count > PAIRS_KEPT ? (gate->idle_count - PAIRS_KEPT + 7) / 8 : 0;
    while (spare-- > 0) {
        close_idle_pair(gate, TAILQ_LAST(&gate->idle, pair_list));
    }
    if (gate->is_deaf) {
        set_listening(gate, true);
    }
}

static void on_event(struct http_gate *gate, struct gate_watch *watch, uint32_t events)
{
    if (watch->fd < 0) {
        return; /* closed in this turn */
    }
    watch->is_readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    watch->is_writable |= (events & EPOLLOUT) != 0;
    watch->has_fin |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    watch->has_error |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    if (watch->kind == GATE_LISTENER) {
        accept_some(gate, watch);
    } else if (watch->kind == GATE_CLIENT) {
        gate_conn_run((struct gate_conn *)watch); /* its first member */
    } else if (watch->kind == GATE_PAIR) {
        struct http_pair *pair = (struct http_pair *)watch;
        if (pair->conn != NULL) {
            gate_conn_run(pair->conn);
        } else if (watch->has_fin) {
            close_idle_pair(gate, pair);
        }
    }
}

static void run_again(struct http_gate *gate)
{
    const struct gate_conn *last = TAILQ_LAST(&gate->again, gate_conns);
    struct gate_conn *c = NULL;
    while (last != NULL && c != last) {
        c = TAILQ_FIRST(&gate->again); /* which running takes off; it may put itself at the end */
        gate_conn_run(c);
    }
}

static void free_graves(struct http_gate *gate)
{
    while (gate->graves != NULL) {
        struct gate_conn *c = gate->graves;
        gate->graves = c->next_grave;
        free(c);
    }
    while (gate->pair_graves != NULL) {
        struct http_pair *pair = gate->pair_graves;
        gate->pair_graves = pair->next_grave;
        pair_unref(pair);
    }
}

static void count_busy(struct http_gate *gate)
{
    size_t busy = gate->running;
    busy += !TAILQ_EMPTY(&gate->waiting[0]) + !TAILQ_EMPTY(&gate->waiting[1]);
    if (busy != atomic_load(&gate->busy)) {
        atomic_store(&gate->busy, busy);
        if (busy == 0 && gate->is_draining) {
            http_server_on_idle(gate->server);
        }
    }
}

static int wait_ms(const struct http_gate *gate)
{
    if (!TAILQ_EMPTY(&gate->again)) {
        return 0;
    }
    if (TAILQ_EMPTY(&gate->all) && gate->idle_count <= PAIRS_KEPT && !gate->is_deaf &&
        !atomic_load(&gate->server->wants_trim)) {
        return -1;
    }
    int64_t left = gate->tick_ns - gate->now_ns;
    return left <= 0 ? 0 : (int)(left / TRK_NS_PER_MS + 1);
}

/* Carries on the answers that http_gate_pass_answer() was told of. With gate->lock. */
static void carry_answers(struct http_gate *gate)
{
    struct http_pair *pair = atomic_exchange(&gate->answered, NULL);
    while (pair != NULL) {
        struct http_pair *next = pair->next_answered;
        atomic_store(&pair->is_answered, false);
        if (pair->conn != NULL) {
            pair->watch.is_readable = true;
            gate_conn_run(pair->conn);
        }
        pair_unref(pair);
        pair = next;
    }
}

/* By a read-modify-write: looking must not come before an unlocking that stands before it. */
static bool has_answers(struct http_gate *gate)
{
    struct http_pair *none = NULL;
    return !atomic_compare_exchange_strong(&gate->answered, &none, NULL);
}

/* Gives up the lock and waits for events; has it again afterwards. */
static int wait_for_events(struct http_gate *gate, struct epoll_event *events)
{
    int ms;
    do {
        carry_answers(gate);
        start_waiting(gate);
        count_busy(gate);
        free_graves(gate);
        ms = wait_ms(gate);
        (void)pthread_mutex_unlock(&gate->lock);
        if (!has_answers(gate)) {
            break;
        }
        (void)pthread_mutex_lock(&gate->lock);
    } while (true);
    int n = epoll_wait(gate->epoll_fd, events, BATCH, ms);
    if (n < 0 && errno != EINTR) {
        trk_die("epoll_wait: %s", strerror(errno));
    }
    (void)pthread_mutex_lock(&gate->lock);
    gate->now_ns = trk_now_ns();
    return n;
}

static void *gate_main(void *arg)
{
    struct http_gate *gate = arg;
    struct epoll_event events[BATCH];
    bool is_over = false;
    (void)pthread_mutex_lock(&gate->lock);
    while (!is_over) {
        int n = wait_for_events(gate, events);
        run_again(gate);
        for (int i = 0; i < n; i++) {
            struct gate_watch *watch = events[i].data.ptr;
            if (watch->kind == GATE_WAKE) {
                is_over |= obey(gate);
            } else {
                on_event(gate, watch, events[i].events);
            }
        }
        if (gate->now_ns >= gate->tick_ns) {
            tick(gate);
        }
    }
    count_busy(gate);
    (void)pthread_mutex_unlock(&gate->lock);
    return NULL;
}

/* -- start and end -- */

/* Each request may need a pair, each connection one descriptor. */
static void set_limits(struct http_gate *gate)
{
    struct rlimit limit;
    size_t fds = 1024;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        if (limit.rlim_cur < limit.rlim_max && limit.rlim_cur < FDS_WANTED) {
            limit.rlim_cur = limit.rlim_max < FDS_WANTED ? limit.rlim_max : FDS_WANTED;
            (void)setrlimit(RLIMIT_NOFILE, &limit);
            (void)getrlimit(RLIMIT_NOFILE, &limit);
        }
        fds = limit.rlim_cur < FDS_WANTED ? (size_t)limit.rlim_cur : FDS_WANTED;
    }
    size_t wanted = gate->server->options.request_max;
    gate->running_max = wanted <= fds / 8 ? wanted : fds / 8 + 1;
    size_t others = 2 * gate->running_max + FDS_RESERVED;
    gate->conn_max = fds > 2 * others ? fds - others : fds / 2;
}

static int gate_open(struct http_gate *gate)
{
    gate->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    gate->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (gate->epoll_fd < 0 || gate->wake.fd < 0 || gate_watch_add(gate, &gate->wake) < 0) {
        return -errno;
    }
    for (size_t i = 0; i < gate->listener_count; i++) {
        if (gate_watch_add(gate, &gate->listeners[i]) < 0) {
            return -errno;
        }
    }
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, HTTP_STACK_BYTES);
    int rc = pthread_create(&gate->thread, &attr, gate_main, gate);
    (void)pthread_attr_destroy(&attr);
    return -rc;
}

static void gate_close(struct http_gate *gate)
{
    close_listeners(gate);
    watch_close(&gate->wake);
    if (gate->epoll_fd >= 0) {
        (void)close(gate->epoll_fd);
    }
    (void)pthread_mutex_destroy(&gate->lock);
    free(gate);
}

int http_gate_start(struct trk_http_server *server, const int *listeners, size_t count,
                    struct http_gate **ret, struct trk_err *err)
{
    struct http_gate *gate = trk_xcalloc(1, sizeof(*gate));
    gate->server = server;
    gate->now_ns = trk_now_ns();
    (void)pthread_mutex_init(&gate->lock, NULL);
    TAILQ_INIT(&gate->all);
    TAILQ_INIT(&gate->waiting[0]);
    TAILQ_INIT(&gate->waiting[1]);
    TAILQ_INIT(&gate->again);
    TAILQ_INIT(&gate->idle);
    trk_assert(count <= TRK_COUNT(gate->listeners));
    gate->listener_count = count;
    for (size_t i = 0; i < count; i++) {
        gate->listeners[i] = (struct gate_watch){.fd = listeners[i], .kind = GATE_LISTENER};
    }
    set_limits(gate);
    int rc = gate_open(gate);
    if (rc < 0) {
        gate_close(gate);
        return trk_err_errno(err, -rc, "starting to accept connections");
    }
    *ret = gate;
    return 0;
}

static void wake(struct http_gate *gate)
{
    uint64_t one = 1;
    (void)!write(gate->wake.fd, &one, sizeof(one));
}

static void command(struct http_gate *gate, enum command what)
{
    atomic_store(&gate->command, what);
    wake(gate);
}

void http_gate_watch_answer(struct http_gate *gate, struct http_pair *pair)
{
    (void)pthread_mutex_lock(&gate->lock);
    gate_watch_pair(gate, pair, pair->events | GATE_EVENTS);
    (void)pthread_mutex_unlock(&gate->lock);
}

/* Whoever holds the lock carries the answers, so that nobody waits for it: this thread when it is
 * free, else the holder, who looks once more after giving it up. */
void http_gate_pass_answer(struct http_gate *gate, struct http_pair *pair)
{
    if (!atomic_exchange(&pair->is_answered, true)) {
        (void)atomic_fetch_add(&pair->refs, 1);
        pair->next_answered = atomic_load(&gate->answered);
        while (!atomic_compare_exchange_weak(&gate->answered, &pair->next_answered, pair)) {
        }
    }
    bool has_work = false;
    while (has_answers(gate) && pthread_mutex_trylock(&gate->lock) == 0) {
        gate->now_ns = trk_now_ns();
        gate->is_guest = true;
        carry_answers(gate);
        gate->is_guest = false;
        has_work |= !TAILQ_EMPTY(&gate->waiting[0]) || !TAILQ_EMPTY(&gate->waiting[1]) ||
                    !TAILQ_EMPTY(&gate->again) || gate->is_draining;
        (void)pthread_mutex_unlock(&gate->lock);
    }
    if (has_work) {
        wake(gate);
    }
}

void http_gate_drain(struct http_gate *gate)
{
    command(gate, COMMAND_DRAIN);
}

size_t http_gate_busy(const struct http_gate *gate)
{
    return atomic_load(&gate->busy);
}

void http_gate_cut(struct http_gate *gate)
{
    command(gate, COMMAND_CUT);
}

void http_gate_free(struct http_gate *gate)
{
    if (gate == NULL) {
        return;
    }
    command(gate, COMMAND_END);
    (void)pthread_join(gate->thread, NULL);
    carry_answers(gate); /* of connections that were cut: gives their references back */
    while (!TAILQ_EMPTY(&gate->idle)) {
        close_idle_pair(gate, TAILQ_FIRST(&gate->idle));
    }
    free_graves(gate);
    gate_close(gate);
}
