CREATE TABLE lease (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL,
    renewed_at timestamptz NOT NULL,
    state      jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE lease IS 'Who may do for a while what only one may do at a time; times are of the database''s clock';
COMMENT ON COLUMN lease.name IS 'night DAY, backfill DAY, budget UPSTREAM USER, or worker NAME';
COMMENT ON COLUMN lease.holder IS 'Lasting name and present life, name#life';
COMMENT ON COLUMN lease.expires_at IS 'From then on anybody may take it; -infinity = it was given back';
COMMENT ON COLUMN lease.state IS 'What the next holder must know, such as what was spent of a budget';

ALTER TABLE batch ADD COLUMN due_at timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE batch ADD COLUMN suspect_starts integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN batch.due_at IS 'By when it will be heard of, by the database''s clock; -infinity = it was never published';
COMMENT ON COLUMN batch.suspect_starts IS 'How often it was started alone, under the suspicion of ending its worker, and did not come to an end';
