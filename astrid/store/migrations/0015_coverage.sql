-- How many entities have a value of a metric from an origin, day by day. A function, because the answer comes from the
-- values themselves here, and from a continuous aggregate under TimescaleDB's community licence.

CREATE FUNCTION coverage(first_day date, last_day date)
RETURNS TABLE (metric_id smallint, origin_id smallint, day date, entities bigint)
LANGUAGE sql STABLE AS $$
    SELECT o.metric_id, o.origin_id, o.day, count(*)
    FROM observation o WHERE o.day BETWEEN first_day AND last_day
    GROUP BY o.metric_id, o.origin_id, o.day
$$;
COMMENT ON FUNCTION coverage(date, date) IS
    'How many entities have a value, per metric, origin and UTC day; from the days themselves, or as of the last refresh';
