-- A query <name>_as_of answers what <name> answers, as of the moment that is its last parameter; see 0013_vintages.sql
-- for <table>_as_of(moment). A value holds from observed_at, a score from published_at, to before superseded_at.

-- name: read_projects
SELECT entity_id, slug, name, category, first_tracked FROM entity ORDER BY slug COLLATE "C"

-- name: read_projects_as_of
SELECT entity_id, slug, name, category, first_tracked FROM entity_as_of($1) ORDER BY slug COLLATE "C"

-- name: read_project
SELECT entity_id, slug, name, category, first_tracked FROM entity WHERE slug = $1

-- name: read_project_as_of
SELECT entity_id, slug, name, category, first_tracked FROM entity_as_of($2) WHERE slug = $1

-- name: read_project_identities
SELECT platform, upstream_id, name, valid_from, valid_to FROM identity
WHERE entity_id = $1 ORDER BY platform, valid_from, upstream_id

-- name: read_project_identities_as_of
SELECT platform, upstream_id, name, valid_from, valid_to FROM identity_as_of($2)
WHERE entity_id = $1 ORDER BY platform, valid_from, upstream_id

-- name: read_series
SELECT day, value, origin_id, observed_at FROM observation
WHERE metric_id = $2 AND entity_id = (SELECT entity_id FROM entity WHERE slug = $1) AND day BETWEEN $3 AND $4
ORDER BY day

-- name: read_series_as_of
SELECT day, value, origin_id, observed_at FROM observation
WHERE metric_id = $2 AND entity_id = (SELECT entity_id FROM entity WHERE slug = $1) AND day BETWEEN $3 AND $4
  AND observed_at <= $5
UNION ALL
SELECT day, value, origin_id, observed_at FROM observation_revision
WHERE metric_id = $2 AND entity_id = (SELECT entity_id FROM entity WHERE slug = $1) AND day BETWEEN $3 AND $4
  AND observed_at <= $5 AND superseded_at > $5
ORDER BY day

-- name: read_matrix
SELECT entity_id, day, value FROM observation
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4

-- name: read_matrix_as_of
SELECT entity_id, day, value FROM observation
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4 AND observed_at <= $5
UNION ALL
SELECT entity_id, day, value FROM observation_revision
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4
  AND observed_at <= $5 AND superseded_at > $5

-- name: read_open_gaps
SELECT entity_id, metric_id, day, reason, retry FROM gap
WHERE healed_at IS NULL AND day BETWEEN $1 AND $2
ORDER BY metric_id, entity_id, day

-- name: read_open_gaps_as_of
SELECT entity_id, metric_id, day, reason, retry FROM gap_as_of($3)
WHERE healed_at IS NULL AND day BETWEEN $1 AND $2
ORDER BY metric_id, entity_id, day

-- name: read_waiting_gaps
-- Asking for these now is useless: the upstream said so, or it was asked a moment ago.
SELECT metric_id, entity_id, day FROM gap
WHERE healed_at IS NULL AND day BETWEEN $1 AND $2 AND (NOT retry OR last_seen_at > $3 AND NOT starts_with(reason, $4))

-- name: read_last_tries
SELECT metric_id, entity_id, retry, max(day) FROM gap
WHERE healed_at IS NULL AND day BETWEEN $1 AND $2 AND NOT starts_with(reason, $3)
GROUP BY metric_id, entity_id, retry

-- name: read_feeds
-- A few metrics: of each the key is read from end to end, which is a part of the days' chunks, never all of them.
SELECT metric_id, origin_id, max(day) FROM observation
WHERE metric_id = ANY ($1::int2[]) AND day BETWEEN $2 AND $3 GROUP BY metric_id, origin_id

-- name: read_last_days
-- One look into the key for each metric and project, however many days there are.
SELECT m.metric_id, newest.origin_id, max(newest.day)
FROM unnest($1::int2[]) AS m (metric_id) CROSS JOIN entity e
CROSS JOIN LATERAL (
    SELECT o.day, o.origin_id FROM observation o
    WHERE o.metric_id = m.metric_id AND o.entity_id = e.entity_id AND o.day BETWEEN $2 AND $3
    ORDER BY o.day DESC LIMIT 1
) newest
GROUP BY m.metric_id, newest.origin_id

-- name: read_percentiles
SELECT entity_id, percentile / 100 FROM score
WHERE method_version = $1 AND day = (SELECT max(day) FROM score WHERE method_version = $1) AND percentile IS NOT NULL

-- name: read_percentiles_as_of
WITH scored AS (
    SELECT max(day) AS day
    FROM (SELECT DISTINCT ON (day) day, scores FROM publication
          WHERE method_version = $1 AND published_at <= $2 ORDER BY day, published_at DESC) p
    WHERE scores > 0
)
SELECT entity_id, percentile / 100 FROM score
WHERE method_version = $1 AND day = (SELECT day FROM scored) AND percentile IS NOT NULL AND published_at <= $2
UNION ALL
SELECT entity_id, percentile / 100 FROM score_revision
WHERE method_version = $1 AND day = (SELECT day FROM scored) AND percentile IS NOT NULL
  AND published_at <= $2 AND superseded_at > $2

-- name: has_scores
SELECT EXISTS (SELECT FROM score WHERE method_version = $1 AND day = $2)

-- name: has_scores_as_of
SELECT coalesce((SELECT scores > 0 FROM publication WHERE method_version = $1 AND day = $2 AND published_at <= $3
                 ORDER BY published_at DESC LIMIT 1), false)

-- name: read_gaps
SELECT metric_id, day, reason, attempts, retry, first_seen_at, last_seen_at, healed_at FROM gap
WHERE entity_id = (SELECT entity_id FROM entity WHERE slug = $1)
ORDER BY metric_id, day

-- name: read_gaps_as_of
SELECT metric_id, day, reason, attempts, retry, first_seen_at, last_seen_at, healed_at FROM gap_as_of($2)
WHERE entity_id = (SELECT entity_id FROM entity WHERE slug = $1)
ORDER BY metric_id, day

-- name: read_notes
SELECT metric_id, first_day, last_day, note FROM metric_note WHERE metric_id = $1 ORDER BY first_day, note

-- name: read_notes_as_of
SELECT metric_id, first_day, last_day, note FROM metric_note_as_of($2) WHERE metric_id = $1 ORDER BY first_day, note

-- name: latest_scored_day
SELECT max(day) FROM score WHERE method_version = $1

-- name: latest_scored_day_as_of
-- The last moment at which a day's scores changed says how many of them stood from then on.
SELECT max(day)
FROM (SELECT DISTINCT ON (day) day, scores FROM publication
      WHERE method_version = $1 AND published_at <= $2 ORDER BY day, published_at DESC) p
WHERE scores > 0

-- name: read_leaderboard
SELECT s.day, e.slug, e.name, e.category, s.rank, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week,
       s.breadth, s.coverage, s.flags, s.method_version, s.run_id, s.published_at,
       (SELECT jsonb_object_agg(c.metric_id, c.contribution) FROM score_component c
        WHERE c.method_version = s.method_version AND c.day = s.day AND c.entity_id = s.entity_id
          AND c.contribution IS NOT NULL) AS contributions
FROM score s JOIN entity e USING (entity_id)
WHERE s.method_version = $5 AND s.rank IS NOT NULL
  AND s.day = coalesce($1::date, (SELECT max(day) FROM score WHERE method_version = $5))
  AND ($2::text IS NULL OR e.category = $2)
ORDER BY s.rank, e.slug COLLATE "C" LIMIT $3 OFFSET $4

-- name: read_leaderboard_as_of
WITH scored AS (
    SELECT coalesce($1::date, max(day)) AS day
    FROM (SELECT DISTINCT ON (day) day, scores FROM publication
          WHERE method_version = $5 AND published_at <= $6 ORDER BY day, published_at DESC) p
    WHERE scores > 0
), published AS (
    SELECT s.day, s.entity_id, s.rank, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week, s.breadth,
           s.coverage, s.flags, s.method_version, s.run_id, s.published_at,
           (SELECT jsonb_object_agg(c.metric_id, c.contribution) FROM score_component c
            WHERE c.method_version = s.method_version AND c.day = s.day AND c.entity_id = s.entity_id
              AND c.contribution IS NOT NULL) AS contributions
    FROM score s
    WHERE s.method_version = $5 AND s.day = (SELECT day FROM scored) AND s.rank IS NOT NULL AND s.published_at <= $6
    UNION ALL
    SELECT r.day, r.entity_id, r.rank, r.score, r.lo, r.hi, r.calibrated, r.percentile, r.growth_per_week, r.breadth,
           r.coverage, r.flags, r.method_version, r.run_id, r.published_at,
           (SELECT jsonb_object_agg(c ->> 'metric_id', c -> 'contribution') FROM jsonb_array_elements(r.components) c
            WHERE c -> 'contribution' <> 'null')
    FROM score_revision r
    WHERE r.method_version = $5 AND r.day = (SELECT day FROM scored) AND r.rank IS NOT NULL
      AND r.published_at <= $6 AND r.superseded_at > $6
)
SELECT s.day, e.slug, e.name, e.category, s.rank, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week,
       s.breadth, s.coverage, s.flags, s.method_version, s.run_id, s.published_at, s.contributions
FROM published s JOIN entity_as_of($6) e USING (entity_id)
WHERE $2::text IS NULL OR e.category = $2
ORDER BY s.rank, e.slug COLLATE "C" LIMIT $3 OFFSET $4

-- name: read_score_history
SELECT s.day, e.slug, e.name, e.category, s.rank, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week,
       s.breadth, s.coverage, s.flags, s.method_version, s.run_id, s.published_at,
       (SELECT jsonb_object_agg(c.metric_id, c.contribution) FROM score_component c
        WHERE c.method_version = s.method_version AND c.day = s.day AND c.entity_id = s.entity_id
          AND c.contribution IS NOT NULL) AS contributions
FROM score s JOIN entity e USING (entity_id)
WHERE e.slug = $1 AND s.method_version = $3
ORDER BY s.day DESC LIMIT $2

-- name: read_score_history_as_of
WITH published AS (
    SELECT s.day, s.entity_id, s.rank, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week, s.breadth,
           s.coverage, s.flags, s.method_version, s.run_id, s.published_at,
           (SELECT jsonb_object_agg(c.metric_id, c.contribution) FROM score_component c
            WHERE c.method_version = s.method_version AND c.day = s.day AND c.entity_id = s.entity_id
              AND c.contribution IS NOT NULL) AS contributions
    FROM score s
    WHERE s.entity_id = (SELECT entity_id FROM entity WHERE slug = $1) AND s.method_version = $3
      AND s.published_at <= $4
    UNION ALL
    SELECT r.day, r.entity_id, r.rank, r.score, r.lo, r.hi, r.calibrated, r.percentile, r.growth_per_week, r.breadth,
           r.coverage, r.flags, r.method_version, r.run_id, r.published_at,
           (SELECT jsonb_object_agg(c ->> 'metric_id', c -> 'contribution') FROM jsonb_array_elements(r.components) c
            WHERE c -> 'contribution' <> 'null')
    FROM score_revision r
    WHERE r.entity_id = (SELECT entity_id FROM entity WHERE slug = $1) AND r.method_version = $3
      AND r.published_at <= $4 AND r.superseded_at > $4
)
SELECT s.day, e.slug, e.name, e.category, s.rank, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week,
       s.breadth, s.coverage, s.flags, s.method_version, s.run_id, s.published_at, s.contributions
FROM published s JOIN entity_as_of($4) e USING (entity_id)
WHERE e.slug = $1
ORDER BY s.day DESC LIMIT $2
