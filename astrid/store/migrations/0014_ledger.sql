-- What the ledger of exceptions (docs/adr/0004, 0022) does not say by itself: who was expected since when, and which
-- run said so.

CREATE TABLE expectation (
    entity_id integer NOT NULL REFERENCES entity,
    source    text NOT NULL,
    task      text NOT NULL,
    first_day date NOT NULL,
    last_day  date,
    PRIMARY KEY (source, task, entity_id, first_day),
    CHECK (last_day >= first_day)
);
CREATE UNIQUE INDEX expectation_current ON expectation (source, task, entity_id) WHERE last_day IS NULL;
CREATE INDEX expectation_entity ON expectation (entity_id);
COMMENT ON TABLE expectation IS 'Whom nights ask a task for: from first_day on a value is expected on every day, or on every turn';
COMMENT ON COLUMN expectation.first_day IS 'Day of the first night that asked, or would have if it had had room';
COMMENT ON COLUMN expectation.last_day IS 'Day of the last such night; NULL = it goes on';

-- Of what earlier versions wrote, the nights' batches say who was asked for.
INSERT INTO expectation (entity_id, source, task, first_day)
SELECT e.entity_id, asked.source, asked.task, min(asked.day)
FROM (SELECT b.source, b.task, r.day, (whom ->> 0)::int4 AS entity_id
      FROM run r JOIN batch b USING (run_id), jsonb_array_elements(b.body -> 'entities') AS whom
      WHERE r.kind = 'nightly') asked
JOIN entity e USING (entity_id)
GROUP BY e.entity_id, asked.source, asked.task;

SELECT start_history('expectation', $$(first_day + 1)::timestamp AT TIME ZONE 'UTC'$$);

ALTER TABLE gap ADD COLUMN run_id bigint;
ALTER TABLE gap ADD COLUMN healed_run bigint;
COMMENT ON COLUMN gap.run_id IS 'The run that gave the reason; NULL: written by hand, or by a version that did not say';
COMMENT ON COLUMN gap.healed_run IS 'The run that brought the value after all';
SELECT start_history('gap');

-- A run writes between its beginning and its end; of two at a time the later one is taken.
ALTER TABLE gap DISABLE TRIGGER gap_history;
UPDATE gap g SET
    run_id = (SELECT max(r.run_id) FROM run r
              WHERE r.started_at <= g.last_seen_at AND (r.finished_at IS NULL OR r.finished_at >= g.last_seen_at)),
    healed_run = (SELECT max(r.run_id) FROM run r
                  WHERE r.started_at <= g.healed_at AND (r.finished_at IS NULL OR r.finished_at >= g.healed_at));
ALTER TABLE gap ENABLE TRIGGER gap_history;
UPDATE gap_revision g SET
    run_id = (SELECT max(r.run_id) FROM run r
              WHERE r.started_at <= g.last_seen_at AND (r.finished_at IS NULL OR r.finished_at >= g.last_seen_at));

CREATE INDEX gap_run ON gap (run_id);
CREATE INDEX gap_healed_run ON gap (healed_run) WHERE healed_run IS NOT NULL;
CREATE INDEX gap_revision_run ON gap_revision (run_id);
CREATE INDEX gap_revision_healed_run ON gap_revision (healed_run) WHERE healed_run IS NOT NULL;
CREATE INDEX batch_task ON batch (run_id, source, task);
