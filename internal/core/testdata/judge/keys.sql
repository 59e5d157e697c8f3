-- Foreign keys with every action, in every direction.

CREATE TABLE owners (id int PRIMARY KEY, name text NOT NULL UNIQUE, rank int NOT NULL DEFAULT 0);
CREATE TABLE orders (id int PRIMARY KEY, owner int REFERENCES owners ON DELETE CASCADE ON UPDATE CASCADE, total int NOT NULL DEFAULT 0);
CREATE TABLE lines (
	orderid int REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE,
	no int, what text, PRIMARY KEY (orderid, no));
CREATE TABLE nicks (id int PRIMARY KEY, owner text REFERENCES owners (name) ON UPDATE CASCADE ON DELETE SET NULL);
CREATE TABLE defaults (id int PRIMARY KEY, owner int DEFAULT 11 REFERENCES owners ON UPDATE SET DEFAULT ON DELETE SET DEFAULT);
CREATE TABLE strict (id int PRIMARY KEY, owner int REFERENCES owners ON DELETE RESTRICT ON UPDATE NO ACTION);
CREATE TABLE plain (id int PRIMARY KEY, n int);

INSERT INTO owners SELECT i, 'owner ' || i FROM generate_series(1, 12) i;
INSERT INTO orders SELECT i, 1 + i % 12, i FROM generate_series(1, 30) i;
INSERT INTO lines SELECT o, n, 'line ' || n FROM generate_series(1, 20) o, generate_series(1, 2) n;
INSERT INTO nicks SELECT i, 'owner ' || i FROM generate_series(1, 12) i;
INSERT INTO defaults SELECT i, i FROM generate_series(1, 10) i;
INSERT INTO strict VALUES (1, 12);
INSERT INTO plain SELECT i, i FROM generate_series(1, 10) i;

-- expect: cached
SELECT * FROM owners ORDER BY id;
-- expect: cached
SELECT o.id, sum(total) FROM owners o JOIN orders ON orders.owner = o.id GROUP BY o.id ORDER BY 1;
-- expect: cached
SELECT count(*) FROM lines WHERE orderid = 3;
-- expect: cached
SELECT n.owner, o.rank FROM nicks n LEFT JOIN owners o ON o.name = n.owner WHERE n.id = 2;

-- expect: kept owners orders lines nicks
-- expect: rows plain owners orders
UPDATE plain SET n = n + 1 WHERE id = 3;
-- expect: kept orders lines nicks defaults
-- expect: rows owners orders
UPDATE owners SET rank = 5 WHERE id = 3;
-- expect: kept orders owners
-- expect: rows lines
UPDATE lines SET what = 'other' WHERE orderid = 1 AND no = 2;
UPDATE owners SET id = 100 WHERE id = 1;
UPDATE owners SET name = 'new name' WHERE id = 2;
UPDATE owners SET id = id + 1000 WHERE rank = 5;
DELETE FROM owners WHERE id = 1003;
DELETE FROM owners WHERE name = 'owner 6';
-- expect: rows owners
DELETE FROM orders WHERE id = 5;
UPDATE orders SET id = id + 100 WHERE owner = 4;
-- expect: error 23503
UPDATE lines SET orderid = 999 WHERE orderid = 8;
-- expect: error 23503 23001
DELETE FROM owners WHERE id = 12;
-- expect: error 23503
UPDATE owners SET id = 13 WHERE id = 12;
-- expect: error 23505
INSERT INTO owners VALUES (4, 'four');
-- expect: kept orders
INSERT INTO owners VALUES (4, 'four') ON CONFLICT DO NOTHING;
-- expect: rows orders
INSERT INTO owners (id, name) VALUES (4, 'four') ON CONFLICT (id) DO UPDATE SET name = excluded.name;
INSERT INTO owners (id, name) VALUES (50, 'four') ON CONFLICT (name) DO UPDATE SET id = excluded.id;
BEGIN;
DELETE FROM orders WHERE id = 7;
SELECT count(*) FROM lines;
ROLLBACK;
BEGIN;
DELETE FROM orders WHERE id = 7;
SELECT count(*) FROM lines;
COMMIT;
COPY plain (id, n) FROM STDIN;
100	5
101	\N
\.
-- expect: error 0A000
TRUNCATE owners;
TRUNCATE orders CASCADE;
TRUNCATE owners CASCADE;

-- Three levels, and a ring.
CREATE TABLE a (id int PRIMARY KEY, v int);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE, v int);
CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON DELETE SET NULL, v int);
CREATE TABLE d (id int PRIMARY KEY, c int REFERENCES c ON DELETE CASCADE, v int);
ALTER TABLE a ADD d int REFERENCES d ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
INSERT INTO a SELECT i, 0, NULL FROM generate_series(1, 6) i;
INSERT INTO b SELECT i, i, 0 FROM generate_series(1, 6) i;
INSERT INTO c SELECT i, i, 0 FROM generate_series(1, 6) i;
INSERT INTO d SELECT i, i, 0 FROM generate_series(1, 6) i;
UPDATE a SET d = 7 - id;
-- expect: kept b c d
-- expect: rows a
UPDATE a SET v = 1 WHERE id = 4;
DELETE FROM c WHERE id = 6;
DELETE FROM a WHERE id = 2;
SELECT a.id, b.id, c.id, d.id FROM a FULL JOIN b ON b.a = a.id FULL JOIN c ON c.b = b.id FULL JOIN d ON d.c = c.id ORDER BY 1, 2, 3, 4;
DELETE FROM d;
-- expect: error 23503
INSERT INTO a VALUES (9, 9, 99);
BEGIN;
INSERT INTO a VALUES (9, 9, 99);
INSERT INTO d VALUES (99, NULL, 1);
COMMIT;
BEGIN;
INSERT INTO a VALUES (10, 9, 98);
-- expect: error 23503
COMMIT;
BEGIN;
SET CONSTRAINTS ALL IMMEDIATE;
-- expect: error 23503
INSERT INTO a VALUES (10, 9, 98);
ROLLBACK;

-- A tree, and keys of several columns with MATCH FULL.
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE ON UPDATE CASCADE, name text);
INSERT INTO tree SELECT i, NULLIF(i / 2, 0), 'n' || i FROM generate_series(1, 31) i;
-- expect: cached
WITH RECURSIVE t AS (SELECT id, 1 AS depth FROM tree WHERE up IS NULL UNION ALL SELECT tree.id, depth + 1 FROM tree JOIN t ON tree.up = t.id)
	SELECT depth, count(*) FROM t GROUP BY depth ORDER BY depth;
-- expect: rows tree
UPDATE tree SET name = 'other' WHERE id = 9;
UPDATE tree SET id = 100 WHERE id = 2;
DELETE FROM tree WHERE id = 3;
DELETE FROM tree WHERE up = 100 AND id = 4;
CREATE TABLE places (x int, y int, name text, PRIMARY KEY (x, y), UNIQUE (y, name));
CREATE TABLE visits (id int PRIMARY KEY, x int, y int, FOREIGN KEY (x, y) REFERENCES places MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL);
CREATE TABLE guests (id int PRIMARY KEY, y int, name text, FOREIGN KEY (y, name) REFERENCES places (y, name) ON UPDATE SET NULL ON DELETE CASCADE);
INSERT INTO places SELECT x, y, x || '-' || y FROM generate_series(1, 4) x, generate_series(1, 4) y;
INSERT INTO visits SELECT 4 * x + y, x, y FROM generate_series(1, 4) x, generate_series(1, 4) y;
INSERT INTO guests SELECT 4 * x + y, y, x || '-' || y FROM generate_series(1, 4) x, generate_series(1, 4) y;
UPDATE places SET x = 9 WHERE x = 1 AND y = 2;
-- expect: kept visits
UPDATE places SET name = 'here' WHERE x = 2 AND y = 2;
UPDATE places SET y = y + 10 WHERE x = 3;
DELETE FROM places WHERE (x, y) = (4, 4);
DELETE FROM places WHERE (x, y) IN ((9, 2), (2, 3));
-- expect: error 23503
UPDATE visits SET x = NULL WHERE id = 9;
-- expect: rows places
UPDATE places SET name = 'there' WHERE x = 2 AND y IN (1, 4);
-- run: since 15
ALTER TABLE visits DROP CONSTRAINT visits_x_y_fkey, ADD FOREIGN KEY (x, y) REFERENCES places ON DELETE SET NULL (y);
-- run: since 15
DELETE FROM places WHERE x = 2;

-- To and from partitions.
CREATE TABLE parts (id int, kind text, n int, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b', 'c');
CREATE TABLE notes (id int PRIMARY KEY, part int, kind text, FOREIGN KEY (part, kind) REFERENCES parts ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE logs (id int, note int REFERENCES notes ON DELETE CASCADE, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE logs_0 PARTITION OF logs FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE logs_1 PARTITION OF logs FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parts SELECT i, substr('abc', 1 + i % 3, 1), i FROM generate_series(1, 12) i;
INSERT INTO notes SELECT id, id, kind FROM parts;
INSERT INTO logs SELECT i, 1 + i % 12 FROM generate_series(1, 24) i;
UPDATE parts SET n = 5 WHERE id = 3 AND kind = 'a';
-- expect: kept notes logs
UPDATE parts_a SET n = 6 WHERE id = 3 AND kind = 'a';
UPDATE parts SET id = 103 WHERE id = 3;
-- run: since 15
UPDATE parts SET kind = 'b' WHERE id = 6 AND kind = 'a';
DELETE FROM parts_b WHERE id = 4;
DELETE FROM parts WHERE kind = 'c';
DELETE FROM notes WHERE id = 9;
SELECT * FROM logs ORDER BY id;
TRUNCATE parts CASCADE;
