-- name: read_token_users
SELECT token, user_id, login FROM token_user WHERE token = ANY ($1::text[])

-- name: write_token_user
INSERT INTO token_user (token, user_id, login, read_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (token) DO UPDATE SET user_id = excluded.user_id, login = excluded.login, read_at = excluded.read_at
