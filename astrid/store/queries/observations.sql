-- name: plan_settings
-- For this transaction alone: compiling a query costs more than these queries take.
SET LOCAL jit = off

-- name: read_standing
-- What stands in one rectangle of a metric, for comparison in numpy. Entity by entity ("OFFSET 0" keeps it so): on a
-- partition that was never analysed, "entity_id = ANY" with a metric that is a constant looks like three rows, and the
-- planner reads the whole partition for every write.
SELECT o.entity_id, o.day, o.value, o.origin_id, o.observed_at, o.run_id
FROM unnest($2::int4[]) AS e (entity_id)
CROSS JOIN LATERAL (
    SELECT * FROM observation o
    WHERE o.metric_id = $1 AND o.entity_id = e.entity_id AND o.day BETWEEN $3 AND $4
    OFFSET 0
) o

-- name: read_partitions
-- The native partitions that hold some of these days, with their first day and the day after their last.
SELECT c.relname::text AS name, bounds[1]::date AS first, bounds[2]::date AS after
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
CROSS JOIN regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM \('(.+)'\) TO \('(.+)'\)$$) AS bounds
WHERE i.inhparent = 'observation'::regclass AND pg_table_is_visible(c.oid)
  AND bounds[1]::date <= $2 AND bounds[2]::date > $1
ORDER BY first

-- name: create_differing
-- Rows whose key stands with another value, beside what was read there. One metric at a time; the table dies with the
-- transaction. For the rest of it, rows are taken one by one, in their order, through the key's index: it is the order in
-- which every writer takes its locks, and a plan does not turn into a scan of all partitions.
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL enable_material = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
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
-- Replace in one table what still stands as it was read. A row that another writer changed meanwhile is not touched: the
-- count tells, and SQL looks again. The key is joined column by column and nothing of it is given as a constant: on a
-- table without statistics a constant makes the planner believe in a handful of rows, and it scans them for each staged
-- row. The table is a partition where there are any: an UPDATE that waits for another writer looks at the new row once
-- more, and PostgreSQL 18.4 then prunes the partitions of the table above by what it has freed already, which passes
-- over rows or ends the server (a segmentation fault in perform_pruning_base_step, seen once).
UPDATE "{table}" o
SET value = d.value, origin_id = d.origin_id, observed_at = greatest($1, d.old_observed_at), run_id = $2
FROM differing d
WHERE o.metric_id = d.metric_id AND o.entity_id = d.entity_id AND o.day = d.day
  AND o.value = d.old_value AND o.origin_id = d.old_origin_id
  AND o.observed_at = d.old_observed_at AND o.run_id = d.old_run_id
  AND d.day BETWEEN $3 AND $4
RETURNING 1

-- name: decide
-- A few rows, in key order and one per key, against what stands, in one statement: keys that nobody has are inserted;
-- rows whose value differs and whose origin does not go first replace what was read, which is kept as a revision. Every
-- key is looked up by itself (LATERAL with LIMIT leaves a planner without statistics nothing to choose), in key order,
-- which is the order in which every writer takes its locks. Rows are replaced by ON CONFLICT and not by an UPDATE or
-- behind FOR UPDATE for the reason given above: it finds and locks a row by its key, and what the row holds by then
-- decides. Where another transaction takes a key or changes a row meanwhile, that row falls out and the counts fall
-- short: then the statement must run again, with a new snapshot. (A row that is deleted meanwhile, which nothing in
-- Astrid does, is written and counted as changed.) A value that comes, goes and comes again within one moment is kept
-- once. The last count is of open gaps at these keys.
WITH incoming AS MATERIALIZED (
    SELECT i.*, o.value AS old_value, o.origin_id AS old_origin_id, o.observed_at AS old_observed_at,
           o.run_id AS old_run_id, greatest($7::timestamptz, o.observed_at) AS moment,
           i.precedence > ($12::int2[])[array_position($11::int2[], o.origin_id)] AS outranked
    FROM unnest($1::int2[], $2::int4[], $3::date[], $4::float8[], $5::int2[], $6::int2[])
         WITH ORDINALITY AS i (metric_id, entity_id, day, value, origin_id, precedence, place)
    LEFT JOIN LATERAL (
        SELECT o.value, o.origin_id, o.observed_at, o.run_id FROM observation o
        WHERE o.metric_id = i.metric_id AND o.entity_id = i.entity_id AND o.day = i.day AND o.day BETWEEN $9 AND $10
        LIMIT 1
    ) o ON true
), inserted AS (
    INSERT INTO observation (metric_id, entity_id, day, value, origin_id, observed_at, run_id)
    SELECT metric_id, entity_id, day, value, origin_id, moment, $8::int8 FROM incoming
    WHERE old_value IS NULL ORDER BY place
    ON CONFLICT (metric_id, entity_id, day) DO NOTHING
    RETURNING 1
), replaced AS (
    INSERT INTO observation AS o (metric_id, entity_id, day, value, origin_id, observed_at, run_id)
    SELECT metric_id, entity_id, day, value, origin_id, moment, $8::int8 FROM incoming
    WHERE old_value <> value AND NOT outranked ORDER BY place
    ON CONFLICT (metric_id, entity_id, day) DO UPDATE
    SET value = excluded.value, origin_id = excluded.origin_id, observed_at = excluded.observed_at,
        run_id = excluded.run_id
    WHERE (o.metric_id, o.entity_id, o.day, o.value, o.origin_id, o.observed_at, o.run_id) IN (
        SELECT metric_id, entity_id, day, old_value, old_origin_id, old_observed_at, old_run_id FROM incoming
        WHERE old_value IS NOT NULL)
    RETURNING o.metric_id, o.entity_id, o.day
), kept AS (
    INSERT INTO observation_revision
    SELECT i.metric_id, i.entity_id, i.day, i.old_value, i.old_origin_id, i.old_observed_at, i.old_run_id, i.moment,
           $8::int8
    FROM replaced r JOIN incoming i ON (i.metric_id, i.entity_id, i.day) = (r.metric_id, r.entity_id, r.day)
    ON CONFLICT DO NOTHING
)
SELECT (SELECT count(*) FROM inserted) AS new, (SELECT count(*) FROM replaced) AS changed,
       count(*) FILTER (WHERE old_value = value) AS equal,
       count(*) FILTER (WHERE old_value <> value AND outranked) AS outranked,
       count((SELECT 1 FROM gap g WHERE g.metric_id = i.metric_id AND g.entity_id = i.entity_id AND g.day = i.day
                AND g.healed_at IS NULL)) AS open
FROM incoming i

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
UPDATE gap g SET healed_at = $4, healed_run = $5
FROM healed h WHERE g.metric_id = h.metric_id AND g.entity_id = h.entity_id AND g.day = h.day

-- name: write_gaps
-- A key that has a value is no gap, whoever says so. One more report of a gap is one more attempt, but for one of which
-- nobody was asked (astrid.pipeline.plan.NOT_ASKED): it takes no try's place, for by its tries a plan knows who waits.
-- The first and the last day ($8, $9) keep the plan to the partitions in question.
INSERT INTO gap (metric_id, entity_id, day, reason, attempts, retry, first_seen_at, last_seen_at, run_id)
SELECT p.metric_id, p.entity_id, p.day, p.reason, (NOT starts_with(p.reason, 'not asked'))::int, p.retry, $6, $6, $7
FROM unnest($1::int2[], $2::int4[], $3::date[], $4::text[], $5::bool[]) AS p (metric_id, entity_id, day, reason, retry)
WHERE NOT EXISTS (SELECT FROM observation o
                  WHERE o.metric_id = p.metric_id AND o.entity_id = p.entity_id AND o.day = p.day
                    AND o.day BETWEEN $8 AND $9)
ORDER BY p.metric_id, p.entity_id, p.day
ON CONFLICT (metric_id, entity_id, day) DO UPDATE
SET attempts = gap.attempts + excluded.attempts, healed_at = NULL, healed_run = NULL,
    reason = CASE WHEN excluded.attempts = 0 AND NOT starts_with(gap.reason, 'not asked')
                  THEN gap.reason ELSE excluded.reason END,
    retry = CASE WHEN excluded.attempts = 0 AND NOT starts_with(gap.reason, 'not asked')
                 THEN gap.retry ELSE excluded.retry END,
    last_seen_at = CASE WHEN excluded.attempts = 0 AND NOT starts_with(gap.reason, 'not asked')
                        THEN gap.last_seen_at ELSE excluded.last_seen_at END,
    run_id = CASE WHEN excluded.attempts = 0 AND NOT starts_with(gap.reason, 'not asked')
                  THEN gap.run_id ELSE excluded.run_id END
