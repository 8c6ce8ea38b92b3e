#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/esc.h"
#include "lifecycle/store/subject.h"

/* -- what is shown and taken -- */

static const struct dto_field esc_fields[] = {
    {"name", DTO_TEXT, DTO_AT(struct esc, name)},
    {"id", DTO_TEXT, DTO_AT(struct esc, id)},
};
const struct dto api_esc_dto = DTO("Esc", struct esc, esc_fields);

static const struct dto_field new_esc_fields[] = {
    {"name", DTO_TEXT, DTO_AT(struct esc, name), .is_required = true,
     .schema = "\"minLength\":1,\"maxLength\":512"},
    {"id", DTO_TEXT, DTO_AT(struct esc, id), .is_nullable = true,
     .schema = "\"maxLength\":36,\"pattern\":\"^[A-Za-z0-9._-]*$\""},
};
const struct dto api_new_esc_dto = DTO("NewEsc", struct esc, new_esc_fields);

static const struct dto_field token_fields[] = {
    {"id", DTO_TEXT, DTO_AT(struct token_row, id)},
    {"token", DTO_TEXT, DTO_AT(struct token_row, token), .is_nullable = true},
    {"expiry_time", DTO_TIME, DTO_AT(struct token_row, expiry_time), .is_nullable = true},
    {"active", DTO_BOOLEAN, DTO_AT(struct token_row, is_active)},
    {"last_use_time", DTO_TIME, DTO_AT(struct token_row, last_use_time), .is_nullable = true},
};
const struct dto api_esc_token_dto = DTO("EscToken", struct token_row, token_fields);

struct esc_auth {
    const char *id, *name;
    const struct token_row *tokens;
    size_t token_count;
};
static const struct dto_field auth_fields[] = {
    {"id", DTO_TEXT, DTO_AT(struct esc_auth, id)},
    {"name", DTO_TEXT, DTO_AT(struct esc_auth, name)},
    {"tokens", DTO_LIST, DTO_AT(struct esc_auth, tokens), .of = &api_esc_token_dto,
     .count = offsetof(struct esc_auth, token_count)},
};
const struct dto api_esc_auth_dto = DTO("EscAuth", struct esc_auth, auth_fields);

static const struct dto_field new_token_fields[] = {
    {"expiry_time", DTO_TIME, DTO_AT(struct token_row, expiry_time), .is_nullable = true,
     .is_required = true},
};
const struct dto api_new_esc_token_dto = DTO("NewEscToken", struct token_row, new_token_fields);

DTO_ONE_TEXT(api_token_dto, "Token", "token");

/* -- the handlers -- */

static int list_escs(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct esc *escs = NULL;
    size_t count = 0;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = esc_store_list(conn, trk_req_mem(req), &escs, &count, err);
    }
    return rc < 0 ? rc : api_reply_dtos(req, &api_esc_dto, escs, count);
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
    return issue_esc(conn, c->mem, c->id, c->name, c->lc->auth_key, err);
}

static int post_esc(struct trk_request *req, struct trk_err *err)
{
    char uuid[TRK_UUID_SIZE];
    trk_uuid4(uuid);
    struct esc esc;
    dto_read(&api_new_esc_dto, trk_req_json(req), &esc);
    if (trk_str_is_empty(esc.id)) {
        esc.id = uuid;
    }
    struct esc_change c = {
        .mem = trk_req_mem(req), .lc = api_lifecycle(req), .id = esc.id, .name = esc.name};
    const struct api_deed deed = {
        .event_type = "esc_created",
        .properties = json_pack("{s:s,s:s}", "esc_id", esc.id, "esc_name", esc.name)};
    int rc = api_transaction_audited(req, &deed, create, &c, err);
    return rc < 0 ? rc : api_reply_dto(req, &api_esc_dto, &esc);
}

static int find(struct trk_pg *conn, struct esc_change *c, struct trk_err *err)
{
    int rc = esc_store_get(conn, c->mem, c->id, &c->esc, err);
    return rc < 0 ? rc
                  : subject_store_ensure(conn, c->mem, TRK_SUBJECT_ESC, c->id, &c->subject_id, err);
}

static int read_auth(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    int rc = find(conn, c, err);
    return rc < 0 ? rc
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
    int rc = api_transaction(req, read_auth, &c, err);
    if (rc < 0) {
        return rc;
    }
    /* Being of the staff is enough to see which there are, not to use them. */
    bool shows_text = subject_can_everywhere(api_subject(req), SCOPE_CALL_ADMIN_API);
    for (size_t i = 0; i < c.token_count && !shows_text; i++) {
        c.tokens[i].token = NULL;
    }
    const struct esc_auth auth = {
        .id = c.esc->id, .name = c.esc->name, .tokens = c.tokens, .token_count = c.token_count};
    return api_reply_dto(req, &api_esc_auth_dto, &auth);
}

static int add_token(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    const char *token;
    int rc = find(conn, c, err);
    return rc < 0 ? rc
                  : issue_token(conn, c->mem, c->subject_id, TRK_SUBJECT_ESC, c->id, c->expiry_time,
                                c->lc->auth_key, &token, err);
}

static int post_token(struct trk_request *req, struct trk_err *err)
{
    struct esc_change c = change_of(req);
    struct token_row asked;
    dto_read(&api_new_esc_token_dto, trk_req_json(req), &asked);
    c.expiry_time = asked.expiry_time;
    if (c.expiry_time < 0 || (c.expiry_time > 0 && c.expiry_time <= trk_wall_s())) {
        return trk_err_set(err, TRK_INVALID,
                           "expiry_time must be a time to come in Unix seconds, or null");
    }
    const struct api_deed deed = {.event_type = "esc_token_created",
                                  .properties = json_pack("{s:s,s:o}", "esc_id", c.id,
                                                          "expiry_time",
                                                          api_time_or_null(c.expiry_time))};
    int rc = api_transaction_audited(req, &deed, add_token, &c, err);
    return rc < 0 ? rc : trk_reply_null(req);
}

static int revoke_token(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    int rc = find(conn, c, err);
    return rc < 0 ? rc : token_store_revoke(conn, c->subject_id, c->token_id, err);
}

static int delete_token(struct trk_request *req, struct trk_err *err)
{
    struct esc_change c = change_of(req);
    c.token_id = trk_req_param(req, "token_id");
    const struct api_deed deed = {
        .event_type = "esc_token_revoked",
        .properties = json_pack("{s:s,s:s}", "esc_id", c.id, "token_id", c.token_id)};
    int rc = api_transaction_audited(req, &deed, revoke_token, &c, err);
    return rc < 0 ? rc : trk_reply_null(req);
}

static int current_token(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct esc_change *c = ctx;
    int rc = find(conn, c, err);
    return rc < 0 ? rc : token_store_current(conn, c->mem, c->subject_id, &c->name, err);
}

static int get_token(struct trk_request *req, struct trk_err *err)
{
    struct esc_change c = change_of(req);
    int rc = api_transaction(req, current_token, &c, err);
    return rc < 0 ? rc : api_reply_dto(req, &api_token_dto, &c.name);
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
     .request_schema = API_REF("NewEsc"),
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
     .request_schema = API_REF("NewEscToken"),
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
     .response_schema = API_REF("Token"),
     .handler = get_token,
     .help = "A valid token of an external service consumer."},
};
API_TABLE(api_esc_routes, "escs", routes);
