#include <string.h>
#include <strings.h>
#include <talloc.h>

#include "image_builder/image_builder.h"
#include "libtrack/auth/jwt.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define PREFIX_BASIC  "Basic "
#define PREFIX_BEARER "Bearer "

static bool has_prefix_nocase(const char *s, const char *prefix)
{
    return strncasecmp(s, prefix, strlen(prefix)) == 0;
}

/* RFC 7617: the token is the password, the user name may be anything. */
static const char *basic_token(struct trk_request *req, const char *value)
{
    trk_autofree void *decoded = NULL;
    size_t len;
    value += strspn(value, " ");
    if (trk_base64_decode(value, strlen(value), &decoded, &len, NULL) < 0 ||
        memchr(decoded, '\0', len) != NULL) {
        return "";
    }
    const char *colon = strchr(decoded, ':');
    return colon == NULL ? "" : talloc_strdup(trk_req_mem(req), colon + 1);
}

/* NULL: the request names none. */
static const char *request_token(struct trk_request *req)
{
    const char *own = trk_req_header(req, "X-Racetrack-Auth");
    const char *standard = trk_req_header(req, "Authorization");
    if (!trk_str_is_empty(own)) {
        return own;
    }
    if (standard != NULL && has_prefix_nocase(standard, PREFIX_BEARER)) {
        return standard + strlen(PREFIX_BEARER) + strspn(standard + strlen(PREFIX_BEARER), " ");
    }
    if (standard != NULL && has_prefix_nocase(standard, PREFIX_BASIC)) {
        return basic_token(req, standard + strlen(PREFIX_BASIC));
    }
    return NULL;
}

int builder_authorize(struct trk_request *req, const char *access, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    const char *text = request_token(req);
    struct trk_token token;
    int rc;
    if (text == NULL) {
        rc = trk_err_set(err, TRK_UNAUTHENTICATED,
                         "a token is needed: send it in X-Racetrack-Auth, as a Bearer token, or as "
                         "the password of Basic authentication");
    } else {
        rc = trk_jwt_verify_service(text, ib->public_key, &token, err);
    }
    if (rc < 0) {
        if (rc == TRK_UNAUTHENTICATED && strcmp(access, "registry") == 0) {
            (void)trk_reply_header(req, "WWW-Authenticate", "Basic realm=\"racetrack\"");
        }
        return rc;
    }
    if (token.type != TRK_SUBJECT_INTERNAL || !trk_token_has_scope(&token, "full_access")) {
        return trk_err_set(err, TRK_FORBIDDEN,
                           "only services may do this: the token of %s '%.200s' is not an internal "
                           "one with full_access",
                           trk_subject_type_name(token.type), token.subject);
    }
    trk_req_set_subject(req, talloc_strdup(trk_req_mem(req), token.subject));
    return 0;
}
