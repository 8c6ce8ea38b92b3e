/*
 * _racetrack - the worker's side of the ring as a Python module. All ring calls hold the
 * interpreter lock; only the wait for work releases it. Deliberately thin: what a request means is
 * Python's business (racetrack_worker/).
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000 /* one build for the interpreters from 3.10 on */
#include <Python.h>

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "wrapper/ring.h"

#define LIMITED_STACK (2 << 20)

static struct ring_worker worker;
static bool attached;
static bool forked; /* in a child that user code forked: the ring belongs to the parent */
static int life_fd = -1;

static void on_fork_child(void)
{
    forked = true;
}

static void on_signal(int number)
{
    (void)number; /* the front decides when a worker ends */
}

/* The front's end of this pipe closes when it dies, even when PDEATHSIG was lost to a setuid exec.
 * Needs no interpreter lock, so it works while user code hangs. */
static void *watch_front(void *unused)
{
    (void)unused;
    char c;
    ssize_t n;
    do {
        n = read(life_fd, &c, 1);
    } while (n > 0 || (n < 0 && errno == EINTR));
    (void)kill(getpid(), SIGKILL);
    return NULL;
}

/* A job with a memory limit has no address space for 8 MiB of stack a thread. */
static void limit_stacks(void)
{
    PyObject *module = PyImport_ImportModule("_thread");
    PyObject *old = module != NULL ? PyObject_CallMethod(module, "stack_size", "i", LIMITED_STACK)
                                   : NULL;
    PyErr_Clear(); /* then they stay as they are */
    Py_XDECREF(old);
    Py_XDECREF(module);
}

/* attach(ring_fd, event_fd, life_fd) */
static PyObject *attach(PyObject *self, PyObject *args)
{
    (void)self;
    int ring_fd, event_fd;
    if (!PyArg_ParseTuple(args, "iii", &ring_fd, &event_fd, &life_fd)) {
        return NULL;
    }
    /* Arenas cost 64 MiB of address space each, which jobs with a memory limit do not have. */
    (void)mallopt(M_ARENA_MAX, 2);
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        limit_stacks();
    }
    /* Handlers, not SIG_IGN: that would be inherited by the programs that user code starts. */
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    int code = ring_worker_init(&worker, ring_fd, event_fd);
    if (code < 0) {
        errno = -code;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    pthread_attr_t attr;
    pthread_t thread;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, 64 * 1024);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    code = pthread_create(&thread, &attr, watch_front, NULL);
    (void)pthread_attr_destroy(&attr);
    if (code != 0) {
        errno = code;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    (void)pthread_atfork(NULL, NULL, on_fork_child);
    attached = true;
    return Py_NewRef(Py_None);
}

static int check_usable(void)
{
    if (forked) {
        _exit(1); /* a forked copy of user code must not answer for its parent */
    }
    if (!attached) {
        PyErr_SetString(PyExc_RuntimeError, "not attached to a front");
        return -1;
    }
    return 0;
}

static PyObject *read_bytes(int slot, uint64_t at, uint64_t len)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (bytes == NULL) {
        return NULL;
    }
    int code = ring_worker_read(&worker, slot, at, PyBytes_AsString(bytes), (size_t)len);
    if (code < 0) {
        Py_DECREF(bytes);
        errno = -code;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return bytes;
}

/* Text of the body; None without one, False when it is not UTF-8. */
static PyObject *read_body(int slot, const struct ring_slot *s)
{
    if (s->body_len == 0) {
        return Py_NewRef(Py_None);
    }
    PyObject *text;
    if ((s->flags & RING_BIG) == 0) {
        text = PyUnicode_DecodeUTF8(s->data + s->head_len, (Py_ssize_t)s->body_len, NULL);
    } else {
        PyObject *bytes = read_bytes(slot, s->head_len, s->body_len);
        if (bytes == NULL) {
            return NULL;
        }
        text = PyUnicode_DecodeUTF8(PyBytes_AsString(bytes), PyBytes_Size(bytes), NULL);
        Py_DECREF(bytes);
    }
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        return Py_NewRef(Py_False);
    }
    return text;
}

static int wait_for_slot(void)
{
    int slot;
    while ((slot = ring_worker_take(&worker)) < 0) {
        struct ring_wait wait;
        ring_worker_wait_begin(&worker, &wait);
        PyThreadState *state = PyEval_SaveThread();
        ring_worker_wait(&worker, &wait);
        PyEval_RestoreThread(state);
        ring_worker_wait_end(&worker, &wait);
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return slot;
}

static PyObject *read_item(int slot)
{
    const struct ring_slot *s = &worker.shared->slots[slot];
    PyObject *head = read_bytes(slot, 0, s->head_len);
    PyObject *body = head != NULL ? read_body(slot, s) : NULL;
    if (body == NULL) {
        Py_XDECREF(head);
        return NULL;
    }
    bool spare_needed = atomic_load(&worker.shared->spares) == 0;
    return Py_BuildValue("(iIINNO)", slot, s->kind, s->endpoint, head, body,
                         spare_needed ? Py_True : Py_False);
}

/* take() -> (slot, kind, endpoint, head, body, spare_needed); waits. */
static PyObject *take(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (check_usable() < 0) {
        return NULL;
    }
    for (;;) {
        int slot = wait_for_slot();
        if (slot < 0) {
            return NULL;
        }
        PyObject *item = read_item(slot);
        if (item != NULL) {
            return item;
        }
        /* Out of memory for this body: answer it, go on with the next. */
        static const char text[] = "{\"error\":\"the request does not fit into the job's memory\","
                                   "\"type\":\"MemoryError\"}";
        PyErr_Clear();
        (void)ring_worker_complete(&worker, slot, 507, NULL, text, sizeof(text) - 1);
    }
}

/* UTF-8 of a JSON text; a lone surrogate in it becomes its JSON escape. Owned by *ret_owner or
 * by the text itself. */
static const char *utf8(PyObject *text, Py_ssize_t *ret_len, PyObject **ret_owner)
{
    const char *bytes = PyUnicode_AsUTF8AndSize(text, ret_len);
    if (bytes == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        *ret_owner = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
        if (*ret_owner != NULL) {
            bytes = PyBytes_AsString(*ret_owner);
            *ret_len = PyBytes_Size(*ret_owner);
        }
    }
    return bytes;
}

/* complete(slot, status, type | None, bytes | str) */
static PyObject *complete(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "complete(slot, status, type, body)");
        return NULL;
    }
    if (check_usable() < 0) {
        return NULL;
    }
    long slot = PyLong_AsLong(args[0]);
    long status = PyLong_AsLong(args[1]);
    const char *type = args[2] == Py_None ? NULL : PyUnicode_AsUTF8AndSize(args[2], NULL);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (slot < 0 || slot >= (long)RING_SLOTS || status < 200 || status > 599) {
        PyErr_SetString(PyExc_ValueError, "slot or status out of range");
        return NULL;
    }
    const char *bytes;
    Py_ssize_t len;
    PyObject *owner = NULL;
    if (PyUnicode_Check(args[3])) {
        bytes = utf8(args[3], &len, &owner);
        if (bytes == NULL) {
            return NULL;
        }
    } else {
        char *at;
        if (PyBytes_AsStringAndSize(args[3], &at, &len) < 0) {
            return NULL;
        }
        bytes = at;
    }
    int code = ring_worker_complete(&worker, (int)slot, (int)status, type, bytes, (size_t)len);
    Py_XDECREF(owner);
    if (code == -E2BIG) {
        PyErr_Format(PyExc_OverflowError, "the result has %zd bytes, the limit is %llu", len,
                     (unsigned long long)worker.shared->body_max);
        return NULL;
    }
    if (code < 0) {
        errno = -code;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"attach", attach, METH_VARARGS, "attach(ring_fd, event_fd, life_fd)"},
    {"take", take, METH_NOARGS, "take() -> (slot, kind, endpoint, head, body, spare_needed)"},
    {"complete", (PyCFunction)(void (*)(void))complete, METH_FASTCALL,
     "complete(slot, status, type, body)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    "_racetrack",
    "The worker's side of the wrapper's ring.",
    -1,
    methods,
    NULL,
    NULL,
    NULL,
    NULL,
};

PyMODINIT_FUNC PyInit__racetrack(void);
PyMODINIT_FUNC PyInit__racetrack(void)
{
    return PyModule_Create(&module);
}
