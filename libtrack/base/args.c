#include "libtrack/base/args.h"

#include <sodium.h>
#include <stdarg.h>

#include "libtrack/base/mem.h"

void trk_args_take(struct trk_args *args, char *item)
{
    if (args->count + 2 > args->size) {
        args->size = args->size == 0 ? 64 : 2 * args->size;
        args->items = trk_xrealloc(args->items, args->size * sizeof(args->items[0]));
    }
    args->items[args->count++] = item;
    args->items[args->count] = NULL;
}

void trk_args_add(struct trk_args *args, const char *item)
{
    trk_args_take(args, trk_xstrdup(item));
}

void trk_args_addf(struct trk_args *args, const char *fmt, ...)
{
    char *text;
    va_list list;
    va_start(list, fmt);
    if (vasprintf(&text, fmt, list) < 0) {
        trk_die("out of memory");
    }
    va_end(list);
    trk_args_take(args, text);
}

void trk_args_add_all(struct trk_args *args, const char *const *items)
{
    for (; *items != NULL; items++) {
        trk_args_add(args, *items);
    }
}

void trk_args_fini(struct trk_args *args)
{
    for (size_t i = 0; i < args->count; i++) {
        sodium_memzero(args->items[i], strlen(args->items[i]));
        free(args->items[i]);
    }
    free(args->items);
    *args = (struct trk_args){0};
}
