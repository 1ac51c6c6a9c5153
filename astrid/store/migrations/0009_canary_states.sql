ALTER TABLE canary DROP CONSTRAINT canary_state_check;
ALTER TABLE canary ADD CONSTRAINT canary_state_check
    CHECK (state IN ('ok', 'violated', 'not judged', 'not asked', 'accepted'));
COMMENT ON COLUMN canary.state IS 'accepted: a violation that an operator takes for the new way, see docs/adr/0017-canaries.md';
COMMENT ON COLUMN canary.first_day IS 'From here to day is what was measured; what runs of these nights wrote is doubted with it';
COMMENT ON COLUMN canary.run_id IS 'The run that judged; judging a night again replaces its verdicts, but for an accepted one';
