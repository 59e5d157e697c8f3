-- Code that runs unseen: triggers of every kind.

CREATE TABLE items (id int PRIMARY KEY, shelf int, note text, n int DEFAULT 0, updated_at timestamptz);
CREATE TABLE shelves (id int PRIMARY KEY, many int DEFAULT 0);
CREATE TABLE log (id bigserial PRIMARY KEY, what text, item int);
CREATE TABLE counters (name text PRIMARY KEY, n int);
CREATE TABLE bystander (id int PRIMARY KEY, v int);
INSERT INTO shelves SELECT i FROM generate_series(1, 5) i;
INSERT INTO items SELECT i, 1 + i % 5, 'item ' || i FROM generate_series(1, 20) i;
INSERT INTO counters VALUES ('a', 0), ('b', 0);
INSERT INTO bystander SELECT i, i FROM generate_series(1, 5) i;
-- expect: cached
SELECT * FROM items WHERE id = 4;
-- expect: cached
SELECT shelf, count(*) FROM items GROUP BY shelf ORDER BY shelf;
-- expect: cached
SELECT count(*) FROM log;
-- expect: cached
SELECT sum(n) FROM counters;

-- The one that everybody has.
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.updated_at := now();
	RETURN NEW;
END $$;
CREATE TRIGGER touch BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION touch();
-- expect: rows items
-- expect: kept shelves log bystander
UPDATE items SET n = n + 1 WHERE id = 4;
-- expect: kept shelves log bystander counters
UPDATE items SET n = 0 WHERE shelf = 2;
-- expect: rows items
-- expect: kept shelves log bystander
DELETE FROM items WHERE id = 20;

-- One that writes elsewhere, in the open.
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log (what, item) VALUES (tg_op, coalesce(new.id, old.id));
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION note();
-- expect: rows items
-- expect: kept shelves bystander counters
UPDATE items SET n = n + 1 WHERE id = 4;
-- expect: kept shelves bystander counters
INSERT INTO items VALUES (21, 1);
-- expect: kept shelves bystander counters
DELETE FROM items WHERE id = 21;
-- expect: kept shelves bystander counters
INSERT INTO items VALUES (3, 1) ON CONFLICT (id) DO UPDATE SET n = 5;

-- With tables named in a variable.
CREATE FUNCTION dynamic() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('UPDATE %I SET many = many + $1 WHERE id = $2', tg_argv[0]) USING 1, new.shelf;
	RETURN new;
END $$;
CREATE TRIGGER dynamic BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION dynamic('shelves');
-- run: since 15
SELECT pg_stat_force_next_flush();
-- expect: kept since 15 bystander counters
INSERT INTO items VALUES (22, 2);
-- expect: error 23505
INSERT INTO items VALUES (22, 2);
COPY items (id, shelf) FROM STDIN;
23	1
24	3
\.

-- A chain: log → counters → log again, once.
CREATE FUNCTION count_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() < 3 THEN
		UPDATE counters SET n = n + 1 WHERE name = 'a';
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER count_log AFTER INSERT ON log FOR EACH STATEMENT EXECUTE FUNCTION count_log();
CREATE FUNCTION log_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log (what) SELECT 'counted ' || count(*) FROM changed;
	RETURN NULL;
END $$;
CREATE TRIGGER log_count AFTER UPDATE ON counters REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION log_count();
-- expect: kept shelves bystander
UPDATE items SET note = 'chain' WHERE id = 1;
-- expect: kept shelves bystander items
UPDATE counters SET n = 5 WHERE name = 'b';
-- expect: kept shelves bystander items
UPDATE counters SET n = 5 WHERE name = 'nobody';

-- A BEFORE trigger that changes the key.
CREATE TABLE keyed (id int PRIMARY KEY, v int, code text UNIQUE);
CREATE TABLE follows (id int PRIMARY KEY, keyed int REFERENCES keyed ON UPDATE CASCADE ON DELETE CASCADE, code text REFERENCES keyed (code) ON UPDATE SET NULL);
INSERT INTO keyed SELECT i, i, 'k' || i FROM generate_series(1, 8) i;
INSERT INTO follows SELECT i, i, 'k' || i FROM generate_series(1, 8) i;
CREATE FUNCTION shift() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.v > 100 THEN
		new.id = new.id + 1000;
	ELSIF new.v > 50 THEN
		new.code = 'shifted ' || new.id;
	ELSIF new.v < 0 THEN
		RETURN NULL;
	END IF;
	RETURN new;
END $$;
CREATE TRIGGER shift BEFORE INSERT OR UPDATE OF v ON keyed FOR EACH ROW EXECUTE FUNCTION shift();
UPDATE keyed SET v = 101 WHERE id = 1;
UPDATE keyed SET v = 51 WHERE id = 2;
UPDATE keyed SET v = -1 WHERE id = 3;
UPDATE keyed SET code = 'other' WHERE id = 4;
INSERT INTO keyed VALUES (5, 200, 'new') ON CONFLICT (id) DO UPDATE SET v = 7;
INSERT INTO keyed VALUES (1001, 0) ON CONFLICT (id) DO UPDATE SET v = keyed.v + 1;
INSERT INTO keyed VALUES (6, 60, 'k7') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
CREATE FUNCTION fold() RETURNS trigger LANGUAGE plpgsql AS 'begin new := row(new.id, new.v, upper(new.code)); return new; end';
CREATE TRIGGER fold BEFORE UPDATE ON keyed FOR EACH ROW EXECUTE FUNCTION fold();
UPDATE keyed SET v = 1 WHERE id = 7;
UPDATE keyed SET v = 1 WHERE code = 'K7';

-- Constraint triggers, at the end of the transaction.
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE bystander SET v = v + 1 WHERE id = new.id;
	IF new.v = 13 THEN
		RAISE EXCEPTION 'unlucky' USING ERRCODE = 'P0013';
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON keyed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.v BETWEEN 10 AND 20) EXECUTE FUNCTION late();
UPDATE keyed SET v = 11 WHERE id = 4;
BEGIN;
UPDATE keyed SET v = 12 WHERE id = 4;
SELECT * FROM bystander WHERE id = 4;
UPDATE items SET n = 8 WHERE id = 2;
COMMIT;
-- expect: error P0013
UPDATE keyed SET v = 13 WHERE id = 4;
BEGIN;
UPDATE keyed SET v = 13 WHERE id = 4;
-- expect: error P0013
COMMIT;
BEGIN;
SET CONSTRAINTS late IMMEDIATE;
UPDATE keyed SET v = 14 WHERE id = 4;
COMMIT;
SELECT v FROM bystander WHERE id = 4;

-- TRUNCATE, transition tables, arguments, conditions, columns.
CREATE FUNCTION emptied() RETURNS trigger LANGUAGE plpgsql AS 'begin delete from bystander where id = 1; return null; end';
CREATE TRIGGER emptied AFTER TRUNCATE ON log FOR EACH STATEMENT EXECUTE FUNCTION emptied();
-- expect: kept shelves
TRUNCATE log;
CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
	FOR r IN SELECT o.shelf AS a, n.shelf AS b FROM olds o JOIN news n USING (id) LOOP
		UPDATE shelves SET many = many - 1 WHERE id = r.a;
		UPDATE shelves SET many = many + 1 WHERE id = r.b;
	END LOOP;
	RETURN NULL;
END $$;
CREATE TRIGGER moved AFTER UPDATE ON items REFERENCING OLD TABLE AS olds NEW TABLE AS news FOR EACH STATEMENT EXECUTE FUNCTION moved();
UPDATE items SET shelf = 5 WHERE id = 7;
UPDATE items SET shelf = shelf % 5 + 1;
ALTER TABLE items DISABLE TRIGGER note;
-- expect: kept log counters
UPDATE items SET shelf = 4 WHERE id = 8;
ALTER TABLE items ENABLE TRIGGER note;
UPDATE items SET shelf = 3 WHERE id = 8;
SET session_replication_role = replica;
UPDATE items SET shelf = 2 WHERE id = 8;
ALTER TABLE items ENABLE REPLICA TRIGGER moved;
UPDATE items SET shelf = 1 WHERE id = 8;
RESET session_replication_role;
CREATE FUNCTION only_red() RETURNS trigger LANGUAGE plpgsql AS 'begin update counters set n = -1; return new; end';
CREATE TRIGGER only_red AFTER UPDATE OF note ON items FOR EACH ROW WHEN (new.note = 'red') EXECUTE FUNCTION only_red();
UPDATE items SET note = 'red' WHERE id = 9;
UPDATE items SET n = 5 WHERE note = 'red';
-- The body changes, and the name does not.
CREATE OR REPLACE FUNCTION only_red() RETURNS trigger LANGUAGE plpgsql AS 'begin update shelves set many = -1; return new; end';
UPDATE items SET note = 'red' WHERE id = 10;
ALTER FUNCTION only_red() SET search_path = elsewhere, public;
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.shelves (id int PRIMARY KEY, many int);
INSERT INTO elsewhere.shelves VALUES (1, 1);
UPDATE items SET note = 'red' WHERE id = 11;
SELECT * FROM elsewhere.shelves;
ALTER FUNCTION only_red() RESET search_path;
SET search_path = elsewhere, public;
UPDATE items SET note = 'red' WHERE id = 12;
RESET search_path;
DROP TRIGGER only_red ON items;

-- On partitions and on parents.
CREATE TABLE p (id int, k int, v int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
CREATE FUNCTION on_p() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (what, item) VALUES (tg_table_name || ' ' || tg_op, 0); RETURN NULL; END $$;
CREATE TRIGGER on_p AFTER INSERT OR DELETE ON p FOR EACH ROW EXECUTE FUNCTION on_p();
CREATE TRIGGER on_p2 AFTER UPDATE ON p2 FOR EACH ROW EXECUTE FUNCTION on_p();
INSERT INTO p VALUES (1, 1, 1), (2, 2, 2);
UPDATE p SET v = 5 WHERE id = 1;
UPDATE p SET v = 5 WHERE id = 2 AND k = 2;
UPDATE p SET k = 2 WHERE id = 1 AND k = 1;
DELETE FROM p1;
DELETE FROM p WHERE id = 2 AND k = 2;

-- Foreign keys fire triggers, too.
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE SET NULL);
INSERT INTO parent VALUES (1), (2), (3);
INSERT INTO child VALUES (1, 1), (2, 2), (3, 3);
CREATE FUNCTION on_child() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE counters SET n = n + 100 WHERE name = 'b'; RETURN NULL; END $$;
CREATE TRIGGER on_child AFTER DELETE OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION on_child();
DELETE FROM parent WHERE id = 1;
UPDATE parent SET id = 20 WHERE id = 2;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION refuse();
DELETE FROM parent WHERE id = 3;
SELECT * FROM child ORDER BY id;

-- Code in defaults, checks, generated columns and indexes.
CREATE FUNCTION counted() RETURNS int LANGUAGE plpgsql AS $$ BEGIN UPDATE counters SET n = n + 1 WHERE name = 'a'; RETURN 1; END $$;
CREATE FUNCTION pure(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'begin return $1 * 2; end';
CREATE TABLE coded (id int PRIMARY KEY, d int DEFAULT counted(), g int GENERATED ALWAYS AS (pure(id)) STORED, CHECK (pure(id) > 0));
CREATE INDEX ON coded (pure(d));
-- expect: kept shelves
INSERT INTO coded VALUES (1);
INSERT INTO coded (id, d) VALUES (2, 5), (3, 6);
UPDATE coded SET d = DEFAULT WHERE id = 2;
-- expect: error 23514
INSERT INTO coded VALUES (-1, 1);
ALTER TABLE coded ADD CONSTRAINT writes CHECK (counted() = 1);
UPDATE coded SET d = 4 WHERE id = 3;

-- Event triggers.
CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (what) VALUES (tg_tag); END $$;
CREATE EVENT TRIGGER on_ddl ON ddl_command_end EXECUTE FUNCTION on_ddl();
CREATE TABLE made (id int);
COMMENT ON TABLE made IS 'made';
ALTER TABLE made ADD x int;
DROP EVENT TRIGGER on_ddl;
SELECT what FROM log WHERE what LIKE '%TABLE' ORDER BY id;
