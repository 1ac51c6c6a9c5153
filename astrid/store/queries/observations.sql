-- name: plan_settings
-- For this transaction alone: compiling a query costs more than these queries take.
SET LOCAL jit = off

-- name: walk_settings
-- For the rest of this transaction: take staged rows one by one, in their order, through the key's index. It is the
-- order in which every writer takes its locks, and a plan does not turn into a scan of all partitions.
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL enable_material = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off

-- name: read_standing
-- What stands in one rectangle of a metric, for comparison in numpy.
SELECT entity_id, day, value, origin_id, observed_at, run_id FROM observation
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4

-- name: create_differing
-- Rows whose key stands with another value, beside what was read there. One metric at a time; the table dies with the
-- transaction.
DROP TABLE IF EXISTS pg_temp.differing;
CREATE TEMP TABLE differing (
    metric_id       int2 NOT NULL,
    entity_id       int4 NOT NULL,
    day             date NOT NULL,
    value           float8 NOT NULL,
    origin_id       int2 NOT NULL,
    old_value       float8 NOT NULL,
    old_origin_id   int2 NOT NULL,
    old_observed_at timestamptz NOT NULL,
    old_run_id      int8 NOT NULL
) ON COMMIT DROP

-- name: replace_differing
-- Replace what still stands as it was read. A row that another writer changed meanwhile is not touched: the count
-- tells, and SQL looks again. The key is joined column by column and nothing of it is given as a constant: on a table
-- without statistics a constant makes the planner believe in a handful of rows, and it scans them for each staged row.
UPDATE observation o
SET value = d.value, origin_id = d.origin_id, observed_at = $1, run_id = $2
FROM differing d
WHERE o.metric_id = d.metric_id AND o.entity_id = d.entity_id AND o.day = d.day
  AND o.value = d.old_value AND o.origin_id = d.old_origin_id
  AND o.observed_at = d.old_observed_at AND o.run_id = d.old_run_id
  AND o.day BETWEEN $3 AND $4

-- name: create_incoming
-- Rows that cannot be decided from a read alone wait here; the table dies with the transaction.
CREATE TEMP TABLE incoming (
    metric_id   int2 NOT NULL,
    entity_id   int4 NOT NULL,
    day         date NOT NULL,
    value       float8 NOT NULL,
    origin_id   int2 NOT NULL,
    precedence  int2 NOT NULL
) ON COMMIT DROP

-- name: insert_incoming
-- Keys that nobody has. Where another transaction is just inserting one, this waits for it and leaves it alone.
INSERT INTO observation (metric_id, entity_id, day, value, origin_id, observed_at, run_id)
SELECT metric_id, entity_id, day, value, origin_id, $1, $2 FROM incoming
ORDER BY metric_id, entity_id, day
ON CONFLICT (metric_id, entity_id, day) DO NOTHING

-- name: create_replaced
DROP TABLE IF EXISTS pg_temp.replaced;
CREATE TEMP TABLE replaced ON COMMIT DROP AS
SELECT o.* FROM observation o LIMIT 0

-- name: lock_replaced
-- Every key exists by now. Lock, in key order, the rows whose value differs and whose origin does not go first;
-- a row that changed while this waited is judged by its newest value.
INSERT INTO replaced
SELECT o.* FROM incoming i
JOIN observation o ON o.metric_id = i.metric_id AND o.entity_id = i.entity_id AND o.day = i.day
WHERE o.value <> i.value AND o.day BETWEEN $3 AND $4
  AND i.precedence <= ($2::int2[])[array_position($1::int2[], o.origin_id)]
ORDER BY o.metric_id, o.entity_id, o.day
FOR UPDATE OF o

-- name: keep_replaced
-- A value that comes, goes and comes again within one moment is kept once.
INSERT INTO observation_revision
SELECT r.*, $1, $2 FROM replaced r
ON CONFLICT DO NOTHING

-- name: update_standing
UPDATE observation o
SET value = i.value, origin_id = i.origin_id, observed_at = $1, run_id = $2
FROM (SELECT i.* FROM incoming i JOIN replaced r USING (metric_id, entity_id, day)) i
WHERE o.metric_id = i.metric_id AND o.entity_id = i.entity_id AND o.day = i.day AND o.day BETWEEN $3 AND $4

-- name: index_replaced
CREATE INDEX ON replaced (metric_id, entity_id, day)

-- name: count_equal
-- Of the staged rows: how many state what stands now, and how many differ from an origin that goes first.
SELECT count(*) FILTER (WHERE o.value = i.value) AS equal, count(*) FILTER (WHERE o.value <> i.value) AS outranked
FROM incoming i
JOIN observation o ON o.metric_id = i.metric_id AND o.entity_id = i.entity_id AND o.day = i.day
WHERE o.day BETWEEN $1 AND $2

-- name: read_open_keys
SELECT entity_id, day FROM gap
WHERE metric_id = $1 AND healed_at IS NULL AND day BETWEEN $2 AND $3
  AND entity_id BETWEEN $4 AND $5

-- name: heal_gaps
WITH healed AS (
    SELECT g.metric_id, g.entity_id, g.day FROM gap g
    JOIN unnest($2::int4[], $3::date[]) AS k (entity_id, day) ON g.entity_id = k.entity_id AND g.day = k.day
    WHERE g.metric_id = $1 AND g.healed_at IS NULL
    ORDER BY g.entity_id, g.day
    FOR UPDATE OF g
)
UPDATE gap g SET healed_at = $4
FROM healed h WHERE g.metric_id = h.metric_id AND g.entity_id = h.entity_id AND g.day = h.day

-- name: write_gaps
-- A key that has a value is no gap, whoever says so. One more report of a gap is one more attempt, but for one of which
-- nobody was asked (astrid.pipeline.plan.NOT_ASKED): it takes no try's place, for by its tries a plan knows who waits.
INSERT INTO gap (metric_id, entity_id, day, reason, attempts, retry, first_seen_at, last_seen_at)
SELECT p.metric_id, p.entity_id, p.day, p.reason, (NOT starts_with(p.reason, 'not asked'))::int, p.retry, $6, $6
FROM unnest($1::int2[], $2::int4[], $3::date[], $4::text[], $5::bool[]) AS p (metric_id, entity_id, day, reason, retry)
WHERE NOT EXISTS (SELECT FROM observation o
                  WHERE o.metric_id = p.metric_id AND o.entity_id = p.entity_id AND o.day = p.day)
ORDER BY p.metric_id, p.entity_id, p.day
ON CONFLICT (metric_id, entity_id, day) DO UPDATE
SET attempts = gap.attempts + excluded.attempts, healed_at = NULL,
    reason = CASE WHEN excluded.attempts = 0 AND NOT starts_with(gap.reason, 'not asked')
                  THEN gap.reason ELSE excluded.reason END,
    retry = CASE WHEN excluded.attempts = 0 AND NOT starts_with(gap.reason, 'not asked')
                 THEN gap.retry ELSE excluded.retry END,
    last_seen_at = CASE WHEN excluded.attempts = 0 AND NOT starts_with(gap.reason, 'not asked')
                        THEN gap.last_seen_at ELSE excluded.last_seen_at END
