-- Generated from the migrations; a test keeps it equal to them. Native flavour.

CREATE TABLE answer (
    token text NOT NULL,
    address bytea NOT NULL,
    etag text,
    last_modified text,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    seen_at timestamp with time zone NOT NULL
);
CREATE TABLE batch (
    run_id bigint NOT NULL,
    batch_id text NOT NULL,
    source text NOT NULL,
    task text NOT NULL,
    day date NOT NULL,
    lane text NOT NULL,
    body jsonb NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    requests integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT ''::text,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE canary (
    source text NOT NULL,
    name text NOT NULL,
    day date NOT NULL,
    state text NOT NULL,
    value double precision,
    low double precision,
    high double precision,
    reason text NOT NULL,
    first_day date NOT NULL,
    run_id bigint NOT NULL,
    judged_at timestamp with time zone NOT NULL
);
CREATE TABLE entity (
    entity_id integer NOT NULL GENERATED ALWAYS AS IDENTITY,
    slug text NOT NULL,
    name text NOT NULL,
    category text NOT NULL,
    first_tracked date NOT NULL
);
CREATE TABLE flavour (
    one boolean NOT NULL DEFAULT true,
    name text NOT NULL
);
CREATE TABLE gap (
    metric_id smallint NOT NULL,
    entity_id integer NOT NULL,
    day date NOT NULL,
    reason text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    retry boolean NOT NULL,
    first_seen_at timestamp with time zone NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    healed_at timestamp with time zone
);
CREATE TABLE identity (
    entity_id integer NOT NULL,
    platform text NOT NULL,
    upstream_id text NOT NULL,
    name text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    run_id bigint NOT NULL
);
CREATE TABLE metric_note (
    metric_id smallint NOT NULL,
    first_day date NOT NULL,
    last_day date,
    note text NOT NULL
);
CREATE TABLE migration (
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone NOT NULL DEFAULT now()
);
CREATE TABLE observation (
    metric_id smallint NOT NULL,
    entity_id integer NOT NULL,
    day date NOT NULL,
    value double precision NOT NULL,
    origin_id smallint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    run_id bigint NOT NULL
) PARTITION BY RANGE (day);
CREATE TABLE observation_revision (
    metric_id smallint NOT NULL,
    entity_id integer NOT NULL,
    day date NOT NULL,
    value double precision NOT NULL,
    origin_id smallint NOT NULL,
    observed_at timestamp with time zone NOT NULL,
    run_id bigint NOT NULL,
    superseded_at timestamp with time zone NOT NULL,
    superseded_by_run bigint NOT NULL
) PARTITION BY RANGE (day);
CREATE TABLE reconciliation (
    entity_id integer NOT NULL,
    week date NOT NULL,
    history_total double precision NOT NULL,
    snapshot_delta double precision NOT NULL
);
CREATE TABLE run (
    run_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    day date NOT NULL,
    state text NOT NULL,
    code_version text NOT NULL,
    method_version text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    planned_requests bigint NOT NULL DEFAULT 0,
    planned_points bigint NOT NULL DEFAULT 0,
    spent jsonb NOT NULL DEFAULT '{}'::jsonb,
    note text NOT NULL DEFAULT ''::text
);
CREATE TABLE run_cost (
    run_id bigint NOT NULL,
    upstream text NOT NULL,
    bucket text NOT NULL,
    planned_requests bigint NOT NULL DEFAULT 0,
    planned_points bigint NOT NULL DEFAULT 0,
    planned_hours double precision NOT NULL DEFAULT 0,
    spent_requests bigint,
    spent_points bigint
);
CREATE TABLE score (
    method_version text NOT NULL,
    day date NOT NULL,
    entity_id integer NOT NULL,
    score double precision NOT NULL,
    lo double precision,
    hi double precision,
    calibrated boolean NOT NULL,
    percentile double precision,
    growth_per_week double precision,
    breadth double precision,
    coverage double precision,
    flags integer NOT NULL,
    rank integer,
    run_id bigint NOT NULL,
    published_at timestamp with time zone NOT NULL
);
CREATE TABLE score_component (
    method_version text NOT NULL,
    day date NOT NULL,
    entity_id integer NOT NULL,
    metric_id smallint NOT NULL,
    level double precision,
    growth double precision,
    growth_fast double precision,
    z double precision,
    sustain double precision,
    momentum double precision,
    weight double precision,
    contribution double precision,
    flags integer NOT NULL
);
CREATE TABLE score_revision (
    revision_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    method_version text NOT NULL,
    day date NOT NULL,
    entity_id integer NOT NULL,
    score double precision NOT NULL,
    lo double precision,
    hi double precision,
    calibrated boolean NOT NULL,
    percentile double precision,
    growth_per_week double precision,
    breadth double precision,
    coverage double precision,
    flags integer NOT NULL,
    rank integer,
    run_id bigint NOT NULL,
    published_at timestamp with time zone NOT NULL,
    components jsonb NOT NULL,
    superseded_at timestamp with time zone NOT NULL,
    superseded_by_run bigint NOT NULL
);
CREATE TABLE token_user (
    token text NOT NULL,
    user_id bigint NOT NULL,
    login text NOT NULL,
    read_at timestamp with time zone NOT NULL
);
CREATE TABLE observation_2008 PARTITION OF observation FOR VALUES FROM ('2008-01-01') TO ('2009-01-01');
CREATE TABLE observation_2009 PARTITION OF observation FOR VALUES FROM ('2009-01-01') TO ('2010-01-01');
CREATE TABLE observation_2010 PARTITION OF observation FOR VALUES FROM ('2010-01-01') TO ('2011-01-01');
CREATE TABLE observation_2011 PARTITION OF observation FOR VALUES FROM ('2011-01-01') TO ('2012-01-01');
CREATE TABLE observation_2012 PARTITION OF observation FOR VALUES FROM ('2012-01-01') TO ('2013-01-01');
CREATE TABLE observation_2013 PARTITION OF observation FOR VALUES FROM ('2013-01-01') TO ('2014-01-01');
CREATE TABLE observation_2014 PARTITION OF observation FOR VALUES FROM ('2014-01-01') TO ('2015-01-01');
CREATE TABLE observation_2015 PARTITION OF observation FOR VALUES FROM ('2015-01-01') TO ('2016-01-01');
CREATE TABLE observation_2016 PARTITION OF observation FOR VALUES FROM ('2016-01-01') TO ('2017-01-01');
CREATE TABLE observation_2017 PARTITION OF observation FOR VALUES FROM ('2017-01-01') TO ('2018-01-01');
CREATE TABLE observation_2018 PARTITION OF observation FOR VALUES FROM ('2018-01-01') TO ('2019-01-01');
CREATE TABLE observation_2019 PARTITION OF observation FOR VALUES FROM ('2019-01-01') TO ('2020-01-01');
CREATE TABLE observation_2020 PARTITION OF observation FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE observation_2021 PARTITION OF observation FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE observation_2022 PARTITION OF observation FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
CREATE TABLE observation_2023 PARTITION OF observation FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE observation_2024 PARTITION OF observation FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE observation_2025 PARTITION OF observation FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE observation_2026 PARTITION OF observation FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE observation_2027 PARTITION OF observation FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
CREATE TABLE observation_2028 PARTITION OF observation FOR VALUES FROM ('2028-01-01') TO ('2029-01-01');
CREATE TABLE observation_2029 PARTITION OF observation FOR VALUES FROM ('2029-01-01') TO ('2030-01-01');
CREATE TABLE observation_2030 PARTITION OF observation FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
CREATE TABLE observation_2031 PARTITION OF observation FOR VALUES FROM ('2031-01-01') TO ('2032-01-01');
CREATE TABLE observation_2032 PARTITION OF observation FOR VALUES FROM ('2032-01-01') TO ('2033-01-01');
CREATE TABLE observation_2033 PARTITION OF observation FOR VALUES FROM ('2033-01-01') TO ('2034-01-01');
CREATE TABLE observation_2034 PARTITION OF observation FOR VALUES FROM ('2034-01-01') TO ('2035-01-01');
CREATE TABLE observation_2035 PARTITION OF observation FOR VALUES FROM ('2035-01-01') TO ('2036-01-01');
CREATE TABLE observation_2036 PARTITION OF observation FOR VALUES FROM ('2036-01-01') TO ('2037-01-01');
CREATE TABLE observation_2037 PARTITION OF observation FOR VALUES FROM ('2037-01-01') TO ('2038-01-01');
CREATE TABLE observation_2038 PARTITION OF observation FOR VALUES FROM ('2038-01-01') TO ('2039-01-01');
CREATE TABLE observation_2039 PARTITION OF observation FOR VALUES FROM ('2039-01-01') TO ('2040-01-01');
CREATE TABLE observation_2040 PARTITION OF observation FOR VALUES FROM ('2040-01-01') TO ('2041-01-01');
CREATE TABLE observation_default PARTITION OF observation DEFAULT;
CREATE TABLE observation_revision_2008 PARTITION OF observation_revision FOR VALUES FROM ('2008-01-01') TO ('2009-01-01');
CREATE TABLE observation_revision_2009 PARTITION OF observation_revision FOR VALUES FROM ('2009-01-01') TO ('2010-01-01');
CREATE TABLE observation_revision_2010 PARTITION OF observation_revision FOR VALUES FROM ('2010-01-01') TO ('2011-01-01');
CREATE TABLE observation_revision_2011 PARTITION OF observation_revision FOR VALUES FROM ('2011-01-01') TO ('2012-01-01');
CREATE TABLE observation_revision_2012 PARTITION OF observation_revision FOR VALUES FROM ('2012-01-01') TO ('2013-01-01');
CREATE TABLE observation_revision_2013 PARTITION OF observation_revision FOR VALUES FROM ('2013-01-01') TO ('2014-01-01');
CREATE TABLE observation_revision_2014 PARTITION OF observation_revision FOR VALUES FROM ('2014-01-01') TO ('2015-01-01');
CREATE TABLE observation_revision_2015 PARTITION OF observation_revision FOR VALUES FROM ('2015-01-01') TO ('2016-01-01');
CREATE TABLE observation_revision_2016 PARTITION OF observation_revision FOR VALUES FROM ('2016-01-01') TO ('2017-01-01');
CREATE TABLE observation_revision_2017 PARTITION OF observation_revision FOR VALUES FROM ('2017-01-01') TO ('2018-01-01');
CREATE TABLE observation_revision_2018 PARTITION OF observation_revision FOR VALUES FROM ('2018-01-01') TO ('2019-01-01');
CREATE TABLE observation_revision_2019 PARTITION OF observation_revision FOR VALUES FROM ('2019-01-01') TO ('2020-01-01');
CREATE TABLE observation_revision_2020 PARTITION OF observation_revision FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE observation_revision_2021 PARTITION OF observation_revision FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE observation_revision_2022 PARTITION OF observation_revision FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
CREATE TABLE observation_revision_2023 PARTITION OF observation_revision FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE observation_revision_2024 PARTITION OF observation_revision FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE observation_revision_2025 PARTITION OF observation_revision FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE observation_revision_2026 PARTITION OF observation_revision FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE observation_revision_2027 PARTITION OF observation_revision FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
CREATE TABLE observation_revision_2028 PARTITION OF observation_revision FOR VALUES FROM ('2028-01-01') TO ('2029-01-01');
CREATE TABLE observation_revision_2029 PARTITION OF observation_revision FOR VALUES FROM ('2029-01-01') TO ('2030-01-01');
CREATE TABLE observation_revision_2030 PARTITION OF observation_revision FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
CREATE TABLE observation_revision_2031 PARTITION OF observation_revision FOR VALUES FROM ('2031-01-01') TO ('2032-01-01');
CREATE TABLE observation_revision_2032 PARTITION OF observation_revision FOR VALUES FROM ('2032-01-01') TO ('2033-01-01');
CREATE TABLE observation_revision_2033 PARTITION OF observation_revision FOR VALUES FROM ('2033-01-01') TO ('2034-01-01');
CREATE TABLE observation_revision_2034 PARTITION OF observation_revision FOR VALUES FROM ('2034-01-01') TO ('2035-01-01');
CREATE TABLE observation_revision_2035 PARTITION OF observation_revision FOR VALUES FROM ('2035-01-01') TO ('2036-01-01');
CREATE TABLE observation_revision_2036 PARTITION OF observation_revision FOR VALUES FROM ('2036-01-01') TO ('2037-01-01');
CREATE TABLE observation_revision_2037 PARTITION OF observation_revision FOR VALUES FROM ('2037-01-01') TO ('2038-01-01');
CREATE TABLE observation_revision_2038 PARTITION OF observation_revision FOR VALUES FROM ('2038-01-01') TO ('2039-01-01');
CREATE TABLE observation_revision_2039 PARTITION OF observation_revision FOR VALUES FROM ('2039-01-01') TO ('2040-01-01');
CREATE TABLE observation_revision_2040 PARTITION OF observation_revision FOR VALUES FROM ('2040-01-01') TO ('2041-01-01');
CREATE TABLE observation_revision_default PARTITION OF observation_revision DEFAULT;
ALTER TABLE answer ADD CONSTRAINT answer_pkey PRIMARY KEY (token, address);
ALTER TABLE batch ADD CONSTRAINT batch_pkey PRIMARY KEY (run_id, batch_id);
ALTER TABLE batch ADD CONSTRAINT batch_state_check CHECK ((state = ANY (ARRAY['planned'::text, 'done'::text, 'dead'::text, 'split'::text])));
ALTER TABLE canary ADD CONSTRAINT canary_check CHECK ((first_day <= day));
ALTER TABLE canary ADD CONSTRAINT canary_pkey PRIMARY KEY (source, name, day);
ALTER TABLE canary ADD CONSTRAINT canary_state_check CHECK ((state = ANY (ARRAY['ok'::text, 'violated'::text, 'not judged'::text, 'not asked'::text, 'accepted'::text])));
ALTER TABLE entity ADD CONSTRAINT entity_pkey PRIMARY KEY (entity_id);
ALTER TABLE entity ADD CONSTRAINT entity_slug_key UNIQUE (slug);
ALTER TABLE flavour ADD CONSTRAINT flavour_name_check CHECK ((name = ANY (ARRAY['native'::text, 'timescale'::text])));
ALTER TABLE flavour ADD CONSTRAINT flavour_one_check CHECK (one);
ALTER TABLE flavour ADD CONSTRAINT flavour_pkey PRIMARY KEY (one);
ALTER TABLE gap ADD CONSTRAINT gap_pkey PRIMARY KEY (metric_id, entity_id, day);
ALTER TABLE identity ADD CONSTRAINT identity_check CHECK ((valid_to >= valid_from));
ALTER TABLE identity ADD CONSTRAINT identity_pkey PRIMARY KEY (entity_id, platform, upstream_id, valid_from);
ALTER TABLE metric_note ADD CONSTRAINT metric_note_check CHECK ((last_day >= first_day));
ALTER TABLE metric_note ADD CONSTRAINT metric_note_pkey PRIMARY KEY (metric_id, first_day, note);
ALTER TABLE migration ADD CONSTRAINT migration_pkey PRIMARY KEY (name);
ALTER TABLE observation ADD CONSTRAINT observation_pkey PRIMARY KEY (metric_id, entity_id, day);
ALTER TABLE observation_revision ADD CONSTRAINT observation_revision_pkey PRIMARY KEY (metric_id, entity_id, day, observed_at, superseded_at, value);
ALTER TABLE reconciliation ADD CONSTRAINT reconciliation_pkey PRIMARY KEY (entity_id, week);
ALTER TABLE reconciliation ADD CONSTRAINT reconciliation_week_check CHECK ((EXTRACT(isodow FROM week) = (7)::numeric));
ALTER TABLE run ADD CONSTRAINT run_pkey PRIMARY KEY (run_id);
ALTER TABLE run_cost ADD CONSTRAINT run_cost_pkey PRIMARY KEY (run_id, upstream, bucket);
ALTER TABLE score ADD CONSTRAINT score_pkey PRIMARY KEY (method_version, day, entity_id);
ALTER TABLE score_component ADD CONSTRAINT score_component_pkey PRIMARY KEY (method_version, day, entity_id, metric_id);
ALTER TABLE score_revision ADD CONSTRAINT score_revision_pkey PRIMARY KEY (method_version, day, entity_id, revision_id);
ALTER TABLE token_user ADD CONSTRAINT token_user_pkey PRIMARY KEY (token);
ALTER TABLE canary ADD CONSTRAINT canary_run_id_fkey FOREIGN KEY (run_id) REFERENCES run(run_id);
ALTER TABLE gap ADD CONSTRAINT gap_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE identity ADD CONSTRAINT identity_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE reconciliation ADD CONSTRAINT reconciliation_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE run_cost ADD CONSTRAINT run_cost_run_id_fkey FOREIGN KEY (run_id) REFERENCES run(run_id);
ALTER TABLE score ADD CONSTRAINT score_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE score_component ADD CONSTRAINT score_component_method_version_day_entity_id_fkey FOREIGN KEY (method_version, day, entity_id) REFERENCES score(method_version, day, entity_id) ON DELETE CASCADE;
ALTER TABLE score_revision ADD CONSTRAINT score_revision_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
CREATE INDEX answer_seen_at ON answer USING btree (seen_at);
CREATE INDEX batch_open ON batch USING btree (run_id, source, batch_id) WHERE (state = 'planned'::text);
CREATE INDEX canary_day ON canary USING btree (day);
CREATE INDEX canary_violated ON canary USING btree (source, day) WHERE (state = 'violated'::text);
CREATE INDEX gap_entity ON gap USING btree (entity_id, metric_id, day);
CREATE INDEX gap_open ON gap USING btree (metric_id, day, entity_id) WHERE (healed_at IS NULL);
CREATE UNIQUE INDEX identity_current ON identity USING btree (entity_id, platform) WHERE (valid_to IS NULL);
CREATE INDEX identity_upstream ON identity USING btree (platform, upstream_id);
CREATE INDEX reconciliation_week ON reconciliation USING btree (week);
CREATE INDEX score_entity ON score USING btree (entity_id, method_version, day);
CREATE INDEX score_rank ON score USING btree (method_version, day, rank) WHERE (rank IS NOT NULL);
COMMENT ON TABLE answer IS 'What upstreams said, for conditional requests; a cache: any row may be deleted at any time';
COMMENT ON COLUMN answer.token IS 'Name of the token that it was said to (a digest, never the token): marks hold for one token';
COMMENT ON COLUMN answer.address IS 'Digest of upstream, path, parameters and headers of the request';
COMMENT ON COLUMN answer.seen_at IS 'When it was last said, or confirmed by a 304 to within a day';
COMMENT ON TABLE batch IS 'One unit of crawl work and how it ended';
COMMENT ON COLUMN batch.body IS 'The whole batch, enough to run it again';
COMMENT ON COLUMN batch.attempts IS 'How many times its end was committed or refused as already settled';
COMMENT ON COLUMN batch.requests IS 'HTTP requests: planned while planned, spent once done';
COMMENT ON TABLE canary IS 'Whether upstreams kept their contracts: one verdict per source, canary and night';
COMMENT ON COLUMN canary.day IS 'The night''s UTC day';
COMMENT ON COLUMN canary.state IS 'accepted: a violation that an operator takes for the new way, see docs/adr/0017-canaries.md';
COMMENT ON COLUMN canary.value IS 'What was measured; sound from low to high; NULL = too little to judge, or no bound';
COMMENT ON COLUMN canary.first_day IS 'From here to day is what was measured; what runs of these nights wrote is doubted with it';
COMMENT ON COLUMN canary.run_id IS 'The run that judged; judging a night again replaces its verdicts, but for an accepted one';
COMMENT ON TABLE entity IS 'One tracked project';
COMMENT ON COLUMN entity.slug IS 'Lasting public name of the project in addresses';
COMMENT ON COLUMN entity.first_tracked IS 'UTC day on which the watchlist first held it';
COMMENT ON TABLE flavour IS 'How the large tables are partitioned; decided at the first migration';
COMMENT ON TABLE gap IS 'The ledger: expected values that did not come; a missing day is a gap, never a zero';
COMMENT ON COLUMN gap.attempts IS 'How many batches reported it missing';
COMMENT ON COLUMN gap.retry IS 'Whether the upstream may still serve it';
COMMENT ON COLUMN gap.healed_at IS 'When the value came after all; NULL = it is missing';
COMMENT ON TABLE identity IS 'What upstreams call an entity: the upstream id is the identity, names are history';
COMMENT ON COLUMN identity.upstream_id IS 'The lasting id of the upstream (GitHub node id, package name)';
COMMENT ON COLUMN identity.valid_from IS 'First UTC day on which this name was read';
COMMENT ON COLUMN identity.valid_to IS 'Last UTC day of this name; NULL = it holds';
COMMENT ON TABLE metric_note IS 'What a reader must know about a stretch of a metric, for example that it is interpolated';
COMMENT ON COLUMN metric_note.last_day IS 'Last UTC day that the note is about; NULL = to this day';
COMMENT ON TABLE migration IS 'Migration files that were applied, with the checksum of their text';
COMMENT ON TABLE observation IS 'What stands: one value per metric, entity and UTC day';
COMMENT ON COLUMN observation.metric_id IS 'astrid.catalog.METRICS; the unit of value is stated there';
COMMENT ON COLUMN observation.day IS 'UTC day that the value is about';
COMMENT ON COLUMN observation.value IS 'Finite, 0 or more; stocks are levels, flows are counts per UTC day';
COMMENT ON COLUMN observation.origin_id IS 'astrid.catalog.ORIGINS: where it was read';
COMMENT ON COLUMN observation.observed_at IS 'When this value was first written';
COMMENT ON TABLE observation_revision IS 'What stood before: values that were replaced, with both times';
COMMENT ON COLUMN observation_revision.observed_at IS 'When this value was first written';
COMMENT ON COLUMN observation_revision.superseded_at IS 'When another value took its place';
COMMENT ON COLUMN observation_revision.superseded_by_run IS 'The run that brought the other value';
COMMENT ON TABLE reconciliation IS 'Two witnesses of one week of a stock, side by side';
COMMENT ON COLUMN reconciliation.week IS 'Sunday of the UTC week';
COMMENT ON COLUMN reconciliation.history_total IS 'Sum of the daily gains that the upstream''s history states, in stars';
COMMENT ON COLUMN reconciliation.snapshot_delta IS 'Difference of the snapshots at the ends of the week, in stars';
COMMENT ON TABLE run IS 'One run of the program; observations, scores and batches name the run that wrote them';
COMMENT ON COLUMN run.day IS 'The UTC day that the run is about';
COMMENT ON COLUMN run.planned_points IS 'Rate-limit points of all planned batches';
COMMENT ON COLUMN run.spent IS 'What was spent: bucket or source to a count of points or requests';
COMMENT ON TABLE run_cost IS 'What a run was planned to cost and what it did cost, per upstream and budget bucket';
COMMENT ON COLUMN run_cost.planned_hours IS 'Hours at the limits of the upstream';
COMMENT ON COLUMN run_cost.spent_requests IS 'As the budgets counted them, repetitions included; NULL: nobody counted';
COMMENT ON COLUMN run_cost.spent_points IS 'Points of the primary limit, as the answers stated them; NULL: nobody counted';
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
COMMENT ON TABLE score_component IS 'The parts of a score, one per metric that entered it';
COMMENT ON COLUMN score_component.level IS 'Filtered level, natural logarithm';
COMMENT ON COLUMN score_component.growth IS 'Slow growth, logarithm per week';
COMMENT ON COLUMN score_component.growth_fast IS 'Fast growth, logarithm per week';
COMMENT ON COLUMN score_component.z IS 'Surprise of the last week, standard deviations';
COMMENT ON COLUMN score_component.sustain IS '1 = steady, 1/28 = a one-day spike';
COMMENT ON COLUMN score_component.momentum IS 'Percentile of the metric, 0..1';
COMMENT ON COLUMN score_component.weight IS 'Weight as used, after flags';
COMMENT ON COLUMN score_component.contribution IS 'Signed score points; 50 plus their sum is the score';
COMMENT ON TABLE score_revision IS 'Scores that were published once and superseded, with their parts';
COMMENT ON COLUMN score_revision.components IS 'The score_component rows of that time, by metric';
COMMENT ON COLUMN score_revision.superseded_at IS 'Until when this was the published score';
COMMENT ON TABLE token_user IS 'Whom GitHub last took the bearer of a token for: tokens of one user share its limits';
COMMENT ON COLUMN token_user.token IS 'The first hex digits of the token''s BLAKE2b digest, never the token';
