-- Finished batches that still hold their whole work, oldest first: what housekeeping empties.
CREATE INDEX batch_bodied ON batch (updated_at) WHERE state IN ('done', 'split') AND body <> '{}';
COMMENT ON COLUMN batch.body IS 'The whole batch, enough to run it again; {} = finished so long ago that nobody does';
