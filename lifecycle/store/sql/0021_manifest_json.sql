-- The manifest as it is shown (with every field, also those that are null), so that a list of jobs parses none. Written with the manifest
-- (store/job.c); lifecycle fills what is missing when it starts: a migration that changes what manifests have sets it to null.
alter table registry_job add column manifest_json text;
