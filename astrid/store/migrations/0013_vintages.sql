-- What was known when. observation and score keep what they replace already; this gives the same to the tables whose
-- rows change in place, so that every question can be answered as of a past moment (docs/adr/0021-as-of.md).

CREATE FUNCTION transaction_moment() RETURNS timestamptz LANGUAGE sql AS $$
    SELECT coalesce(nullif(current_setting('astrid.moment', true), '')::timestamptz, statement_timestamp())
$$;
COMMENT ON FUNCTION transaction_moment() IS
    'The moment that the writing transaction gave itself, which its rows are stamped with; by hand: the clock';

-- Gives a table its history: a column recorded_at, a sister <table>_revision with the rows that were replaced, a trigger
-- that fills it whoever writes, and <table>_as_of(moment), what stood at a moment. A version holds from recorded_at to
-- before superseded_at; one that was replaced within its own moment never held and is not kept. Clocks differ, so what
-- takes a row's place never comes before it. Call it again after a column was added. `since`, an expression over the
-- table's columns, is the moment of the rows that are there already.
CREATE FUNCTION start_history(name text, since text DEFAULT 'statement_timestamp()') RETURNS void LANGUAGE plpgsql AS $$
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
END $$;
COMMENT ON FUNCTION start_history(text, text) IS 'Makes a table whose rows change in place keep what they were';

-- Of what earlier versions wrote, the rows say as much as they can.
SELECT start_history('entity', $$first_tracked::timestamp AT TIME ZONE 'UTC'$$);
SELECT start_history('identity', $$coalesce((SELECT r.started_at FROM run r WHERE r.run_id = identity.run_id),
                                            valid_from::timestamp AT TIME ZONE 'UTC')$$);
SELECT start_history('metric_note', $$'-infinity'$$);
SELECT start_history('reconciliation', $$(week + 7)::timestamp AT TIME ZONE 'UTC'$$);
SELECT start_history('canary', 'judged_at');
SELECT start_history('run', 'coalesce(finished_at, started_at)');
SELECT start_history('run_cost', $$(SELECT coalesce(r.finished_at, r.started_at) FROM run r
                                    WHERE r.run_id = run_cost.run_id)$$);
SELECT start_history('gap', 'coalesce(healed_at, last_seen_at)');

-- A name ended when the next one was read; until then it was today's.
ALTER TABLE identity DISABLE TRIGGER identity_history;
INSERT INTO identity_revision (superseded_at, entity_id, platform, upstream_id, name, valid_from, run_id, recorded_at)
SELECT n.recorded_at, i.entity_id, i.platform, i.upstream_id, i.name, i.valid_from, i.run_id, i.recorded_at
FROM identity i
JOIN identity n ON n.entity_id = i.entity_id AND n.platform = i.platform AND n.valid_from = i.valid_to + 1
WHERE n.recorded_at > i.recorded_at;
UPDATE identity i SET recorded_at = greatest(i.recorded_at, n.recorded_at)
FROM identity n WHERE n.entity_id = i.entity_id AND n.platform = i.platform AND n.valid_from = i.valid_to + 1;
ALTER TABLE identity ENABLE TRIGGER identity_history;

-- A run that ended was running before. Its planned sums as they grew were not kept.
INSERT INTO run_revision (superseded_at, run_id, kind, day, state, code_version, method_version, started_at,
                          planned_requests, planned_points, spent, note, recorded_at)
SELECT finished_at, run_id, kind, day, 'running', code_version, method_version, started_at, planned_requests,
       planned_points, '{}', '', started_at
FROM run WHERE finished_at > started_at;

-- A gap stood open from the first report of it on. Earlier reasons and the number of attempts by then were not kept:
-- the last ones stand for them.
INSERT INTO gap_revision (superseded_at, metric_id, entity_id, day, reason, attempts, retry, first_seen_at,
                          last_seen_at, recorded_at)
SELECT g.recorded_at, g.metric_id, g.entity_id, g.day, g.reason, g.attempts, g.retry, g.first_seen_at,
       least(g.last_seen_at, g.recorded_at), g.first_seen_at
FROM gap g WHERE g.recorded_at > g.first_seen_at;

-- What was published when, for a day as a whole: the answer to "which was the last scored day, as of then?", which the
-- scores alone can give only by reading them all, and what a published score was computed from.
CREATE TABLE publication (
    method_version text NOT NULL,
    day            date NOT NULL,
    published_at   timestamptz NOT NULL,
    run_id         bigint NOT NULL,
    known_at       timestamptz,
    scores         integer NOT NULL,
    PRIMARY KEY (method_version, day, published_at)
);
COMMENT ON TABLE publication IS 'Each moment at which scores of a day were published, superseded or withdrawn';
COMMENT ON COLUMN publication.known_at IS 'As of which moment they were computed; NULL: an earlier version did not say';
COMMENT ON COLUMN publication.scores IS 'How many scores of the day stood from then on';

INSERT INTO publication (method_version, day, published_at, run_id, scores)
SELECT method_version, day, moment, max(run_id),
       sum(sum(change)) OVER (PARTITION BY method_version, day ORDER BY moment)
FROM (
    SELECT method_version, day, published_at AS moment, run_id, 1 AS change FROM score
    UNION ALL
    SELECT method_version, day, published_at, run_id, 1 FROM score_revision
    UNION ALL
    SELECT method_version, day, superseded_at, superseded_by_run, -1 FROM score_revision
) AS changed
GROUP BY method_version, day, moment;

-- One project's scores as of a moment: by its entity, as score_entity does for those that stand.
CREATE INDEX score_revision_entity ON score_revision (entity_id, method_version, day);

-- The gaps of a stretch of days as of a moment: healed ones too, which gap_open leaves out.
CREATE INDEX gap_day ON gap (day, metric_id, entity_id);
CREATE INDEX gap_revision_day ON gap_revision (day, superseded_at);
CREATE INDEX gap_revision_entity ON gap_revision (entity_id, metric_id, day);

-- The last compared weeks of all projects as of a moment, as reconciliation_week does for those that stand.
CREATE INDEX reconciliation_revision_week ON reconciliation_revision (week);
