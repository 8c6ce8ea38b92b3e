#include "pub/resolver.h"

#include <netdb.h>
#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct pub_resolution *first, **last = &first;
static bool is_running;

static void answer(struct pub_resolution *q)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(q->host, q->port, &hints, &found) == 0 && found != NULL) {
        memcpy(&q->addr, found->ai_addr, found->ai_addrlen);
        q->addr_len = found->ai_addrlen;
    }
    if (found != NULL) {
        freeaddrinfo(found);
    }
    pub_loop_post(q->loop, &q->message);
}

static void *run(void *unused)
{
    (void)unused;
    for (;;) {
        (void)pthread_mutex_lock(&lock);
        while (first == NULL) {
            (void)pthread_cond_wait(&more, &lock);
        }
        struct pub_resolution *q = first;
        first = q->next;
        if (first == NULL) {
            last = &first;
        }
        (void)pthread_mutex_unlock(&lock);
        answer(q);
    }
    return NULL;
}

void pub_resolve(struct pub_resolution *question)
{
    (void)pthread_mutex_lock(&lock);
    question->next = NULL;
    *last = question;
    last = &question->next;
    if (!is_running) {
        pthread_t thread;
        is_running = pthread_create(&thread, NULL, run, NULL) == 0;
        if (is_running) {
            (void)pthread_detach(thread);
        }
    }
    (void)pthread_cond_signal(&more);
    (void)pthread_mutex_unlock(&lock);
}
