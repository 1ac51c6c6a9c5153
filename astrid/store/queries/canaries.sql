-- name: write_verdicts
INSERT INTO canary (source, name, day, state, value, low, high, reason, first_day, run_id, judged_at)
SELECT p.source, p.name, $3, p.state, p.value, p.low, p.high, p.reason, p.first_day, $1, $2
FROM unnest($4::text[], $5::text[], $6::text[], $7::float8[], $8::float8[], $9::float8[], $10::text[], $11::date[])
     AS p (source, name, state, value, low, high, reason, first_day)
ORDER BY p.source COLLATE "C", p.name COLLATE "C"
ON CONFLICT (source, name, day) DO UPDATE
SET state = excluded.state, value = excluded.value, low = excluded.low, high = excluded.high,
    reason = excluded.reason, first_day = excluded.first_day, run_id = excluded.run_id, judged_at = excluded.judged_at

-- name: read_canaries
-- A violation lasts since the first violated night after the last sound one; nights that could not be judged neither
-- end it nor begin it.
SELECT c.source, c.name, c.day, c.state, c.value, c.low, c.high, c.reason, c.first_day, c.run_id, c.judged_at,
       CASE WHEN c.state = 'violated' THEN
           (SELECT min(v.day) FROM canary v
            WHERE v.source = c.source AND v.name = c.name AND v.state = 'violated' AND v.day <= c.day
              AND v.day > coalesce((SELECT max(o.day) FROM canary o
                                    WHERE o.source = c.source AND o.name = c.name AND o.state = 'ok' AND o.day < c.day),
                                   '-infinity'))
       END AS since
FROM canary c
WHERE c.day = coalesce($1::date, (SELECT max(day) FROM canary))
ORDER BY c.source COLLATE "C", c.name COLLATE "C"

-- name: read_last_states
SELECT DISTINCT ON (source, name) source, name, state FROM canary
WHERE day < $1 AND day >= $2 ORDER BY source, name, day DESC

-- name: read_violations
SELECT DISTINCT first_day, day, run_id FROM canary
WHERE source = $1 AND state = 'violated' AND day >= $2 AND first_day <= $3

-- name: read_reconciliation
SELECT e.slug, e.name, r.week, r.history_total, r.snapshot_delta
FROM reconciliation r JOIN entity e USING (entity_id)
WHERE e.slug = $1 ORDER BY r.week

-- name: read_weeks
SELECT e.slug, e.name, r.week, r.history_total, r.snapshot_delta
FROM reconciliation r JOIN entity e USING (entity_id)
WHERE r.week BETWEEN $1 AND $2
ORDER BY r.week, e.slug COLLATE "C"
