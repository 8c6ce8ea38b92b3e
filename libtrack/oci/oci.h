/*
 * oci.h - OCI images (image-spec 1.1): deterministic layers, manifests, safe unpacking, a registry
 * client.
 *
 * A layer is a tar (ustar + pax where needed) with sorted names, zero times, fixed owner 0:0, modes
 * 0644/0755, gzip without a time: the same input gives the same digest on every machine. Unpacking
 * trusts nothing: entries are created with openat2(RESOLVE_BENEATH), devices and setuid bits are
 * refused, links must stay inside, caps on entries, sizes and ratio. Any thread; objects are used
 * by one at a time. libarchive is loaded by the first trk_unpack, not at start.
 */
#ifndef LIBTRACK_OCI_H
#define LIBTRACK_OCI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/err.h"
#include "libtrack/http/http_client.h"

#define TRK_OCI_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define TRK_OCI_CONFIG_TYPE   "application/vnd.oci.image.config.v1+json"
#define TRK_OCI_LAYER_TYPE    "application/vnd.oci.image.layer.v1.tar+gzip"

struct trk_oci_descriptor {
    char media_type[128];
    char digest[TRK_DIGEST_SIZE];
    int64_t size_bytes;
    char diff_id[TRK_DIGEST_SIZE]; /* layers: digest of the uncompressed tar; "" when unknown */
    char role[32]; /* annotation io.racetrack.layer: "code", "dependencies", "base" or "" */
};

/* Packs the folder `dirfd` under `prefix` ("src/job", "" for none) into the file descriptor
 * `out_fd`; fills media type, digest, diff_id, size. Leaves out .git, __pycache__ and *.pyc.
 * TRK_INVALID for a symbolic link that leads out, a device or socket, a name that is not UTF-8. The
 * diff_id depends on nothing but the content; the digest on zlib's version too. level: 0..9. A
 * folder that exceeds what a layer may have (trk_layer_limits) is TRK_TOO_LARGE. */
int trk_oci_layer_write(int dirfd, const char *prefix, int out_fd, int level,
                        struct trk_oci_descriptor *ret, struct trk_err *err) TRK_MUST_CHECK;

/* The same with a choice of files. */
struct trk_oci_pack_options {
    const char *prefix;
    int level;
    int64_t tar_bytes_max; /* 0: no limit; more (unpacked) is TRK_TOO_LARGE */
    uint64_t entries_max;  /* 0: no limit; more is TRK_TOO_LARGE */
    /* Asked for each entry of the open folder `dirfd` before it is packed; `path` is relative to
     * the packed folder. A folder that is left out is not entered. NULL: all. */
    bool (*is_left_out)(void *ctx, int dirfd, const char *path, bool is_folder);
    void *ctx;
};
int trk_oci_layer_pack(int dirfd, const struct trk_oci_pack_options *options, int out_fd,
                       struct trk_oci_descriptor *ret, struct trk_err *err) TRK_MUST_CHECK;

struct trk_unpack_limits {
    uint64_t entries_max;     /* 0: 100,000 */
    uint64_t total_bytes_max; /* 0: 2 GiB */
    uint64_t file_bytes_max;  /* 0: 1 GiB */
    unsigned ratio_max;       /* unpacked : packed, past the first 16 MiB; 0: 200 */
};
/* What a layer of an image may have. One rule for those who write layers and those who unpack them:
 * what could be built can be started. */
extern const struct trk_unpack_limits trk_layer_limits;
/* Unpacks a .tar/.tar.gz (bytes or fd; exactly one given, fd -1 otherwise) into the existing folder
 * `dirfd`. `strip_prefix`: only entries below it, without it; NULL: all. TRK_INVALID for an escape,
 * device, bad archive; TRK_TOO_LARGE for a bomb; TRK_NO_SPACE. Entries never go through links,
 * files get mode 0644 or 0755, owner and times are not applied. After a failure the folder holds
 * what came before it: the caller removes it. */
int trk_unpack(const void *bytes, size_t len, int fd, int dirfd, const char *strip_prefix,
               const struct trk_unpack_limits *limits, struct trk_err *err) TRK_MUST_CHECK;

struct trk_oci_image_spec {
    const struct trk_oci_descriptor *layers;
    size_t layer_count;
    const char *const *env;        /* "K=V", NULL-terminated */
    const char *const *entrypoint; /* NULL-terminated */
    const char *working_dir;
    const char *exposed_port; /* "7000/tcp" */
    const json_t *labels;     /* object of strings, or NULL */
};
/* Deterministic config and manifest JSON of an image; both owned. */
int trk_oci_image_make(const struct trk_oci_image_spec *spec, char **ret_config,
                       char **ret_manifest, struct trk_err *err) TRK_MUST_CHECK;
/* Checks a manifest (image or index) and reads its descriptors. Of an index: no config (its digest
 * is ""), `layers` are the manifests. diff_ids are in the config, not here. */
struct trk_oci_image {
    struct trk_oci_descriptor config;
    struct trk_oci_descriptor layers[64];
    size_t layer_count;
};
int trk_oci_manifest_parse(const char *bytes, size_t len, struct trk_oci_image *ret,
                           struct trk_err *err) TRK_MUST_CHECK;

/* "host:port/namespace/name:tag" or "…@sha256:…" split; strings within out. Without either the
 * reference is "latest"; with both it is the digest. */
struct trk_oci_ref {
    char registry[256], repository[256], reference[160];
};
int trk_oci_ref_parse(const char *text, struct trk_oci_ref *ret,
                      struct trk_err *err) TRK_MUST_CHECK;
/* The grammars of distribution-spec 1.1. */
bool trk_oci_repository_is_valid(const char *name);
bool trk_oci_tag_is_valid(const char *tag);

/* Registry client (distribution-spec 1.1), verified: every blob's digest is checked before it is
 * given out. base_url: "http://127.0.0.1:7201", with or without "/v2"; without a scheme plain HTTP
 * for loopback hosts, https otherwise. `reference` is a tag or a digest; *ret_bytes owned. */
int trk_registry_manifest(struct trk_http_client *client, const char *base_url, const char *token,
                          const char *repository, const char *reference, char **ret_bytes,
                          size_t *ret_len, char ret_digest[TRK_DIGEST_SIZE],
                          struct trk_err *err) TRK_MUST_CHECK;
/* Writes the blob into `out_fd` (truncated first; empty again after a failure). */
int trk_registry_blob(struct trk_http_client *client, const char *base_url, const char *token,
                      const char *repository, const char *digest, int out_fd,
                      struct trk_err *err) TRK_MUST_CHECK;
#endif
