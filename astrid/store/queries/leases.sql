-- name: redate_leases
-- What was renewed in the future was renewed before the database's clock was set back: its holder has its time from now
-- on. One that lives renews it long before that is over; one that died would hold it until the old future comes.
UPDATE lease
SET expires_at = CASE WHEN expires_at = '-infinity' THEN expires_at
                      ELSE clock_timestamp() + (expires_at - renewed_at) END,
    renewed_at = clock_timestamp()
WHERE renewed_at > clock_timestamp()

-- name: lock_lease
-- The row is locked, so that of two takers the second sees what the first did.
SELECT holder, expires_at = '-infinity' AS gave_back, state,
       greatest(extract(epoch FROM clock_timestamp() - renewed_at)::float8, 0.0) AS age_s
FROM lease WHERE name = $1 FOR UPDATE

-- name: take_lease
-- clock_timestamp, not now(): the wait for the row's lock must not make the lease shorter than its holder believes.
-- A holder is name#life: another life of the same name takes its own lease up.
INSERT INTO lease (name, holder, expires_at, renewed_at)
VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second', clock_timestamp())
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, expires_at = excluded.expires_at, renewed_at = excluded.renewed_at
WHERE lease.expires_at <= clock_timestamp() OR split_part(lease.holder, '#', 1) = split_part(excluded.holder, '#', 1)
RETURNING name

-- name: renew_leases
-- One that has expired may go on as long as nobody took it.
UPDATE lease AS l
SET expires_at = clock_timestamp() + $3 * interval '1 second', renewed_at = clock_timestamp(), state = r.state::jsonb
FROM unnest($1::text[], $4::text[]) AS r (name, state)
WHERE l.name = r.name AND l.holder = $2
RETURNING l.name

-- name: give_lease_back
UPDATE lease SET expires_at = '-infinity', renewed_at = clock_timestamp(), state = $3::jsonb
WHERE name = $1 AND holder = $2

-- name: delete_lease
DELETE FROM lease WHERE name = $1 AND holder = $2

-- name: read_leases
SELECT name, holder, state FROM lease
WHERE starts_with(name, $1) AND expires_at > clock_timestamp() ORDER BY name COLLATE "C"

-- name: sweep_leases
-- What nobody has renewed for a week tells nothing any more: no window of an upstream is that long.
DELETE FROM lease WHERE renewed_at < clock_timestamp() - interval '7 days'

-- name: read_now
SELECT extract(epoch FROM clock_timestamp())::float8
