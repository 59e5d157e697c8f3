-- The schema of TestGolden: what the catalog has to tell apart. Definitions of
-- views join two relations, because how a single one is deparsed differs between
-- versions of PostgreSQL.

CREATE SCHEMA a;
CREATE SCHEMA b;
SET search_path = a;

-- Functions of all volatilities, languages and kinds.
CREATE FUNCTION im(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION st(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION vo(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION vo() RETURNS int VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION vo(int, text, defaulted int DEFAULT 1) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION internal(text) RETURNS text VOLATILE LANGUAGE internal AS 'upper';
CREATE FUNCTION many(text, VARIADIC int[]) RETURNS SETOF int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION trig() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE PROCEDURE proc(a int, OUT b int) LANGUAGE plpgsql AS 'BEGIN b := a; END';
CREATE FUNCTION step(int, int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT $1';
CREATE AGGREGATE quiet(int) (SFUNC = int4pl, STYPE = int);
CREATE AGGREGATE loud(int) (SFUNC = step, STYPE = int);
CREATE AGGREGATE ordered(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);

-- Types, operators and casts.
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE DOMAIN smaller AS small CHECK (VALUE < 10);
CREATE DOMAIN checked AS int CHECK (vo(VALUE) > 0);
CREATE DOMAIN glanced AS int CHECK (st(VALUE) > 0);
CREATE TYPE holder AS (c checked, m mood);
CREATE TYPE spread AS RANGE (subtype = int4);
CREATE FUNCTION same(pair, pair) RETURNS bool STABLE LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION writes(pair, pair) RETURNS bool VOLATILE LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same);
CREATE OPERATOR = (LEFTARG = pair, RIGHTARG = pair, FUNCTION = writes);
CREATE OPERATOR ~~~ (RIGHTARG = int, FUNCTION = im);
CREATE OPERATOR ~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = pg_catalog.int4pl);
CREATE FUNCTION pair_of(mood) RETURNS pair STABLE LANGUAGE sql AS 'SELECT ROW(1, $1::text)::a.pair';
CREATE CAST (mood AS pair) WITH FUNCTION pair_of(mood);
CREATE CAST (mood AS text) WITH INOUT AS ASSIGNMENT;

CREATE SEQUENCE fk_seq;

-- Keys.
CREATE TABLE keys (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	dropped int,
	code varchar(10) UNIQUE,
	x int NOT NULL,
	y uuid NOT NULL,
	z text,
	p int[],
	d smaller UNIQUE,
	UNIQUE (y, x) INCLUDE (z),
	later int UNIQUE DEFERRABLE
);
ALTER TABLE keys DROP COLUMN dropped;
CREATE UNIQUE INDEX ON keys (lower(z));
CREATE UNIQUE INDEX ON keys (z) WHERE x > 0;
CREATE UNIQUE INDEX ON keys (z text_pattern_ops);
CREATE UNIQUE INDEX ON keys (p);
CREATE UNIQUE INDEX ON keys (code varchar_pattern_ops);
CREATE INDEX ON keys (z);
ALTER TABLE keys ADD EXCLUDE USING hash (x WITH =);

-- Foreign keys and their actions.
CREATE TABLE fk_cascade (id int PRIMARY KEY, k bigint REFERENCES keys ON DELETE CASCADE);
CREATE TABLE fk_null (k bigint REFERENCES keys ON DELETE SET NULL ON UPDATE CASCADE);
CREATE TABLE fk_default (code varchar(10) DEFAULT '' REFERENCES keys (code) ON DELETE SET DEFAULT);
CREATE TABLE fk_plain (x int, y uuid, FOREIGN KEY (x, y) REFERENCES keys (x, y) ON DELETE RESTRICT);
CREATE TABLE fk_self (id int PRIMARY KEY, parent int REFERENCES fk_self ON UPDATE SET NULL);

-- The same name in two schemas.
CREATE TABLE twin (id int PRIMARY KEY);
CREATE TABLE b.twin (id text PRIMARY KEY);

-- Partitions and inheritance.
CREATE TABLE parts (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE parts_new PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO (MAXVALUE) PARTITION BY LIST (id);
CREATE TABLE b.parts_leaf PARTITION OF parts_new DEFAULT;
CREATE TRIGGER parts_after AFTER UPDATE ON parts FOR EACH ROW EXECUTE FUNCTION trig();
CREATE TABLE part_fk (id int, day date, FOREIGN KEY (id, day) REFERENCES parts ON DELETE CASCADE);
CREATE TABLE base (id int PRIMARY KEY);
CREATE TABLE other (o int);
CREATE TABLE heir (extra int) INHERITS (base, other);
CREATE TABLE heir_of_heir () INHERITS (heir);

-- Code: triggers of every event, disabled ones, rules, expressions.
CREATE TABLE trig_rows (id int);
CREATE TRIGGER t BEFORE INSERT OR DELETE ON trig_rows FOR EACH ROW EXECUTE FUNCTION trig();
CREATE TABLE trig_truncate (id int);
CREATE TRIGGER t AFTER TRUNCATE ON trig_truncate EXECUTE FUNCTION trig();
CREATE TABLE trig_off (id int);
CREATE TRIGGER t BEFORE INSERT ON trig_off FOR EACH ROW EXECUTE FUNCTION trig();
ALTER TABLE trig_off DISABLE TRIGGER t;
CREATE TABLE trig_replica (id int);
CREATE TRIGGER t BEFORE UPDATE ON trig_replica FOR EACH ROW EXECUTE FUNCTION trig();
ALTER TABLE trig_replica ENABLE REPLICA TRIGGER t;
CREATE TABLE trig_builtin (id int);
CREATE TRIGGER t BEFORE UPDATE ON trig_builtin FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TABLE ruled (id int);
CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE RULE s AS ON INSERT TO ruled DO ALSO NOTIFY x;
CREATE TABLE code_default (id int DEFAULT vo());
CREATE TABLE code_default_stable (id int DEFAULT st(1), n int DEFAULT nextval('fk_seq'));
CREATE TABLE code_check (id int CHECK (vo(id) > 0));
CREATE TABLE code_operator (id pair CHECK (id = ROW(1, '')::pair));
CREATE TABLE code_domain (id holder);
CREATE TABLE code_index (id int);
CREATE FUNCTION indexed(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE INDEX ON code_index (indexed(id));
ALTER FUNCTION indexed VOLATILE;
CREATE TABLE code_generated (id int, g int GENERATED ALWAYS AS (im(id)) STORED);
CREATE TABLE secured (id int);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON secured USING (vo(id) > 0);

-- Views.
CREATE VIEW v AS SELECT k.id, t.id AS twin, day FROM keys k, twin t, parts WHERE vo(k.x) > 0 AND day > '2021-02-03';
CREATE VIEW vv AS SELECT v.id, o.id AS b, o.id OPERATOR(a.===) o.id AS same FROM v, (SELECT ROW(1, '')::pair AS id FROM b.twin x, base y) o;
CREATE MATERIALIZED VIEW mv AS SELECT v.id, now() AS at FROM v, base;
CREATE UNIQUE INDEX ON mv (id);
CREATE VIEW v_instead AS SELECT x.id FROM base x, other y;
CREATE TRIGGER t INSTEAD OF UPDATE ON v_instead FOR EACH ROW EXECUTE FUNCTION trig();
CREATE VIEW v_system AS SELECT c.relname, x.id FROM pg_class c, base x, information_schema.tables;

-- Other kinds.
CREATE UNLOGGED TABLE unlogged (id int);
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE outside (id int) SERVER nowhere;
CREATE TEMP TABLE twin (id int);
