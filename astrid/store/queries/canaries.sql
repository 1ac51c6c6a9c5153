-- name: write_verdicts
INSERT INTO canary (source, name, day, state, value, low, high, reason, first_day, run_id, judged_at)
SELECT p.source, p.name, $3, p.state, p.value, p.low, p.high, p.reason, p.first_day, $1, $2
FROM unnest($4::text[], $5::text[], $6::text[], $7::float8[], $8::float8[], $9::float8[], $10::text[], $11::date[])
     AS p (source, name, state, value, low, high, reason, first_day)
ORDER BY p.source COLLATE "C", p.name COLLATE "C"
ON CONFLICT (source, name, day) DO UPDATE
SET state = excluded.state, value = excluded.value, low = excluded.low, high = excluded.high,
    reason = excluded.reason, first_day = excluded.first_day, run_id = excluded.run_id, judged_at = excluded.judged_at
WHERE canary.state <> 'accepted'

-- name: read_canaries
-- A violation lasts since the first violated night after the last sound one; nights that could not be judged neither
-- end it nor begin it.
SELECT c.source, c.name, c.day, c.state, c.value, c.low, c.high, c.reason, c.first_day, c.run_id, c.judged_at,
       CASE WHEN c.state = 'violated' THEN
           (SELECT min(v.day) FROM canary v
            WHERE v.source = c.source AND v.name = c.name AND v.state = 'violated' AND v.day <= c.day
              AND v.day > coalesce((SELECT max(o.day) FROM canary o
                                    WHERE o.source = c.source AND o.name = c.name AND o.state IN ('ok', 'accepted')
                                      AND o.day < c.day),
                                   '-infinity'))
       END AS since
FROM canary c
WHERE c.day = coalesce($1::date, (SELECT max(day) FROM canary))
ORDER BY c.source COLLATE "C", c.name COLLATE "C"

-- name: read_canaries_as_of
SELECT c.source, c.name, c.day, c.state, c.value, c.low, c.high, c.reason, c.first_day, c.run_id, c.judged_at,
       CASE WHEN c.state = 'violated' THEN
           (SELECT min(v.day) FROM canary_as_of($2) v
            WHERE v.source = c.source AND v.name = c.name AND v.state = 'violated' AND v.day <= c.day
              AND v.day > coalesce((SELECT max(o.day) FROM canary_as_of($2) o
                                    WHERE o.source = c.source AND o.name = c.name AND o.state IN ('ok', 'accepted')
                                      AND o.day < c.day),
                                   '-infinity'))
       END AS since
FROM canary_as_of($2) c
WHERE c.day = coalesce($1::date, (SELECT max(day) FROM canary_as_of($2)))
ORDER BY c.source COLLATE "C", c.name COLLATE "C"

-- name: read_last_states
SELECT DISTINCT ON (source, name) source, name, state FROM canary
WHERE day < $1 AND state IN ('ok', 'violated', 'accepted') ORDER BY source, name, day DESC

-- name: read_episodes
-- An episode: the nights from the first violated verdict after one that is not to the next sound one. A night that ran
-- more than once is judged once: the verdict is on all its runs.
WITH judged AS (
    SELECT name, day, first_day, state, run_id,
           count(*) FILTER (WHERE state <> 'violated') OVER (
               PARTITION BY name ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS part
    FROM canary WHERE source = $1 AND name = ANY($2::text[]) AND state IN ('ok', 'violated', 'accepted')
), episode AS (
    SELECT name, min(first_day) AS first_day, min(day) AS night, max(day) AS last_day, min(run_id) AS run_id,
           max(run_id) AS last_run, bool_or(state = 'accepted') AS accepted
    FROM judged WHERE state <> 'ok' GROUP BY name, part
)
SELECT e.first_day, e.last_day, e.accepted,
       coalesce((SELECT min(r.run_id) FROM run r WHERE r.day >= e.first_day AND r.run_id <= e.run_id), e.run_id)
           AS first_run,
       coalesce((SELECT min(r.run_id) FROM run r
                 WHERE r.kind = 'nightly' AND r.day = e.night AND r.run_id <= e.run_id), e.run_id) AS violated_run,
       coalesce((SELECT min(r.run_id) FROM run r
                 WHERE r.kind = 'nightly' AND r.day = s.day AND r.run_id BETWEEN e.last_run + 1 AND s.run_id),
                s.run_id) AS end_run
FROM episode e LEFT JOIN LATERAL (
    SELECT o.day, o.run_id FROM judged o
    WHERE o.name = e.name AND o.state = 'ok' AND o.day > e.last_day AND o.run_id > e.last_run
    ORDER BY o.run_id LIMIT 1
) s ON true
ORDER BY violated_run, e.first_day

-- name: read_episodes_as_of
WITH judged AS (
    SELECT name, day, first_day, state, run_id,
           count(*) FILTER (WHERE state <> 'violated') OVER (
               PARTITION BY name ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS part
    FROM canary_as_of($3) WHERE source = $1 AND name = ANY($2::text[]) AND state IN ('ok', 'violated', 'accepted')
), episode AS (
    SELECT name, min(first_day) AS first_day, min(day) AS night, max(day) AS last_day, min(run_id) AS run_id,
           max(run_id) AS last_run, bool_or(state = 'accepted') AS accepted
    FROM judged WHERE state <> 'ok' GROUP BY name, part
)
SELECT e.first_day, e.last_day, e.accepted,
       coalesce((SELECT min(r.run_id) FROM run r
                 WHERE r.started_at <= $3 AND r.day >= e.first_day AND r.run_id <= e.run_id), e.run_id) AS first_run,
       coalesce((SELECT min(r.run_id) FROM run r
                 WHERE r.started_at <= $3 AND r.kind = 'nightly' AND r.day = e.night AND r.run_id <= e.run_id),
                e.run_id) AS violated_run,
       coalesce((SELECT min(r.run_id) FROM run r
                 WHERE r.started_at <= $3 AND r.kind = 'nightly' AND r.day = s.day
                   AND r.run_id BETWEEN e.last_run + 1 AND s.run_id), s.run_id) AS end_run
FROM episode e LEFT JOIN LATERAL (
    SELECT o.day, o.run_id FROM judged o
    WHERE o.name = e.name AND o.state = 'ok' AND o.day > e.last_day AND o.run_id > e.last_run
    ORDER BY o.run_id LIMIT 1
) s ON true
ORDER BY violated_run, e.first_day

-- name: read_first_run
SELECT coalesce(min(run_id), $2) FROM run WHERE day >= $1 AND run_id <= $2

-- name: read_written
SELECT entity_id, day, value, run_id FROM observation
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4 AND origin_id <> ALL($5::int2[])

-- name: read_written_as_of
SELECT entity_id, day, value, run_id FROM observation
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4 AND origin_id <> ALL($5::int2[])
  AND observed_at <= $6
UNION ALL
SELECT entity_id, day, value, run_id FROM observation_revision
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4 AND origin_id <> ALL($5::int2[])
  AND observed_at <= $6 AND superseded_at > $6

-- name: read_superseded
SELECT entity_id, day, value, run_id, observed_at, superseded_at FROM observation_revision
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4 AND origin_id <> ALL($5::int2[])
  AND superseded_by_run >= $6

-- name: read_superseded_as_of
SELECT entity_id, day, value, run_id, observed_at, superseded_at FROM observation_revision
WHERE metric_id = $1 AND entity_id = ANY($2::int4[]) AND day BETWEEN $3 AND $4 AND origin_id <> ALL($5::int2[])
  AND superseded_by_run >= $6 AND superseded_at <= $7

-- name: read_asked
SELECT DISTINCT b.source, b.task, r.day FROM run r JOIN batch b USING (run_id)
WHERE r.kind = 'nightly' AND r.day BETWEEN $1 AND $2

-- name: read_anew
SELECT DISTINCT r.day, (entity ->> 0)::int4 AS entity_id
FROM run r JOIN batch b USING (run_id), jsonb_array_elements(b.body -> 'entities') AS entity
WHERE r.kind = 'nightly' AND r.day BETWEEN $2 AND $3 AND b.source = $1 AND b.state = 'done'
  AND (b.body ->> 'start')::date <= r.day - $4::int4
ORDER BY r.day DESC, entity_id

-- name: read_reconciliation
SELECT e.slug, e.name, r.week, r.history_total, r.snapshot_delta
FROM reconciliation r JOIN entity e USING (entity_id)
WHERE e.slug = $1 ORDER BY r.week

-- name: read_reconciliation_as_of
SELECT e.slug, e.name, r.week, r.history_total, r.snapshot_delta
FROM reconciliation_as_of($2) r JOIN entity_as_of($2) e USING (entity_id)
WHERE e.slug = $1 AND r.entity_id = (SELECT entity_id FROM entity WHERE slug = $1) ORDER BY r.week

-- name: read_weeks
SELECT e.slug, e.name, r.week, r.history_total, r.snapshot_delta
FROM reconciliation r JOIN entity e USING (entity_id)
WHERE r.week BETWEEN $1 AND $2
ORDER BY r.week, e.slug COLLATE "C"

-- name: read_weeks_as_of
SELECT e.slug, e.name, r.week, r.history_total, r.snapshot_delta
FROM reconciliation_as_of($3) r JOIN entity_as_of($3) e USING (entity_id)
WHERE r.week BETWEEN $1 AND $2
ORDER BY r.week, e.slug COLLATE "C"
