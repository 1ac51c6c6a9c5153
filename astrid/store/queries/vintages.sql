-- name: begin_write
-- The moment of this transaction, for the rows that it changes in place (transaction_moment() of the schema), and a sign
-- that a write stamped with it is under way: nobody ever waits for this lock, it is seen in pg_locks until the end.
SELECT set_config('astrid.moment', $1, true), pg_advisory_xact_lock_shared(1095980617, $2)

-- name: read_oldest_write
-- The oldest moment, in seconds since 2000, that a write under way is stamped with.
SELECT min(objid::int8) FROM pg_locks
WHERE locktype = 'advisory' AND classid = 1095980617 AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: read_newest_moment
-- The newest moment that anything which a run wrote is stamped with: it may lie ahead of the reader's clock. Of runs
-- that ended long ago the end tells enough, of the last ones each batch is looked at.
SELECT greatest((SELECT max(recorded_at) FROM run), (SELECT max(recorded_at) FROM canary),
                (SELECT max(b.updated_at) FROM batch b
                 WHERE b.run_id IN (SELECT r.run_id FROM run r
                                    WHERE r.state = 'running'
                                       OR r.recorded_at >= (SELECT max(recorded_at) FROM run) - interval '1 day')))
