/*
 * api.h - what the files of the API share. One resource a file: a route table and its handlers,
 * thin: rules are in domain/, SQL in store/, the work in deploy/.
 *
 * Who may call a route is its `access`, checked by authorize.c before the body is read:
 *   public             anybody
 *   authenticated      any valid token (an internal one with at least one scope)
 *   subject            a user, an ESC or a job family
 *   user, staff        an active user; one with is_staff
 *   admin              a user of the staff, or who holds call_admin_api on everything
 *   internal           one of our own services
 *   scope:SCOPE        holds SCOPE on anything; call_admin_api must be held on everything
 *   job:SCOPE          holds SCOPE on the job of the path, {name} and {version}
 */
#ifndef LIFECYCLE_API_API_H
#define LIFECYCLE_API_API_H

#include <jansson.h>

#include "libtrack/http/http_server.h"
#include "libtrack/pg/pg.h"
#include "lifecycle/api/dto.h"
#include "lifecycle/domain/subject.h"
#include "lifecycle/lifecycle.h"
#include "lifecycle/store/job.h"

/* Who asks, and what of a job's path authorize has settled. */
struct api_caller {
    struct subject *subject;
    const char
        *job_version; /* "job:" routes: the exact version that the permission was checked for */
};

struct lifecycle *api_lifecycle(struct trk_request *req);
struct subject *api_subject(struct trk_request *req);
/* {version} of the path as authorize has resolved it: what was checked is what is used. */
const char *api_job_version(struct trk_request *req);
/* A connection for this request: trk_pg_auto struct trk_pg *conn = NULL; api_acquire(req, &conn,
 * err). 503 while the service is starting or the database is away. */
int api_acquire(struct trk_request *req, struct trk_pg **ret, struct trk_err *err) TRK_MUST_CHECK;
/* Refuses with 503 in maintenance mode. */
int api_refuse_in_maintenance(struct trk_request *req, struct trk_err *err) TRK_MUST_CHECK;
/* The text of the token that came with the request, or NULL. Borrows. */
const char *api_token_text(struct trk_request *req);
/* Is the token's signature right? Needs no database. TRK_UNAUTHENTICATED. */
int api_verify(struct trk_request *req, struct trk_token *ret, struct trk_err *err) TRK_MUST_CHECK;
/* The caller whose token says `claims` and is `known` to the database (NULL for an internal one).
 * TRK_UNAUTHENTICATED: a user who was deactivated. */
int api_caller_of(struct trk_request *req, const struct trk_token *claims, struct subject *known,
                  struct subject **ret, struct trk_err *err) TRK_MUST_CHECK;
/* Verifies the token and looks its subject up on a connection that it acquires for the caller
 * (trk_pg_auto; also when it fails). TRK_UNAUTHENTICATED. */
int api_authenticate(struct trk_request *req, struct trk_pg **ret_conn, struct subject **ret,
                     struct trk_err *err) TRK_MUST_CHECK;
/* options.authorize of the server. */
int api_authorize(struct trk_request *req, const char *access, struct trk_err *err);
/* A transaction around fn, with the request's pool. */
int api_transaction(struct trk_request *req,
                    int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err), void *ctx,
                    struct trk_err *err) TRK_MUST_CHECK;
/* The same, and writes down who did it. */
struct api_deed {
    const char *event_type;
    const char *executor; /* NULL: the caller */
    const char *username_subject, *job_name, *job_version;
    json_t *properties; /* taken */
};
int api_transaction_audited(struct trk_request *req, const struct api_deed *deed,
                            int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err),
                            void *ctx, struct trk_err *err) TRK_MUST_CHECK;
/* `scope` of the path in either era's spelling. TRK_INVALID. */
int api_scope_param(struct trk_request *req, const char **ret, struct trk_err *err) TRK_MUST_CHECK;

/* JSON of the resources; returned owned. */
/* 200 and whose token it is (users.c). */
int api_reply_user_token(struct trk_request *req, const char *username, const char *token,
                         bool is_staff);
/* The login cookie; "" clears it (sessions.c). */
void api_set_cookie(struct trk_request *req, const char *token);
json_t *api_time_or_null(int64_t unix_s); /* null for 0 */

/* The fatman era (fatman.c). */
const char *api_fatman_alias(struct trk_request *req, const char *path);
/* Takes value; returns it as clients of the fatman era read it. */
json_t *api_fatman(json_t *value);
json_t *api_fatman_reply(struct trk_request *req, json_t *value);

/* The fan-out of events (hub.h). */
struct event_hub *event_hub_new(struct lifecycle *lc);
int event_hub_start(struct event_hub *hub, struct trk_err *err) TRK_MUST_CHECK;
void event_hub_stop(struct event_hub *hub); /* ends all streams */
void event_hub_free(struct event_hub *hub);
void event_hub_count(struct event_hub *hub, uint64_t *ret_connected, uint64_t *ret_disconnected);

extern const struct trk_route_table api_audit_routes, api_auth_routes, api_deploy_routes,
    api_endpoint_routes, api_esc_routes, api_event_routes, api_family_routes, api_gateway_routes,
    api_grant_routes, api_info_routes, api_job_routes, api_log_routes, api_probe_routes,
    api_session_routes, api_user_routes;
extern const struct dto api_audit_event_dto, api_credentials_dto, api_decision_dto,
    api_deployment_dto, api_deployment_id_dto, api_endpoint_change_dto, api_endpoint_dto,
    api_esc_auth_dto, api_esc_dto, api_esc_token_dto, api_family_dto, api_health_dto, api_info_dto,
    api_job_dto, api_logs_dto, api_new_esc_dto, api_new_esc_token_dto, api_new_token_dto,
    api_passwords_dto, api_permission_dto, api_token_dto, api_user_token_dto;

/* The server's options with all tables; valid as long as `lc`. */
void api_options(struct lifecycle *lc, struct trk_http_options *ret);
/* The metrics that are read at scrape time. */
void api_metrics_register(struct lifecycle *lc);

#define API_REF(name)  "{\"$ref\":\"#/components/schemas/" name "\"}"
#define API_LIST(name) "{\"type\":\"array\",\"items\":" API_REF(name) "}"
#define API_TABLE(table, tag_name, list)                                                           \
    const struct trk_route_table table = {.tag = tag_name, .routes = list, .count = TRK_COUNT(list)}

#endif
