#include <string.h>

#include "libtrack/oci/oci_internal.h"

bool oci_link_stays_inside(const char *target, size_t depth)
{
    if (target[0] == '\0' || target[0] == '/' || strlen(target) >= OCI_PATH_MAX) {
        return false;
    }
    bool in_front = true;
    for (const char *p = target; *p != '\0';) {
        size_t len = strcspn(p, "/");
        if (len == 2 && p[0] == '.' && p[1] == '.') {
            if (!in_front || depth == 0) {
                return false;
            }
            depth--;
        } else if (len > 0 && !(len == 1 && p[0] == '.')) {
            in_front = false;
        }
        p += len;
        p += strspn(p, "/");
    }
    return true;
}
