-- name: settings
-- For this transaction alone. What COPY writes as text must read the same everywhere and to the last bit; a limit that
-- is meant for queries must not cut a backup.
SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL TimeZone = 'UTC';
SET LOCAL IntervalStyle = 'postgres';
SET LOCAL extra_float_digits = 3;
SET LOCAL bytea_output = 'hex';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL jit = off

-- name: moment
-- The first statement of the transaction, so this is the moment that all others see.
SELECT now()

-- name: read_tables
-- As JSON, each table of ours ($1, a JSON list of names) with what a dump must know of it, and the statements over it,
-- written here because only the server knows how it quotes names. Texts are sorted by their bytes, so that a table reads
-- the same under any collation. %1$L and %2$L of a month's statement are its first and its last day.
-- The next number of an identity column is looked up only where $2 is true: that locks its sequence.
WITH asked AS (
    SELECT c.oid, c.relname::text AS name, obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND c.relname IN (SELECT jsonb_array_elements_text($1::jsonb))
), col AS (
    SELECT t.oid, a.attnum, a.attname::text AS name, y.typname::text AS type, NOT a.attnotnull AS nullable,
           a.attidentity <> '' AS is_identity, col_description(t.oid, a.attnum) AS comment,
           CASE WHEN $2::bool AND a.attidentity <> '' THEN (
               SELECT coalesce(pg_sequence_last_value(s.seqrelid::regclass) + s.seqincrement, s.seqstart)
               FROM pg_sequence s
               WHERE s.seqrelid = pg_get_serial_sequence(quote_ident(t.name), a.attname)::regclass
           ) END AS next_id
    FROM asked t
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type y ON y.oid = a.atttypid
), keyed AS (
    SELECT t.oid, json_agg(col.name ORDER BY k.place) AS names,
           string_agg(format(CASE WHEN col.type = 'text' THEN '%I COLLATE "C"' ELSE '%I' END, col.name), ', '
                      ORDER BY k.place) AS sorting
    FROM asked t
    JOIN pg_index x ON x.indrelid = t.oid AND x.indisprimary
    CROSS JOIN unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    JOIN col ON col.oid = t.oid AND col.attnum = k.attnum
    GROUP BY t.oid
), listed AS (
    SELECT oid, bool_or(col.name = 'day' AND type = 'date' AND NOT nullable) AS is_dated,
           json_agg(json_build_object('name', col.name, 'type', type, 'nullable', nullable, 'comment', col.comment)
                    ORDER BY attnum) AS columns,
           json_object_agg(col.name, next_id) FILTER (WHERE next_id IS NOT NULL) AS next_ids,
           json_object_agg(col.name, json_build_array(
               format('SELECT max(%I) FROM %I', col.name, asked.name),
               -- Unlike setval this goes back with the transaction.
               format('ALTER TABLE %I ALTER COLUMN %I RESTART WITH ', asked.name, col.name)
           )) FILTER (WHERE is_identity) AS restarts,
           string_agg(format(CASE WHEN type = 'jsonb' THEN '%I::text' ELSE '%I' END, col.name), ', '
                      ORDER BY attnum) AS selected
    FROM asked JOIN col USING (oid)
    GROUP BY oid
)
SELECT json_build_object(
    'name', t.name, 'comment', t.comment, 'columns', l.columns, 'key', k.names,
    'next_ids', coalesce(l.next_ids, '{}'::json), 'restarts', coalesce(l.restarts, '{}'::json),
    'parents', (SELECT coalesce(json_agg(p.relname ORDER BY p.relname), '[]'::json) FROM pg_constraint f
                JOIN pg_class p ON p.oid = f.confrelid WHERE f.conrelid = t.oid AND f.contype = 'f'),
    'select', format('SELECT %s FROM %I ORDER BY %s', l.selected, t.name, k.sorting),
    'select_month', CASE WHEN l.is_dated THEN format(
        'SELECT %s FROM %I WHERE day BETWEEN %%1$L::date AND %%2$L::date ORDER BY %s', l.selected, t.name, k.sorting) END,
    'select_days', CASE WHEN l.is_dated THEN format('SELECT day, count(*) FROM %I GROUP BY day', t.name) END,
    'has_rows', format('SELECT EXISTS (SELECT FROM %I)', t.name),
    'lock', format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', t.name),
    'analyze', format('ANALYZE %I', t.name)
)::text
FROM asked t
JOIN listed l USING (oid)
LEFT JOIN keyed k USING (oid)
ORDER BY t.name COLLATE "C"

-- name: write_statement
-- A statement with two texts put in as literals: COPY takes no parameters.
SELECT format($1::text, $2::text, $3::text)

-- name: server
SELECT current_setting('server_version')
