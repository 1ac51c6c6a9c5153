-- name: create_given
-- The day's scores as they are given now, and which of them differ from what is published.
CREATE TEMP TABLE given (
    entity_id int4 PRIMARY KEY, score float8, lo float8, hi float8, calibrated bool, percentile float8,
    growth_per_week float8, breadth float8, coverage float8, flags int4, rank int4
) ON COMMIT DROP;
CREATE TEMP TABLE given_component (
    entity_id int4, metric_id int2, level float8, growth float8, growth_fast float8, z float8, sustain float8,
    momentum float8, weight float8, contribution float8, flags int4, PRIMARY KEY (entity_id, metric_id)
) ON COMMIT DROP;
CREATE TEMP TABLE given_change (entity_id int4 PRIMARY KEY, kind text NOT NULL) ON COMMIT DROP

-- name: analyze_given
ANALYZE given, given_component

-- name: lock_day
-- Two scorers of one day take turns; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('score ' || $1 || ' ' || $2::date, 0))

-- name: mark_changes
-- Compare as whole rows, parts included: IS DISTINCT FROM treats two unknowns as equal.
INSERT INTO given_change (entity_id, kind)
SELECT coalesce(g.entity_id, s.entity_id),
       CASE WHEN s.entity_id IS NULL THEN 'new' WHEN g.entity_id IS NULL THEN 'withdrawn' ELSE 'superseded' END
FROM given g
FULL JOIN (SELECT * FROM score WHERE method_version = $1 AND day = $2) s ON s.entity_id = g.entity_id
WHERE (g.entity_id, g.score, g.lo, g.hi, g.calibrated, g.percentile, g.growth_per_week, g.breadth, g.coverage, g.flags,
       nullif(g.rank, 0))
      IS DISTINCT FROM
      (s.entity_id, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week, s.breadth, s.coverage, s.flags,
       s.rank)
UNION
SELECT s.entity_id, 'superseded'
FROM given_component g
FULL JOIN (SELECT * FROM score_component WHERE method_version = $1 AND day = $2) c
       ON c.entity_id = g.entity_id AND c.metric_id = g.metric_id
JOIN score s ON s.method_version = $1 AND s.day = $2 AND s.entity_id = coalesce(g.entity_id, c.entity_id)
JOIN given still ON still.entity_id = s.entity_id
WHERE (g.level, g.growth, g.growth_fast, g.z, g.sustain, g.momentum, g.weight, g.contribution, g.flags, g.entity_id)
      IS DISTINCT FROM
      (c.level, c.growth, c.growth_fast, c.z, c.sustain, c.momentum, c.weight, c.contribution, c.flags, c.entity_id)

-- name: keep_superseded
INSERT INTO score_revision (method_version, day, entity_id, score, lo, hi, calibrated, percentile, growth_per_week,
                            breadth, coverage, flags, rank, run_id, published_at, components, superseded_at,
                            superseded_by_run)
SELECT s.method_version, s.day, s.entity_id, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week,
       s.breadth, s.coverage, s.flags, s.rank, s.run_id, s.published_at,
       coalesce((SELECT jsonb_agg(to_jsonb(c) - '{method_version,day,entity_id}'::text[] ORDER BY c.metric_id)
                 FROM score_component c
                 WHERE c.method_version = s.method_version AND c.day = s.day AND c.entity_id = s.entity_id), '[]'),
       $3, $4
FROM score s JOIN given_change x USING (entity_id)
WHERE s.method_version = $1 AND s.day = $2
ORDER BY s.entity_id

-- name: drop_superseded
-- Their parts go with them.
DELETE FROM score s USING given_change x
WHERE s.method_version = $1 AND s.day = $2 AND s.entity_id = x.entity_id

-- name: publish_scores
INSERT INTO score (method_version, day, entity_id, score, lo, hi, calibrated, percentile, growth_per_week, breadth,
                   coverage, flags, rank, run_id, published_at)
SELECT $1, $2, g.entity_id, g.score, g.lo, g.hi, g.calibrated, g.percentile, g.growth_per_week, g.breadth,
       g.coverage, g.flags, nullif(g.rank, 0), $4, $3
FROM given g JOIN given_change x USING (entity_id)
ORDER BY g.entity_id

-- name: publish_components
INSERT INTO score_component (method_version, day, entity_id, metric_id, level, growth, growth_fast, z, sustain,
                             momentum, weight, contribution, flags)
SELECT $1, $2, g.entity_id, g.metric_id, g.level, g.growth, g.growth_fast, g.z, g.sustain, g.momentum, g.weight,
       g.contribution, g.flags
FROM given_component g JOIN given_change x USING (entity_id)
ORDER BY g.entity_id, g.metric_id

-- name: count_changes
SELECT kind, count(*) AS count FROM given_change GROUP BY kind

-- name: read_last_publication
SELECT max(published_at) FROM publication WHERE method_version = $1 AND day = $2

-- name: record_publication
-- Twice within one moment: what stands after the second is what was published.
INSERT INTO publication (method_version, day, published_at, run_id, known_at, scores)
SELECT $1, $2, $3, $4, $5, count(*) FROM score WHERE method_version = $1 AND day = $2
ON CONFLICT (method_version, day, published_at) DO UPDATE
SET run_id = excluded.run_id, known_at = excluded.known_at, scores = excluded.scores
