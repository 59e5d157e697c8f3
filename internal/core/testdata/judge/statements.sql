-- Statements of every shape, on plain tables.

CREATE TABLE t (id int PRIMARY KEY, k int, v text, n int DEFAULT 0, UNIQUE (k));
CREATE TABLE u (id bigint PRIMARY KEY, t int, v text);
CREATE TABLE w (a int, b text, c uuid, d date, PRIMARY KEY (a, b));
CREATE TABLE dup (x int, y int);
CREATE TABLE still (id int PRIMARY KEY, v int);
INSERT INTO t SELECT i, i * 10, 'v' || i FROM generate_series(1, 20) i;
INSERT INTO u SELECT i, 1 + i % 20, 'u' || i FROM generate_series(1, 40) i;
INSERT INTO w SELECT i, 'b' || j, ('00000000-0000-0000-0000-0000000000' || i || j)::uuid, date '2020-01-01' + i FROM generate_series(1, 4) i, generate_series(1, 3) j;
INSERT INTO dup SELECT i % 3, i FROM generate_series(1, 9) i;
INSERT INTO still SELECT i, i FROM generate_series(1, 5) i;

-- expect: cached
SELECT * FROM t WHERE id = 5;
-- expect: cached
SELECT * FROM t WHERE k = 50;
-- expect: cached
SELECT * FROM t WHERE id IN (1, 2, 3) ORDER BY id;
-- expect: cached
SELECT * FROM t WHERE id = 5 AND v = 'v5';
-- expect: cached
SELECT t.*, u.v FROM t JOIN u ON u.t = t.id WHERE t.id = 7 ORDER BY u.id;
-- expect: cached
SELECT t.id, (SELECT count(*) FROM u WHERE u.t = t.id) FROM t ORDER BY id DESC LIMIT 3 OFFSET 2;
-- expect: cached
SELECT * FROM t NATURAL LEFT JOIN u ORDER BY t.id LIMIT 5;
-- expect: cached
SELECT x, count(*), sum(y), array_agg(y ORDER BY y) FROM dup GROUP BY GROUPING SETS ((x), ()) ORDER BY x;
-- expect: cached
SELECT x, y, row_number() OVER w, sum(y) OVER (PARTITION BY x ORDER BY y ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM dup WINDOW w AS (ORDER BY y) ORDER BY y;
-- expect: cached
SELECT * FROM t WHERE EXISTS (SELECT FROM u WHERE u.t = t.id AND u.id > 30) AND k NOT IN (SELECT y FROM dup) ORDER BY id;
-- expect: cached
SELECT s.id, l.v FROM still s CROSS JOIN LATERAL (SELECT v FROM t WHERE t.id > s.id ORDER BY t.id LIMIT 1) l ORDER BY 1;
-- expect: cached
(SELECT id FROM t EXCEPT SELECT id FROM still) UNION ALL (SELECT id FROM u INTERSECT SELECT id FROM t) ORDER BY 1;
-- expect: cached
WITH RECURSIVE r (i) AS (SELECT min(id) FROM t UNION ALL SELECT i + 1 FROM r WHERE i < (SELECT max(id) FROM still)), m AS MATERIALIZED (SELECT * FROM u) SELECT i, count(m.id) FROM r LEFT JOIN m ON m.t = i GROUP BY i ORDER BY i;
-- expect: cached
SELECT DISTINCT ON (x) x, y FROM dup ORDER BY x, y DESC;
-- expect: cached
SELECT w FROM w ORDER BY a, b;
-- expect: cached
SELECT (w).a, row(w.*), w IS NULL FROM w WHERE a = 1 AND b = 'b2';
-- expect: cached
SELECT * FROM (VALUES (1, 'one'), (2, 'two')) v (i, name) JOIN t ON t.id = i ORDER BY i;
-- expect: cached
SELECT sum(n) FILTER (WHERE id > 3), string_agg(v, ',' ORDER BY id), percentile_cont(0.5) WITHIN GROUP (ORDER BY id), bool_or(k > 5) FROM t;
-- expect: cached
SELECT t.id FROM t, u, still s WHERE t.id = u.t AND u.id = 3 AND s.id = 2 AND t.k = 40;
-- expect: cached
SELECT * FROM t ORDER BY n FETCH FIRST 1 ROWS WITH TIES;
-- expect: cached
SELECT * FROM ROWS FROM (generate_series(1, 3), unnest(ARRAY['a', 'b'])) WITH ORDINALITY;
-- expect: bypass
SELECT * FROM t WHERE id = 5 FOR UPDATE;
-- expect: bypass
SELECT * FROM t TABLESAMPLE SYSTEM (100) ORDER BY id;
-- expect: bypass
SELECT now() > '2000-01-01', count(*) FROM t;
-- expect: bypass
SELECT ctid, xmin FROM t WHERE id = 5;
-- expect: bypass
SELECT relname FROM pg_class WHERE relname = 't';

-- By key: nobody else.
-- expect: rows t
-- expect: kept u w dup still
UPDATE t SET v = 'x' WHERE id = 5;
-- expect: rows t
-- expect: kept u w dup still
UPDATE t SET n = n + 1 WHERE id = 5 AND n = 0;
-- expect: rows t
UPDATE t SET n = 3 WHERE id IN (1, 2);
-- expect: kept u w
UPDATE t SET n = 3 WHERE k = 30;
-- expect: rows u
DELETE FROM u WHERE id = 40;
-- expect: rows w
UPDATE w SET d = '2021-01-01' WHERE b = 'b2' AND a = 3;
-- expect: rows t u
INSERT INTO t VALUES (100, 1000, 'new');
-- expect: rows t
INSERT INTO t VALUES (101, 1010, 'new'), (102, 1020, 'new') RETURNING id, v;
-- expect: rows t
INSERT INTO t (id, k, v) VALUES (5, 50, 'up') ON CONFLICT (id) DO UPDATE SET v = excluded.v, n = t.n + 1 RETURNING *;
-- expect: rows t u
INSERT INTO u (id, t) VALUES (5, 1) ON CONFLICT DO NOTHING;

-- Keys that change, and keys of others.
UPDATE t SET id = 500 WHERE id = 6;
UPDATE t SET id = id + 1000 WHERE id IN (7, 8);
UPDATE t SET id = 7, k = 7700 + n WHERE id = 500;
UPDATE t SET k = k + 1 WHERE id = 9;
INSERT INTO t VALUES (900, 100, 'other key') ON CONFLICT (k) DO UPDATE SET v = excluded.v;
INSERT INTO t VALUES (901, 110, 'other key') ON CONFLICT (k) DO UPDATE SET id = excluded.id;
INSERT INTO t VALUES (12, 5555, 'by name') ON CONFLICT ON CONSTRAINT t_pkey DO UPDATE SET k = excluded.k;
INSERT INTO t SELECT id + 2000, k + 5000, v FROM t WHERE id < 4 ON CONFLICT (id) DO UPDATE SET v = 'again';
-- expect: error 23505
UPDATE t SET k = 50 WHERE id = 1;
-- expect: error 21000
INSERT INTO t VALUES (800, 1, ''), (800, 2, '') ON CONFLICT (id) DO UPDATE SET v = 'twice';
UPDATE t SET (v, n) = (SELECT u.v, u.id FROM u WHERE u.t = t.id ORDER BY u.id LIMIT 1) WHERE id < 5;
UPDATE t SET v = u.v FROM u WHERE u.t = t.id AND u.id BETWEEN 1 AND 10;
UPDATE t AS x SET n = 9 FROM t AS y WHERE x.id = y.id + 1 AND y.id = 1;
UPDATE t SET n = -1 WHERE id = (SELECT max(id) FROM still);
UPDATE t SET n = -2 WHERE id = 1 OR id = 2;
UPDATE t SET n = -3 WHERE NOT id <> 3;
UPDATE t SET n = -4 WHERE id = 3::bigint;
UPDATE t SET n = -5 WHERE id = 3.0;
UPDATE t SET n = -6 WHERE id = '3';
UPDATE t SET n = -7 WHERE (id, k) = (3, 30);
UPDATE t SET n = -8 WHERE id = ANY (ARRAY[1, 2, 3]);
UPDATE t SET n = -9 WHERE id = ANY (SELECT 2);
UPDATE t SET n = -10 WHERE 2 = id AND true;
DELETE FROM u USING t WHERE t.id = u.t AND t.id = 2;
DELETE FROM u WHERE v IN (SELECT v FROM u WHERE id = 3);
UPDATE w SET b = b || '!' WHERE a = 2;
UPDATE w SET a = a + 10 WHERE (a, b) IN ((1, 'b1'), (4, 'b3'));
UPDATE w SET a = 5 WHERE c = '00000000-0000-0000-0000-000000000032';
DELETE FROM dup WHERE x = 1;
-- expect: kept t u w dup
DELETE FROM still WHERE false;

-- Several at once.
-- expect: kept w dup
WITH a AS (UPDATE t SET n = 50 WHERE id = 1 RETURNING id), b AS (INSERT INTO u SELECT 1000 + id, id FROM a RETURNING t) SELECT * FROM b;
WITH a AS (DELETE FROM dup WHERE y = 3 RETURNING y), b AS (UPDATE still SET v = 0 WHERE id IN (SELECT y FROM a) RETURNING *) INSERT INTO u SELECT 2000 + id, v FROM b;
WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3), d AS (DELETE FROM still USING r WHERE id = i RETURNING id) UPDATE t SET n = 60 FROM d WHERE d.id = t.id;
-- run: since 15
MERGE INTO t USING u ON t.id = u.t AND u.id < 20 WHEN MATCHED AND t.n > 0 THEN UPDATE SET n = t.n + 1 WHEN MATCHED AND t.n = -2 THEN DELETE WHEN NOT MATCHED AND u.id = 30 THEN INSERT VALUES (u.id + 3000, u.id + 3000, u.v);
-- run: since 15
MERGE INTO t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DO NOTHING;
-- run: since 17
MERGE INTO t USING still s ON t.id = s.id WHEN NOT MATCHED BY SOURCE AND t.id > 3000 THEN DELETE WHEN MATCHED THEN UPDATE SET n = 7 RETURNING merge_action(), t.id;
SELECT * INTO copied FROM t WHERE id < 5;
SELECT count(*) FROM copied;
CREATE TABLE copied_too AS SELECT * FROM u;
CREATE TABLE copied_empty AS TABLE u WITH NO DATA;
INSERT INTO copied_empty TABLE u;
COPY still (id, v) FROM STDIN;
70	7
80	8
\.
COPY (SELECT 1) TO PROGRAM 'cat >/dev/null';
TRUNCATE dup, still;
TRUNCATE t RESTART IDENTITY;

-- Transactions.
INSERT INTO t SELECT i, i * 10, 'v' || i FROM generate_series(1, 20) i;
BEGIN;
UPDATE t SET v = 'one' WHERE id = 1;
SELECT * FROM t WHERE id = 1;
SELECT * FROM t WHERE id = 2;
SELECT count(*) FROM t;
SAVEPOINT s;
DELETE FROM t WHERE id = 2;
SELECT * FROM t WHERE id = 2;
ROLLBACK TO s;
SELECT * FROM t WHERE id = 2;
-- expect: error 23505
INSERT INTO t VALUES (3);
-- expect: error 25P02
SELECT * FROM t WHERE id = 1;
ROLLBACK TO SAVEPOINT s;
UPDATE t SET v = 'four' WHERE id = 4;
RELEASE s;
COMMIT;
SELECT * FROM t WHERE id IN (1, 2, 4) ORDER BY id;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM t WHERE id = 1;
UPDATE t SET n = 1 WHERE id = 1;
SELECT * FROM t WHERE id = 1;
COMMIT AND CHAIN;
UPDATE t SET n = 2 WHERE id = 1;
ROLLBACK AND NO CHAIN;
SELECT * FROM t WHERE id = 1;
START TRANSACTION READ ONLY;
SELECT count(*) FROM t;
-- expect: error 25006
UPDATE t SET n = 5;
ABORT;
BEGIN;
SET LOCAL search_path = pg_catalog;
-- expect: error 42P01
SELECT * FROM t WHERE id = 1;
END;
SELECT * FROM t WHERE id = 1;
BEGIN;
TRUNCATE t;
SELECT count(*) FROM t;
ROLLBACK;
SELECT count(*) FROM t;
BEGIN;
DROP TABLE t;
ROLLBACK;
SELECT count(*) FROM t;
BEGIN;
CREATE TABLE fresh (id int PRIMARY KEY);
INSERT INTO fresh VALUES (1);
SELECT * FROM fresh;
COMMIT;
SELECT * FROM fresh;
