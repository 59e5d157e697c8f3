-- Partitions of every kind, and inheritance.

CREATE TABLE events (at date NOT NULL, id int NOT NULL, kind text, n int DEFAULT 0, PRIMARY KEY (at, id, kind)) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2020-02-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2020-02-01') TO ('2020-03-01') PARTITION BY LIST (kind);
CREATE TABLE events_2_x PARTITION OF events_2 FOR VALUES IN ('x');
CREATE TABLE events_2_rest PARTITION OF events_2 DEFAULT;
CREATE TABLE events_rest PARTITION OF events DEFAULT;
INSERT INTO events SELECT date '2020-01-20' + i, i, substr('xyz', 1 + i % 3, 1), i FROM generate_series(1, 60) i;

-- expect: cached
SELECT kind, count(*), sum(n) FROM events GROUP BY kind ORDER BY kind;
-- expect: cached
SELECT * FROM events WHERE at = '2020-02-10' ORDER BY id;
-- expect: cached
SELECT * FROM events_2 ORDER BY at, id;
-- expect: cached
SELECT count(*) FROM ONLY events;
SELECT tableoid, count(*) FROM events GROUP BY 1 ORDER BY 1;

UPDATE events SET n = n + 1 WHERE at = '2020-02-10' AND id = 21;
UPDATE events SET n = n + 1 WHERE at BETWEEN '2020-02-10' AND '2020-02-12';
UPDATE events_2 SET n = -1 WHERE kind = 'y';
UPDATE events_2_x SET n = -2;
-- moves rows
UPDATE events SET at = '2020-01-05' WHERE at = '2020-02-11';
UPDATE events SET kind = 'x' WHERE at = '2020-02-15';
UPDATE events_2 SET kind = 'x' WHERE kind = 'z';
-- expect: error 23514
UPDATE events_2 SET at = '2020-05-05' WHERE kind = 'x';
-- expect: error 23514
UPDATE events_2_x SET kind = 'y';
DELETE FROM events WHERE at = '2020-01-21';
DELETE FROM events_2_rest;
INSERT INTO events_1 VALUES ('2020-01-03', 1000, 'x');
-- expect: error 23514
INSERT INTO events_1 VALUES ('2020-02-03', 1000, 'x');
INSERT INTO events VALUES ('2020-01-03', 1000, 'y', 9) ON CONFLICT (at, id, kind) DO UPDATE SET n = excluded.n, kind = 'z';
TRUNCATE events_2_x;
TRUNCATE ONLY events_rest;
COPY events (at, id, kind) FROM STDIN;
2020-01-07	2000	x
2020-02-07	2001	y
2021-02-07	2002	z
\.
ALTER TABLE events DETACH PARTITION events_1;
SELECT count(*) FROM events;
INSERT INTO events_1 VALUES ('2020-01-04', 1001, 'x');
ALTER TABLE events ATTACH PARTITION events_1 FOR VALUES FROM ('2020-01-01') TO ('2020-02-01');
SELECT count(*) FROM events;
CREATE TABLE events_3 (LIKE events INCLUDING ALL);
INSERT INTO events_3 VALUES ('2020-03-09', 5, 'q');
-- expect: kept events
INSERT INTO events_3 VALUES ('2020-03-10', 6, 'q');
-- expect: error 23514
ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM ('2020-03-10') TO ('2020-04-01');
ALTER TABLE events DETACH PARTITION events_rest;
ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM ('2020-03-01') TO ('2020-04-01');
UPDATE events_3 SET n = 77;
DROP TABLE events_2_x;
SELECT kind, count(*) FROM events GROUP BY kind ORDER BY kind;
-- expect: error 23514
INSERT INTO events VALUES ('2030-01-01', 1, 'x');
CREATE INDEX ON events (kind);
-- expect: kept events_rest
DELETE FROM events WHERE n = 77;
WITH gone AS (DELETE FROM events_1 WHERE id > 1000 RETURNING *) INSERT INTO events_rest SELECT * FROM gone;

-- A partition whose columns stand in another order.
CREATE TABLE h (id int PRIMARY KEY, v text, w int) PARTITION BY HASH (id);
CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h1 (w int, junk int, v text, id int NOT NULL);
ALTER TABLE h1 DROP junk;
ALTER TABLE h ATTACH PARTITION h1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO h SELECT i, 'v' || i, i FROM generate_series(1, 20) i;
-- expect: cached
SELECT * FROM h WHERE id = 3;
-- expect: rows h
UPDATE h SET v = 'new' WHERE id = 3;
UPDATE h1 SET v = 'newer' WHERE w = 3;
UPDATE h SET id = id + 100 WHERE id < 5;
INSERT INTO h VALUES (7, 'seven', 7) ON CONFLICT (id) DO UPDATE SET v = 'seven' WHERE h.w = 7;
-- expect: rows h
DELETE FROM h WHERE id = ANY (ARRAY[8, 9]);
-- run: since 15
MERGE INTO h USING (VALUES (10, 'ten'), (500, 'new')) s (id, v) ON h.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v, 0);
SELECT sum(w), max(v) FROM h1;

-- Inheritance: a key may be there twice.
CREATE TABLE cities (id int PRIMARY KEY, name text, people int);
CREATE TABLE capitals (state text) INHERITS (cities);
CREATE TABLE old_capitals (until int) INHERITS (capitals);
CREATE TABLE named (name text, note text);
CREATE TABLE both_of (extra int) INHERITS (cities, named);
ALTER TABLE capitals ADD PRIMARY KEY (id);
INSERT INTO cities VALUES (1, 'Aa', 10), (2, 'Bb', 20);
INSERT INTO capitals VALUES (1, 'Cc', 30, 'CC'), (3, 'Dd', 40, 'DD');
INSERT INTO old_capitals VALUES (1, 'Ee', 50, 'EE', 1900), (4, 'Ff', 60, 'FF', 1800);
INSERT INTO both_of VALUES (1, 'Gg', 70, 'note', 1);
-- expect: cached
SELECT * FROM cities WHERE id = 1 ORDER BY people;
-- expect: cached
SELECT * FROM ONLY cities WHERE id = 1;
-- expect: cached
SELECT name FROM named ORDER BY 1;
UPDATE cities SET people = people + 1 WHERE id = 1;
UPDATE ONLY cities SET people = people + 1 WHERE id = 1;
UPDATE capitals SET name = 'Cx' WHERE id = 1;
UPDATE old_capitals SET people = 0 WHERE id = 4;
UPDATE named SET note = 'x';
DELETE FROM ONLY capitals WHERE id = 3;
DELETE FROM cities WHERE people < 12;
INSERT INTO old_capitals VALUES (9, 'Zz', 1, 'ZZ', 1);
TRUNCATE ONLY cities;
TRUNCATE named;
ALTER TABLE old_capitals NO INHERIT capitals;
UPDATE old_capitals SET people = 5;
ALTER TABLE old_capitals INHERIT cities;
UPDATE old_capitals SET people = 6;
SELECT count(*) FROM cities;
-- expect: error 2BP01
DROP TABLE cities;
DROP TABLE capitals CASCADE;
