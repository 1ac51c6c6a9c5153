-- name: lock
-- One migrator at a time; the lock ends with the transaction, so a pooler may stand in between. Who does not get it
-- comes again: a wait would hold one of a pooler's few sessions.
SELECT pg_try_advisory_xact_lock(4706235481230001)

-- name: bound_waits
-- For this transaction alone.
SELECT set_config('lock_timeout', $1, true)

-- name: read_oldest_transaction
SELECT pid, application_name, state, extract(epoch FROM clock_timestamp() - xact_start)::int4 AS open_s
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
  AND backend_type = 'client backend'
ORDER BY xact_start LIMIT 1

-- name: create_record
-- What was applied, and whether this database is native or timescale: decided once, remembered for good.
CREATE TABLE IF NOT EXISTS migration (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS flavour (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    name       text NOT NULL CHECK (name IN ('native', 'timescale'))
);
COMMENT ON TABLE migration IS 'Migration files that were applied, with the checksum of their text';
COMMENT ON TABLE flavour IS 'How the large tables are partitioned; decided at the first migration'

-- name: read_applied
SELECT name, sha256 FROM migration ORDER BY name

-- name: record_exists
SELECT to_regclass('migration') IS NOT NULL AND to_regclass('flavour') IS NOT NULL

-- name: record_applied
INSERT INTO migration (name, sha256) VALUES ($1, $2)

-- name: read_flavour
SELECT name FROM flavour

-- name: record_flavour
INSERT INTO flavour (name) VALUES ($1)

-- name: timescale_installed
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')

-- name: timescale_offered
-- The extension can only be created where the server loads its library at start.
SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
   AND current_setting('shared_preload_libraries', true) LIKE '%timescaledb%'

-- name: create_timescale
CREATE EXTENSION IF NOT EXISTS timescaledb

-- name: timescale_license
SELECT current_setting('timescaledb.license', true)

-- name: read_schema
-- Every function, table, column, constraint, index, trigger and comment as statements, in an order that can be run
-- again: what a function returns rows of stands before it.
WITH relation AS (
    SELECT c.oid, c.relname::text AS name, c.relkind, c.relispartition, c.reltablespace,
           CASE WHEN c.relispartition THEN 1 ELSE 0 END AS layer
    FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
), attribute AS (
    SELECT r.oid, string_agg(format(E'    %I %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
               CASE WHEN a.attidentity = 'a' THEN ' GENERATED ALWAYS AS IDENTITY'
                    WHEN d.adbin IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
                    ELSE '' END), E',\n' ORDER BY a.attnum) AS columns
    FROM relation r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    GROUP BY r.oid
), function AS (
    SELECT p.oid, p.proname::text AS name, format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) AS call,
           t.typrelid <> 0 OR p.proretset AS gives_rows
    FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
    WHERE p.pronamespace = current_schema()::regnamespace
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass
                        AND d.deptype = 'e')
), statement AS (
    SELECT CASE WHEN f.gives_rows THEN 5 ELSE 0 END AS step, 0 AS layer, f.name AS first, '' AS second,
           rtrim(pg_get_functiondef(f.oid), E'\n') AS body
    FROM function f
    UNION ALL
    SELECT 6, 0, f.name, '', format('COMMENT ON FUNCTION %s IS %L', f.call, d.description)
    FROM function f JOIN pg_description d ON d.objoid = f.oid AND d.classoid = 'pg_proc'::regclass
    UNION ALL
    SELECT 5, 0, r.name, t.tgname::text, pg_get_triggerdef(t.oid)
    FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid
    WHERE NOT t.tgisinternal AND NOT r.relispartition
    UNION ALL
    SELECT 1, r.layer, r.name, '',
           CASE WHEN r.relispartition
                THEN format('CREATE TABLE %I PARTITION OF %s %s', r.name,
                            (SELECT inhparent::regclass FROM pg_inherits WHERE inhrelid = r.oid),
                            pg_get_expr(c.relpartbound, c.oid))
                ELSE format(E'CREATE TABLE %I (\n%s\n)%s', r.name, a.columns,
                            coalesce(' PARTITION BY ' || pg_get_partkeydef(r.oid), '')) END AS body
    FROM relation r JOIN pg_class c USING (oid) JOIN attribute a USING (oid)
    UNION ALL
    SELECT CASE k.contype WHEN 'f' THEN 3 ELSE 2 END, 0, r.name, k.conname,
           format('ALTER TABLE %I ADD CONSTRAINT %I %s', r.name, k.conname, pg_get_constraintdef(k.oid))
    FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid
    WHERE NOT r.relispartition AND k.contype IN ('p', 'u', 'c', 'f')
    UNION ALL
    SELECT 4, 0, r.name, i.relname, pg_get_indexdef(i.oid)
    FROM relation r JOIN pg_index x ON x.indrelid = r.oid JOIN pg_class i ON i.oid = x.indexrelid
    WHERE NOT r.relispartition AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid)
    UNION ALL
    SELECT 6, 0, r.name, coalesce(lpad(a.attnum::text, 3, '0'), ''),
           CASE WHEN a.attname IS NULL THEN format('COMMENT ON TABLE %I IS %L', r.name, d.description)
                ELSE format('COMMENT ON COLUMN %I.%I IS %L', r.name, a.attname, d.description) END
    FROM relation r
    JOIN pg_description d ON d.objoid = r.oid AND d.classoid = 'pg_class'::regclass
    LEFT JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = d.objsubid AND d.objsubid > 0
    WHERE NOT r.relispartition
)
SELECT step, replace(body, current_schema() || '.', '') AS body
FROM statement
ORDER BY step, layer, first COLLATE "C", second COLLATE "C"
