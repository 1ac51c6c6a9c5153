-- name: insert_entities
-- New slugs in slug order, so that the same watchlist gives the same ids in an empty database.
INSERT INTO entity (slug, name, category, first_tracked)
SELECT p.slug, p.name, p.category, $4
FROM unnest($1::text[], $2::text[], $3::text[]) AS p (slug, name, category)
WHERE NOT EXISTS (SELECT FROM entity e WHERE e.slug = p.slug)
ORDER BY p.slug COLLATE "C"
ON CONFLICT (slug) DO NOTHING

-- name: update_entities
UPDATE entity e SET name = p.name, category = p.category
FROM unnest($1::text[], $2::text[], $3::text[]) AS p (slug, name, category)
WHERE e.slug = p.slug AND (e.name, e.category) IS DISTINCT FROM (p.name, p.category)

-- name: read_entity_ids
SELECT slug, entity_id FROM entity WHERE slug = ANY($1::text[]) ORDER BY slug COLLATE "C"

-- name: lock_identities
-- What holds now for these (entity, platform) pairs, locked in key order.
SELECT i.entity_id, i.platform, i.upstream_id, i.name, i.valid_from
FROM identity i
JOIN unnest($1::int4[], $2::text[]) AS p (entity_id, platform) USING (entity_id, platform)
WHERE i.valid_to IS NULL
ORDER BY i.entity_id, i.platform
FOR UPDATE OF i

-- name: end_identities
-- A name that is followed by another ends on the day before it.
UPDATE identity i SET valid_to = $3::date - 1
FROM unnest($1::int4[], $2::text[]) AS p (entity_id, platform)
WHERE i.entity_id = p.entity_id AND i.platform = p.platform AND i.valid_to IS NULL

-- name: replace_identities
-- Of two names on one day the later reading stands: the first never held for a whole day.
UPDATE identity i SET upstream_id = p.upstream_id, name = p.name, run_id = $5
FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[]) AS p (entity_id, platform, upstream_id, name)
WHERE i.entity_id = p.entity_id AND i.platform = p.platform AND i.valid_to IS NULL

-- name: insert_identities
-- A name that follows another is known from when the other was known to end, whatever this process's clock says.
INSERT INTO identity (entity_id, platform, upstream_id, name, valid_from, run_id, recorded_at)
SELECT p.entity_id, p.platform, p.upstream_id, p.name, $5, $6,
       greatest(transaction_moment(), (SELECT max(o.recorded_at) FROM identity o
                                       WHERE o.entity_id = p.entity_id AND o.platform = p.platform))
FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[]) AS p (entity_id, platform, upstream_id, name)
ORDER BY p.entity_id, p.platform
ON CONFLICT DO NOTHING

-- name: read_identities
SELECT entity_id, platform, upstream_id, name FROM identity
WHERE platform = $1 AND valid_to IS NULL ORDER BY entity_id

-- name: read_identities_as_of
SELECT entity_id, platform, upstream_id, name FROM identity_as_of($2)
WHERE platform = $1 AND valid_to IS NULL ORDER BY entity_id

-- name: read_first_days
SELECT entity_id, min(day) AS first_day FROM observation
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) GROUP BY entity_id

-- name: read_first_days_as_of
-- A cell has a value from its first version on, whatever became of that.
SELECT entity_id, min(day) AS first_day
FROM (
    SELECT entity_id, day FROM observation
    WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND observed_at <= $3
    UNION ALL
    SELECT entity_id, day FROM observation_revision
    WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND observed_at <= $3
) written
GROUP BY entity_id

-- name: record_note
INSERT INTO metric_note (metric_id, first_day, last_day, note) VALUES ($1, $2, $3, $4)
ON CONFLICT (metric_id, first_day, note) DO UPDATE SET last_day = excluded.last_day
WHERE metric_note.last_day IS DISTINCT FROM excluded.last_day

-- name: record_reconciliation
INSERT INTO reconciliation (entity_id, week, history_total, snapshot_delta)
SELECT * FROM unnest($1::int4[], $2::date[], $3::float8[], $4::float8[]) AS p (entity_id, week, history_total, snapshot_delta)
ORDER BY 1, 2
ON CONFLICT (entity_id, week) DO UPDATE
SET history_total = excluded.history_total, snapshot_delta = excluded.snapshot_delta
WHERE (reconciliation.history_total, reconciliation.snapshot_delta)
      IS DISTINCT FROM (excluded.history_total, excluded.snapshot_delta)
