/*
 * h1.h - strict HTTP/1.1 message head and chunked-body parsing (RFC 9112), for pub and the wrapper.
 *
 * No allocation, no copying: the parser works on the caller's contiguous bytes and answers slices
 * into them, valid as long as these bytes stay. It refuses what proxies disagree about (request
 * smuggling): Content-Length together with Transfer-Encoding, differing or malformed lengths, white
 * space before the colon, obs-fold, bare CR or LF, NUL, unknown transfer codings, two Hosts,
 * HTTP/1.1 without Host. Any thread.
 *
 *     struct trk_h1_request req;
 *     int n = trk_h1_parse_request(&req, in, len);
 *     if (n == 0) read more; else if (n < 0) answer status -n and close; else the body starts at in
 * + n
 */
#ifndef LIBTRACK_H1_H
#define LIBTRACK_H1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRK_H1_HEADERS_MAX 100
#define TRK_H1_HEAD_MAX    (32 * 1024)
#define TRK_H1_TARGET_MAX  (16 * 1024) /* longer ones are 414 */

struct trk_h1_slice {
    const char *at;
    size_t len;
};
struct trk_h1_header {
    struct trk_h1_slice name, value; /* value without surrounding white space */
    uint8_t id;                      /* enum trk_h1_id for the ones the parser knows, else 0 */
};
enum trk_h1_id {
    TRK_H1_OTHER,
    TRK_H1_HOST,
    TRK_H1_CONNECTION,
    TRK_H1_CONTENT_LENGTH,
    TRK_H1_TRANSFER_ENCODING,
    TRK_H1_UPGRADE,
    TRK_H1_EXPECT,
    TRK_H1_TE,
    TRK_H1_TRAILER,
    TRK_H1_KEEP_ALIVE,
    TRK_H1_PROXY_CONNECTION,
    TRK_H1_PROXY_AUTHORIZATION,
    TRK_H1_COOKIE,
    TRK_H1_LOCATION,
    TRK_H1_CONTENT_TYPE,
    TRK_H1_DATE,
    TRK_H1_SERVER,
    TRK_H1_X_FORWARDED_FOR,
    TRK_H1_X_FORWARDED_HOST,
    TRK_H1_X_FORWARDED_PROTO,
    TRK_H1_X_RACETRACK_AUTH,
    TRK_H1_X_RACETRACK_USER_AUTH,
    TRK_H1_X_RACETRACK_ESC_AUTH,
    TRK_H1_X_CALLER_NAME,
    TRK_H1_X_REQUEST_TRACING_ID
};
enum trk_h1_body {
    TRK_H1_NO_BODY,
    TRK_H1_LENGTH,
    TRK_H1_CHUNKED,
    TRK_H1_UNTIL_CLOSE /* responses only */
};

struct trk_h1_request {
    /* The target in origin-form or "*" (OPTIONS); of an absolute one, whose authority must be the
     * Host, its path. Others are 400. */
    struct trk_h1_slice method, target, authority;
    int minor; /* HTTP/1.<minor>: 0 or 1 */
    bool keep_alive, expect_continue, upgrade;
    enum trk_h1_body body;
    uint64_t content_length;
    size_t header_count;
    struct trk_h1_header headers[TRK_H1_HEADERS_MAX];
};
struct trk_h1_response {
    int status, minor;
    bool keep_alive;
    enum trk_h1_body body; /* by the status; the caller overrides for answers to HEAD */
    uint64_t content_length;
    size_t header_count;
    struct trk_h1_header headers[TRK_H1_HEADERS_MAX];
};
/* Length of the head when complete, 0 when more bytes are needed, -status (400, 414, 431, 501, 505)
 * on a fault. trk_h1_fault() of the same thread then says what was wrong. Leading empty lines are
 * skipped (one CRLF). */
int trk_h1_parse_request(struct trk_h1_request *ret, const char *bytes, size_t len);
/* The same for an upstream's answer; a fault is -502. 1xx heads are answered as such. */
int trk_h1_parse_response(struct trk_h1_response *ret, const char *bytes, size_t len);
const char *trk_h1_fault(void);
const struct trk_h1_header *trk_h1_find(const struct trk_h1_header *headers, size_t count,
                                        const char *lower_name);

/* Chunked decoder: finds the payload in place. */
struct trk_h1_chunked {
    int state;
    uint64_t left;
    size_t line_len, trailer_bytes;
};
void trk_h1_chunked_init(struct trk_h1_chunked *c);
/* Looks at `len` bytes: *ret_used of them are consumed, *ret_data is the payload among them (at
 * most one piece a call). 1: the body's end was consumed; 0: go on; -400 on a fault. */
int trk_h1_chunked_next(struct trk_h1_chunked *c, const char *bytes, size_t len, size_t *ret_used,
                        struct trk_h1_slice *ret_data);
/* Has the last chunk's line been consumed? A call never consumes both that line and a part of the
 * trailer section, so that a proxy which forwards the checked bytes can leave the trailers out. */
bool trk_h1_chunked_in_trailer(const struct trk_h1_chunked *c);
/* Is it within a chunk's extension? Likewise: a call that gets into one consumes its ';' last, one
 * that gets out of it the CR behind it. */
bool trk_h1_chunked_in_extension(const struct trk_h1_chunked *c);
/* Compares ignoring ASCII case; `lower` is a lower-case string. */
bool trk_h1_is(struct trk_h1_slice slice, const char *lower);
/* Is `lower` one of the comma-separated tokens of a field value (RFC 9110 §5.6.1)? */
bool trk_h1_has_token(struct trk_h1_slice value, const char *lower);

#endif
