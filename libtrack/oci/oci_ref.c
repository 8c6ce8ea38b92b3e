#include <ctype.h>
#include <string.h>

#include "libtrack/oci/oci.h"

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* distribution-spec 1.1, "Pulling manifests":
 * [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)* */
bool trk_oci_repository_is_valid(const char *name)
{
    if (strlen(name) >= sizeof(((struct trk_oci_ref *)0)->repository)) {
        return false;
    }
    for (const char *p = name;; p++) {
        if (!is_lower_alnum(*p)) {
            return false;
        }
        while (is_lower_alnum(*p)) {
            p++;
        }
        if (*p == '\0') {
            return true;
        }
        if (*p == '_' && p[1] == '_') {
            p++;
        } else if (*p == '-') {
            p += strspn(p, "-") - 1;
        } else if (strchr("._/", *p) == NULL) {
            return false;
        }
    }
}

/* [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127} */
bool trk_oci_tag_is_valid(const char *tag)
{
    size_t len = strlen(tag);
    if (len == 0 || len > 128 || tag[0] == '.' || tag[0] == '-') {
        return false;
    }
    for (const char *p = tag; *p != '\0'; p++) {
        if (!isascii((unsigned char)*p) || (!isalnum((unsigned char)*p) && !strchr("._-", *p))) {
            return false;
        }
    }
    return true;
}

static bool is_host(const char *s, size_t len)
{
    bool has_mark = false; /* of a host rather than of a first path component */
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (!isascii(c) || (!isalnum(c) && strchr(".-:[]", c) == NULL)) {
            return false;
        }
        has_mark = has_mark || strchr(".:", c) != NULL;
    }
    return len > 0 && (has_mark || (len == 9 && memcmp(s, "localhost", 9) == 0));
}

static int bad(const char *text, const char *why, struct trk_err *err)
{
    return trk_err_set(err, TRK_INVALID, "image reference '%.300s': %s", text, why);
}

int trk_oci_ref_parse(const char *text, struct trk_oci_ref *ret, struct trk_err *err)
{
    struct trk_oci_ref ref;
    size_t host_len = strcspn(text, "/");
    if (text[host_len] == '\0' || !is_host(text, host_len) || host_len >= sizeof(ref.registry)) {
        return bad(text, "must begin with a registry, such as 127.0.0.1:7201/", err);
    }
    const char *name = text + host_len + 1;
    const char *digest = strchr(name, '@');
    const char *end = digest != NULL ? digest : name + strlen(name);
    const char *colon = memchr(name, ':', (size_t)(end - name));
    const char *name_end = colon != NULL ? colon : end;
    size_t name_len = (size_t)(name_end - name);
    size_t tag_len = colon != NULL ? (size_t)(end - colon - 1) : 0;
    if (name_len >= sizeof(ref.repository) || tag_len >= sizeof(ref.reference)) {
        return bad(text, "is too long", err);
    }
    memcpy(ref.registry, text, host_len);
    ref.registry[host_len] = '\0';
    memcpy(ref.repository, name, name_len);
    ref.repository[name_len] = '\0';
    if (!trk_oci_repository_is_valid(ref.repository)) {
        return bad(text, "the name has lower-case letters, digits and . _ - / only", err);
    }
    memcpy(ref.reference, colon != NULL ? colon + 1 : "latest", colon != NULL ? tag_len : 6);
    ref.reference[colon != NULL ? tag_len : 6] = '\0';
    if (!trk_oci_tag_is_valid(ref.reference)) {
        return bad(text, "the tag is not valid", err);
    }
    if (digest != NULL) { /* with both, the digest says which one it is */
        if (!trk_digest_is_valid(digest + 1)) {
            return bad(text, "the digest is not sha256: and 64 hexadecimal digits", err);
        }
        (void)snprintf(ref.reference, sizeof(ref.reference), "%s", digest + 1);
    }
    *ret = ref;
    return 0;
}
