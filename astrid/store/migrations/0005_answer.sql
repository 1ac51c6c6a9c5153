CREATE TABLE answer (
    token text NOT NULL,
    address bytea NOT NULL,
    etag text,
    last_modified text,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (token, address)
);
CREATE INDEX answer_seen_at ON answer (seen_at);
COMMENT ON TABLE answer IS 'What upstreams said, for conditional requests; a cache: any row may be deleted at any time';
COMMENT ON COLUMN answer.token IS 'Name of the token that it was said to (a digest, never the token): marks hold for one token';
COMMENT ON COLUMN answer.address IS 'Digest of upstream, path, parameters and headers of the request';
COMMENT ON COLUMN answer.seen_at IS 'When it was last said, or confirmed by a 304 to within a day';
