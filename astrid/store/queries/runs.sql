-- name: start_run
INSERT INTO run (kind, day, state, code_version, method_version, started_at)
VALUES ($1, $2, 'running', $3, $4, $5) RETURNING run_id

-- name: lock_runs
-- Until the transaction ends nobody else opens a run of this kind and day; no session holds it.
SELECT pg_advisory_xact_lock(hashtextextended('astrid run ' || $1::text || ' ' || $2::date::text, 0))

-- name: find_open_run
-- A run that nobody closed, or the last one where it failed and left batches open: its messages may still be queued.
SELECT r.run_id, r.state, r.started_at,
       EXISTS (SELECT FROM batch AS b WHERE b.run_id = r.run_id) AS is_planned
FROM run AS r
WHERE r.kind = $1 AND r.day = $2
  AND (r.state = 'running'
       OR (r.state = 'failed'
           AND NOT EXISTS (SELECT FROM run AS n WHERE n.kind = $1 AND n.day = $2 AND n.run_id > r.run_id)
           AND EXISTS (SELECT FROM batch AS b WHERE b.run_id = r.run_id AND b.state = 'planned')))
ORDER BY r.run_id DESC LIMIT 1

-- name: reopen_run
UPDATE run SET state = 'running', finished_at = NULL, code_version = $2, method_version = $3 WHERE run_id = $1

-- name: supersede_runs
UPDATE run SET state = 'failed', note = 'superseded by run ' || $3::int8::text, finished_at = $4
WHERE kind = $1 AND day = $2 AND state = 'running' AND run_id < $3

-- name: read_last_run
SELECT run_id, state, started_at, finished_at,
       EXISTS (SELECT FROM batch AS b WHERE b.run_id = r.run_id) AS is_planned
FROM run AS r WHERE kind = $1 AND day = $2 ORDER BY run_id DESC LIMIT 1

-- name: finish_run
UPDATE run SET state = $2, spent = $3::jsonb, note = $4, finished_at = $5 WHERE run_id = $1 RETURNING run_id

-- name: read_runs
SELECT run_id, kind, day, state, code_version, method_version, started_at, finished_at, planned_requests,
       planned_points, spent, note
FROM run ORDER BY run_id DESC LIMIT $1

-- name: read_runs_as_of
SELECT run_id, kind, day, state, code_version, method_version, started_at, finished_at, planned_requests,
       planned_points, spent, note
FROM run_as_of($2) ORDER BY run_id DESC LIMIT $1

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

-- name: unpublished_batches
SELECT body FROM batch WHERE run_id = $1 AND state = 'planned' AND due_at = '-infinity'
ORDER BY source, batch_id COLLATE "C"

-- name: mark_published
-- A worker may have begun one already: then it will be heard of later than now.
UPDATE batch SET due_at = now() WHERE run_id = $1 AND batch_id = ANY ($2::text[]) AND due_at = '-infinity'

-- name: begin_batch
UPDATE batch SET due_at = now() + $3 * interval '1 second', suspect_starts = suspect_starts + $4
WHERE run_id = $1 AND batch_id = $2 RETURNING state, suspect_starts

-- name: expect_batch
-- It came to some end in this worker, so it is no suspect any more.
UPDATE batch SET due_at = now() + $3 * interval '1 second', suspect_starts = 0
WHERE run_id = $1 AND batch_id = $2 AND state = 'planned'

-- name: claim_lost
-- Whoever claims them publishes them; if it dies before, they are overdue again. Two claimers take different ones.
UPDATE batch AS b SET due_at = now()
FROM (SELECT o.run_id, o.batch_id FROM batch AS o
      WHERE o.run_id = $1 AND o.state = 'planned' AND o.source = ANY ($2::text[])
        AND o.due_at < now() - $3 * interval '1 second'
      ORDER BY o.batch_id COLLATE "C" LIMIT $4 FOR UPDATE SKIP LOCKED) AS lost
WHERE b.run_id = lost.run_id AND b.batch_id = lost.batch_id
RETURNING b.body, b.source, b.batch_id

-- name: read_working_runs
-- The open runs with published batches of these sources, of which there was word within the last days.
SELECT b.run_id, b.source, count(*) AS count
FROM batch AS b JOIN run AS r USING (run_id)
WHERE r.state = 'running' AND b.state = 'planned' AND b.source = ANY ($1::text[])
  AND b.due_at > now() - interval '2 days'
GROUP BY b.run_id, b.source ORDER BY b.run_id, b.source COLLATE "C"

-- name: progress
SELECT source, state, count(*) AS count, sum(requests)::int8 AS requests
FROM batch WHERE run_id = $1 GROUP BY source, state ORDER BY source, state

-- name: read_finished
-- Equal ids are equal work: a batch that any run has done need not be done again.
SELECT DISTINCT batch_id FROM batch WHERE batch_id = ANY ($1::text[]) AND state = 'done'

-- name: settle_batch
-- Lock a batch's row until the transaction ends, say how it stood, and settle it, unless it is settled: then the attempt
-- alone is counted. A dead batch may still be done or split. In one statement, for there are thousands of them in a night.
WITH stood AS (
    SELECT run_id, batch_id, state, state IN ('done', 'split') OR (state = 'dead' AND $3::text = 'dead') AS settled
    FROM batch WHERE run_id = $1 AND batch_id = $2 FOR UPDATE
)
UPDATE batch b
SET state = CASE WHEN s.settled THEN b.state ELSE $3::text END, requests = CASE WHEN s.settled THEN b.requests ELSE $4 END,
    reason = CASE WHEN s.settled THEN b.reason ELSE $5 END, updated_at = $6, attempts = b.attempts + 1
FROM stood s
WHERE b.run_id = s.run_id AND b.batch_id = s.batch_id
RETURNING s.state, s.settled

-- name: write_planned
INSERT INTO run_cost (run_id, upstream, bucket, planned_requests, planned_points, planned_hours)
SELECT $1, p.upstream, p.bucket, p.requests, p.points, p.hours
FROM unnest($2::text[], $3::text[], $4::int8[], $5::int8[], $6::float8[]) AS p (upstream, bucket, requests, points, hours)
ON CONFLICT (run_id, upstream, bucket) DO UPDATE
SET planned_requests = excluded.planned_requests, planned_points = excluded.planned_points,
    planned_hours = excluded.planned_hours

-- name: add_spent
-- Workers add side by side, in one order of rows; of a run that this database does not know nobody keeps books.
INSERT INTO run_cost (run_id, upstream, bucket, spent_requests, spent_points)
SELECT $1, p.upstream, p.bucket, p.requests, p.points
FROM unnest($2::text[], $3::text[], $4::int8[], $5::int8[]) AS p (upstream, bucket, requests, points)
WHERE EXISTS (SELECT FROM run WHERE run_id = $1)
ORDER BY p.upstream COLLATE "C", p.bucket COLLATE "C"
ON CONFLICT (run_id, upstream, bucket) DO UPDATE
SET spent_requests = coalesce(run_cost.spent_requests, 0) + excluded.spent_requests,
    spent_points = coalesce(run_cost.spent_points, 0) + excluded.spent_points

-- name: read_costs
SELECT run_id, upstream, bucket, planned_requests, planned_points, planned_hours, spent_requests, spent_points
FROM run_cost WHERE run_id = ANY ($1::int8[]) ORDER BY run_id, upstream COLLATE "C", bucket COLLATE "C"

-- name: read_costs_as_of
SELECT run_id, upstream, bucket, planned_requests, planned_points, planned_hours, spent_requests, spent_points
FROM run_cost_as_of($2) WHERE run_id = ANY ($1::int8[]) ORDER BY run_id, upstream COLLATE "C", bucket COLLATE "C"
