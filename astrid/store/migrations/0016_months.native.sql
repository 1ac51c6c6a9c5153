-- Plain PostgreSQL: the values of the years in which nights write lie in a partition per month of day, where they lay in
-- one per year. A night writes one day of every series and so touches every page of the index of its partition, and what
-- is new to a partition is filled in from left to right. The other years stay whole: whole series come there. Divide
-- those after 2031 while they are still empty. See docs/adr/0023-writes.md.

DO $$
DECLARE
    whole regclass;
    month date;
BEGIN
    FOR year IN 2024..2031 LOOP
        whole := ('observation_' || year)::regclass;
        EXECUTE format('ALTER TABLE observation DETACH PARTITION %s', whole);
        FOR number IN 1..12 LOOP
            month := make_date(year, number, 1);
            EXECUTE format('CREATE TABLE %I PARTITION OF observation FOR VALUES FROM (%L) TO (%L)',
                           to_char(month, '"observation_"YYYY"_"MM'), month, (month + INTERVAL '1 month')::date);
        END LOOP;
        EXECUTE format('INSERT INTO observation SELECT * FROM %s ORDER BY metric_id, entity_id, day', whole);
        EXECUTE format('DROP TABLE %s', whole);
    END LOOP;
END
$$;
