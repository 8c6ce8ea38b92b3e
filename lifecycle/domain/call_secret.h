/*
 * call_secret.h - the secret that a job's wrapper demands of whoever calls it, one for each
 * generation. The gateway adds it to the calls that it lets through; a job knows its own only.
 *
 * HMAC-SHA256 (RFC 2104) of the generation's id under SECRET_KEY as base64url without padding:
 * nothing is stored, and any replica makes the same. Pure; any thread.
 */
#ifndef LIFECYCLE_DOMAIN_CALL_SECRET_H
#define LIFECYCLE_DOMAIN_CALL_SECRET_H

#define CALL_SECRET_SIZE 44 /* 32 bytes as 43 characters, and NUL */

void call_secret_make(const char *secret_key, const char *generation_id,
                      char out[CALL_SECRET_SIZE]);

#endif
