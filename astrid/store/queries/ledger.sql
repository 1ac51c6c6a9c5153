-- A query <name>_as_of answers what <name> answers, as of the moment that is its last parameter; see 0013_vintages.sql
-- for <table>_as_of(moment). A value holds from observed_at to before superseded_at.

-- name: has_later_night
SELECT EXISTS (SELECT FROM run WHERE kind = 'nightly' AND day > $1)

-- name: drop_expectations
-- Whom an earlier run of the same night asked and this one does not know: nothing was ever expected of them.
DELETE FROM expectation
WHERE source = $1 AND task = $2 AND last_day IS NULL AND first_day >= $3 AND entity_id <> ALL ($4::int4[])

-- name: end_expectations
UPDATE expectation SET last_day = $3::date - 1
WHERE source = $1 AND task = $2 AND last_day IS NULL AND entity_id <> ALL ($4::int4[])

-- name: begin_expectations
INSERT INTO expectation (entity_id, source, task, first_day)
SELECT p.entity_id, $1, $2, $3 FROM unnest($4::int4[]) AS p (entity_id)
WHERE NOT EXISTS (SELECT FROM expectation x
                  WHERE x.source = $1 AND x.task = $2 AND x.entity_id = p.entity_id AND x.last_day IS NULL)
ORDER BY p.entity_id
ON CONFLICT DO NOTHING

-- name: read_expectations
SELECT source, task, first_day, last_day, array_agg(entity_id) AS entity_ids
FROM expectation
WHERE first_day <= $2 AND (last_day IS NULL OR last_day >= $1) AND ($3::int4[] IS NULL OR entity_id = ANY ($3))
GROUP BY source, task, first_day, last_day
ORDER BY source, task, first_day, last_day

-- name: read_expectations_as_of
SELECT source, task, first_day, last_day, array_agg(entity_id) AS entity_ids
FROM expectation_as_of($4)
WHERE first_day <= $2 AND (last_day IS NULL OR last_day >= $1) AND ($3::int4[] IS NULL OR entity_id = ANY ($3))
GROUP BY source, task, first_day, last_day
ORDER BY source, task, first_day, last_day

-- name: read_presence
-- Which of at most 62 days have a value, as one number per series; grouped as the key is sorted, so nothing is sorted.
SELECT metric_id, entity_id, bit_or(1::int8 << (day - $3::date)) AS days
FROM observation
WHERE metric_id = ANY ($1::int2[]) AND entity_id = ANY ($2::int4[]) AND day BETWEEN $3 AND $4
GROUP BY metric_id, entity_id

-- name: read_presence_as_of
SELECT metric_id, entity_id, bit_or(1::int8 << (day - $3::date)) AS days
FROM (
    SELECT metric_id, entity_id, day FROM observation
    WHERE metric_id = ANY ($1::int2[]) AND entity_id = ANY ($2::int4[]) AND day BETWEEN $3 AND $4
      AND observed_at <= $5
    UNION ALL
    SELECT metric_id, entity_id, day FROM observation_revision
    WHERE metric_id = ANY ($1::int2[]) AND entity_id = ANY ($2::int4[]) AND day BETWEEN $3 AND $4
      AND observed_at <= $5 AND superseded_at > $5
) stood
GROUP BY metric_id, entity_id

-- name: read_newest
-- The last day that an origin stated a metric for anybody: one look into the index per entity, never a scan of all days.
SELECT max(newest.day) FROM unnest($2::int4[]) AS e (entity_id)
CROSS JOIN LATERAL (
    SELECT o.day FROM observation o
    WHERE o.metric_id = $1 AND o.entity_id = e.entity_id AND o.day BETWEEN $4 AND $5 AND o.origin_id = $3
    ORDER BY o.day DESC LIMIT 1
) newest

-- name: read_newest_as_of
SELECT max(newest.day) FROM unnest($2::int4[]) AS e (entity_id)
CROSS JOIN LATERAL (
    (SELECT o.day FROM observation o
     WHERE o.metric_id = $1 AND o.entity_id = e.entity_id AND o.day BETWEEN $4 AND $5 AND o.origin_id = $3
       AND o.observed_at <= $6
     ORDER BY o.day DESC LIMIT 1)
    UNION ALL
    (SELECT r.day FROM observation_revision r
     WHERE r.metric_id = $1 AND r.entity_id = e.entity_id AND r.day BETWEEN $4 AND $5 AND r.origin_id = $3
       AND r.observed_at <= $6 AND r.superseded_at > $6
     ORDER BY r.day DESC LIMIT 1)
) newest

-- name: read_marks
-- The ledger's rows without their texts, for whole universes.
SELECT metric_id, entity_id, day, retry, healed_at IS NOT NULL, starts_with(reason, $5) FROM gap
WHERE day BETWEEN $1 AND $2 AND metric_id = ANY ($3::int2[]) AND ($4::int4[] IS NULL OR entity_id = ANY ($4))

-- name: read_marks_as_of
SELECT metric_id, entity_id, day, retry, healed_at IS NOT NULL, starts_with(reason, $5) FROM gap_as_of($6)
WHERE day BETWEEN $1 AND $2 AND metric_id = ANY ($3::int2[]) AND ($4::int4[] IS NULL OR entity_id = ANY ($4))

-- name: read_entries
SELECT g.metric_id, g.entity_id, g.day, g.reason, g.attempts, g.retry, g.first_seen_at, g.last_seen_at, g.healed_at,
       g.run_id, g.healed_run
FROM gap g
JOIN unnest($1::int2[], $2::int4[], $3::date[]) AS k (metric_id, entity_id, day)
  ON g.metric_id = k.metric_id AND g.entity_id = k.entity_id AND g.day = k.day

-- name: read_entries_as_of
-- Key by key: into two tables at once a join is not looked up but read whole, and OFFSET 0 keeps this from being one.
SELECT g.metric_id, g.entity_id, g.day, g.reason, g.attempts, g.retry, g.first_seen_at, g.last_seen_at, g.healed_at,
       g.run_id, g.healed_run
FROM unnest($1::int2[], $2::int4[], $3::date[]) AS k (metric_id, entity_id, day)
CROSS JOIN LATERAL (
    SELECT * FROM gap_as_of($4) WHERE metric_id = k.metric_id AND entity_id = k.entity_id AND day = k.day
    OFFSET 0
) g

-- name: read_nights
SELECT day, bool_or(state IN ('complete', 'gaps')) AS ended
FROM run WHERE kind = 'nightly' AND day BETWEEN $1 AND $2 GROUP BY day

-- name: read_nights_as_of
SELECT day, bool_or(state IN ('complete', 'gaps')) AS ended
FROM run_as_of($3) WHERE kind = 'nightly' AND day BETWEEN $1 AND $2 GROUP BY day

-- name: read_asked
-- One look into the index for each run and task, however many batches there are.
SELECT r.day, t.source, t.task
FROM run r CROSS JOIN unnest($3::text[], $4::text[]) AS t (source, task)
CROSS JOIN LATERAL (SELECT FROM batch b
                    WHERE b.run_id = r.run_id AND b.source = t.source AND b.task = t.task LIMIT 1) asked
WHERE r.kind = 'nightly' AND r.day BETWEEN $1 AND $2

-- name: read_asked_as_of
SELECT r.day, t.source, t.task
FROM run r CROSS JOIN unnest($3::text[], $4::text[]) AS t (source, task)
CROSS JOIN LATERAL (SELECT FROM batch b
                    WHERE b.run_id = r.run_id AND b.source = t.source AND b.task = t.task LIMIT 1) asked
WHERE r.kind = 'nightly' AND r.day BETWEEN $1 AND $2 AND r.started_at <= $5

-- name: read_runs
SELECT run_id, kind, day, state, code_version, method_version, started_at, finished_at, planned_requests,
       planned_points, spent, note
FROM run
WHERE ($1::text IS NULL OR kind = $1) AND ($2::date IS NULL OR day >= $2) AND ($3::date IS NULL OR day <= $3)
ORDER BY run_id DESC LIMIT $4 OFFSET $5

-- name: count_runs
SELECT count(*) FROM run
WHERE ($1::text IS NULL OR kind = $1) AND ($2::date IS NULL OR day >= $2) AND ($3::date IS NULL OR day <= $3)

-- name: read_runs_by_id
SELECT run_id, kind, day, state, code_version, method_version, started_at, finished_at, planned_requests,
       planned_points, spent, note
FROM run WHERE run_id = ANY ($1::int8[]) ORDER BY run_id

-- name: read_batch_counts
SELECT run_id, source, task, state, count(*) AS count, sum(requests)::int8 AS requests, sum(attempts)::int8 AS attempts
FROM batch WHERE run_id = ANY ($1::int8[]) GROUP BY run_id, source, task, state ORDER BY run_id, source, task, state

-- name: read_dead_batches
SELECT batch_id, source, task, (body ->> 'start')::date AS first_day, (body ->> 'end')::date AS last_day,
       jsonb_array_length(body -> 'entities') AS entities, attempts, reason, updated_at
FROM batch WHERE run_id = $1 AND state = 'dead' ORDER BY source, task, batch_id COLLATE "C" LIMIT $2

-- name: count_gaps
-- Gaps that a run gave a reason for, and how many of them are open still. A later run's reason replaces it in the
-- ledger, so what was replaced is read too.
SELECT said.metric_id, said.reason, count(*) AS count, count(*) FILTER (WHERE g.healed_at IS NULL) AS open
FROM (SELECT metric_id, entity_id, day, reason FROM gap WHERE run_id = $1
      UNION
      SELECT metric_id, entity_id, day, reason FROM gap_revision WHERE run_id = $1) said
JOIN gap g ON g.metric_id = said.metric_id AND g.entity_id = said.entity_id AND g.day = said.day
GROUP BY said.metric_id, said.reason ORDER BY count(*) DESC, said.metric_id, said.reason

-- name: count_healed
SELECT metric_id, count(*) AS count
FROM (SELECT metric_id, entity_id, day FROM gap WHERE healed_run = $1
      UNION
      SELECT metric_id, entity_id, day FROM gap_revision WHERE healed_run = $1) healed
GROUP BY metric_id ORDER BY metric_id

-- name: count_scores
SELECT count(*) FROM score WHERE method_version = $1 AND day = $2 AND run_id = $3

-- name: trace_value
-- Every version of one value, the first first; what stands has no end.
SELECT value, origin_id, observed_at, run_id, NULL::timestamptz AS superseded_at, NULL::int8 AS superseded_by_run
FROM observation WHERE metric_id = $1 AND entity_id = $2 AND day = $3
UNION ALL
SELECT value, origin_id, observed_at, run_id, superseded_at, superseded_by_run
FROM observation_revision WHERE metric_id = $1 AND entity_id = $2 AND day = $3
ORDER BY superseded_at NULLS LAST, observed_at

-- name: trace_batches
-- The run's batches that asked for this entity and day by one of these tasks; a batch that was split did not write.
SELECT batch_id, source, task, state, attempts, requests, reason, updated_at,
       (body ->> 'start')::date AS first_day, (body ->> 'end')::date AS last_day,
       jsonb_array_length(body -> 'entities') AS entities
FROM batch b
WHERE run_id = $1 AND state <> 'split' AND (body ->> 'start')::date <= $3 AND (body ->> 'end')::date >= $3
  AND EXISTS (SELECT FROM unnest($4::text[], $5::text[]) AS t (source, task)
              WHERE t.source = b.source AND t.task = b.task)
  AND EXISTS (SELECT FROM jsonb_array_elements(body -> 'entities') AS whom WHERE (whom ->> 0)::int4 = $2)
ORDER BY updated_at, batch_id COLLATE "C"

-- name: trace_score
-- Every version of one score with its parts; known_at: as of which moment what it was computed from was read.
SELECT v.*, (SELECT p.known_at FROM publication p
             WHERE p.method_version = v.method_version AND p.day = $2 AND p.published_at = v.published_at) AS known_at
FROM (
    SELECT s.method_version, s.score, s.lo, s.hi, s.percentile, s.coverage, s.flags, s.rank, s.run_id, s.published_at,
           NULL::timestamptz AS superseded_at, NULL::int8 AS superseded_by_run,
           coalesce((SELECT jsonb_agg(to_jsonb(c) - '{method_version,day,entity_id}'::text[] ORDER BY c.metric_id)
                     FROM score_component c
                     WHERE c.method_version = s.method_version AND c.day = s.day AND c.entity_id = s.entity_id), '[]')
               AS components
    FROM score s WHERE s.entity_id = $1 AND s.day = $2
    UNION ALL
    SELECT r.method_version, r.score, r.lo, r.hi, r.percentile, r.coverage, r.flags, r.rank, r.run_id, r.published_at,
           r.superseded_at, r.superseded_by_run, r.components
    FROM score_revision r WHERE r.entity_id = $1 AND r.day = $2
) v
ORDER BY v.method_version, v.superseded_at NULLS LAST, v.published_at

-- name: trace_inputs
-- Which values of an entity stood at a moment, by metric and by the run that wrote them.
SELECT metric_id, run_id, count(*) AS count, min(day) AS first_day, max(day) AS last_day, max(observed_at) AS observed_at
FROM (
    SELECT metric_id, day, run_id, observed_at FROM observation
    WHERE metric_id = ANY ($1::int2[]) AND entity_id = $2 AND day BETWEEN $3 AND $4 AND observed_at <= $5
    UNION ALL
    SELECT metric_id, day, run_id, observed_at FROM observation_revision
    WHERE metric_id = ANY ($1::int2[]) AND entity_id = $2 AND day BETWEEN $3 AND $4
      AND observed_at <= $5 AND superseded_at > $5
) stood
GROUP BY metric_id, run_id ORDER BY metric_id, run_id
