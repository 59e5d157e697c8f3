-- Views over views, and what is written through them.

CREATE TABLE base (id int PRIMARY KEY, owner int, state text DEFAULT 'open', n int DEFAULT 0);
CREATE TABLE audit (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, base int);
CREATE TABLE other (id int PRIMARY KEY, v int);
INSERT INTO base SELECT i, i % 4, CASE WHEN i % 3 = 0 THEN 'shut' ELSE 'open' END, i FROM generate_series(1, 20) i;
INSERT INTO other SELECT i, i FROM generate_series(1, 10) i;
CREATE VIEW open_ones AS SELECT * FROM base WHERE state = 'open';
CREATE VIEW mine AS SELECT id, owner, n AS amount FROM open_ones WHERE owner = 1;
CREATE VIEW checked AS SELECT * FROM base WHERE n < 100 WITH LOCAL CHECK OPTION;
CREATE VIEW checked_all AS SELECT * FROM checked WHERE owner < 3 WITH CASCADED CHECK OPTION;
CREATE VIEW totals AS SELECT owner, count(*) AS many, sum(n) FROM base GROUP BY owner;
CREATE VIEW joined AS SELECT b.id, b.n, o.v FROM base b JOIN other o USING (id);
CREATE VIEW deep AS SELECT t.owner, t.many, (SELECT max(v) FROM other) AS top FROM totals t WHERE EXISTS (SELECT FROM joined j WHERE j.id = t.owner);
CREATE VIEW constants (x) AS VALUES (1), (2);
CREATE MATERIALIZED VIEW sums AS SELECT owner, sum(n) AS n FROM base GROUP BY owner;
CREATE UNIQUE INDEX ON sums (owner);
CREATE MATERIALIZED VIEW sums_of_sums AS SELECT sum(n) FROM sums;

-- expect: cached
SELECT * FROM open_ones ORDER BY id;
-- expect: cached
SELECT * FROM mine ORDER BY id;
-- expect: cached
SELECT * FROM mine WHERE id = 5;
-- expect: cached
SELECT * FROM totals ORDER BY owner;
-- expect: cached
SELECT * FROM deep ORDER BY owner;
-- expect: cached
SELECT * FROM constants, joined ORDER BY 1, 2;
-- expect: cached
SELECT * FROM sums WHERE owner = 1;
-- expect: cached
TABLE sums_of_sums;
-- expect: cached
SELECT * FROM checked_all ORDER BY id;

-- expect: kept sums joined sums_of_sums
INSERT INTO audit (what) VALUES ('x');
-- expect: kept sums other
UPDATE base SET n = 50 WHERE id = 5;
UPDATE mine SET amount = amount + 1 WHERE id = 5;
UPDATE mine SET amount = 7;
UPDATE open_ones SET state = 'shut' WHERE id = 8;
DELETE FROM mine WHERE id = 13;
DELETE FROM open_ones WHERE owner = 2;
INSERT INTO open_ones (id, owner, n) VALUES (100, 1, 1);
INSERT INTO mine (id, owner, amount) VALUES (101, 1, 1);
INSERT INTO mine (id, owner, amount) VALUES (101, 1, 2) ON CONFLICT (id) DO UPDATE SET amount = excluded.amount;
-- expect: error 44000
UPDATE checked SET n = 1000 WHERE id = 3;
-- expect: error 44000
INSERT INTO checked_all VALUES (200, 3);
INSERT INTO checked_all VALUES (200, 2);
-- expect: error 55000
UPDATE totals SET many = 3;
-- expect: error 55000
DELETE FROM joined;
-- expect: kept base sums_of_sums
REFRESH MATERIALIZED VIEW sums;
REFRESH MATERIALIZED VIEW sums_of_sums;
UPDATE base SET n = n * 2;
-- expect: kept base other
REFRESH MATERIALIZED VIEW CONCURRENTLY sums;
REFRESH MATERIALIZED VIEW sums_of_sums WITH NO DATA;
-- expect: error 55000
SELECT * FROM sums_of_sums;
-- expect: error 42809
UPDATE sums SET n = 1;

-- Rules.
CREATE VIEW ruled AS SELECT id, v FROM other;
CREATE RULE ruled_insert AS ON INSERT TO ruled DO INSTEAD INSERT INTO other VALUES (new.id, new.v) RETURNING id, v;
CREATE RULE ruled_update AS ON UPDATE TO ruled DO INSTEAD (UPDATE other SET v = new.v WHERE id = old.id; INSERT INTO audit (what, base) VALUES ('ruled', old.id));
CREATE RULE ruled_delete AS ON DELETE TO ruled DO INSTEAD NOTHING;
INSERT INTO ruled VALUES (50, 1);
INSERT INTO ruled VALUES (51, 1) RETURNING *;
UPDATE ruled SET v = v + 1 WHERE id = 3;
UPDATE ruled SET v = v + 1 WHERE v > 5;
DELETE FROM ruled;
CREATE RULE also AS ON UPDATE TO other WHERE old.v IS DISTINCT FROM new.v DO ALSO INSERT INTO audit (what, base) VALUES ('also', new.id);
UPDATE other SET v = v + 1 WHERE id = 2;
UPDATE ruled SET v = 3 WHERE id = 4;
CREATE RULE instead AS ON DELETE TO other DO INSTEAD UPDATE base SET n = -1 WHERE base.id = old.id;
DELETE FROM other WHERE id = 3;
DELETE FROM other WHERE v > 4;
SELECT id, n FROM base WHERE n < 0 ORDER BY id;
DROP RULE instead ON other;
DELETE FROM other WHERE id = 9;
CREATE RULE quiet AS ON INSERT TO audit DO ALSO NOTIFY audited;
INSERT INTO audit (what) VALUES ('notified');
DROP RULE quiet ON audit;

-- INSTEAD OF triggers.
CREATE FUNCTION through() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF tg_op = 'DELETE' THEN
		UPDATE base SET state = 'gone' WHERE id = old.id;
		RETURN old;
	ELSIF tg_op = 'UPDATE' THEN
		UPDATE base SET n = new.n WHERE id = old.id;
		UPDATE other SET v = new.v WHERE id = old.id;
		RETURN new;
	END IF;
	INSERT INTO base (id, n) VALUES (new.id, new.n);
	INSERT INTO other VALUES (new.id, new.v);
	RETURN new;
END $$;
CREATE TRIGGER through INSTEAD OF INSERT OR UPDATE OR DELETE ON joined FOR EACH ROW EXECUTE FUNCTION through();
INSERT INTO joined VALUES (300, 1, 2);
UPDATE joined SET n = 5, v = 6 WHERE id = 300;
UPDATE joined SET n = n + 1;
DELETE FROM joined WHERE id = 300;
SELECT id, state FROM base WHERE state = 'gone';

-- Definitions change under the same name.
CREATE OR REPLACE VIEW mine AS SELECT id, owner, n + 1 AS amount FROM base WHERE owner = 1;
SELECT * FROM mine ORDER BY id;
ALTER VIEW mine RENAME COLUMN amount TO total;
SELECT * FROM mine ORDER BY id;
ALTER TABLE base RENAME COLUMN n TO number;
SELECT * FROM mine ORDER BY id;
UPDATE base SET number = 4 WHERE owner = 1;
ALTER TABLE other RENAME TO another;
SELECT * FROM deep ORDER BY owner;
UPDATE another SET v = 900 WHERE id = 1;
ALTER VIEW deep RENAME TO deeper;
-- expect: error 42P01
SELECT * FROM deep;
SELECT * FROM deeper ORDER BY owner;
-- expect: error 2BP01
ALTER TABLE base DROP COLUMN number;
DROP VIEW checked CASCADE;
CREATE OR REPLACE RECURSIVE VIEW up_to (i) AS SELECT 1 UNION ALL SELECT i + 1 FROM up_to WHERE i < (SELECT max(id) FROM base);
SELECT count(*) FROM up_to;
INSERT INTO base (id) VALUES (400);
-- run: since 15
CREATE VIEW invoked WITH (security_invoker) AS SELECT id FROM base;
-- run: since 15
SELECT count(*) FROM invoked;
-- run: since 15
DELETE FROM invoked WHERE id = 400;
