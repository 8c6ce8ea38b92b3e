/*
 * args.h - a growing, NULL-terminated list of owned strings: the argv or the environment of a
 * command. Zeroed when freed, because environments hold secrets. One thread.
 *
 *     TRK_ARGS_AUTO(argv);
 *     TRK_ARGS_ADD(&argv, "git", "clone", "--", url);
 *     trk_args_addf(&argv, "--depth=%d", 1);
 *     options.argv = (const char *const *)argv.items;
 */
#ifndef LIBTRACK_ARGS_H
#define LIBTRACK_ARGS_H

#include <stddef.h>

#include "libtrack/base/err.h"

struct trk_args {
    char **items; /* NULL while it is empty */
    size_t count, size;
};

void trk_args_take(struct trk_args *args, char *item); /* takes */
void trk_args_add(struct trk_args *args, const char *item);
void trk_args_addf(struct trk_args *args, const char *fmt, ...) TRK_PRINTF(2, 3);
void trk_args_add_all(struct trk_args *args, const char *const *items); /* NULL-terminated */
void trk_args_fini(struct trk_args *args);

#define TRK_ARGS_ADD(args, ...) trk_args_add_all(args, (const char *const[]){__VA_ARGS__, NULL})
#define TRK_ARGS_AUTO(name)     __attribute__((cleanup(trk_args_fini))) struct trk_args name = {0}

#endif
