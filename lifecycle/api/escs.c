#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/esc.h"
#include "lifecycle/store/subject.h"

static int list_escs(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct esc *escs;
    size_t count;
    int code = api_acquire(req, &conn, err);
    if (code == 0) {
        code = esc_store_list(conn, trk_req_mem(req), &escs, &count, err);
    }
    if (code < 0) {
        return code;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(list,
                                    json_pack("{s:s,s:s}", "name", escs[i].name, "id", escs[i].id));
    }
    return trk_reply_json(req, 200, list);
}

struct esc_change {
    void *mem;
    const struct lifecycle *lc;
    const char *id, *name, *token_id;
    int64_t expiry_time;
    struct esc *esc;
    const char *subject_id;
    struct token_row *tokens;
    size_t token_count;
};

static int create(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    return esc_store_create(conn, c->mem, c->id, c->name, c->lc->auth_key, err);
}

static int post_esc(struct trk_request *req, struct trk_err *err)
{
    const json_t *body = trk_req_json(req);
    char uuid[TRK_UUID_SIZE];
    trk_uuid4(uuid);
    const char *id = trk_json_string_or(body, "id", NULL);
    struct esc_change c = {
        .mem = trk_req_mem(req),
        .lc = api_lifecycle(req),
        .id = trk_str_is_empty(id) ? uuid : id,
        .name = trk_json_string_or(body, "name", ""),
    };
    const struct api_deed deed = {
        .event_type = "esc_created",
        .properties = json_pack("{s:s,s:s}", "esc_id", c.id, "esc_name", c.name)};
    int code = api_transaction_audited(req, &deed, create, &c, err);
    return code < 0 ? code
                    : trk_reply_json(req, 200, json_pack("{s:s,s:s}", "name", c.name, "id", c.id));
}

static int find(struct trk_pg *conn, struct esc_change *c, struct trk_err *err)
{
    int code = esc_store_get(conn, c->mem, c->id, &c->esc, err);
    return code < 0
               ? code
               : subject_store_ensure(conn, c->mem, TRK_SUBJECT_ESC, c->id, &c->subject_id, err);
}

static int read_auth(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    int code = find(conn, c, err);
    return code < 0
               ? code
               : token_store_list(conn, c->mem, c->subject_id, &c->tokens, &c->token_count, err);
}

static struct esc_change change_of(struct trk_request *req)
{
    return (struct esc_change){
        .mem = trk_req_mem(req), .lc = api_lifecycle(req), .id = trk_req_param(req, "id")};
}

static int get_auth_data(struct trk_request *req, struct trk_err *err)
{
    struct esc_change c = change_of(req);
    int code = api_transaction(req, read_auth, &c, err);
    if (code < 0) {
        return code;
    }
    /* Being of the staff is enough to see which there are, not to use them. */
    bool shows_text = subject_can_everywhere(api_subject(req), SCOPE_CALL_ADMIN_API);
    json_t *tokens = json_array();
    for (size_t i = 0; i < c.token_count; i++) {
        const struct token_row *t = &c.tokens[i];
        (void)json_array_append_new(
            tokens,
            json_pack("{s:s,s:s?,s:o,s:b,s:o}", "id", t->id, "token", shows_text ? t->token : NULL,
                      "expiry_time", api_time_or_null(t->expiry_time), "active", (int)t->is_active,
                      "last_use_time", api_time_or_null(t->last_use_time)));
    }
    return trk_reply_json(
        req, 200,
        json_pack("{s:s,s:s,s:o}", "id", c.esc->id, "name", c.esc->name, "tokens", tokens));
}

static int add_token(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    const char *token;
    int code = find(conn, c, err);
    return code < 0 ? code
                    : token_store_create(conn, c->mem, c->subject_id, TRK_SUBJECT_ESC, c->id,
                                         c->expiry_time, c->lc->auth_key, &token, err);
}

static int post_token(struct trk_request *req, struct trk_err *err)
{
    struct esc_change c = change_of(req);
    c.expiry_time = trk_json_int_or(trk_req_json(req), "expiry_time", 0);
    if (c.expiry_time < 0 || (c.expiry_time > 0 && c.expiry_time <= trk_wall_s())) {
        return trk_err_set(err, TRK_INVALID,
                           "expiry_time must be a time to come in Unix seconds, or null");
    }
    const struct api_deed deed = {.event_type = "esc_token_created",
                                  .properties = json_pack("{s:s,s:o}", "esc_id", c.id,
                                                          "expiry_time",
                                                          api_time_or_null(c.expiry_time))};
    int code = api_transaction_audited(req, &deed, add_token, &c, err);
    return code < 0 ? code : trk_reply_null(req);
}

static int revoke_token(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    int code = find(conn, c, err);
    return code < 0 ? code : token_store_revoke(conn, c->subject_id, c->token_id, err);
}

static int delete_token(struct trk_request *req, struct trk_err *err)
{
    struct esc_change c = change_of(req);
    c.token_id = trk_req_param(req, "token_id");
    const struct api_deed deed = {
        .event_type = "esc_token_revoked",
        .properties = json_pack("{s:s,s:s}", "esc_id", c.id, "token_id", c.token_id)};
    int code = api_transaction_audited(req, &deed, revoke_token, &c, err);
    return code < 0 ? code : trk_reply_null(req);
}

static int current_token(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    int code = find(conn, c, err);
    return code < 0 ? code : token_store_current(conn, c->mem, c->subject_id, &c->name, err);
}

static int get_token(struct trk_request *req, struct trk_err *err)
{
    struct esc_change c = change_of(req);
    int code = api_transaction(req, current_token, &c, err);
    return code < 0 ? code : trk_reply_json(req, 200, json_pack("{s:s}", "token", c.name));
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/escs",
     .access = "staff",
     .response_schema = API_LIST("Esc"),
     .handler = list_escs,
     .help = "External service consumers."},
    {.method = "POST",
     .path = "/api/v1/escs",
     .access = "staff",
     .request_schema = "{\"type\":\"object\",\"required\":[\"name\"],\"properties\":{\"name\":{"
                       "\"type\":\"string\",\"minLength\":1,\"maxLength\":512},\"id\":{\"type\":["
                       "\"string\",\"null\"],\"maxLength\":36,\"pattern\":\"^[A-Za-z0-9._-]*$\"}}}",
     .response_schema = API_REF("Esc"),
     .handler = post_esc,
     .help = "Makes an external service consumer, with a token."},
    {.method = "GET",
     .path = "/api/v1/escs/{id}/auth_data",
     .access = "staff",
     .response_schema = API_REF("EscAuth"),
     .handler = get_auth_data,
     .help = "Its tokens; their texts are shown to who holds call_admin_api."},
    {.method = "POST",
     .path = "/api/v1/escs/{id}/auth_token",
     .access = "staff",
     .request_schema = "{\"type\":\"object\",\"required\":[\"expiry_time\"],\"properties\":{"
                       "\"expiry_time\":{\"type\":[\"integer\",\"null\"]}}}",
     .handler = post_token,
     .help = "Adds a token, valid until expiry_time (Unix seconds; null: for ever)."},
    {.method = "DELETE",
     .path = "/api/v1/escs/{id}/auth_token/{token_id}",
     .access = "staff",
     .handler = delete_token,
     .help = "Revokes a token; callers that use it are refused within a second."},
    {.method = "GET",
     .path = "/api/v1/auth/token/esc/{id}",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .response_schema = "{\"type\":\"object\",\"properties\":{\"token\":{\"type\":\"string\"}}}",
     .handler = get_token,
     .help = "A valid token of an external service consumer."},
};
API_TABLE(api_esc_routes, "escs", routes);
