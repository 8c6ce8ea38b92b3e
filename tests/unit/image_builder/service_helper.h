/* The whole service in this process, on a free port and with a state folder of its own. */
#ifndef TESTS_SERVICE_HELPER_H
#define TESTS_SERVICE_HELPER_H

#include <check.h>
#include <stdlib.h>

#include "image_builder/service.h"
#include "libtrack/auth/jwt.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_client.h"

static struct builder_config config;
static struct service *service;
static struct trk_http_client *client;
static struct trk_err err;
static char *state, *base_url, *token;
static struct trk_http_answer answer;

static inline char *make_token(enum trk_subject_type type, const char *auth_key)
{
    struct trk_token t = {.subject = "tester", .type = type};
    char *text;
    if (type == TRK_SUBJECT_INTERNAL) {
        snprintf(t.scopes[0], sizeof(t.scopes[0]), "full_access");
        t.scope_count = 1;
    }
    ck_assert_int_eq(trk_jwt_sign_service(&t, auth_key, &text, &err), 0);
    return text;
}

static inline void service_up(void)
{
    trk_json_init();
    err = (struct trk_err){0};
    state = trk_xasprintf("%s/service-%d", getenv("TEST_TMP"), (int)getpid());
    setenv("RACETRACK_STATE", state, 1);
    setenv("RACETRACK_PROFILE", "dev", 1);
    setenv("IMAGE_BUILDER_PORT", "0", 1);
    setenv("LOG_LEVEL", "error", 1);
    trk_log_init_from_env();
    if (getenv("LIFECYCLE_URL") == NULL) {
        setenv("LIFECYCLE_URL", "http://127.0.0.1:1/lifecycle", 1);
    }
    ck_assert_msg(trk_config_load(&builder_config_table, &config, &err) == 0, "%s", err.text);
    ck_assert_int_eq(trk_mkdir_p(state, 0755, &err), 0);
    ck_assert_msg(service_start(&config, &service, &err) == 0, "%s", err.text);
    base_url = trk_xasprintf("http://127.0.0.1:%d", service_port(service));
    token = make_token(TRK_SUBJECT_INTERNAL, TRK_DEV_AUTH_KEY);
    client = trk_http_client_new();
}

static inline void service_down(void)
{
    trk_http_answer_fini(&answer);
    answer = (struct trk_http_answer){0};
    trk_http_client_free(client);
    service_stop(service);
    trk_config_fini(&builder_config_table, &config);
    ck_assert_int_eq(trk_rm_rf(state, &err), 0);
    free(state);
    free(base_url);
    free(token);
}

/* Sends; the answer is in `answer` until the next one. `headers` may be NULL. */
static inline int send_with(const char *method, const char *path, const char *const *headers,
                            const char *auth, const void *body, size_t len)
{
    trk_http_answer_fini(&answer);
    answer = (struct trk_http_answer){0};
    trk_autofree char *url = trk_str_has_prefix(path, "http")
                                 ? trk_xstrdup(path)
                                 : trk_xasprintf("%s%s", base_url, path);
    struct trk_http_call call = {.method = method,
                                 .url = url,
                                 .headers = headers,
                                 .auth_token = auth,
                                 .body = body,
                                 .body_len = len};
    ck_assert_msg(trk_http_call(client, &call, &answer, &err) == 0, "%s %s: %s", method, path,
                  err.text);
    return answer.status;
}

static inline int request(const char *method, const char *path, const char *body)
{
    return send_with(method, path, NULL, token, body, body != NULL ? strlen(body) : 0);
}

static inline const char *header(const char *name)
{
    static char value[512];
    return trk_http_answer_header(&answer, name, value, sizeof(value)) ? value : "";
}

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}

#endif
