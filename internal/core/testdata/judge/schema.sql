-- What a name means changes under the cache.

CREATE TABLE t (id int PRIMARY KEY, v text, n int);
CREATE TABLE ref (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE);
INSERT INTO t SELECT i, 'v' || i, i FROM generate_series(1, 8) i;
INSERT INTO ref SELECT i, i FROM generate_series(1, 8) i;
CREATE SCHEMA one;
CREATE SCHEMA two;
CREATE TABLE one.t (id int PRIMARY KEY, v text, extra int);
CREATE TABLE two.t (id int PRIMARY KEY, v text);
INSERT INTO one.t VALUES (1, 'one', 1);
INSERT INTO two.t VALUES (1, 'two');
-- expect: cached
SELECT * FROM t WHERE id = 1;
-- expect: cached
SELECT * FROM one.t;
SET search_path = one, public;
-- expect: cached
SELECT * FROM t WHERE id = 1;
UPDATE t SET v = 'one changed' WHERE id = 1;
SET search_path = two, public;
-- expect: cached
SELECT * FROM t WHERE id = 1;
-- expect: kept ref
UPDATE t SET v = 'two changed' WHERE id = 1;
SELECT set_config('search_path', 'one', false);
SELECT * FROM t WHERE id = 1;
RESET search_path;
SELECT * FROM t WHERE id = 1;
CREATE SCHEMA postgres;
CREATE TABLE postgres.t (id int PRIMARY KEY, v text);
INSERT INTO postgres.t VALUES (1, 'of the user');
SELECT * FROM t WHERE id = 1;
DROP SCHEMA postgres CASCADE;
SELECT * FROM t WHERE id = 1;

-- Columns.
ALTER TABLE t ADD m int DEFAULT 5;
SELECT * FROM t WHERE id = 1;
ALTER TABLE t RENAME v TO text;
SELECT * FROM t WHERE id = 1;
ALTER TABLE t ALTER n TYPE bigint;
SELECT * FROM t WHERE id = 1;
ALTER TABLE t ALTER n TYPE text USING 'n' || n;
SELECT * FROM t WHERE id = 1;
ALTER TABLE t DROP m;
SELECT * FROM t WHERE id = 1;
ALTER TABLE t ADD g text GENERATED ALWAYS AS (n || '!') STORED;
UPDATE t SET n = 'x' WHERE id = 1;
-- expect: error 428C9
UPDATE t SET g = 'x' WHERE id = 1;
SELECT * FROM t WHERE id = 1;
ALTER TABLE t ADD i int GENERATED ALWAYS AS IDENTITY;
SELECT * FROM t WHERE id = 2;
-- expect: error 428C9
UPDATE t SET i = 5;
UPDATE t SET i = DEFAULT WHERE id = 2;
ALTER TABLE t ALTER id SET DATA TYPE bigint;
UPDATE t SET n = 'big' WHERE id = 2;
SELECT * FROM t WHERE id = 2;
ALTER TABLE t ALTER text SET DEFAULT 'd';
INSERT INTO t (id) VALUES (50);
SELECT * FROM t WHERE id = 50;

-- Keys come and go.
ALTER TABLE ref DROP CONSTRAINT ref_t_fkey;
ALTER TABLE t DROP CONSTRAINT t_pkey;
INSERT INTO t (id, text) VALUES (1, 'a second one');
-- expect: cached
SELECT id, text FROM t WHERE id = 1 ORDER BY text;
UPDATE t SET text = text || '+' WHERE id = 1;
DELETE FROM t WHERE id = 1 AND text LIKE 'a%';
ALTER TABLE t ADD PRIMARY KEY (id);
UPDATE t SET text = 'keyed again' WHERE id = 1;
SELECT id, text FROM t WHERE id = 1 ORDER BY text;
ALTER TABLE ref ADD FOREIGN KEY (t) REFERENCES t ON DELETE SET NULL NOT VALID;
DELETE FROM t WHERE id = 3;
SELECT * FROM ref WHERE id = 3;
ALTER TABLE ref VALIDATE CONSTRAINT ref_t_fkey;
CREATE UNIQUE INDEX t_lower ON t (lower(text));
CREATE UNIQUE INDEX t_part ON t (n) WHERE n LIKE 'n%';
UPDATE t SET text = 'by expression' WHERE lower(text) = 'v4';
UPDATE t SET text = 'by part' WHERE n = 'n5';
DROP INDEX t_lower, t_part;
CREATE UNIQUE INDEX CONCURRENTLY t_text ON t (text);
SELECT * FROM t WHERE text = 'by part';
UPDATE t SET n = 'n' WHERE text = 'by part';
ALTER TABLE t ADD CONSTRAINT late UNIQUE USING INDEX t_text DEFERRABLE INITIALLY DEFERRED;
BEGIN;
UPDATE t SET text = 'v6' WHERE id = 7;
SELECT id FROM t WHERE text = 'v6' ORDER BY id;
UPDATE t SET text = 'v7' WHERE id = 6;
COMMIT;
SELECT id FROM t WHERE text = 'v6';
BEGIN;
UPDATE t SET text = 'v6' WHERE id = 8;
-- expect: error 23505
COMMIT;

-- Renamed, replaced, moved, dropped.
ALTER TABLE t RENAME TO t_old;
-- expect: error 42P01
SELECT * FROM t WHERE id = 2;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (2, 'replaced');
SELECT * FROM t WHERE id = 2;
BEGIN;
ALTER TABLE t RENAME TO t_new;
ALTER TABLE t_old RENAME TO t;
SELECT id FROM t WHERE id = 2;
COMMIT;
SELECT id FROM t WHERE id = 2;
UPDATE t SET n = 'after' WHERE id = 2;
ALTER TABLE t_new SET SCHEMA two;
UPDATE two.t_new SET v = 'moved' WHERE id = 2;
SELECT * FROM two.t_new;
ALTER SCHEMA two RENAME TO three;
SELECT * FROM three.t_new;
-- expect: error 3F000
CREATE TABLE two.x (id int);
DROP TABLE ref;
ALTER TABLE t SET UNLOGGED;
UPDATE t SET n = 'unlogged' WHERE id = 2;
SELECT n FROM t WHERE id = 2;
ALTER TABLE t SET LOGGED;
SELECT n FROM t WHERE id = 2;
CLUSTER t USING t_pkey;
VACUUM t;
VACUUM FULL t;
ANALYZE;
REINDEX TABLE t;
DROP SCHEMA three CASCADE;
-- expect: error 42P01
SELECT * FROM three.t_new;
DROP TABLE IF EXISTS nowhere;
DROP TABLE one.t;
-- expect: error 42P01
SELECT * FROM one.t;
COMMENT ON TABLE t IS 'x';

-- Temporary tables in front of others.
SELECT count(*) FROM t;
CREATE TEMP TABLE t (id int PRIMARY KEY, mine text);
INSERT INTO t VALUES (1, 'mine');
-- expect: bypass
SELECT * FROM t;
UPDATE t SET mine = 'still' WHERE id = 1;
-- expect: bypass
SELECT * FROM t;
UPDATE public.t SET n = 'public' WHERE id = 2;
SELECT n FROM public.t WHERE id = 2;
DROP TABLE pg_temp.t;
SELECT n FROM t WHERE id = 2;
BEGIN;
CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT * FROM t;
UPDATE t SET n = gone.n || '?' FROM gone WHERE gone.id = t.id;
COMMIT;
SELECT n FROM t WHERE id = 2;
CREATE TEMP VIEW glance AS SELECT id FROM t;
-- expect: bypass
SELECT * FROM glance;
DELETE FROM glance WHERE id = 8;
SELECT id FROM t ORDER BY id;
DISCARD TEMP;
DISCARD ALL;
SELECT id FROM t ORDER BY id DESC;
