-- name: read_slugs
SELECT entity_id, slug FROM entity ORDER BY slug COLLATE "C"

-- name: read_present
-- Which of the metrics $1 each table has any row of: one step into the key's index, where a query for the values of a
-- thousand entities would be planned over all partitions only to find nothing.
SELECT 'observation' AS name, m AS metric_id FROM unnest($1::int2[]) m, LATERAL (
    SELECT FROM observation WHERE metric_id = m ORDER BY metric_id, entity_id, day LIMIT 1) first
UNION ALL
SELECT 'observation_revision', m FROM unnest($1::int2[]) m, LATERAL (
    SELECT FROM observation_revision WHERE metric_id = m ORDER BY metric_id, entity_id, day LIMIT 1) first
UNION ALL
SELECT 'gap', m FROM unnest($1::int2[]) m, LATERAL (
    SELECT FROM gap WHERE metric_id = m ORDER BY metric_id, entity_id, day LIMIT 1) first

-- name: observation
SELECT entity_id, day, value, origin_id FROM observation
WHERE metric_id = $1 AND entity_id = ANY($2::int4[])

-- name: observation_revision
SELECT entity_id, day, value, origin_id FROM observation_revision
WHERE metric_id = $1 AND entity_id = ANY($2::int4[])

-- name: gap
-- The outcome alone: whether it is open, and why.
SELECT entity_id, day, healed_at IS NULL, decode(md5(reason), 'hex') FROM gap
WHERE metric_id = $1 AND entity_id = ANY($2::int4[])

-- name: reconciliation
SELECT entity_id, week, history_total, snapshot_delta FROM reconciliation WHERE entity_id = ANY($1::int4[])

-- name: score
SELECT decode(md5(method_version), 'hex'), entity_id, day, score, lo, hi, calibrated, percentile, growth_per_week,
       breadth, coverage, flags, coalesce(rank, 0)
FROM score WHERE entity_id = ANY($1::int4[])

-- name: score_component
SELECT decode(md5(method_version), 'hex'), entity_id, metric_id, day, level, growth, growth_fast, z, sustain, momentum,
       weight, contribution, flags
FROM score_component WHERE entity_id = ANY($1::int4[])

-- name: score_revision
SELECT decode(md5(method_version), 'hex'), entity_id, day, score, lo, hi, calibrated, percentile, growth_per_week,
       breadth, coverage, flags, coalesce(rank, 0), decode(md5(components::text), 'hex')
FROM score_revision WHERE entity_id = ANY($1::int4[])
