CREATE TABLE token_user (
    token    text NOT NULL PRIMARY KEY,
    user_id  bigint NOT NULL,
    login    text NOT NULL,
    read_at  timestamptz NOT NULL
);
COMMENT ON TABLE token_user IS 'Whom GitHub last took the bearer of a token for: tokens of one user share its limits';
COMMENT ON COLUMN token_user.token IS 'The first hex digits of the token''s BLAKE2b digest, never the token';
