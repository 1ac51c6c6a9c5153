-- Community licence: revisions are only ever added, so those of days more than two years back are kept compressed.
-- Values that stand are not: a backfill may revise any year.

ALTER TABLE observation_revision SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = 'metric_id, entity_id',
    timescaledb.compress_orderby = 'day, observed_at, superseded_at, value'
);
SELECT add_compression_policy('observation_revision', compress_after => INTERVAL '728 days');
