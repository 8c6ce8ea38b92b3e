/*
 * yaml.h - YAML 1.2 text into JSON values, with limits.
 *
 * libyaml events, own loader: at most 256 KiB, depth 32, one document, no anchors or aliases, no
 * tags, no duplicate keys, string keys only, YAML 1.2 core scalars (`yes`, `no`, `on`, `0o7`-free:
 * `yes` is a string; true/false, null, decimal integers, floats). Errors are TRK_INVALID with line
 * and column and what to write instead. Any thread.
 */
#ifndef LIBTRACK_YAML_H
#define LIBTRACK_YAML_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

#define TRK_YAML_BYTES_MAX (256 * 1024)
#define TRK_YAML_DEPTH_MAX 32

/* *ret owned: any value; an empty document is null. `name` is for errors ("job.yaml"). */
int trk_yaml_parse(const char *bytes, size_t len, const char *name, json_t **ret,
                   struct trk_err *err) TRK_MUST_CHECK;
/* The same, and where things stand: *ret_lines (owned) maps the path of every key and list item
 * ("git.remote", "public_endpoints[2]") to its line, counted from 1. */
int trk_yaml_parse_lines(const char *bytes, size_t len, const char *name, json_t **ret,
                         json_t **ret_lines, struct trk_err *err) TRK_MUST_CHECK;
/* Would `s` without quotes be read as a string (not as null, a boolean or a number)? */
bool trk_yaml_is_plain_string(const char *s);
/* Block style, keys in order, strings quoted when they would read as something else. */
int trk_yaml_dump(const json_t *value, struct trk_buf *buf);

#endif
