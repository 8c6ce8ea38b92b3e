-- Whatever a gateway or a reader of the event stream must know writes its row of registry_event by itself, whoever changes it. The triggers
-- are deferred: they run when the transaction commits, after its last row lock, so that the lock which orders the events is held for a
-- moment only and can deadlock with nothing.

create function registry_event_write(event_kind text, event_payload jsonb) returns void language plpgsql as $$
begin
    -- The number is drawn under the lock, which is held until commit: readers never see 7 before 6.
    perform pg_advisory_xact_lock(hashtextextended('racetrack events ' || current_schema(), 0));
    insert into registry_event (kind, payload) values (event_kind, event_payload);
    perform pg_notify('racetrack_event', '');
end $$;

create function registry_event_of_job() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        perform registry_event_write('job_removed',
            jsonb_build_object('job_id', old.id, 'job_name', old.name, 'job_version', old.version));
    else
        perform registry_event_write('job_changed',
            jsonb_build_object('job_id', new.id, 'job_name', new.name, 'job_version', new.version));
    end if;
    return null;
end $$;
create constraint trigger registry_job_added after insert or delete on registry_job
    deferrable initially deferred for each row execute function registry_event_of_job();
create constraint trigger registry_job_changed after update on registry_job
    deferrable initially deferred for each row
    when ((old.status, old.error, old.notice, old.internal_name, old.replica_internal_names, old.generation_id, old.manifest, old.update_time)
          is distinct from
          (new.status, new.error, new.notice, new.internal_name, new.replica_internal_names, new.generation_id, new.manifest, new.update_time))
    execute function registry_event_of_job();

create function registry_event_of_endpoint() returns trigger language plpgsql as $$
declare
    job registry_job;
begin
    select * into job from registry_job where id = case when tg_op = 'DELETE' then old.job_id else new.job_id end;
    if found then
        perform registry_event_write('job_changed',
            jsonb_build_object('job_id', job.id, 'job_name', job.name, 'job_version', job.version));
    end if;
    return null;
end $$;
create constraint trigger registry_endpoint_changed after insert or update or delete on registry_publicendpointrequest
    deferrable initially deferred for each row execute function registry_event_of_endpoint();

create function registry_event_of_subject() returns trigger language plpgsql as $$
declare
    row_now jsonb := case when tg_op = 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
    subject text := row_now ->> tg_argv[0];
begin
    if tg_argv[1] <> '' then -- the row is the subject's owner
        execute format('select id from registry_authsubject where %I::text = $1', tg_argv[1]) into subject using subject;
    end if;
    if subject is not null then
        perform registry_event_write('subject_changed', jsonb_build_object('subject_id', subject));
    end if;
    return null;
end $$;
create constraint trigger registry_subject_changed after insert or delete on registry_authsubject
    deferrable initially deferred for each row execute function registry_event_of_subject('id', '');
create constraint trigger registry_permission_changed after insert or update or delete on registry_authresourcepermission
    deferrable initially deferred for each row execute function registry_event_of_subject('auth_subject_id', '');
create constraint trigger registry_token_added after insert or delete on registry_authtoken
    deferrable initially deferred for each row execute function registry_event_of_subject('auth_subject_id', '');
create constraint trigger registry_token_changed after update on registry_authtoken
    deferrable initially deferred for each row
    when ((old.token, old.active, old.expiry_time) is distinct from (new.token, new.active, new.expiry_time))
    execute function registry_event_of_subject('auth_subject_id', '');
create constraint trigger registry_user_changed after update on auth_user
    deferrable initially deferred for each row
    when ((old.username, old.is_active) is distinct from (new.username, new.is_active))
    execute function registry_event_of_subject('id', 'user_id');
create constraint trigger registry_esc_changed after update on registry_esc
    deferrable initially deferred for each row execute function registry_event_of_subject('id', 'esc_id');

create function registry_event_of_deployment() returns trigger language plpgsql as $$
begin
    perform registry_event_write('deployment_changed', jsonb_build_object('deployment_id', new.id, 'job_name', new.job_name,
        'job_version', new.job_version, 'status', new.status, 'phase', new.phase, 'error', new.error));
    return null;
end $$;
create constraint trigger registry_deployment_added after insert on registry_deployment
    deferrable initially deferred for each row execute function registry_event_of_deployment();
create constraint trigger registry_deployment_changed after update on registry_deployment
    deferrable initially deferred for each row
    when ((old.status, old.phase) is distinct from (new.status, new.phase))
    execute function registry_event_of_deployment();

create function registry_event_of_setting() returns trigger language plpgsql as $$
begin
    perform registry_event_write('settings_changed', '{}');
    return null;
end $$;
create constraint trigger registry_setting_changed after insert or update or delete on registry_setting
    deferrable initially deferred for each row execute function registry_event_of_setting();

-- What gateways know a token by (they never see its text), and how often a job was called.
alter table registry_authtoken add column digest text generated always as (encode(sha256(token::bytea), 'hex')) stored;
create index registry_authtoken_digest on registry_authtoken (digest);
alter table registry_job add column call_count bigint not null default 0;
