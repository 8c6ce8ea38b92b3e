-- What is known of the processes (containers, pods) of a generation, one row each. The addresses in registry_job and registry_jobgeneration go.
create table registry_jobreplica (
    generation_id varchar(36) not null references registry_jobgeneration (id) on delete cascade,
    replica integer not null,             -- from 0
    state varchar(16) not null,           -- running | error | lost | ending
    address varchar(512),                 -- host:port
    reason text not null default '',      -- why it is not running
    primary key (generation_id, replica)
);
insert into registry_jobreplica (generation_id, replica, state, address)
    select id, 0, 'running', address from registry_jobgeneration where address is not null;

alter table registry_jobgeneration add column replicas integer not null default 1; -- how many there should be
alter table registry_jobgeneration add column asleep boolean not null default false; -- then none
alter table registry_jobgeneration drop column address;

drop trigger registry_job_changed on registry_job;
alter table registry_job drop column internal_name, drop column replica_internal_names;
create constraint trigger registry_job_changed after update on registry_job
    deferrable initially deferred for each row
    when ((old.status, old.error, old.notice, old.generation_id, old.manifest, old.update_time)
          is distinct from
          (new.status, new.error, new.notice, new.generation_id, new.manifest, new.update_time))
    execute function registry_event_of_job();

create function registry_event_of_replica() returns trigger language plpgsql as $$
declare
    job registry_job;
begin
    select * into job from registry_job
        where generation_id = case when tg_op = 'DELETE' then old.generation_id else new.generation_id end;
    if found then
        perform registry_event_write('job_changed',
            jsonb_build_object('job_id', job.id, 'job_name', job.name, 'job_version', job.version));
    end if;
    return null;
end $$;
create constraint trigger registry_replica_changed after insert or update or delete on registry_jobreplica
    deferrable initially deferred for each row execute function registry_event_of_replica();
create index registry_job_generation on registry_job (generation_id);
