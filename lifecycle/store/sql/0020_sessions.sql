-- A login with a password makes a token of its own, which ends with the session; the others are made and revoked by hand.
alter table registry_authtoken add column is_session boolean not null default false;

-- What is told of an audit event is an object; who did it may be an ESC or a service with a long name.
update registry_auditlogevent set properties = '{}' where properties is null;
alter table registry_auditlogevent alter column properties set default '{}', alter column properties set not null, alter column username_executor type text;
