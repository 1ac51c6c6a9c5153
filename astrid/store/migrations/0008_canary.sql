CREATE TABLE canary (
    source    text NOT NULL,
    name      text NOT NULL,
    day       date NOT NULL,
    state     text NOT NULL CHECK (state IN ('ok', 'violated', 'not judged')),
    value     double precision,
    low       double precision,
    high      double precision,
    reason    text NOT NULL,
    first_day date NOT NULL,
    run_id    bigint NOT NULL REFERENCES run,
    judged_at timestamptz NOT NULL,
    PRIMARY KEY (source, name, day),
    CHECK (first_day <= day)
);
CREATE INDEX canary_day ON canary (day);
CREATE INDEX canary_violated ON canary (source, day) WHERE state = 'violated';
COMMENT ON TABLE canary IS 'Whether upstreams kept their contracts: one verdict per source, canary and night';
COMMENT ON COLUMN canary.day IS 'The night''s UTC day';
COMMENT ON COLUMN canary.value IS 'What was measured; sound from low to high; NULL = too little to judge, or no bound';
COMMENT ON COLUMN canary.first_day IS 'From here to day: what a violated source wrote for these days, up to run_id, enters no score';
COMMENT ON COLUMN canary.run_id IS 'The run that judged; judging a night again replaces its verdicts';

CREATE INDEX reconciliation_week ON reconciliation (week);
