CREATE TABLE run_cost (
    run_id           bigint NOT NULL REFERENCES run,
    upstream         text NOT NULL,
    bucket           text NOT NULL,
    planned_requests bigint NOT NULL DEFAULT 0,
    planned_points   bigint NOT NULL DEFAULT 0,
    planned_hours    double precision NOT NULL DEFAULT 0,
    spent_requests   bigint,
    spent_points     bigint,
    PRIMARY KEY (run_id, upstream, bucket)
);
COMMENT ON TABLE run_cost IS 'What a run was planned to cost and what it did cost, per upstream and budget bucket';
COMMENT ON COLUMN run_cost.planned_hours IS 'Hours at the limits of the upstream';
COMMENT ON COLUMN run_cost.spent_requests IS 'As the budgets counted them, repetitions included; NULL: nobody counted';
COMMENT ON COLUMN run_cost.spent_points IS 'Points of the primary limit, as the answers stated them; NULL: nobody counted';
