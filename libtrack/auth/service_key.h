/*
 * service_key.h - the key pair behind tokens for services that may check them, not make them: P-256
 * (ES256), its private half derived from AUTH_KEY. Who signs and verifies is jwt.h. Any thread.
 *
 *     trk_autofree char *key = trk_service_key_public(auth_key); // for image_builder's settings
 */
#ifndef LIBTRACK_SERVICE_KEY_H
#define LIBTRACK_SERVICE_KEY_H

/* SubjectPublicKeyInfo (RFC 5480), base64 in one line. Returns owned. */
char *trk_service_key_public(const char *auth_key);
/* The forms that libjwt takes. Returns owned; secret: to be zeroed. */
char *trk_service_key_private_pem(const char *auth_key);
/* NULL when it is none of trk_service_key_public. Returns owned. */
char *trk_service_key_public_pem(const char *public_key);

#endif
