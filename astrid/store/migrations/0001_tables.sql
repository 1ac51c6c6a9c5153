-- Tables that are the same everywhere. The large ones (observation, observation_revision) follow in files of
-- their own, because plain PostgreSQL and TimescaleDB partition them differently.

CREATE TABLE entity (
    entity_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug          text NOT NULL UNIQUE,
    name          text NOT NULL,
    category      text NOT NULL,
    first_tracked date NOT NULL
);
COMMENT ON TABLE entity IS 'One tracked project';
COMMENT ON COLUMN entity.slug IS 'Lasting public name of the project in addresses';
COMMENT ON COLUMN entity.first_tracked IS 'UTC day on which the watchlist first held it';

CREATE TABLE identity (
    entity_id   integer NOT NULL REFERENCES entity,
    platform    text NOT NULL,
    upstream_id text NOT NULL,
    name        text NOT NULL,
    valid_from  date NOT NULL,
    valid_to    date,
    run_id      bigint NOT NULL,
    PRIMARY KEY (entity_id, platform, upstream_id, valid_from),
    CHECK (valid_to >= valid_from)
);
CREATE UNIQUE INDEX identity_current ON identity (entity_id, platform) WHERE valid_to IS NULL;
CREATE INDEX identity_upstream ON identity (platform, upstream_id);
COMMENT ON TABLE identity IS 'What upstreams call an entity: the upstream id is the identity, names are history';
COMMENT ON COLUMN identity.upstream_id IS 'The lasting id of the upstream (GitHub node id, package name)';
COMMENT ON COLUMN identity.valid_from IS 'First UTC day on which this name was read';
COMMENT ON COLUMN identity.valid_to IS 'Last UTC day of this name; NULL = it holds';

CREATE TABLE run (
    run_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind             text NOT NULL,
    day              date NOT NULL,
    state            text NOT NULL,
    code_version     text NOT NULL,
    method_version   text NOT NULL,
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz,
    planned_requests bigint NOT NULL DEFAULT 0,
    planned_points   bigint NOT NULL DEFAULT 0,
    spent            jsonb NOT NULL DEFAULT '{}',
    note             text NOT NULL DEFAULT ''
);
COMMENT ON TABLE run IS 'One run of the program; observations, scores and batches name the run that wrote them';
COMMENT ON COLUMN run.day IS 'The UTC day that the run is about';
COMMENT ON COLUMN run.planned_points IS 'Rate-limit points of all planned batches';
COMMENT ON COLUMN run.spent IS 'What was spent: bucket or source to a count of points or requests';

CREATE TABLE batch (
    run_id     bigint NOT NULL,
    batch_id   text NOT NULL,
    source     text NOT NULL,
    task       text NOT NULL,
    day        date NOT NULL,
    lane       text NOT NULL,
    body       jsonb NOT NULL,
    state      text NOT NULL CHECK (state IN ('planned', 'done', 'dead', 'split')),
    attempts   integer NOT NULL DEFAULT 0,
    requests   integer NOT NULL DEFAULT 0,
    reason     text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (run_id, batch_id)
);
CREATE INDEX batch_open ON batch (run_id, source, batch_id) WHERE state = 'planned';
COMMENT ON TABLE batch IS 'One unit of crawl work and how it ended';
COMMENT ON COLUMN batch.body IS 'The whole batch, enough to run it again';
COMMENT ON COLUMN batch.attempts IS 'How many times its end was committed or refused as already settled';
COMMENT ON COLUMN batch.requests IS 'HTTP requests: planned while planned, spent once done';

CREATE TABLE gap (
    metric_id     smallint NOT NULL,
    entity_id     integer NOT NULL REFERENCES entity,
    day           date NOT NULL,
    reason        text NOT NULL,
    attempts      integer NOT NULL DEFAULT 1,
    retry         boolean NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    healed_at     timestamptz,
    PRIMARY KEY (metric_id, entity_id, day)
);
CREATE INDEX gap_open ON gap (metric_id, day, entity_id) WHERE healed_at IS NULL;
CREATE INDEX gap_entity ON gap (entity_id, metric_id, day);
COMMENT ON TABLE gap IS 'The ledger: expected values that did not come; a missing day is a gap, never a zero';
COMMENT ON COLUMN gap.attempts IS 'How many batches reported it missing';
COMMENT ON COLUMN gap.retry IS 'Whether the upstream may still serve it';
COMMENT ON COLUMN gap.healed_at IS 'When the value came after all; NULL = it is missing';

CREATE TABLE reconciliation (
    entity_id      integer NOT NULL REFERENCES entity,
    week           date NOT NULL,
    history_total  double precision NOT NULL,
    snapshot_delta double precision NOT NULL,
    PRIMARY KEY (entity_id, week),
    CHECK (extract(isodow FROM week) = 7)
);
COMMENT ON TABLE reconciliation IS 'Two witnesses of one week of a stock, side by side';
COMMENT ON COLUMN reconciliation.week IS 'Sunday of the UTC week';
COMMENT ON COLUMN reconciliation.history_total IS 'Sum of the daily gains that the upstream''s history states, in stars';
COMMENT ON COLUMN reconciliation.snapshot_delta IS 'Difference of the snapshots at the ends of the week, in stars';

CREATE TABLE score (
    method_version  text NOT NULL,
    day             date NOT NULL,
    entity_id       integer NOT NULL REFERENCES entity,
    score           double precision NOT NULL,
    lo              double precision,
    hi              double precision,
    calibrated      boolean NOT NULL,
    percentile      double precision,
    growth_per_week double precision,
    breadth         double precision,
    coverage        double precision,
    flags           integer NOT NULL,
    rank            integer,
    run_id          bigint NOT NULL,
    published_at    timestamptz NOT NULL,
    PRIMARY KEY (method_version, day, entity_id)
);
CREATE INDEX score_rank ON score (method_version, day, rank) WHERE rank IS NOT NULL;
CREATE INDEX score_entity ON score (entity_id, method_version, day);
COMMENT ON TABLE score IS 'The published score of a day; never altered, only superseded (score_revision)';
COMMENT ON COLUMN score.score IS 'Momentum, 0..100; 50 = the median';
COMMENT ON COLUMN score.lo IS 'Lower end of the 80 % interval, 0..100';
COMMENT ON COLUMN score.hi IS 'Upper end of the 80 % interval, 0..100';
COMMENT ON COLUMN score.calibrated IS 'Whether the interval was calibrated on realised errors';
COMMENT ON COLUMN score.percentile IS 'Percentile of the score among all scored that day, 0..100';
COMMENT ON COLUMN score.growth_per_week IS 'Fraction per week; 0.05 = 5 %';
COMMENT ON COLUMN score.breadth IS 'Weighted share of sources that grow beyond noise, 0..1';
COMMENT ON COLUMN score.coverage IS 'Weight of the sources at hand over the weight of all, 0..1';
COMMENT ON COLUMN score.flags IS 'Bit mask, see docs/methodology.md';
COMMENT ON COLUMN score.rank IS '1 = highest of the day; NULL = not ranked';

CREATE TABLE score_component (
    method_version text NOT NULL,
    day            date NOT NULL,
    entity_id      integer NOT NULL,
    metric_id      smallint NOT NULL,
    level          double precision,
    growth         double precision,
    growth_fast    double precision,
    z              double precision,
    sustain        double precision,
    momentum       double precision,
    weight         double precision,
    contribution   double precision,
    flags          integer NOT NULL,
    PRIMARY KEY (method_version, day, entity_id, metric_id),
    FOREIGN KEY (method_version, day, entity_id) REFERENCES score ON DELETE CASCADE
);
COMMENT ON TABLE score_component IS 'The parts of a score, one per metric that entered it';
COMMENT ON COLUMN score_component.level IS 'Filtered level, natural logarithm';
COMMENT ON COLUMN score_component.growth IS 'Slow growth, logarithm per week';
COMMENT ON COLUMN score_component.growth_fast IS 'Fast growth, logarithm per week';
COMMENT ON COLUMN score_component.z IS 'Surprise of the last week, standard deviations';
COMMENT ON COLUMN score_component.sustain IS '1 = steady, 1/28 = a one-day spike';
COMMENT ON COLUMN score_component.momentum IS 'Percentile of the metric, 0..1';
COMMENT ON COLUMN score_component.weight IS 'Weight as used, after flags';
COMMENT ON COLUMN score_component.contribution IS 'Signed score points; 50 plus their sum is the score';

CREATE TABLE score_revision (
    revision_id       bigint GENERATED ALWAYS AS IDENTITY,
    method_version    text NOT NULL,
    day               date NOT NULL,
    entity_id         integer NOT NULL REFERENCES entity,
    score             double precision NOT NULL,
    lo                double precision,
    hi                double precision,
    calibrated        boolean NOT NULL,
    percentile        double precision,
    growth_per_week   double precision,
    breadth           double precision,
    coverage          double precision,
    flags             integer NOT NULL,
    rank              integer,
    run_id            bigint NOT NULL,
    published_at      timestamptz NOT NULL,
    components        jsonb NOT NULL,
    superseded_at     timestamptz NOT NULL,
    superseded_by_run bigint NOT NULL,
    PRIMARY KEY (method_version, day, entity_id, revision_id)
);
COMMENT ON TABLE score_revision IS 'Scores that were published once and superseded, with their parts';
COMMENT ON COLUMN score_revision.components IS 'The score_component rows of that time, by metric';
COMMENT ON COLUMN score_revision.superseded_at IS 'Until when this was the published score';

CREATE TABLE metric_note (
    metric_id smallint NOT NULL,
    first_day date NOT NULL,
    last_day  date,
    note      text NOT NULL,
    PRIMARY KEY (metric_id, first_day, note),
    CHECK (last_day >= first_day)
);
COMMENT ON TABLE metric_note IS 'What a reader must know about a stretch of a metric, for example that it is interpolated';
COMMENT ON COLUMN metric_note.last_day IS 'Last UTC day that the note is about; NULL = to this day';
