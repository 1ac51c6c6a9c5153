-- name: read_projects
SELECT entity_id, slug, name, category, first_tracked FROM entity ORDER BY slug COLLATE "C"

-- name: read_project
SELECT entity_id, slug, name, category, first_tracked FROM entity WHERE slug = $1

-- name: read_project_identities
SELECT platform, upstream_id, name, valid_from, valid_to FROM identity
WHERE entity_id = $1 ORDER BY platform, valid_from, upstream_id

-- name: read_series
SELECT day, value, origin_id, observed_at FROM observation
WHERE metric_id = $2 AND entity_id = (SELECT entity_id FROM entity WHERE slug = $1) AND day BETWEEN $3 AND $4
ORDER BY day

-- name: read_matrix
SELECT entity_id, day, value FROM observation
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4

-- name: read_open_gaps
SELECT entity_id, metric_id, day, reason, retry FROM gap
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
SELECT metric_id, origin_id, max(day) FROM observation WHERE day BETWEEN $1 AND $2 GROUP BY metric_id, origin_id

-- name: read_percentiles
SELECT entity_id, percentile / 100 FROM score
WHERE method_version = $1 AND day = (SELECT max(day) FROM score WHERE method_version = $1) AND percentile IS NOT NULL

-- name: has_scores
SELECT EXISTS (SELECT FROM score WHERE method_version = $1 AND day = $2)

-- name: read_gaps
SELECT metric_id, day, reason, attempts, retry, first_seen_at, last_seen_at, healed_at FROM gap
WHERE entity_id = (SELECT entity_id FROM entity WHERE slug = $1)
ORDER BY metric_id, day

-- name: read_notes
SELECT metric_id, first_day, last_day, note FROM metric_note WHERE metric_id = $1 ORDER BY first_day, note

-- name: latest_scored_day
SELECT max(day) FROM score WHERE method_version = $1

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

-- name: read_score_history
SELECT s.day, e.slug, e.name, e.category, s.rank, s.score, s.lo, s.hi, s.calibrated, s.percentile, s.growth_per_week,
       s.breadth, s.coverage, s.flags, s.method_version, s.run_id, s.published_at,
       (SELECT jsonb_object_agg(c.metric_id, c.contribution) FROM score_component c
        WHERE c.method_version = s.method_version AND c.day = s.day AND c.entity_id = s.entity_id
          AND c.contribution IS NOT NULL) AS contributions
FROM score s JOIN entity e USING (entity_id)
WHERE e.slug = $1 AND s.method_version = $3
ORDER BY s.day DESC LIMIT $2
