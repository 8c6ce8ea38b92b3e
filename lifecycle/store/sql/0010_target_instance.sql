-- Which one of the places of its kind (this host's processes, that engine, that cluster) a generation runs on, and a deployment is for.
-- Only lifecycles that reach it work on it. Rows from before are taken over by the first lifecycle that starts with a target of their name.
alter table registry_deployment add column target_instance varchar(256);
alter table registry_jobgeneration add column target_instance varchar(256);
