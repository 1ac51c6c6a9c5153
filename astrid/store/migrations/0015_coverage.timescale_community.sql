-- Community licence: the counts are kept beside the values, so that they are a matter of days and not of values. Only
-- what a refresh has seen: the part that came since would have to be counted from whole chunks, which no index by day
-- shortens, at the price of counting everything. Late values and changed origins mark their days, which the next
-- refresh counts anew; whoever must know exactly refreshes first.

CREATE MATERIALIZED VIEW observed WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT metric_id, origin_id, time_bucket(INTERVAL '1 day', day) AS day, count(*) AS entities
FROM observation
GROUP BY 1, 2, 3
WITH NO DATA;

SELECT add_continuous_aggregate_policy('observed', start_offset => NULL, end_offset => NULL,
                                       schedule_interval => INTERVAL '1 hour');

CREATE OR REPLACE FUNCTION coverage(first_day date, last_day date)
RETURNS TABLE (metric_id smallint, origin_id smallint, day date, entities bigint)
LANGUAGE sql STABLE AS $$
    SELECT o.metric_id, o.origin_id, o.day, o.entities
    FROM observed o WHERE o.day BETWEEN first_day AND last_day
$$;
