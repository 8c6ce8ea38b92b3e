-- Jobs, deployments, subjects and permissions. Names follow the original's tables (spec/06); what is ours is
-- commented. Ids are UUID text (36).

create table registry_jobfamily (
    id varchar(36) primary key,
    name varchar(512) not null unique
);

-- Build contexts by content: what a deployment was made from, so that it can be resumed and redeployed.
create table registry_source (
    digest varchar(71) primary key,
    content bytea not null,
    create_time timestamptz not null default now()
);

create table registry_job (
    id varchar(36) primary key,
    family_id varchar(36) not null references registry_jobfamily (id),
    name varchar(512) not null,
    version varchar(256) not null,
    status varchar(32) not null,
    create_time timestamptz not null default now(),
    update_time timestamptz not null default now(),
    manifest text,
    internal_name varchar(512),
    error text,
    notice text,
    image_tag varchar(256),
    deployed_by varchar(256),
    last_call_time timestamptz,
    infrastructure_target varchar(256),
    replica_internal_names text not null default '',
    job_type_version varchar(256) not null default '',
    infrastructure_stats text not null default '{}',
    -- ours: what serves the calls now, and what it was made from
    generation_id varchar(36),
    image_name text,
    image_digest varchar(71),
    source_digest varchar(71) references registry_source (digest),
    spec_digest varchar(71),      -- digest of everything the running workload depends on: image, env, secrets, resources
    unique (name, version)
);
create index registry_job_family on registry_job (family_id);

-- The deployment row is the queue (architecture: the deploy path).
create table registry_deployment (
    id varchar(36) primary key,
    status varchar(32) not null,          -- in_progress | done | failed
    create_time timestamptz not null default now(),
    update_time timestamptz not null default now(),
    manifest text not null,
    error text,
    job_name varchar(512) not null,
    job_version varchar(256) not null,
    deployed_by varchar(256),
    build_logs text not null default '',
    phase varchar(256),
    image_name text,
    infrastructure_target varchar(256),
    warnings text,
    -- ours
    kind varchar(16) not null default 'deploy',  -- deploy | redeploy | reprovision
    step varchar(32) not null default 'build',   -- the next step to do; see deploy/steps.h
    force boolean not null default false,
    build_flags text not null default '',
    subject_id varchar(36),                      -- who asked: permission is checked again before it takes effect
    source_digest varchar(71) references registry_source (digest),
    image_digest varchar(71),
    generation_id varchar(36),
    created_job boolean not null default false,  -- a rollback removes only what this deployment made
    lease_owner varchar(64),
    lease_until timestamptz,
    attempts integer not null default 0
);
create index registry_deployment_update_time on registry_deployment (update_time desc);
create index registry_deployment_job on registry_deployment (job_name, job_version, create_time desc);
create unique index registry_deployment_one_in_progress on registry_deployment (job_name, job_version) where status = 'in_progress';

-- One running incarnation of a job. Desired state; the target holds the observed one.
create table registry_jobgeneration (
    id varchar(36) primary key,
    job_name varchar(512) not null,
    job_version varchar(256) not null,
    deployment_id varchar(36),
    infrastructure_target varchar(256) not null,
    state varchar(16) not null,           -- starting | serving | draining | removing
    spec text not null,                   -- JSON: what the target was asked to run, without secrets
    address varchar(512),                 -- host:port once known
    create_time timestamptz not null default now(),
    state_time timestamptz not null default now()
);
create index registry_jobgeneration_job on registry_jobgeneration (job_name, job_version);

-- Sealed secrets of a job (git credentials, secret build and runtime variables); kept for redeploys.
create table registry_jobsecret (
    job_name varchar(512) not null,
    job_version varchar(256) not null,
    sealed bytea not null,
    update_time timestamptz not null default now(),
    primary key (job_name, job_version)
);
-- The same for a deployment that has not taken effect yet.
create table registry_deploymentsecret (
    deployment_id varchar(36) primary key references registry_deployment (id) on delete cascade,
    sealed bytea not null
);

create table registry_jobstatusevent (
    id bigserial primary key,
    job_name varchar(512) not null,
    job_version varchar(256) not null,
    from_status varchar(32),
    to_status varchar(32) not null,
    reason text not null,
    timestamp timestamptz not null default now()
);
create index registry_jobstatusevent_job on registry_jobstatusevent (job_name, job_version, id desc);

create table registry_esc (
    id varchar(36) primary key,
    name varchar(512) not null
);

create table registry_publicendpointrequest (
    id varchar(36) primary key,
    job_id varchar(36) not null references registry_job (id) on delete cascade,
    endpoint varchar(512) not null,
    active boolean not null default false,
    unique (job_id, endpoint)
);

create table registry_trashjob (
    id varchar(36) primary key,
    name varchar(512) not null,
    version varchar(256) not null,
    status varchar(32) not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    delete_time timestamptz not null,
    manifest text,
    internal_name varchar(512),
    error text,
    image_tag varchar(256),
    deployed_by varchar(256),
    last_call_time timestamptz,
    infrastructure_target varchar(256),
    age_days double precision not null
);
create index registry_trashjob_job on registry_trashjob (name, version);

create table registry_auditlogevent (
    id varchar(36) primary key,
    version integer not null default 1,
    timestamp timestamptz not null default now(),
    event_type varchar(512) not null,
    properties text,
    username_executor varchar(512),
    username_subject varchar(512),
    job_name varchar(512),
    job_version varchar(512)
);
create index registry_auditlogevent_timestamp on registry_auditlogevent (timestamp desc);
create index registry_auditlogevent_job on registry_auditlogevent (job_name, job_version);
create index registry_auditlogevent_executor on registry_auditlogevent (username_executor);

create table auth_user (
    id serial primary key,
    username varchar(150) not null unique,
    email varchar(254) not null default '',
    first_name varchar(150) not null default '',
    last_name varchar(150) not null default '',
    password varchar(256) not null,
    date_joined timestamptz not null default now(),
    last_login timestamptz,
    is_active boolean not null default true,
    is_staff boolean not null default false,
    is_superuser boolean not null default false
);

create table registry_authsubject (
    id varchar(36) primary key,
    user_id integer unique references auth_user (id) on delete cascade,
    esc_id varchar(36) unique references registry_esc (id) on delete cascade,
    job_family_id varchar(36) unique references registry_jobfamily (id) on delete cascade,
    check (num_nonnulls(user_id, esc_id, job_family_id) = 1)
);

create table registry_authtoken (
    id varchar(36) primary key,
    auth_subject_id varchar(36) not null references registry_authsubject (id) on delete cascade,
    token varchar(1024) not null,
    expiry_time timestamptz,
    active boolean not null default true,
    last_use_time timestamptz
);
create index registry_authtoken_token on registry_authtoken (token);
create index registry_authtoken_subject on registry_authtoken (auth_subject_id);

-- A row grants `scope` on what it names; null names everything. A row with a job also fixes the job's family by the job itself.
create table registry_authresourcepermission (
    id serial primary key,
    auth_subject_id varchar(36) not null references registry_authsubject (id) on delete cascade,
    scope varchar(32) not null,
    job_family_id varchar(36) references registry_jobfamily (id) on delete cascade,
    job_id varchar(36) references registry_job (id) on delete cascade,
    endpoint varchar(256)
);
create unique index registry_authresourcepermission_one on registry_authresourcepermission
    (auth_subject_id, scope, coalesce(job_family_id, ''), coalesce(job_id, ''), coalesce(endpoint, ''));

create table registry_setting (
    name varchar(512) primary key,
    value jsonb
);

create table registry_asyncjobcall (
    id varchar(36) primary key,
    status varchar(32) not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    error text,
    job_name varchar(512) not null,
    job_version varchar(256) not null,
    job_path varchar(512) not null,
    request_method varchar(32) not null,
    request_url varchar(512) not null,
    request_headers jsonb not null default '{}',
    request_body bytea not null default '',
    response_status_code integer,
    response_headers jsonb not null default '{}',
    response_body bytea not null default '',
    attempts integer not null default 0,
    pub_instance_addr varchar(256) not null default '',
    retriable_error boolean not null default false
);

-- What pub and dashboards must know at once (server-sent events). Written in the transaction that makes the change, under
-- an advisory lock so that ids become visible in order; kept for a day.
create table registry_event (
    id bigserial primary key,
    kind varchar(32) not null,   -- job_changed | job_removed | permission_changed | token_changed | settings_changed
    payload jsonb not null,
    create_time timestamptz not null default now()
);
create index registry_event_create_time on registry_event (create_time);
