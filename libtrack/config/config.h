/*
 * config.h - one table a service: name, type, default, unit, environment variable, help.
 *
 * Effective value = default, overridden by the YAML file that CONFIG_FILE names, overridden by the
 * environment. trk_config_load reports every fault at once (unknown key, wrong type, out of range).
 * The table also answers --check-config, --show-config, --help, and makes docs/configuration.md.
 * Call before threads start; the filled struct is read-only afterwards. Strings are owned by the
 * config until trk_config_fini.
 *
 *     struct lifecycle_config { char *http_addr; int64_t http_port; bool allow_job_overwrite; };
 *     static const struct trk_config_entry entries[] = {
 *         {"http_port", TRK_CONFIG_INT, offsetof(struct lifecycle_config, http_port), "7202", NULL,
 *          "LIFECYCLE_PORT", 0, 65535, 0, "port of the API; 0 takes a free one"},
 *     };
 *     static const struct trk_config_table table = {.service = "lifecycle", .summary = "…",
 *         .entries = entries, .count = TRK_COUNT(entries), .check = check};
 */
#ifndef LIBTRACK_CONFIG_H
#define LIBTRACK_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "libtrack/base/err.h"

enum trk_config_type {
    TRK_CONFIG_STRING,   /* char * (owned by the config; "" when unset and default "") */
    TRK_CONFIG_INT,      /* int64_t */
    TRK_CONFIG_BOOL,     /* bool */
    TRK_CONFIG_QUANTITY, /* char *: a resource quantity such as 256Mi or 10m, checked */
};
enum trk_config_flags {
    TRK_CONFIG_SECRET = 1,     /* printed as *** */
    TRK_CONFIG_DEPRECATED = 2, /* accepted, warned about, does nothing */
};
struct trk_config_entry {
    const char *name;
    enum trk_config_type type;
    size_t offset; /* into the service's config struct */
    const char *default_text;
    const char *unit; /* "s", "bytes", … or NULL */
    const char *env;  /* environment variable, or NULL */
    int64_t min, max; /* for INT */
    unsigned flags;
    const char *help;
};
struct trk_config_table {
    const char *service; /* "lifecycle" */
    const char *summary; /* one line for --help */
    const struct trk_config_entry *entries;
    size_t count;
    /* Rules between values (trk_profile_check, …), asked once every value is fine by itself; an
     * error text may hold several faults, a line each. NULL: none. */
    int (*check)(const void *config, struct trk_err *err);
};

/* Fills `config`. On failure `err` lists every fault, a line each, and `config` holds nothing. An
 * environment variable that is set but empty counts as not set. */
int trk_config_load(const struct trk_config_table *table, void *config,
                    struct trk_err *err) TRK_MUST_CHECK;
void trk_config_fini(const struct trk_config_table *table, void *config);
/* name: value  # source (default|file|env NAME), secrets as ***. */
void trk_config_show(const struct trk_config_table *table, const void *config, FILE *out);
void trk_config_help(const struct trk_config_table *table, FILE *out);
/* The table as a section of docs/configuration.md. */
void trk_config_markdown(const struct trk_config_table *table, FILE *out);

/* The beginning of a service's main(): handles --help, --version, --check-config, --show-config,
 * --config-markdown (returns true and *ret_exit_code), else loads the config, sets up logging (from
 * the entries named log_level and log_structured, if there are any, else from the environment),
 * trk_json_init, and returns false. A configuration with faults is printed to stderr, exit code 1;
 * an unknown option is exit code 2. argv[1] that does not start with '-' is left to the caller
 * (sub-command). */
bool trk_service_main(const struct trk_config_table *table, void *config, int argc, char **argv,
                      int *ret_exit_code);

#endif
