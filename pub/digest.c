/* SHA-256 of a token. It is made for every call: with the processor's own instructions where it has
 * them (a sixth of the time), else by libsodium. */
#include <sodium.h>
#include <string.h>

#include "pub/table.h"

#if defined(__x86_64__)
#include <immintrin.h>

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define WITH_SHA __attribute__((target("sha,sse4.1")))

/* FIPS 180-4 §6.2.2, four rounds a step. `abef` and `cdgh` are the state as the instructions want
 * it. */
WITH_SHA static void add_blocks(__m128i *abef, __m128i *cdgh, const unsigned char *bytes,
                                size_t count)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    for (; count > 0; count--, bytes += 64) {
        __m128i w[4];
        __m128i x = *abef;
        __m128i y = *cdgh;
        for (int i = 0; i < 16; i++) {
            if (i < 4) {
                __m128i in = _mm_loadu_si128((const __m128i *)(const void *)(bytes + 16 * i));
                w[i] = _mm_shuffle_epi8(in, swap);
            } else {
                __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]),
                                            _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(sum, w[(i + 3) & 3]);
            }
            const __m128i *k = (const __m128i *)(const void *)(constants + 4 * i);
            __m128i wk = _mm_add_epi32(w[i & 3], _mm_loadu_si128(k));
            y = _mm_sha256rnds2_epu32(y, x, wk);
            x = _mm_sha256rnds2_epu32(x, y, _mm_shuffle_epi32(wk, 0x0E));
        }
        *abef = _mm_add_epi32(*abef, x);
        *cdgh = _mm_add_epi32(*cdgh, y);
    }
}

WITH_SHA static void digest_by_processor(const char *bytes, size_t len,
                                         unsigned char ret[PUB_DIGEST_SIZE])
{
    __m128i abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
    __m128i cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
    size_t whole = len / 64;
    size_t rest = len % 64;
    unsigned char last[128] = {0};
    add_blocks(&abef, &cdgh, (const unsigned char *)bytes, whole);
    if (rest > 0) {
        memcpy(last, bytes + 64 * whole, rest);
    }
    last[rest] = 0x80;
    size_t blocks = rest < 56 ? 1 : 2;
    uint64_t bits = __builtin_bswap64((uint64_t)len * 8);
    memcpy(last + 64 * blocks - 8, &bits, sizeof(bits));
    add_blocks(&abef, &cdgh, last, blocks);
    uint32_t s[8], state[8];
    memcpy(s, &abef, 16); /* f e b a */
    memcpy(s + 4, &cdgh, 16);
    const uint32_t in_order[8] = {s[3], s[2], s[7], s[6], s[1], s[0], s[5], s[4]};
    for (int i = 0; i < 8; i++) {
        state[i] = __builtin_bswap32(in_order[i]);
    }
    memcpy(ret, state, sizeof(state));
}

static bool has_instructions(void)
{
    static _Atomic int known; /* 0: not asked yet */
    int now = atomic_load_explicit(&known, memory_order_relaxed);
    if (now == 0) {
        unsigned a = 7, b = 0, c = 0, d = 0;
        __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        now = (b >> 29 & 1) != 0 && __builtin_cpu_supports("sse4.1") ? 1 : -1;
        atomic_store_explicit(&known, now, memory_order_relaxed);
    }
    return now > 0;
}
#endif

void pub_digest(struct trk_h1_slice token, unsigned char ret[PUB_DIGEST_SIZE])
{
#if defined(__x86_64__)
    if (has_instructions()) {
        digest_by_processor(token.at, token.len, ret);
        return;
    }
#endif
    (void)crypto_hash_sha256(ret, (const unsigned char *)token.at, token.len);
}
