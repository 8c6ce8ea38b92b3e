-- How often a replica was started again by itself: one that was since the last look has to be ready before it gets calls.
-- state: running | waiting (it starts, is not ready yet, or was asked to end) | error | lost
alter table registry_jobreplica add column restarts bigint not null default 0;
update registry_jobreplica set state = 'waiting' where state = 'ending';
