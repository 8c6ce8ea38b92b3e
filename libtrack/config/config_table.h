/*
 * config_table.h - short spellings of rows of a configuration table, for the one file of a service
 * that defines it. Define CONFIG_STRUCT before including; see config.h for what a row means.
 *
 *     #define CONFIG_STRUCT struct pub_config
 *     #include "libtrack/config/config_table.h"
 *     static const struct trk_config_entry entries[] = {
 *         INT("port", port, "7205", NULL, "PUB_PORT", 0, 65535, "port to listen on"),
 *     };
 */
#ifndef LIBTRACK_CONFIG_TABLE_H
#define LIBTRACK_CONFIG_TABLE_H

#include "libtrack/config/config.h"

#define CONFIG_AT(field) offsetof(CONFIG_STRUCT, field)
#define STRING(key, field, otherwise, variable, text)                                              \
    {                                                                                              \
        key, TRK_CONFIG_STRING, CONFIG_AT(field), otherwise, NULL, variable, 0, 0, 0, text         \
    }
#define SECRET(key, field, variable, text)                                                         \
    {                                                                                              \
        key, TRK_CONFIG_STRING, CONFIG_AT(field), "", NULL, variable, 0, 0, TRK_CONFIG_SECRET,     \
            text                                                                                   \
    }
#define QUANTITY(key, field, otherwise, text)                                                      \
    {                                                                                              \
        key, TRK_CONFIG_QUANTITY, CONFIG_AT(field), otherwise, NULL, NULL, 0, 0, 0, text           \
    }
#define INT(key, field, otherwise, unit, variable, low, high, text)                                \
    {                                                                                              \
        key, TRK_CONFIG_INT, CONFIG_AT(field), otherwise, unit, variable, low, high, 0, text       \
    }
#define BOOL(key, field, otherwise, variable, text)                                                \
    {                                                                                              \
        key, TRK_CONFIG_BOOL, CONFIG_AT(field), otherwise, NULL, variable, 0, 0, 0, text           \
    }
/* Keys of the original that mean nothing here: accepted with a warning. */
#define OLD_INT(key, field, otherwise)                                                             \
    {                                                                                              \
        key, TRK_CONFIG_INT, CONFIG_AT(field), otherwise, NULL, NULL, 0, INT64_MAX,                \
            TRK_CONFIG_DEPRECATED, "a key of the original"                                         \
    }
#define OLD_STRING(key, field)                                                                     \
    {                                                                                              \
        key, TRK_CONFIG_STRING, CONFIG_AT(field), "", NULL, NULL, 0, 0, TRK_CONFIG_DEPRECATED,     \
            "a key of the original"                                                                \
    }
#define OLD_BOOL(key, field)                                                                       \
    {                                                                                              \
        key, TRK_CONFIG_BOOL, CONFIG_AT(field), "false", NULL, NULL, 0, 0, TRK_CONFIG_DEPRECATED,  \
            "a key of the original"                                                                \
    }

#endif
