/* What pub was told, and what it decides from it. */
#include <check.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/version.h"
#include "pub/record.h"
#include "pub/table.h"

static struct pub_readers readers;
static struct pub_table *table;
static char gone[256];

static void on_gone(void *ctx, const struct pub_job *job)
{
    (void)ctx;
    (void)snprintf(gone, sizeof(gone), "%s %s", job->family->text, job->version);
}

static void setup(void)
{
    gone[0] = '\0';
    pub_readers_init(&readers, 2);
    table = pub_table_new(&readers, on_gone, NULL);
}

static void teardown(void)
{
    pub_table_free(table);
}

static void apply(const char *event, const char *data)
{
    struct trk_err err = {0};
    ck_assert_msg(pub_record_apply(table, event, data, &err) == 1, "%s", err.text);
    pub_table_publish(table);
}

static void job(const char *id, const char *name, const char *version, const char *status)
{
    trk_autofree char *data = trk_xasprintf(
        "[{\"id\":\"%s\",\"name\":\"%s\",\"version\":\"%s\",\"status\":\"%s\",\"public\":[\"/"
        "open\"],"
        "\"replicas\":[{\"address\":\"127.0.0.1:7000\"}],\"secret\":\"s\"}]",
        id, name, version, status);
    apply("job", data);
}

/* The digest's text of a token's text. */
static const char *digest_of(const char *token)
{
    static char hex[2 * PUB_DIGEST_SIZE + 1];
    unsigned char digest[PUB_DIGEST_SIZE];
    pub_digest((struct trk_h1_slice){token, strlen(token)}, digest);
    for (int i = 0; i < PUB_DIGEST_SIZE; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }
    return hex;
}

static void subject(const char *id, const char *token, const char *more, const char *grants)
{
    trk_autofree char *data = trk_xasprintf("[{\"id\":\"%s\",\"type\":\"esc\",\"name\":\"ESC %s\","
                                            "\"active\":true%s,\"tokens\":[{\"d\":\"%s\",\"e\":"
                                            "null}],\"grants\":[%s]}]",
                                            id, id, more, digest_of(token), grants);
    apply("subject", data);
}

static void whole(void)
{
    pub_table_begin_picture(table);
    pub_table_end_picture(table);
}

static struct pub_finding found;

static enum pub_verdict call(const char *name, const char *version, const char *path,
                             const char *token)
{
    struct pub_question q = {.job = {name, strlen(name)},
                             .version = {version, strlen(version)},
                             .endpoint = path,
                             .token = {token, strlen(token)},
                             .now_s = 1000};
    return pub_table_decide(table, &q, &found);
}

#define ALL "{\"family\":null,\"job\":null,\"endpoint\":null}"

START_TEST(nothing_is_known_before_the_first_whole_picture)
{
    job("j1", "adder", "1.0.0", "running");
    ck_assert_int_eq(call("adder", "1.0.0", "/open", ""), PUB_KNOWS_NOTHING);
    whole();
    ck_assert_int_eq(call("adder", "1.0.0", "/open", ""), PUB_NO_FAMILY);
    job("j1", "adder", "1.0.0", "running");
    ck_assert_int_eq(call("adder", "1.0.0", "/open", ""), PUB_MAY_CALL);
}
END_TEST

START_TEST(versions_are_those_of_lifecycle)
{
    static const char *const versions[] = {"1.0.0",      "1.2.3",       "1.10.0", "2.0.0", "2.1.0",
                                           "3.0.0-rc.1", "1.2.10-beta", "zzz",    "0.9.9"};
    static const char *const statuses[] = {"running", "running", "error",   "lost",    "starting",
                                           "running", "running", "running", "orphaned"};
    static const char *const wanted[] = {"latest",
                                         "1.x",
                                         "1.2.x",
                                         "x.0.x",
                                         "x",
                                         "4.x",
                                         "2.1.x",
                                         "1.0.0",
                                         "3.0.0-rc.1",
                                         "zzz",
                                         "9.9.9",
                                         "0.x",
                                         "1.10",
                                         "1.1.x",
                                         "",
                                         "x.x.3",
                                         "99999999999999999999.x"};
    struct trk_version_candidate list[TRK_COUNT(versions)];
    whole();
    for (size_t i = 0; i < TRK_COUNT(versions); i++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "j%zu", i);
        job(id, "adder", versions[i], statuses[i]);
        list[i] = (struct trk_version_candidate){versions[i], statuses[i]};
    }
    for (size_t i = 0; i < TRK_COUNT(wanted); i++) {
        size_t at;
        bool is_there = trk_version_pick(wanted[i], list, TRK_COUNT(list), &at);
        enum pub_verdict verdict = call("adder", wanted[i], "/open", "");
        if (is_there) {
            ck_assert_int_eq(verdict, PUB_MAY_CALL);
            ck_assert_str_eq(found.job->version, versions[at]);
        } else { /* or one that will be there */
            ck_assert_msg(verdict == PUB_NO_VERSION || found.job->is_starting, "%s", wanted[i]);
        }
    }
    ck_assert_uint_eq(found.version_count, TRK_COUNT(versions));
}
END_TEST

START_TEST(latest_follows_each_change)
{
    whole();
    job("j1", "adder", "1.0.0", "running");
    job("j2", "adder", "2.0.0", "starting");
    ck_assert_int_eq(call("adder", "latest", "/open", ""), PUB_MAY_CALL);
    ck_assert_str_eq(found.job->version, "1.0.0");
    uint32_t slot = found.job->slot;
    uint64_t serial = found.job->serial;
    job("j2", "adder", "2.0.0", "running");
    ck_assert_int_eq(call("adder", "latest", "/open", ""), PUB_MAY_CALL);
    ck_assert_str_eq(found.job->version, "2.0.0");
    ck_assert(found.job->slot != slot);
    apply("job_removed", "[{\"id\":\"j2\",\"name\":\"adder\",\"version\":\"2.0.0\"}]");
    ck_assert_str_eq(gone, "adder 2.0.0");
    job("j1", "adder", "1.0.0", "error");
    ck_assert_int_eq(call("adder", "latest", "/open", ""), PUB_MAY_CALL);
    ck_assert_str_eq(found.job->status, "error");
    ck_assert_uint_eq(found.job->slot, slot);
    ck_assert(found.job->serial > serial);
    apply("job_removed", "[{\"id\":\"j1\"},{\"id\":\"never seen\"}]");
    ck_assert_int_eq(call("adder", "latest", "/open", ""), PUB_NO_FAMILY);
    struct pub_table_counts counts;
    pub_table_count(table, &counts);
    ck_assert_uint_eq(counts.jobs + counts.families, 0);
}
END_TEST

START_TEST(first_deployments_are_found_when_nothing_else_is)
{
    whole();
    job("j1", "adder", "1.0.0", "starting");
    job("j2", "adder", "1.2.0", "starting");
    job("j3", "adder", "1.9.0-rc.1", "starting");
    static const char *const wanted[] = {"latest", "x", "1.x", "1.2.x"};
    for (size_t i = 0; i < TRK_COUNT(wanted); i++) {
        ck_assert_int_eq(call("adder", wanted[i], "/open", ""), PUB_MAY_CALL);
        ck_assert_str_eq(found.job->version, "1.2.0");
        ck_assert(found.job->is_starting);
        ck_assert_int_eq(call("adder", wanted[i], "/x", ""), PUB_NO_TOKEN);
    }
    ck_assert_int_eq(call("adder", "2.x", "/open", ""), PUB_NO_VERSION);
    job("j1", "adder", "1.0.0", "running");
    ck_assert_int_eq(call("adder", "latest", "/open", ""), PUB_MAY_CALL);
    ck_assert_str_eq(found.job->version, "1.0.0");
}
END_TEST

START_TEST(a_version_deployed_again_is_one)
{
    whole();
    job("old", "adder", "1.0.0", "running");
    job("new", "adder", "1.0.0", "starting");
    ck_assert_int_eq(call("adder", "1.0.0", "/open", ""), PUB_MAY_CALL);
    ck_assert_str_eq(found.job->id->text, "new");
    apply("job_removed", "[{\"id\":\"old\"}]");
    ck_assert_int_eq(call("adder", "1.0.0", "/open", ""), PUB_MAY_CALL);
    ck_assert_str_eq(found.job->id->text, "new");
}
END_TEST

START_TEST(public_paths_need_no_token)
{
    whole();
    job("j1", "adder", "1.0.0", "running");
    static const char *const open[] = {"/open", "/open/x", "/live", "/ready", "/health"};
    static const char *const closed[] = {"", "/opened", "/api/v1/perform", "/live/x"};
    for (size_t i = 0; i < TRK_COUNT(open); i++) {
        ck_assert_int_eq(call("adder", "1.0.0", open[i], ""), PUB_MAY_CALL);
    }
    for (size_t i = 0; i < TRK_COUNT(closed); i++) {
        ck_assert_int_eq(call("adder", "1.0.0", closed[i], ""), PUB_NO_TOKEN);
        ck_assert_int_eq(call("adder", "1.0.0", closed[i], "t"), PUB_UNKNOWN_TOKEN);
    }
    ck_assert_int_eq(call("adder", "2.0.0", "/open", ""), PUB_NO_VERSION);
}
END_TEST

static const struct {
    const char *grants;
    bool adder1, adder2, adder1_path, other;
} grants[] = {
    {"", false, false, false, false},
    {ALL, true, true, true, true},
    {"{\"family\":\"adder\",\"job\":null,\"endpoint\":null}", true, true, true, false},
    {"{\"family\":null,\"job\":\"j1\",\"endpoint\":null}", true, false, true, false},
    {"{\"family\":\"adder\",\"job\":\"j1\",\"endpoint\":null}", true, false, true, false},
    {"{\"family\":\"other\",\"job\":\"j1\",\"endpoint\":null}", false, false, false, false},
    {"{\"family\":\"adder\",\"job\":null,\"endpoint\":\"/path\"}", false, false, true, false},
    {"{\"family\":null,\"job\":null,\"endpoint\":\"/path\"}", false, false, true, false},
    {"{\"family\":\"none\",\"job\":null,\"endpoint\":null},{\"family\":null,\"job\":\"j2\","
     "\"endpoint\":null},{\"family\":\"other\",\"job\":null,\"endpoint\":null}",
     false, true, false, true},
};

START_TEST(grants_cover_what_they_say)
{
    whole();
    job("j1", "adder", "1.0.0", "running");
    job("j2", "adder", "2.0.0", "running");
    job("j3", "other", "1.0.0", "running");
    subject("s1", "token", "", grants[_i].grants);
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "token") == PUB_MAY_CALL, grants[_i].adder1);
    ck_assert_int_eq(call("adder", "2.x", "/x", "token") == PUB_MAY_CALL, grants[_i].adder2);
    ck_assert_int_eq(call("adder", "1.x", "/path", "token") == PUB_MAY_CALL,
                     grants[_i].adder1_path);
    ck_assert_int_eq(call("other", "latest", "/x", "token") == PUB_MAY_CALL, grants[_i].other);
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "token2"), PUB_UNKNOWN_TOKEN);
}
END_TEST

START_TEST(revocations_and_ends_count_at_once)
{
    whole();
    job("j1", "adder", "1.0.0", "running");
    subject("s1", "one", "", ALL);
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "one"), PUB_MAY_CALL);
    ck_assert_str_eq(found.subject->caller, "ESC s1");
    subject("s1", "two", "", ALL); /* its first token is revoked */
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "one"), PUB_UNKNOWN_TOKEN);
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "two"), PUB_MAY_CALL);
    subject("s1", "two", "", "");
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "two"), PUB_NOT_ALLOWED);
    trk_autofree char *data = trk_xasprintf(
        "[{\"id\":\"s2\",\"type\":\"user\",\"name\":\"User a\\u0001b\",\"active\":true,\"tokens\":["
        "{\"d\":\"%s\",\"e\":1000}],\"grants\":[" ALL "]},"
        "{\"id\":\"s3\",\"type\":\"user\",\"name\":\"x\",\"active\":false,\"tokens\":[],"
        "\"grants\":[]}]",
        digest_of("three"));
    apply("subject", data);
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "three"), PUB_ENDED_TOKEN);
    ck_assert_str_eq(found.subject->caller, "User a?b");
    apply("subject_removed", "[{\"id\":\"s2\"}]");
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "three"), PUB_UNKNOWN_TOKEN);
    subject("s4", "four", "", ALL);
    subject("s5", "four", "",
            ""); /* two with one token: the later counts, also when the other goes */
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "four"), PUB_NOT_ALLOWED);
    apply("subject_removed", "[{\"id\":\"s4\"}]");
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "four"), PUB_NOT_ALLOWED);
}
END_TEST

START_TEST(maintenance_comes_first)
{
    whole();
    pub_table_set_maintenance(table, true);
    ck_assert_int_eq(call("adder", "1.0.0", "/open", ""), PUB_MAINTENANCE);
    pub_table_set_maintenance(table, false);
    ck_assert_int_eq(call("adder", "1.0.0", "/open", ""), PUB_NO_FAMILY);
}
END_TEST

START_TEST(a_picture_replaces_what_was_held)
{
    whole();
    job("j1", "adder", "1.0.0", "running");
    job("j2", "other", "1.0.0", "running");
    subject("s1", "one", "", ALL);
    subject("s2", "two", "", ALL);
    pub_table_begin_picture(table); /* breaks off */
    pub_table_begin_picture(table);
    job("j1", "adder", "1.0.0", "running");
    subject("s2", "two", "", ALL);
    ck_assert_int_eq(call("other", "1.0.0", "/x", "one"), PUB_MAY_CALL);
    pub_table_end_picture(table);
    ck_assert_str_eq(gone, "other 1.0.0");
    ck_assert_int_eq(call("other", "1.0.0", "/x", "two"), PUB_NO_FAMILY);
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "one"), PUB_UNKNOWN_TOKEN);
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "two"), PUB_MAY_CALL);
}
END_TEST

/* A replaced job is found until the change is published, by readers that came later too. */
START_TEST(what_is_still_found_is_not_freed)
{
    static const char *const addresses[] = {"127.0.0.1:7000"};
    const struct pub_job_record record = {.id = "j1",
                                          .name = "adder",
                                          .version = "1.0.0",
                                          .status = "running",
                                          .replicas = addresses,
                                          .replica_count = 1};
    whole();
    job("j1", "adder", "1.0.0", "error");
    pub_table_put_job(table, &record);
    pub_table_tidy(table);
    ck_assert_uint_gt(readers.end - readers.first, 0);
    pub_reader_enter(&readers, 0);
    ck_assert_int_eq(call("adder", "1.0.0", "/open", ""), PUB_MAY_CALL);
    const struct pub_job *old = found.job;
    pub_table_publish(table);
    ck_assert_uint_gt(pub_reclaim(&readers), 0);
    ck_assert_str_eq(old->status, "error");
    pub_reader_leave(&readers, 0);
    pub_table_tidy(table);
    ck_assert_uint_eq(pub_reclaim(&readers), 0);
}
END_TEST

START_TEST(a_use_is_remembered_through_a_change)
{
    whole();
    job("j1", "adder", "1.0.0", "running");
    subject("s1", "one", "", ALL);
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "one"), PUB_MAY_CALL);
    atomic_store(&((struct pub_token *)(uintptr_t)found.token)->last_s, 7);
    atomic_store(&found.job->id->calls, 3);
    subject("s1", "one", "", ALL);
    job("j1", "adder", "1.0.0", "error");
    ck_assert_int_eq(call("adder", "1.0.0", "/x", "one"), PUB_MAY_CALL);
    ck_assert_uint_eq(atomic_load(&found.token->last_s), 7);
    ck_assert_uint_eq(atomic_load(&found.job->id->calls), 3);
}
END_TEST

/* Damaged records change nothing of what they would have widened. */
static const char *const damaged[][2] = {
    {"job", "{}"},
    {"job", "[1]"},
    {"job", "[{\"id\":\"j\",\"name\":\"a\",\"version\":\"1\"}]"},
    {"job",
     "[{\"id\":\"j\",\"name\":\"a\",\"version\":\"1\",\"status\":\"running\",\"replicas\":[{}]}]"},
    {"subject", "[{\"id\":\"s\",\"name\":\"a\",\"active\":true,\"tokens\":[{\"d\":\"12\"}]}]"},
    {"subject", "[{\"id\":\"s\",\"name\":\"a\",\"active\":true,\"grants\":[{}]}]"},
    {"subject",
     "[{\"id\":\"s\",\"name\":\"a\",\"grants\":[{\"family\":1,\"job\":null,\"endpoint\":null}]}]"},
    {"subject_removed", "[{}]"},
    {"job_removed", "[\"j\"]"},
    {"subject", "[{"},
};

START_TEST(damaged_records_are_refused)
{
    struct trk_err err = {0};
    ck_assert_int_lt(pub_record_apply(table, damaged[_i][0], damaged[_i][1], &err), 0);
    ck_assert_str_ne(err.text, "");
    struct pub_table_counts counts;
    pub_table_count(table, &counts);
    ck_assert_uint_eq(counts.subjects + counts.jobs, 0);
}
END_TEST

START_TEST(unknown_events_are_left_alone)
{
    struct trk_err err = {0};
    ck_assert_int_eq(pub_record_apply(table, "weather", "not even JSON", &err), 0);
}
END_TEST

/* What is written is read back the same. */
START_TEST(records_go_through_the_copy)
{
    static const char odd_job[] =
        "[{\"id\":\"j\\\"1\",\"name\":\"add\\\\er\",\"version\":\"1.0.0\",\"status\":\"starting\","
        "\"public\":[\"/a\",\"/b c\"],\"replicas\":[],\"secret\":null}]";
    whole();
    apply("job", odd_job);
    job("j2", "other", "1.0.0", "running");
    subject("s1", "one", "",
            "{\"family\":\"other\",\"job\":\"j2\",\"endpoint\":\"/\\u0007x\"}," ALL);
    for (int round = 0; round < 2; round++) {
        struct trk_buf jobs, subjects;
        trk_buf_init(&jobs, 1 << 20);
        trk_buf_init(&subjects, 1 << 20);
        const struct pub_job *j;
        const struct pub_subject *s;
        for (size_t cursor = 0; pub_table_next(table, &cursor, &j, &s);) {
            struct trk_buf *buf = j != NULL ? &jobs : &subjects;
            (void)trk_buf_addc(buf, buf->len == 0 ? '[' : ',');
            if (j != NULL) {
                pub_record_write_job(j, buf);
            } else {
                pub_record_write_subject(s, buf);
            }
        }
        (void)trk_buf_addc(&jobs, ']');
        (void)trk_buf_addc(&subjects, ']');
        pub_table_free(table);
        pub_readers_init(&readers, 2);
        table = pub_table_new(&readers, on_gone, NULL);
        apply("job", jobs.data);
        apply("subject", subjects.data);
        whole();
        ck_assert_int_eq(call("other", "1.0.0", "/x", "one"), PUB_NO_FAMILY);
        apply("job", jobs.data);
        apply("subject", subjects.data);
        trk_buf_fini(&jobs);
        trk_buf_fini(&subjects);
        ck_assert_int_eq(call("add\\er", "1.0.0", "/b c/d", ""), PUB_MAY_CALL);
        ck_assert(found.job->replica_count == 0 && found.job->is_starting &&
                  found.job->secret == NULL);
        ck_assert_int_eq(call("other", "latest", "/x", "one"), PUB_MAY_CALL);
        ck_assert_str_eq(found.job->replicas, "127.0.0.1:7000");
        ck_assert_str_eq(found.job->secret, "s");
        ck_assert_str_eq(found.subject->type, "esc");
        ck_assert_uint_eq(found.subject->grant_count, 2);
    }
}
END_TEST

START_TEST(digests_are_sha256)
{
    char text[300];
    for (size_t len = 0; len < sizeof(text); len++) {
        unsigned char ours[PUB_DIGEST_SIZE], theirs[PUB_DIGEST_SIZE];
        memset(text, (int)('a' + len % 26), sizeof(text));
        pub_digest((struct trk_h1_slice){text, len}, ours);
        (void)crypto_hash_sha256(theirs, (const unsigned char *)text, len);
        ck_assert_mem_eq(ours, theirs, sizeof(ours));
    }
    ck_assert_str_eq(digest_of("abc"),
                     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
END_TEST

/* Two readers look while the writer replaces, removes and grows; run it under the sanitizers. */
static _Atomic bool is_over;

static void *read_on(void *arg)
{
    size_t index = *(const size_t *)arg;
    size_t seen = 0;
    while (!atomic_load(&is_over)) {
        pub_reader_enter(&readers, index);
        for (int i = 0; i < 16; i++) {
            char name[16];
            (void)snprintf(name, sizeof(name), "job%d", i * 7 % 40);
            struct pub_question q = {.job = {name, strlen(name)},
                                     .version = {"latest", 6},
                                     .endpoint = "/x",
                                     .token = {"one", 3},
                                     .now_s = 1000};
            struct pub_finding f;
            if (pub_table_decide(table, &q, &f) == PUB_MAY_CALL) {
                seen += strlen(f.job->replicas) + strlen(f.subject->caller);
                if (strcmp(f.job->family->text, name) != 0) {
                    abort();
                }
            }
        }
        pub_reader_leave(&readers, index);
    }
    return (void *)(uintptr_t)seen;
}

START_TEST(readers_are_never_pulled_the_rug)
{
    static const size_t indexes[] = {0, 1};
    pthread_t threads[2];
    whole();
    atomic_store(&is_over, false);
    subject("s1", "one", "", ALL);
    for (size_t i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_on, (void *)(uintptr_t)&indexes[i]),
                         0);
    }
    for (int round = 0; round < 400; round++) {
        for (int i = 0; i < 40; i++) {
            char id[16], name[16];
            (void)snprintf(id, sizeof(id), "j%d", i);
            (void)snprintf(name, sizeof(name), "job%d", i);
            if ((i * 31 + round) % 5 == 0) {
                pub_table_remove_job(table, id);
                pub_table_publish(table);
            } else {
                job(id, name, "1.0.0", "running");
            }
        }
        subject(round % 2 == 0 ? "s1" : "s2", "one", "", ALL);
    }
    atomic_store(&is_over, true);
    size_t seen = 0;
    for (size_t i = 0; i < 2; i++) {
        void *result;
        (void)pthread_join(threads[i], &result);
        seen += (size_t)(uintptr_t)result;
    }
    ck_assert_uint_gt(seen, 0);
    ck_assert_uint_eq(pub_reclaim(&readers), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table");
    TCase *tcase = tcase_create("table");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, nothing_is_known_before_the_first_whole_picture);
    tcase_add_test(tcase, versions_are_those_of_lifecycle);
    tcase_add_test(tcase, latest_follows_each_change);
    tcase_add_test(tcase, first_deployments_are_found_when_nothing_else_is);
    tcase_add_test(tcase, a_version_deployed_again_is_one);
    tcase_add_test(tcase, public_paths_need_no_token);
    tcase_add_loop_test(tcase, grants_cover_what_they_say, 0, (int)TRK_COUNT(grants));
    tcase_add_test(tcase, revocations_and_ends_count_at_once);
    tcase_add_test(tcase, maintenance_comes_first);
    tcase_add_test(tcase, a_picture_replaces_what_was_held);
    tcase_add_test(tcase, what_is_still_found_is_not_freed);
    tcase_add_test(tcase, a_use_is_remembered_through_a_change);
    tcase_add_loop_test(tcase, damaged_records_are_refused, 0, (int)TRK_COUNT(damaged));
    tcase_add_test(tcase, unknown_events_are_left_alone);
    tcase_add_test(tcase, records_go_through_the_copy);
    tcase_add_test(tcase, digests_are_sha256);
    tcase_add_test(tcase, readers_are_never_pulled_the_rug);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures > 0 ? 1 : 0;
}
