-- TimescaleDB: hypertables with a chunk per 364 days (whole weeks). A chunk of 10 000 entities and six metrics
-- then holds about 22 million rows; `SELECT set_chunk_time_interval(...)` suits larger ones.

CREATE TABLE observation (
    metric_id   smallint NOT NULL,
    entity_id   integer NOT NULL,
    day         date NOT NULL,
    value       double precision NOT NULL,
    origin_id   smallint NOT NULL,
    observed_at timestamptz NOT NULL,
    run_id      bigint NOT NULL,
    PRIMARY KEY (metric_id, entity_id, day)
);

CREATE TABLE observation_revision (
    metric_id         smallint NOT NULL,
    entity_id         integer NOT NULL,
    day               date NOT NULL,
    value             double precision NOT NULL,
    origin_id         smallint NOT NULL,
    observed_at       timestamptz NOT NULL,
    run_id            bigint NOT NULL,
    superseded_at     timestamptz NOT NULL,
    superseded_by_run bigint NOT NULL,
    PRIMARY KEY (metric_id, entity_id, day, observed_at, superseded_at, value)
);

SELECT create_hypertable('observation', by_range('day', INTERVAL '364 days'), create_default_indexes => false);
SELECT create_hypertable('observation_revision', by_range('day', INTERVAL '364 days'), create_default_indexes => false);
