/* pub's table: memory, loading, a change, a lookup, at the size of the goals and at four times it.
 */
#include <malloc.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "pub/record.h"
#include "pub/table.h"

#define BATCH            200
#define VERSIONS         10 /* of a family */
#define GRANTS           5  /* of a caller */
#define LOOKUPS          2000000
#define CHANGES          2000
#define MIB              (1024.0 * 1024.0)
#define TOKEN_TEXT_BYTES 280 /* as long as a token of ours is */

static struct pub_readers readers;
static struct pub_table *table;

/* Of this thread: neighbours on the machine do not count. */
static int64_t cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * TRK_NS_PER_S + t.tv_nsec;
}

static void apply(const char *event, struct trk_buf *buf)
{
    struct trk_err err = {0};
    (void)trk_buf_addc(buf, ']');
    if (pub_record_apply(table, event, buf->data, &err) != 1) {
        trk_die("%s", err.text);
    }
    pub_table_publish(table);
    trk_buf_reset(buf);
}

static void token_text(char *out, int caller)
{
    memset(out, 'a', TOKEN_TEXT_BYTES);
    (void)snprintf(out + TOKEN_TEXT_BYTES, 16, "%d", caller);
}

static void digest_of(int caller, unsigned char out[PUB_DIGEST_SIZE])
{
    char text[TOKEN_TEXT_BYTES + 16];
    token_text(text, caller);
    pub_digest((struct trk_h1_slice){text, strlen(text)}, out);
}

static void add_job(struct trk_buf *buf, int i, const char *status)
{
    (void)trk_buf_addf(
        buf,
        "%s{\"id\":\"018f0000-0000-7000-8000-%012d\",\"name\":\"family-%d\",\"version\":\"1.%d.0\","
        "\"status\":\"%s\",\"public\":[\"/open\"],\"replicas\":[{\"address\":\"127.0.0.1:%d\"}],"
        "\"secret\":\"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq\"}",
        buf->len == 0 ? "[" : ",", i, i / VERSIONS, i % VERSIONS, status, 10000 + i % 50000);
}

static void add_subject(struct trk_buf *buf, int i, int families, int grants)
{
    unsigned char digest[PUB_DIGEST_SIZE];
    char hex[2 * PUB_DIGEST_SIZE + 1];
    digest_of(i, digest);
    (void)sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest));
    (void)trk_buf_addf(
        buf,
        "%s{\"id\":\"018f0000-0000-7000-9000-%012d\",\"type\":\"esc\",\"name\":\"ESC "
        "caller-%d\",\"active\":true,\"tokens\":[{\"d\":\"%s\",\"e\":null}],"
        "\"grants\":[",
        buf->len == 0 ? "[" : ",", i, i, hex);
    for (int g = 0; g < grants; g++) {
        (void)trk_buf_addf(buf, "%s{\"family\":\"family-%d\",\"job\":null,\"endpoint\":null}",
                           g > 0 ? "," : "", (i + g * 37) % families);
    }
    (void)trk_buf_adds(buf, "]}");
}

static double load(int count)
{
    struct trk_buf buf;
    int64_t spent = 0;
    trk_buf_init(&buf, 16 << 20);
    pub_table_begin_picture(table);
    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < count; i += BATCH) {
            for (int k = i; k < i + BATCH && k < count; k++) {
                if (kind == 0) {
                    add_job(&buf, k, "running");
                } else {
                    add_subject(&buf, k, count / VERSIONS, GRANTS);
                }
            }
            int64_t start = cpu_ns();
            apply(kind == 0 ? "job" : "subject", &buf);
            spent += cpu_ns() - start;
        }
    }
    int64_t start = cpu_ns();
    pub_table_end_picture(table);
    spent += cpu_ns() - start;
    trk_buf_fini(&buf);
    return (double)spent / 1e9;
}

/* Worst and mean of single changes, in µs. */
static void change(int count, const char *event, double *ret_mean, double *ret_worst)
{
    struct trk_buf buf;
    int64_t all = 0, worst = 0;
    trk_buf_init(&buf, 16 << 20);
    for (int i = 0; i < CHANGES; i++) {
        int which = (int)((unsigned)i * 7919U % (unsigned)count);
        if (event[0] == 'j') {
            add_job(&buf, which, i % 2 == 0 ? "error" : "running");
        } else {
            add_subject(&buf, which, count / VERSIONS, GRANTS);
        }
        int64_t start = cpu_ns();
        apply(event, &buf);
        int64_t spent = cpu_ns() - start;
        all += spent;
        worst = spent > worst ? spent : worst;
    }
    trk_buf_fini(&buf);
    *ret_mean = (double)all / CHANGES / 1e3;
    *ret_worst = (double)worst / 1e3;
}

/* ns of a decision for callers in turn, in an order that no prefetcher guesses. */
static double look(int count, int callers, const char *version, bool with_digest)
{
    struct caller {
        unsigned char digest[PUB_DIGEST_SIZE];
        char family[28];
        int len;
    } *all = trk_xmalloc((size_t)callers * sizeof(*all));
    for (int i = 0; i < callers; i++) {
        int caller = (int)((unsigned)i * 7919U % (unsigned)callers);
        digest_of(caller, all[i].digest);
        all[i].len = snprintf(all[i].family, sizeof(all[i].family), "family-%d",
                              caller % (count / VERSIONS));
    }
    char token[TOKEN_TEXT_BYTES + 16];
    int n = with_digest ? LOOKUPS / 4 : LOOKUPS;
    int64_t start = cpu_ns();
    for (int done = 0; done < n; done++) {
        const struct caller *c = &all[done % callers];
        struct pub_question q = {.job = {c->family, (size_t)c->len},
                                 .version = {version, strlen(version)},
                                 .endpoint = "/api/v1/perform"};
        if (with_digest) {
            token_text(token, (int)((unsigned)(done % callers) * 7919U % (unsigned)callers));
            q.token = (struct trk_h1_slice){token, strlen(token)};
        } else {
            q.digest = c->digest;
        }
        struct pub_finding f;
        if (pub_table_decide(table, &q, &f) != PUB_MAY_CALL) {
            trk_die("call %d to %s is refused", done, c->family);
        }
    }
    int64_t spent = cpu_ns() - start;
    free(all);
    return (double)spent / n;
}

static void row(const char *what, double measured, double goal, const char *unit)
{
    printf("%-66s %10.2f %-4s goal %7.1f  %s\n", what, measured, unit, goal,
           measured <= goal ? "within" : "OVER");
}

static void measure(int count)
{
    pub_readers_init(&readers, 1);
    table = pub_table_new(&readers, NULL, NULL);
    struct mallinfo2 before = mallinfo2();
    double seconds = load(count);
    struct mallinfo2 after = mallinfo2();
    double scale = count / 20000.0;
    double mib = (double)(after.uordblks - before.uordblks) / MIB;
    printf("-- %d job versions, %d tokens, %d grants\n", count, count, count * GRANTS);
    row("memory", mib, 24 * scale, "MiB");
    row("loading, JSON and all", seconds, 1 * scale, "s");
    double mean, worst;
    change(count, "job", &mean, &worst);
    row("a job changes, worst of 2000", worst / 1000, 10, "ms");
    change(count, "subject", &mean, &worst);
    row("a caller changes, worst of 2000", worst / 1000, 10, "ms");
    row("a decision, one caller, exact version", look(count, 1, "1.3.0", false), 300, "ns");
    row("a decision, all callers in turn, exact version", look(count, count, "1.3.0", false), 300,
        "ns");
    row("a decision, all callers in turn, latest", look(count, count, "latest", false), 300, "ns");
    printf("%-66s %10.2f ns\n", "the same, with the token's SHA-256",
           look(count, count, "latest", true));
    pub_table_free(table);
}

int main(void)
{
    if (sodium_init() < 0) {
        return 1;
    }
    trk_json_init();
    measure(20000);
    measure(80000);
    return 0;
}
