-- name: read_answer
SELECT etag, last_modified, headers, body FROM answer WHERE token = $1 AND address = $2

-- name: write_answer
INSERT INTO answer (token, address, etag, last_modified, headers, body, seen_at)
VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7)
ON CONFLICT (token, address) DO UPDATE
SET etag = excluded.etag, last_modified = excluded.last_modified, headers = excluded.headers, body = excluded.body,
    seen_at = greatest(answer.seen_at, excluded.seen_at)

-- name: touch_answer
-- Not every confirmation is worth a row's new version.
UPDATE answer SET seen_at = $3 WHERE token = $1 AND address = $2 AND seen_at < $3::timestamptz - interval '1 day'
