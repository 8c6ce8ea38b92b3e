-- Sources lie in the image store, by content; here are their digests only. What was kept here goes: a job that was uploaded before
-- cannot be built again from its stored source (it says so), it runs on and can be deployed again.
alter table registry_job drop constraint registry_job_source_digest_fkey;
alter table registry_deployment drop constraint registry_deployment_source_digest_fkey;
drop table registry_source;
