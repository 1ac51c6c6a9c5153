-- name: empty_bodies
-- What is finished and old, oldest first, a bounded number; what another housekeeper has in hand is his.
UPDATE batch b SET body = '{}'
FROM (SELECT run_id, batch_id FROM batch
      WHERE state IN ('done', 'split') AND body <> '{}' AND updated_at < $1
      ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED) old
WHERE b.run_id = old.run_id AND b.batch_id = old.batch_id

-- name: expire_answers
DELETE FROM answer a
USING (SELECT token, address FROM answer WHERE seen_at < $1
       ORDER BY seen_at LIMIT $2 FOR UPDATE SKIP LOCKED) old
WHERE a.token = old.token AND a.address = old.address

-- name: has_aggregate
SELECT to_regclass('observed') IS NOT NULL

-- name: refresh_aggregate
-- A procedure that ends its transaction and begins others: it runs by itself, outside of any of ours.
CALL refresh_continuous_aggregate('observed', NULL, NULL)

-- name: read_coverage
SELECT metric_id, origin_id, min(day) AS first_day, max(day) AS last_day, count(*) AS days,
       sum(entities)::int8 AS observations
FROM coverage($1, $2) GROUP BY metric_id, origin_id ORDER BY metric_id, origin_id
