-- Generated from the migrations; a test keeps it equal to them. Native flavour.

CREATE OR REPLACE FUNCTION canary_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO canary_revision (superseded_at, source, name, day, state, value, low, high, reason, first_day, run_id, judged_at, recorded_at) VALUES (moment, OLD.source, OLD.name, OLD.day, OLD.state, OLD.value, OLD.low, OLD.high, OLD.reason, OLD.first_day, OLD.run_id, OLD.judged_at, OLD.recorded_at);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION entity_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO entity_revision (superseded_at, entity_id, slug, name, category, first_tracked, recorded_at) VALUES (moment, OLD.entity_id, OLD.slug, OLD.name, OLD.category, OLD.first_tracked, OLD.recorded_at);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION expectation_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO expectation_revision (superseded_at, entity_id, source, task, first_day, last_day, recorded_at) VALUES (moment, OLD.entity_id, OLD.source, OLD.task, OLD.first_day, OLD.last_day, OLD.recorded_at);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION gap_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO gap_revision (superseded_at, metric_id, entity_id, day, reason, attempts, retry, first_seen_at, last_seen_at, healed_at, recorded_at, run_id, healed_run) VALUES (moment, OLD.metric_id, OLD.entity_id, OLD.day, OLD.reason, OLD.attempts, OLD.retry, OLD.first_seen_at, OLD.last_seen_at, OLD.healed_at, OLD.recorded_at, OLD.run_id, OLD.healed_run);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION identity_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO identity_revision (superseded_at, entity_id, platform, upstream_id, name, valid_from, valid_to, run_id, recorded_at) VALUES (moment, OLD.entity_id, OLD.platform, OLD.upstream_id, OLD.name, OLD.valid_from, OLD.valid_to, OLD.run_id, OLD.recorded_at);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION metric_note_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO metric_note_revision (superseded_at, metric_id, first_day, last_day, note, recorded_at) VALUES (moment, OLD.metric_id, OLD.first_day, OLD.last_day, OLD.note, OLD.recorded_at);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION reconciliation_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO reconciliation_revision (superseded_at, entity_id, week, history_total, snapshot_delta, recorded_at) VALUES (moment, OLD.entity_id, OLD.week, OLD.history_total, OLD.snapshot_delta, OLD.recorded_at);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION run_cost_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO run_cost_revision (superseded_at, run_id, upstream, bucket, planned_requests, planned_points, planned_hours, spent_requests, spent_points, recorded_at) VALUES (moment, OLD.run_id, OLD.upstream, OLD.bucket, OLD.planned_requests, OLD.planned_points, OLD.planned_hours, OLD.spent_requests, OLD.spent_points, OLD.recorded_at);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION run_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO run_revision (superseded_at, run_id, kind, day, state, code_version, method_version, started_at, finished_at, planned_requests, planned_points, spent, note, recorded_at) VALUES (moment, OLD.run_id, OLD.kind, OLD.day, OLD.state, OLD.code_version, OLD.method_version, OLD.started_at, OLD.finished_at, OLD.planned_requests, OLD.planned_points, OLD.spent, OLD.note, OLD.recorded_at);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $function$;
CREATE OR REPLACE FUNCTION start_history(name text, since text DEFAULT 'statement_timestamp()'::text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
DECLARE
    sister text := name || '_revision';
    keys text;
    columns text;
    old_columns text;
    missing text;
BEGIN
    IF to_regclass(sister) IS NULL THEN
        EXECUTE format('ALTER TABLE %I ADD COLUMN recorded_at timestamptz', name);
        EXECUTE format('UPDATE %I SET recorded_at = %s', name, since);
        EXECUTE format('ALTER TABLE %I ALTER COLUMN recorded_at SET NOT NULL, '
                       'ALTER COLUMN recorded_at SET DEFAULT transaction_moment()', name);
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.place) INTO STRICT keys
        FROM pg_constraint c
        CROSS JOIN unnest(c.conkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
        WHERE c.conrelid = name::regclass AND c.contype = 'p';
        EXECUTE format('CREATE TABLE %I (superseded_at timestamptz NOT NULL, LIKE %I, PRIMARY KEY (%s, superseded_at))',
                       sister, name, keys);
        EXECUTE format('COMMENT ON COLUMN %I.recorded_at IS %L', name, 'When this was written; it holds since then');
        EXECUTE format('COMMENT ON TABLE %I IS %L', sister, 'Rows of ' || name || ' that were replaced');
        EXECUTE format('COMMENT ON COLUMN %I.superseded_at IS %L', sister, 'Until when this held');
    END IF;
    SELECT string_agg(format('ADD COLUMN %I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', '
                      ORDER BY a.attnum) INTO missing
    FROM pg_attribute a
    WHERE a.attrelid = name::regclass AND a.attnum > 0 AND NOT a.attisdropped
      AND NOT EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = sister::regclass AND o.attname = a.attname
                        AND o.attnum > 0 AND NOT o.attisdropped);
    IF missing IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %I %s', sister, missing);
    END IF;
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
           string_agg('OLD.' || quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO STRICT columns, old_columns
    FROM pg_attribute a WHERE a.attrelid = name::regclass AND a.attnum > 0 AND NOT a.attisdropped;
    EXECUTE format($body$
        CREATE OR REPLACE FUNCTION %1$I() RETURNS trigger LANGUAGE plpgsql AS $trigger$
        DECLARE
            moment timestamptz := greatest(transaction_moment(), OLD.recorded_at);
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
            IF moment > OLD.recorded_at THEN
                INSERT INTO %2$I (superseded_at, %3$s) VALUES (moment, %4$s);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            NEW.recorded_at := moment;
            RETURN NEW;
        END $trigger$ $body$, name || '_history', sister, columns, old_columns);
    EXECUTE format('CREATE OR REPLACE TRIGGER %1$I BEFORE UPDATE OR DELETE ON %2$I '
                   'FOR EACH ROW EXECUTE FUNCTION %1$I()', name || '_history', name);
    EXECUTE format($body$
        CREATE OR REPLACE FUNCTION %1$I(moment timestamptz) RETURNS SETOF %2$I LANGUAGE sql STABLE AS $query$
            SELECT %3$s FROM %2$I WHERE recorded_at <= moment
            UNION ALL
            SELECT %3$s FROM %4$I WHERE recorded_at <= moment AND superseded_at > moment $query$ $body$,
        name || '_as_of', name, columns, sister);
END $function$;
CREATE OR REPLACE FUNCTION transaction_moment()
 RETURNS timestamp with time zone
 LANGUAGE sql
AS $function$
    SELECT coalesce(nullif(current_setting('astrid.moment', true), '')::timestamptz, statement_timestamp())
$function$;
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
    updated_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL DEFAULT '-infinity'::timestamp with time zone,
    suspect_starts integer NOT NULL DEFAULT 0
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
    judged_at timestamp with time zone NOT NULL,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment()
);
CREATE TABLE canary_revision (
    superseded_at timestamp with time zone NOT NULL,
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
    judged_at timestamp with time zone NOT NULL,
    recorded_at timestamp with time zone NOT NULL
);
CREATE TABLE entity (
    entity_id integer NOT NULL GENERATED ALWAYS AS IDENTITY,
    slug text NOT NULL,
    name text NOT NULL,
    category text NOT NULL,
    first_tracked date NOT NULL,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment()
);
CREATE TABLE entity_revision (
    superseded_at timestamp with time zone NOT NULL,
    entity_id integer NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    category text NOT NULL,
    first_tracked date NOT NULL,
    recorded_at timestamp with time zone NOT NULL
);
CREATE TABLE expectation (
    entity_id integer NOT NULL,
    source text NOT NULL,
    task text NOT NULL,
    first_day date NOT NULL,
    last_day date,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment()
);
CREATE TABLE expectation_revision (
    superseded_at timestamp with time zone NOT NULL,
    entity_id integer NOT NULL,
    source text NOT NULL,
    task text NOT NULL,
    first_day date NOT NULL,
    last_day date,
    recorded_at timestamp with time zone NOT NULL
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
    healed_at timestamp with time zone,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment(),
    run_id bigint,
    healed_run bigint
);
CREATE TABLE gap_revision (
    superseded_at timestamp with time zone NOT NULL,
    metric_id smallint NOT NULL,
    entity_id integer NOT NULL,
    day date NOT NULL,
    reason text NOT NULL,
    attempts integer NOT NULL,
    retry boolean NOT NULL,
    first_seen_at timestamp with time zone NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    healed_at timestamp with time zone,
    recorded_at timestamp with time zone NOT NULL,
    run_id bigint,
    healed_run bigint
);
CREATE TABLE identity (
    entity_id integer NOT NULL,
    platform text NOT NULL,
    upstream_id text NOT NULL,
    name text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    run_id bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment()
);
CREATE TABLE identity_revision (
    superseded_at timestamp with time zone NOT NULL,
    entity_id integer NOT NULL,
    platform text NOT NULL,
    upstream_id text NOT NULL,
    name text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    run_id bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL
);
CREATE TABLE lease (
    name text NOT NULL,
    holder text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    renewed_at timestamp with time zone NOT NULL,
    state jsonb NOT NULL DEFAULT '{}'::jsonb
);
CREATE TABLE metric_note (
    metric_id smallint NOT NULL,
    first_day date NOT NULL,
    last_day date,
    note text NOT NULL,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment()
);
CREATE TABLE metric_note_revision (
    superseded_at timestamp with time zone NOT NULL,
    metric_id smallint NOT NULL,
    first_day date NOT NULL,
    last_day date,
    note text NOT NULL,
    recorded_at timestamp with time zone NOT NULL
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
CREATE TABLE publication (
    method_version text NOT NULL,
    day date NOT NULL,
    published_at timestamp with time zone NOT NULL,
    run_id bigint NOT NULL,
    known_at timestamp with time zone,
    scores integer NOT NULL
);
CREATE TABLE reconciliation (
    entity_id integer NOT NULL,
    week date NOT NULL,
    history_total double precision NOT NULL,
    snapshot_delta double precision NOT NULL,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment()
);
CREATE TABLE reconciliation_revision (
    superseded_at timestamp with time zone NOT NULL,
    entity_id integer NOT NULL,
    week date NOT NULL,
    history_total double precision NOT NULL,
    snapshot_delta double precision NOT NULL,
    recorded_at timestamp with time zone NOT NULL
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
    note text NOT NULL DEFAULT ''::text,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment()
);
CREATE TABLE run_cost (
    run_id bigint NOT NULL,
    upstream text NOT NULL,
    bucket text NOT NULL,
    planned_requests bigint NOT NULL DEFAULT 0,
    planned_points bigint NOT NULL DEFAULT 0,
    planned_hours double precision NOT NULL DEFAULT 0,
    spent_requests bigint,
    spent_points bigint,
    recorded_at timestamp with time zone NOT NULL DEFAULT transaction_moment()
);
CREATE TABLE run_cost_revision (
    superseded_at timestamp with time zone NOT NULL,
    run_id bigint NOT NULL,
    upstream text NOT NULL,
    bucket text NOT NULL,
    planned_requests bigint NOT NULL,
    planned_points bigint NOT NULL,
    planned_hours double precision NOT NULL,
    spent_requests bigint,
    spent_points bigint,
    recorded_at timestamp with time zone NOT NULL
);
CREATE TABLE run_revision (
    superseded_at timestamp with time zone NOT NULL,
    run_id bigint NOT NULL,
    kind text NOT NULL,
    day date NOT NULL,
    state text NOT NULL,
    code_version text NOT NULL,
    method_version text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    planned_requests bigint NOT NULL,
    planned_points bigint NOT NULL,
    spent jsonb NOT NULL,
    note text NOT NULL,
    recorded_at timestamp with time zone NOT NULL
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
CREATE TABLE observation_2024_01 PARTITION OF observation FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE observation_2024_02 PARTITION OF observation FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE observation_2024_03 PARTITION OF observation FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CREATE TABLE observation_2024_04 PARTITION OF observation FOR VALUES FROM ('2024-04-01') TO ('2024-05-01');
CREATE TABLE observation_2024_05 PARTITION OF observation FOR VALUES FROM ('2024-05-01') TO ('2024-06-01');
CREATE TABLE observation_2024_06 PARTITION OF observation FOR VALUES FROM ('2024-06-01') TO ('2024-07-01');
CREATE TABLE observation_2024_07 PARTITION OF observation FOR VALUES FROM ('2024-07-01') TO ('2024-08-01');
CREATE TABLE observation_2024_08 PARTITION OF observation FOR VALUES FROM ('2024-08-01') TO ('2024-09-01');
CREATE TABLE observation_2024_09 PARTITION OF observation FOR VALUES FROM ('2024-09-01') TO ('2024-10-01');
CREATE TABLE observation_2024_10 PARTITION OF observation FOR VALUES FROM ('2024-10-01') TO ('2024-11-01');
CREATE TABLE observation_2024_11 PARTITION OF observation FOR VALUES FROM ('2024-11-01') TO ('2024-12-01');
CREATE TABLE observation_2024_12 PARTITION OF observation FOR VALUES FROM ('2024-12-01') TO ('2025-01-01');
CREATE TABLE observation_2025_01 PARTITION OF observation FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');
CREATE TABLE observation_2025_02 PARTITION OF observation FOR VALUES FROM ('2025-02-01') TO ('2025-03-01');
CREATE TABLE observation_2025_03 PARTITION OF observation FOR VALUES FROM ('2025-03-01') TO ('2025-04-01');
CREATE TABLE observation_2025_04 PARTITION OF observation FOR VALUES FROM ('2025-04-01') TO ('2025-05-01');
CREATE TABLE observation_2025_05 PARTITION OF observation FOR VALUES FROM ('2025-05-01') TO ('2025-06-01');
CREATE TABLE observation_2025_06 PARTITION OF observation FOR VALUES FROM ('2025-06-01') TO ('2025-07-01');
CREATE TABLE observation_2025_07 PARTITION OF observation FOR VALUES FROM ('2025-07-01') TO ('2025-08-01');
CREATE TABLE observation_2025_08 PARTITION OF observation FOR VALUES FROM ('2025-08-01') TO ('2025-09-01');
CREATE TABLE observation_2025_09 PARTITION OF observation FOR VALUES FROM ('2025-09-01') TO ('2025-10-01');
CREATE TABLE observation_2025_10 PARTITION OF observation FOR VALUES FROM ('2025-10-01') TO ('2025-11-01');
CREATE TABLE observation_2025_11 PARTITION OF observation FOR VALUES FROM ('2025-11-01') TO ('2025-12-01');
CREATE TABLE observation_2025_12 PARTITION OF observation FOR VALUES FROM ('2025-12-01') TO ('2026-01-01');
CREATE TABLE observation_2026_01 PARTITION OF observation FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE observation_2026_02 PARTITION OF observation FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE observation_2026_03 PARTITION OF observation FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
CREATE TABLE observation_2026_04 PARTITION OF observation FOR VALUES FROM ('2026-04-01') TO ('2026-05-01');
CREATE TABLE observation_2026_05 PARTITION OF observation FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
CREATE TABLE observation_2026_06 PARTITION OF observation FOR VALUES FROM ('2026-06-01') TO ('2026-07-01');
CREATE TABLE observation_2026_07 PARTITION OF observation FOR VALUES FROM ('2026-07-01') TO ('2026-08-01');
CREATE TABLE observation_2026_08 PARTITION OF observation FOR VALUES FROM ('2026-08-01') TO ('2026-09-01');
CREATE TABLE observation_2026_09 PARTITION OF observation FOR VALUES FROM ('2026-09-01') TO ('2026-10-01');
CREATE TABLE observation_2026_10 PARTITION OF observation FOR VALUES FROM ('2026-10-01') TO ('2026-11-01');
CREATE TABLE observation_2026_11 PARTITION OF observation FOR VALUES FROM ('2026-11-01') TO ('2026-12-01');
CREATE TABLE observation_2026_12 PARTITION OF observation FOR VALUES FROM ('2026-12-01') TO ('2027-01-01');
CREATE TABLE observation_2027_01 PARTITION OF observation FOR VALUES FROM ('2027-01-01') TO ('2027-02-01');
CREATE TABLE observation_2027_02 PARTITION OF observation FOR VALUES FROM ('2027-02-01') TO ('2027-03-01');
CREATE TABLE observation_2027_03 PARTITION OF observation FOR VALUES FROM ('2027-03-01') TO ('2027-04-01');
CREATE TABLE observation_2027_04 PARTITION OF observation FOR VALUES FROM ('2027-04-01') TO ('2027-05-01');
CREATE TABLE observation_2027_05 PARTITION OF observation FOR VALUES FROM ('2027-05-01') TO ('2027-06-01');
CREATE TABLE observation_2027_06 PARTITION OF observation FOR VALUES FROM ('2027-06-01') TO ('2027-07-01');
CREATE TABLE observation_2027_07 PARTITION OF observation FOR VALUES FROM ('2027-07-01') TO ('2027-08-01');
CREATE TABLE observation_2027_08 PARTITION OF observation FOR VALUES FROM ('2027-08-01') TO ('2027-09-01');
CREATE TABLE observation_2027_09 PARTITION OF observation FOR VALUES FROM ('2027-09-01') TO ('2027-10-01');
CREATE TABLE observation_2027_10 PARTITION OF observation FOR VALUES FROM ('2027-10-01') TO ('2027-11-01');
CREATE TABLE observation_2027_11 PARTITION OF observation FOR VALUES FROM ('2027-11-01') TO ('2027-12-01');
CREATE TABLE observation_2027_12 PARTITION OF observation FOR VALUES FROM ('2027-12-01') TO ('2028-01-01');
CREATE TABLE observation_2028_01 PARTITION OF observation FOR VALUES FROM ('2028-01-01') TO ('2028-02-01');
CREATE TABLE observation_2028_02 PARTITION OF observation FOR VALUES FROM ('2028-02-01') TO ('2028-03-01');
CREATE TABLE observation_2028_03 PARTITION OF observation FOR VALUES FROM ('2028-03-01') TO ('2028-04-01');
CREATE TABLE observation_2028_04 PARTITION OF observation FOR VALUES FROM ('2028-04-01') TO ('2028-05-01');
CREATE TABLE observation_2028_05 PARTITION OF observation FOR VALUES FROM ('2028-05-01') TO ('2028-06-01');
CREATE TABLE observation_2028_06 PARTITION OF observation FOR VALUES FROM ('2028-06-01') TO ('2028-07-01');
CREATE TABLE observation_2028_07 PARTITION OF observation FOR VALUES FROM ('2028-07-01') TO ('2028-08-01');
CREATE TABLE observation_2028_08 PARTITION OF observation FOR VALUES FROM ('2028-08-01') TO ('2028-09-01');
CREATE TABLE observation_2028_09 PARTITION OF observation FOR VALUES FROM ('2028-09-01') TO ('2028-10-01');
CREATE TABLE observation_2028_10 PARTITION OF observation FOR VALUES FROM ('2028-10-01') TO ('2028-11-01');
CREATE TABLE observation_2028_11 PARTITION OF observation FOR VALUES FROM ('2028-11-01') TO ('2028-12-01');
CREATE TABLE observation_2028_12 PARTITION OF observation FOR VALUES FROM ('2028-12-01') TO ('2029-01-01');
CREATE TABLE observation_2029_01 PARTITION OF observation FOR VALUES FROM ('2029-01-01') TO ('2029-02-01');
CREATE TABLE observation_2029_02 PARTITION OF observation FOR VALUES FROM ('2029-02-01') TO ('2029-03-01');
CREATE TABLE observation_2029_03 PARTITION OF observation FOR VALUES FROM ('2029-03-01') TO ('2029-04-01');
CREATE TABLE observation_2029_04 PARTITION OF observation FOR VALUES FROM ('2029-04-01') TO ('2029-05-01');
CREATE TABLE observation_2029_05 PARTITION OF observation FOR VALUES FROM ('2029-05-01') TO ('2029-06-01');
CREATE TABLE observation_2029_06 PARTITION OF observation FOR VALUES FROM ('2029-06-01') TO ('2029-07-01');
CREATE TABLE observation_2029_07 PARTITION OF observation FOR VALUES FROM ('2029-07-01') TO ('2029-08-01');
CREATE TABLE observation_2029_08 PARTITION OF observation FOR VALUES FROM ('2029-08-01') TO ('2029-09-01');
CREATE TABLE observation_2029_09 PARTITION OF observation FOR VALUES FROM ('2029-09-01') TO ('2029-10-01');
CREATE TABLE observation_2029_10 PARTITION OF observation FOR VALUES FROM ('2029-10-01') TO ('2029-11-01');
CREATE TABLE observation_2029_11 PARTITION OF observation FOR VALUES FROM ('2029-11-01') TO ('2029-12-01');
CREATE TABLE observation_2029_12 PARTITION OF observation FOR VALUES FROM ('2029-12-01') TO ('2030-01-01');
CREATE TABLE observation_2030_01 PARTITION OF observation FOR VALUES FROM ('2030-01-01') TO ('2030-02-01');
CREATE TABLE observation_2030_02 PARTITION OF observation FOR VALUES FROM ('2030-02-01') TO ('2030-03-01');
CREATE TABLE observation_2030_03 PARTITION OF observation FOR VALUES FROM ('2030-03-01') TO ('2030-04-01');
CREATE TABLE observation_2030_04 PARTITION OF observation FOR VALUES FROM ('2030-04-01') TO ('2030-05-01');
CREATE TABLE observation_2030_05 PARTITION OF observation FOR VALUES FROM ('2030-05-01') TO ('2030-06-01');
CREATE TABLE observation_2030_06 PARTITION OF observation FOR VALUES FROM ('2030-06-01') TO ('2030-07-01');
CREATE TABLE observation_2030_07 PARTITION OF observation FOR VALUES FROM ('2030-07-01') TO ('2030-08-01');
CREATE TABLE observation_2030_08 PARTITION OF observation FOR VALUES FROM ('2030-08-01') TO ('2030-09-01');
CREATE TABLE observation_2030_09 PARTITION OF observation FOR VALUES FROM ('2030-09-01') TO ('2030-10-01');
CREATE TABLE observation_2030_10 PARTITION OF observation FOR VALUES FROM ('2030-10-01') TO ('2030-11-01');
CREATE TABLE observation_2030_11 PARTITION OF observation FOR VALUES FROM ('2030-11-01') TO ('2030-12-01');
CREATE TABLE observation_2030_12 PARTITION OF observation FOR VALUES FROM ('2030-12-01') TO ('2031-01-01');
CREATE TABLE observation_2031_01 PARTITION OF observation FOR VALUES FROM ('2031-01-01') TO ('2031-02-01');
CREATE TABLE observation_2031_02 PARTITION OF observation FOR VALUES FROM ('2031-02-01') TO ('2031-03-01');
CREATE TABLE observation_2031_03 PARTITION OF observation FOR VALUES FROM ('2031-03-01') TO ('2031-04-01');
CREATE TABLE observation_2031_04 PARTITION OF observation FOR VALUES FROM ('2031-04-01') TO ('2031-05-01');
CREATE TABLE observation_2031_05 PARTITION OF observation FOR VALUES FROM ('2031-05-01') TO ('2031-06-01');
CREATE TABLE observation_2031_06 PARTITION OF observation FOR VALUES FROM ('2031-06-01') TO ('2031-07-01');
CREATE TABLE observation_2031_07 PARTITION OF observation FOR VALUES FROM ('2031-07-01') TO ('2031-08-01');
CREATE TABLE observation_2031_08 PARTITION OF observation FOR VALUES FROM ('2031-08-01') TO ('2031-09-01');
CREATE TABLE observation_2031_09 PARTITION OF observation FOR VALUES FROM ('2031-09-01') TO ('2031-10-01');
CREATE TABLE observation_2031_10 PARTITION OF observation FOR VALUES FROM ('2031-10-01') TO ('2031-11-01');
CREATE TABLE observation_2031_11 PARTITION OF observation FOR VALUES FROM ('2031-11-01') TO ('2031-12-01');
CREATE TABLE observation_2031_12 PARTITION OF observation FOR VALUES FROM ('2031-12-01') TO ('2032-01-01');
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
ALTER TABLE canary_revision ADD CONSTRAINT canary_revision_pkey PRIMARY KEY (source, name, day, superseded_at);
ALTER TABLE entity ADD CONSTRAINT entity_pkey PRIMARY KEY (entity_id);
ALTER TABLE entity ADD CONSTRAINT entity_slug_key UNIQUE (slug);
ALTER TABLE entity_revision ADD CONSTRAINT entity_revision_pkey PRIMARY KEY (entity_id, superseded_at);
ALTER TABLE expectation ADD CONSTRAINT expectation_check CHECK ((last_day >= first_day));
ALTER TABLE expectation ADD CONSTRAINT expectation_pkey PRIMARY KEY (source, task, entity_id, first_day);
ALTER TABLE expectation_revision ADD CONSTRAINT expectation_revision_pkey PRIMARY KEY (source, task, entity_id, first_day, superseded_at);
ALTER TABLE flavour ADD CONSTRAINT flavour_name_check CHECK ((name = ANY (ARRAY['native'::text, 'timescale'::text])));
ALTER TABLE flavour ADD CONSTRAINT flavour_one_check CHECK (one);
ALTER TABLE flavour ADD CONSTRAINT flavour_pkey PRIMARY KEY (one);
ALTER TABLE gap ADD CONSTRAINT gap_pkey PRIMARY KEY (metric_id, entity_id, day);
ALTER TABLE gap_revision ADD CONSTRAINT gap_revision_pkey PRIMARY KEY (metric_id, entity_id, day, superseded_at);
ALTER TABLE identity ADD CONSTRAINT identity_check CHECK ((valid_to >= valid_from));
ALTER TABLE identity ADD CONSTRAINT identity_pkey PRIMARY KEY (entity_id, platform, upstream_id, valid_from);
ALTER TABLE identity_revision ADD CONSTRAINT identity_revision_pkey PRIMARY KEY (entity_id, platform, upstream_id, valid_from, superseded_at);
ALTER TABLE lease ADD CONSTRAINT lease_pkey PRIMARY KEY (name);
ALTER TABLE metric_note ADD CONSTRAINT metric_note_check CHECK ((last_day >= first_day));
ALTER TABLE metric_note ADD CONSTRAINT metric_note_pkey PRIMARY KEY (metric_id, first_day, note);
ALTER TABLE metric_note_revision ADD CONSTRAINT metric_note_revision_pkey PRIMARY KEY (metric_id, first_day, note, superseded_at);
ALTER TABLE migration ADD CONSTRAINT migration_pkey PRIMARY KEY (name);
ALTER TABLE observation ADD CONSTRAINT observation_pkey PRIMARY KEY (metric_id, entity_id, day);
ALTER TABLE observation_revision ADD CONSTRAINT observation_revision_pkey PRIMARY KEY (metric_id, entity_id, day, observed_at, superseded_at, value);
ALTER TABLE publication ADD CONSTRAINT publication_pkey PRIMARY KEY (method_version, day, published_at);
ALTER TABLE reconciliation ADD CONSTRAINT reconciliation_pkey PRIMARY KEY (entity_id, week);
ALTER TABLE reconciliation ADD CONSTRAINT reconciliation_week_check CHECK ((EXTRACT(isodow FROM week) = (7)::numeric));
ALTER TABLE reconciliation_revision ADD CONSTRAINT reconciliation_revision_pkey PRIMARY KEY (entity_id, week, superseded_at);
ALTER TABLE run ADD CONSTRAINT run_pkey PRIMARY KEY (run_id);
ALTER TABLE run_cost ADD CONSTRAINT run_cost_pkey PRIMARY KEY (run_id, upstream, bucket);
ALTER TABLE run_cost_revision ADD CONSTRAINT run_cost_revision_pkey PRIMARY KEY (run_id, upstream, bucket, superseded_at);
ALTER TABLE run_revision ADD CONSTRAINT run_revision_pkey PRIMARY KEY (run_id, superseded_at);
ALTER TABLE score ADD CONSTRAINT score_pkey PRIMARY KEY (method_version, day, entity_id);
ALTER TABLE score_component ADD CONSTRAINT score_component_pkey PRIMARY KEY (method_version, day, entity_id, metric_id);
ALTER TABLE score_revision ADD CONSTRAINT score_revision_pkey PRIMARY KEY (method_version, day, entity_id, revision_id);
ALTER TABLE token_user ADD CONSTRAINT token_user_pkey PRIMARY KEY (token);
ALTER TABLE canary ADD CONSTRAINT canary_run_id_fkey FOREIGN KEY (run_id) REFERENCES run(run_id);
ALTER TABLE expectation ADD CONSTRAINT expectation_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE gap ADD CONSTRAINT gap_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE identity ADD CONSTRAINT identity_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE reconciliation ADD CONSTRAINT reconciliation_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE run_cost ADD CONSTRAINT run_cost_run_id_fkey FOREIGN KEY (run_id) REFERENCES run(run_id);
ALTER TABLE score ADD CONSTRAINT score_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
ALTER TABLE score_component ADD CONSTRAINT score_component_method_version_day_entity_id_fkey FOREIGN KEY (method_version, day, entity_id) REFERENCES score(method_version, day, entity_id) ON DELETE CASCADE;
ALTER TABLE score_revision ADD CONSTRAINT score_revision_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES entity(entity_id);
CREATE INDEX answer_seen_at ON answer USING btree (seen_at);
CREATE INDEX batch_bodied ON batch USING btree (updated_at) WHERE ((state = ANY (ARRAY['done'::text, 'split'::text])) AND (body <> '{}'::jsonb));
CREATE INDEX batch_open ON batch USING btree (run_id, source, batch_id) WHERE (state = 'planned'::text);
CREATE INDEX batch_task ON batch USING btree (run_id, source, task);
CREATE INDEX canary_day ON canary USING btree (day);
CREATE INDEX canary_violated ON canary USING btree (source, day) WHERE (state = 'violated'::text);
CREATE UNIQUE INDEX expectation_current ON expectation USING btree (source, task, entity_id) WHERE (last_day IS NULL);
CREATE INDEX expectation_entity ON expectation USING btree (entity_id);
CREATE INDEX gap_day ON gap USING btree (day, metric_id, entity_id);
CREATE INDEX gap_entity ON gap USING btree (entity_id, metric_id, day);
CREATE INDEX gap_healed_run ON gap USING btree (healed_run) WHERE (healed_run IS NOT NULL);
CREATE INDEX gap_open ON gap USING btree (metric_id, day, entity_id) WHERE (healed_at IS NULL);
CREATE INDEX gap_run ON gap USING btree (run_id);
CREATE INDEX gap_revision_day ON gap_revision USING btree (day, superseded_at);
CREATE INDEX gap_revision_entity ON gap_revision USING btree (entity_id, metric_id, day);
CREATE INDEX gap_revision_healed_run ON gap_revision USING btree (healed_run) WHERE (healed_run IS NOT NULL);
CREATE INDEX gap_revision_run ON gap_revision USING btree (run_id);
CREATE UNIQUE INDEX identity_current ON identity USING btree (entity_id, platform) WHERE (valid_to IS NULL);
CREATE INDEX identity_upstream ON identity USING btree (platform, upstream_id);
CREATE INDEX reconciliation_week ON reconciliation USING btree (week);
CREATE INDEX reconciliation_revision_week ON reconciliation_revision USING btree (week);
CREATE INDEX score_entity ON score USING btree (entity_id, method_version, day);
CREATE INDEX score_rank ON score USING btree (method_version, day, rank) WHERE (rank IS NOT NULL);
CREATE INDEX score_revision_entity ON score_revision USING btree (entity_id, method_version, day);
CREATE TRIGGER canary_history BEFORE DELETE OR UPDATE ON canary FOR EACH ROW EXECUTE FUNCTION canary_history();
CREATE OR REPLACE FUNCTION canary_as_of(moment timestamp with time zone)
 RETURNS SETOF canary
 LANGUAGE sql
 STABLE
AS $function$
            SELECT source, name, day, state, value, low, high, reason, first_day, run_id, judged_at, recorded_at FROM canary WHERE recorded_at <= moment
            UNION ALL
            SELECT source, name, day, state, value, low, high, reason, first_day, run_id, judged_at, recorded_at FROM canary_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
CREATE OR REPLACE FUNCTION coverage(first_day date, last_day date)
 RETURNS TABLE(metric_id smallint, origin_id smallint, day date, entities bigint)
 LANGUAGE sql
 STABLE
AS $function$
    SELECT o.metric_id, o.origin_id, o.day, count(*)
    FROM observation o WHERE o.day BETWEEN first_day AND last_day
    GROUP BY o.metric_id, o.origin_id, o.day
$function$;
CREATE TRIGGER entity_history BEFORE DELETE OR UPDATE ON entity FOR EACH ROW EXECUTE FUNCTION entity_history();
CREATE OR REPLACE FUNCTION entity_as_of(moment timestamp with time zone)
 RETURNS SETOF entity
 LANGUAGE sql
 STABLE
AS $function$
            SELECT entity_id, slug, name, category, first_tracked, recorded_at FROM entity WHERE recorded_at <= moment
            UNION ALL
            SELECT entity_id, slug, name, category, first_tracked, recorded_at FROM entity_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
CREATE TRIGGER expectation_history BEFORE DELETE OR UPDATE ON expectation FOR EACH ROW EXECUTE FUNCTION expectation_history();
CREATE OR REPLACE FUNCTION expectation_as_of(moment timestamp with time zone)
 RETURNS SETOF expectation
 LANGUAGE sql
 STABLE
AS $function$
            SELECT entity_id, source, task, first_day, last_day, recorded_at FROM expectation WHERE recorded_at <= moment
            UNION ALL
            SELECT entity_id, source, task, first_day, last_day, recorded_at FROM expectation_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
CREATE TRIGGER gap_history BEFORE DELETE OR UPDATE ON gap FOR EACH ROW EXECUTE FUNCTION gap_history();
CREATE OR REPLACE FUNCTION gap_as_of(moment timestamp with time zone)
 RETURNS SETOF gap
 LANGUAGE sql
 STABLE
AS $function$
            SELECT metric_id, entity_id, day, reason, attempts, retry, first_seen_at, last_seen_at, healed_at, recorded_at, run_id, healed_run FROM gap WHERE recorded_at <= moment
            UNION ALL
            SELECT metric_id, entity_id, day, reason, attempts, retry, first_seen_at, last_seen_at, healed_at, recorded_at, run_id, healed_run FROM gap_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
CREATE TRIGGER identity_history BEFORE DELETE OR UPDATE ON identity FOR EACH ROW EXECUTE FUNCTION identity_history();
CREATE OR REPLACE FUNCTION identity_as_of(moment timestamp with time zone)
 RETURNS SETOF identity
 LANGUAGE sql
 STABLE
AS $function$
            SELECT entity_id, platform, upstream_id, name, valid_from, valid_to, run_id, recorded_at FROM identity WHERE recorded_at <= moment
            UNION ALL
            SELECT entity_id, platform, upstream_id, name, valid_from, valid_to, run_id, recorded_at FROM identity_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
CREATE TRIGGER metric_note_history BEFORE DELETE OR UPDATE ON metric_note FOR EACH ROW EXECUTE FUNCTION metric_note_history();
CREATE OR REPLACE FUNCTION metric_note_as_of(moment timestamp with time zone)
 RETURNS SETOF metric_note
 LANGUAGE sql
 STABLE
AS $function$
            SELECT metric_id, first_day, last_day, note, recorded_at FROM metric_note WHERE recorded_at <= moment
            UNION ALL
            SELECT metric_id, first_day, last_day, note, recorded_at FROM metric_note_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
CREATE TRIGGER reconciliation_history BEFORE DELETE OR UPDATE ON reconciliation FOR EACH ROW EXECUTE FUNCTION reconciliation_history();
CREATE OR REPLACE FUNCTION reconciliation_as_of(moment timestamp with time zone)
 RETURNS SETOF reconciliation
 LANGUAGE sql
 STABLE
AS $function$
            SELECT entity_id, week, history_total, snapshot_delta, recorded_at FROM reconciliation WHERE recorded_at <= moment
            UNION ALL
            SELECT entity_id, week, history_total, snapshot_delta, recorded_at FROM reconciliation_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
CREATE TRIGGER run_history BEFORE DELETE OR UPDATE ON run FOR EACH ROW EXECUTE FUNCTION run_history();
CREATE OR REPLACE FUNCTION run_as_of(moment timestamp with time zone)
 RETURNS SETOF run
 LANGUAGE sql
 STABLE
AS $function$
            SELECT run_id, kind, day, state, code_version, method_version, started_at, finished_at, planned_requests, planned_points, spent, note, recorded_at FROM run WHERE recorded_at <= moment
            UNION ALL
            SELECT run_id, kind, day, state, code_version, method_version, started_at, finished_at, planned_requests, planned_points, spent, note, recorded_at FROM run_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
CREATE TRIGGER run_cost_history BEFORE DELETE OR UPDATE ON run_cost FOR EACH ROW EXECUTE FUNCTION run_cost_history();
CREATE OR REPLACE FUNCTION run_cost_as_of(moment timestamp with time zone)
 RETURNS SETOF run_cost
 LANGUAGE sql
 STABLE
AS $function$
            SELECT run_id, upstream, bucket, planned_requests, planned_points, planned_hours, spent_requests, spent_points, recorded_at FROM run_cost WHERE recorded_at <= moment
            UNION ALL
            SELECT run_id, upstream, bucket, planned_requests, planned_points, planned_hours, spent_requests, spent_points, recorded_at FROM run_cost_revision WHERE recorded_at <= moment AND superseded_at > moment $function$;
COMMENT ON TABLE answer IS 'What upstreams said, for conditional requests; a cache: any row may be deleted at any time';
COMMENT ON COLUMN answer.token IS 'Name of the token that it was said to (a digest, never the token): marks hold for one token';
COMMENT ON COLUMN answer.address IS 'Digest of upstream, path, parameters and headers of the request';
COMMENT ON COLUMN answer.seen_at IS 'When it was last said, or confirmed by a 304 to within a day';
COMMENT ON TABLE batch IS 'One unit of crawl work and how it ended';
COMMENT ON COLUMN batch.body IS 'The whole batch, enough to run it again; {} = finished so long ago that nobody does';
COMMENT ON COLUMN batch.attempts IS 'How many times its end was committed or refused as already settled';
COMMENT ON COLUMN batch.requests IS 'HTTP requests: planned while planned, spent once done';
COMMENT ON COLUMN batch.due_at IS 'By when it will be heard of, by the database''s clock; -infinity = it was never published';
COMMENT ON COLUMN batch.suspect_starts IS 'How often it was started alone, under the suspicion of ending its worker, and did not come to an end';
COMMENT ON TABLE canary IS 'Whether upstreams kept their contracts: one verdict per source, canary and night';
COMMENT ON COLUMN canary.day IS 'The night''s UTC day';
COMMENT ON COLUMN canary.state IS 'accepted: a violation that an operator takes for the new way, see docs/adr/0017-canaries.md';
COMMENT ON COLUMN canary.value IS 'What was measured; sound from low to high; NULL = too little to judge, or no bound';
COMMENT ON COLUMN canary.first_day IS 'From here to day is what was measured; what runs of these nights wrote is doubted with it';
COMMENT ON COLUMN canary.run_id IS 'The run that judged; judging a night again replaces its verdicts, but for an accepted one';
COMMENT ON COLUMN canary.recorded_at IS 'When this was written; it holds since then';
COMMENT ON TABLE canary_revision IS 'Rows of canary that were replaced';
COMMENT ON COLUMN canary_revision.superseded_at IS 'Until when this held';
COMMENT ON FUNCTION coverage(first_day date, last_day date) IS 'How many entities have a value, per metric, origin and UTC day; from the days themselves, or as of the last refresh';
COMMENT ON TABLE entity IS 'One tracked project';
COMMENT ON COLUMN entity.slug IS 'Lasting public name of the project in addresses';
COMMENT ON COLUMN entity.first_tracked IS 'UTC day on which the watchlist first held it';
COMMENT ON COLUMN entity.recorded_at IS 'When this was written; it holds since then';
COMMENT ON TABLE entity_revision IS 'Rows of entity that were replaced';
COMMENT ON COLUMN entity_revision.superseded_at IS 'Until when this held';
COMMENT ON TABLE expectation IS 'Whom nights ask a task for: from first_day on a value is expected on every day, or on every turn';
COMMENT ON COLUMN expectation.first_day IS 'Day of the first night that asked, or would have if it had had room';
COMMENT ON COLUMN expectation.last_day IS 'Day of the last such night; NULL = it goes on';
COMMENT ON COLUMN expectation.recorded_at IS 'When this was written; it holds since then';
COMMENT ON TABLE expectation_revision IS 'Rows of expectation that were replaced';
COMMENT ON COLUMN expectation_revision.superseded_at IS 'Until when this held';
COMMENT ON TABLE flavour IS 'How the large tables are partitioned; decided at the first migration';
COMMENT ON TABLE gap IS 'The ledger: expected values that did not come; a missing day is a gap, never a zero';
COMMENT ON COLUMN gap.attempts IS 'How many batches reported it missing';
COMMENT ON COLUMN gap.retry IS 'Whether the upstream may still serve it';
COMMENT ON COLUMN gap.healed_at IS 'When the value came after all; NULL = it is missing';
COMMENT ON COLUMN gap.recorded_at IS 'When this was written; it holds since then';
COMMENT ON COLUMN gap.run_id IS 'The run that gave the reason; NULL: written by hand, or by a version that did not say';
COMMENT ON COLUMN gap.healed_run IS 'The run that brought the value after all';
COMMENT ON TABLE gap_revision IS 'Rows of gap that were replaced';
COMMENT ON COLUMN gap_revision.superseded_at IS 'Until when this held';
COMMENT ON TABLE identity IS 'What upstreams call an entity: the upstream id is the identity, names are history';
COMMENT ON COLUMN identity.upstream_id IS 'The lasting id of the upstream (GitHub node id, package name)';
COMMENT ON COLUMN identity.valid_from IS 'First UTC day on which this name was read';
COMMENT ON COLUMN identity.valid_to IS 'Last UTC day of this name; NULL = it holds';
COMMENT ON COLUMN identity.recorded_at IS 'When this was written; it holds since then';
COMMENT ON TABLE identity_revision IS 'Rows of identity that were replaced';
COMMENT ON COLUMN identity_revision.superseded_at IS 'Until when this held';
COMMENT ON TABLE lease IS 'Who may do for a while what only one may do at a time; times are of the database''s clock';
COMMENT ON COLUMN lease.name IS 'night DAY, backfill DAY, budget UPSTREAM USER, or worker NAME';
COMMENT ON COLUMN lease.holder IS 'Lasting name and present life, name#life';
COMMENT ON COLUMN lease.expires_at IS 'From then on anybody may take it; -infinity = it was given back';
COMMENT ON COLUMN lease.state IS 'What the next holder must know, such as what was spent of a budget';
COMMENT ON TABLE metric_note IS 'What a reader must know about a stretch of a metric, for example that it is interpolated';
COMMENT ON COLUMN metric_note.last_day IS 'Last UTC day that the note is about; NULL = to this day';
COMMENT ON COLUMN metric_note.recorded_at IS 'When this was written; it holds since then';
COMMENT ON TABLE metric_note_revision IS 'Rows of metric_note that were replaced';
COMMENT ON COLUMN metric_note_revision.superseded_at IS 'Until when this held';
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
COMMENT ON TABLE publication IS 'Each moment at which scores of a day were published, superseded or withdrawn';
COMMENT ON COLUMN publication.known_at IS 'As of which moment they were computed; NULL: an earlier version did not say';
COMMENT ON COLUMN publication.scores IS 'How many scores of the day stood from then on';
COMMENT ON TABLE reconciliation IS 'Two witnesses of one week of a stock, side by side';
COMMENT ON COLUMN reconciliation.week IS 'Sunday of the UTC week';
COMMENT ON COLUMN reconciliation.history_total IS 'Sum of the daily gains that the upstream''s history states, in stars';
COMMENT ON COLUMN reconciliation.snapshot_delta IS 'Difference of the snapshots at the ends of the week, in stars';
COMMENT ON COLUMN reconciliation.recorded_at IS 'When this was written; it holds since then';
COMMENT ON TABLE reconciliation_revision IS 'Rows of reconciliation that were replaced';
COMMENT ON COLUMN reconciliation_revision.superseded_at IS 'Until when this held';
COMMENT ON TABLE run IS 'One run of the program; observations, scores and batches name the run that wrote them';
COMMENT ON COLUMN run.day IS 'The UTC day that the run is about';
COMMENT ON COLUMN run.planned_points IS 'Rate-limit points of all planned batches';
COMMENT ON COLUMN run.spent IS 'What was spent: bucket or source to a count of points or requests';
COMMENT ON COLUMN run.recorded_at IS 'When this was written; it holds since then';
COMMENT ON TABLE run_cost IS 'What a run was planned to cost and what it did cost, per upstream and budget bucket';
COMMENT ON COLUMN run_cost.planned_hours IS 'Hours at the limits of the upstream';
COMMENT ON COLUMN run_cost.spent_requests IS 'As the budgets counted them, repetitions included; NULL: nobody counted';
COMMENT ON COLUMN run_cost.spent_points IS 'Points of the primary limit, as the answers stated them; NULL: nobody counted';
COMMENT ON COLUMN run_cost.recorded_at IS 'When this was written; it holds since then';
COMMENT ON TABLE run_cost_revision IS 'Rows of run_cost that were replaced';
COMMENT ON COLUMN run_cost_revision.superseded_at IS 'Until when this held';
COMMENT ON TABLE run_revision IS 'Rows of run that were replaced';
COMMENT ON COLUMN run_revision.superseded_at IS 'Until when this held';
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
COMMENT ON FUNCTION start_history(name text, since text) IS 'Makes a table whose rows change in place keep what they were';
COMMENT ON TABLE token_user IS 'Whom GitHub last took the bearer of a token for: tokens of one user share its limits';
COMMENT ON COLUMN token_user.token IS 'The first hex digits of the token''s BLAKE2b digest, never the token';
COMMENT ON FUNCTION transaction_moment() IS 'The moment that the writing transaction gave itself, which its rows are stamped with; by hand: the clock';
