-- Plain PostgreSQL: one partition per year of day. Years outside 2008..2040 go to the default partition.

CREATE TABLE observation (
    metric_id   smallint NOT NULL,
    entity_id   integer NOT NULL,
    day         date NOT NULL,
    value       double precision NOT NULL,
    origin_id   smallint NOT NULL,
    observed_at timestamptz NOT NULL,
    run_id      bigint NOT NULL,
    PRIMARY KEY (metric_id, entity_id, day)
) PARTITION BY RANGE (day);

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
) PARTITION BY RANGE (day);

DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['observation', 'observation_revision'] LOOP
        FOR year IN 2008..2040 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                           parent || '_' || year, parent, make_date(year, 1, 1), make_date(year + 1, 1, 1));
        END LOOP;
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', parent || '_default', parent);
    END LOOP;
END
$$;
