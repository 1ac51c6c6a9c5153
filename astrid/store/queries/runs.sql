-- name: start_run
INSERT INTO run (kind, day, state, code_version, method_version, started_at)
VALUES ($1, $2, 'running', $3, $4, $5) RETURNING run_id

-- name: finish_run
UPDATE run SET state = $2, spent = $3::jsonb, note = $4, finished_at = $5 WHERE run_id = $1 RETURNING run_id

-- name: read_runs
SELECT run_id, kind, day, state, code_version, method_version, started_at, finished_at, planned_requests,
       planned_points, spent, note
FROM run ORDER BY run_id DESC LIMIT $1

-- name: plan_batches
INSERT INTO batch (run_id, batch_id, source, task, day, lane, body, state, requests, updated_at)
SELECT $1, p.batch_id, p.source, p.task, p.day, p.lane, p.body::jsonb, 'planned', p.requests, $8
FROM unnest($2::text[], $3::text[], $4::text[], $5::date[], $6::text[], $7::text[], $9::int4[])
     AS p (batch_id, source, task, day, lane, body, requests)
ORDER BY p.batch_id COLLATE "C"
ON CONFLICT (run_id, batch_id) DO NOTHING
RETURNING batch_id

-- name: grow_plan
UPDATE run SET planned_requests = planned_requests + $2, planned_points = planned_points + $3 WHERE run_id = $1

-- name: open_batches
SELECT body, attempts FROM batch WHERE run_id = $1 AND state = 'planned' ORDER BY source, batch_id COLLATE "C"

-- name: progress
SELECT source, state, count(*) AS count, sum(requests)::int8 AS requests
FROM batch WHERE run_id = $1 GROUP BY source, state ORDER BY source, state

-- name: read_finished
-- Equal ids are equal work: a batch that any run has done need not be done again.
SELECT DISTINCT batch_id FROM batch WHERE batch_id = ANY ($1::text[]) AND state = 'done'

-- name: lock_batch
SELECT state FROM batch WHERE run_id = $1 AND batch_id = $2 FOR UPDATE

-- name: settle_batch
UPDATE batch SET state = $3, requests = $4, reason = $5, updated_at = $6, attempts = attempts + 1
WHERE run_id = $1 AND batch_id = $2

-- name: count_attempt
UPDATE batch SET attempts = attempts + 1, updated_at = $3 WHERE run_id = $1 AND batch_id = $2

-- name: write_planned
INSERT INTO run_cost (run_id, upstream, bucket, planned_requests, planned_points, planned_hours)
SELECT $1, p.upstream, p.bucket, p.requests, p.points, p.hours
FROM unnest($2::text[], $3::text[], $4::int8[], $5::int8[], $6::float8[]) AS p (upstream, bucket, requests, points, hours)
ON CONFLICT (run_id, upstream, bucket) DO UPDATE
SET planned_requests = excluded.planned_requests, planned_points = excluded.planned_points,
    planned_hours = excluded.planned_hours

-- name: write_spent
INSERT INTO run_cost (run_id, upstream, bucket, spent_requests, spent_points)
SELECT $1, p.upstream, p.bucket, p.requests, p.points
FROM unnest($2::text[], $3::text[], $4::int8[], $5::int8[]) AS p (upstream, bucket, requests, points)
ON CONFLICT (run_id, upstream, bucket) DO UPDATE
SET spent_requests = excluded.spent_requests, spent_points = excluded.spent_points

-- name: read_costs
SELECT run_id, upstream, bucket, planned_requests, planned_points, planned_hours, spent_requests, spent_points
FROM run_cost WHERE run_id = ANY ($1::int8[]) ORDER BY run_id, upstream COLLATE "C", bucket COLLATE "C"
