package stress

import "strings"

// historyTables has whatever makes it hard to say what a write changes: keys
// of every kind, references with actions, partitions, inheritance, views,
// triggers, rules and functions.
const historyTables = `
	CREATE TABLE parent (id int PRIMARY KEY, code varchar(5) UNIQUE, name text, ver int NOT NULL DEFAULT 0);
	CREATE TABLE child (id bigserial PRIMARY KEY, parent_id int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, note text, UNIQUE (parent_id, note));
	CREATE TABLE pet (id uuid PRIMARY KEY, owner int REFERENCES parent ON DELETE SET NULL ON UPDATE CASCADE, tame bool UNIQUE DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE toy (id int PRIMARY KEY, pet uuid DEFAULT '00000000-0000-0000-0000-000000000001' REFERENCES pet ON DELETE SET DEFAULT ON UPDATE SET NULL, parent_code varchar(5) REFERENCES parent (code) ON DELETE CASCADE ON UPDATE CASCADE);
	CREATE TABLE part (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
	CREATE TABLE part_eu PARTITION OF part FOR VALUES IN ('eu');
	CREATE TABLE part_us PARTITION OF part FOR VALUES IN ('us') PARTITION BY RANGE (id);
	CREATE TABLE part_us_low PARTITION OF part_us FOR VALUES FROM (MINVALUE) TO (4);
	CREATE TABLE part_us_high PARTITION OF part_us FOR VALUES FROM (4) TO (MAXVALUE);
	CREATE TABLE part_rest PARTITION OF part DEFAULT;
	CREATE TABLE base (id int PRIMARY KEY, v text);
	CREATE TABLE derived (id int PRIMARY KEY, extra int DEFAULT 1) INHERITS (base);
	CREATE TABLE audit (id bigserial PRIMARY KEY, what text);
	CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit (what) VALUES (TG_OP); RETURN NULL; END $$;
	CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON base FOR EACH STATEMENT EXECUTE FUNCTION log();
	CREATE TABLE r_in (id int PRIMARY KEY, v int);
	CREATE TABLE r_out (id int, v int);
	CREATE RULE also AS ON INSERT TO r_in DO ALSO INSERT INTO r_out VALUES (NEW.id, NEW.v);
	CREATE RULE instead AS ON DELETE TO r_in DO INSTEAD UPDATE r_out SET v = v + 1;
	CREATE DOMAIN small AS int CHECK (VALUE < 100);
	CREATE TABLE dk (id small PRIMARY KEY, v int);
	CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE nd (k text COLLATE nd PRIMARY KEY, v int);
	CREATE TABLE ck (k char(4) PRIMARY KEY, v int);
	CREATE TABLE nk (k numeric PRIMARY KEY, v int);
	CREATE TABLE fk (k float8 PRIMARY KEY, v int);
	CREATE TABLE bk (k bool PRIMARY KEY, v int);
	CREATE TABLE tk (k timestamptz PRIMARY KEY, v int);
	CREATE TABLE ak (k int[] PRIMARY KEY, v int);
	CREATE TABLE lk (k text PRIMARY KEY, v int);
	CREATE UNIQUE INDEX lower_lk ON lk (lower(k));
	CREATE UNIQUE INDEX partial_parent ON parent (name) WHERE ver > 2;
	CREATE VIEW v_simple AS SELECT id, name, ver FROM parent WHERE id < 6;
	CREATE VIEW v_join AS SELECT p.id, p.name, c.note FROM parent p JOIN child c ON c.parent_id = p.id;
	CREATE VIEW v_deep AS SELECT id, count(*) AS n FROM v_join GROUP BY id;
	CREATE MATERIALIZED VIEW m_parent AS SELECT id, name, ver FROM parent;
	CREATE FUNCTION bump(int) RETURNS int LANGUAGE sql AS 'UPDATE parent SET ver = ver + 1 WHERE id = $1; SELECT 1';
	CREATE PROCEDURE bump_all() LANGUAGE plpgsql AS $$ BEGIN UPDATE parent SET ver = ver + 1; UPDATE dk SET v = v + 1; END $$;
	CREATE TABLE one (x int); INSERT INTO one VALUES (1);
	INSERT INTO parent SELECT i, chr(97 + i), 'name ' || i FROM generate_series(0, 7) i;
	INSERT INTO child (parent_id, note) SELECT i % 8, 'note ' || i % 4 FROM generate_series(0, 15) i ON CONFLICT DO NOTHING;
	INSERT INTO pet VALUES ('00000000-0000-0000-0000-000000000001', 1, true), ('00000000-0000-0000-0000-000000000002', 2, false);
	INSERT INTO toy SELECT i, '00000000-0000-0000-0000-000000000001', chr(97 + i) FROM generate_series(0, 4) i;
	INSERT INTO part SELECT i, r, 0 FROM generate_series(0, 7) i, unnest(ARRAY['eu', 'us', 'xx']) r;
	INSERT INTO base SELECT i, 'v' FROM generate_series(0, 3) i; INSERT INTO derived SELECT i, 'v', 1 FROM generate_series(2, 5) i;
	INSERT INTO r_in SELECT i, i FROM generate_series(0, 3) i;
	INSERT INTO dk SELECT i, i FROM generate_series(0, 7) i;
	INSERT INTO nd VALUES ('a', 1), ('b', 2); INSERT INTO ck VALUES ('a', 1), ('b', 2); INSERT INTO nk VALUES (1, 1), (2.50, 2), ('NaN', 3);
	INSERT INTO fk VALUES (0, 1), (1.5, 2), ('NaN', 3); INSERT INTO bk VALUES (true, 1), (false, 2); INSERT INTO tk VALUES ('2024-01-01Z', 1);
	INSERT INTO ak VALUES ('{1,2}', 1); INSERT INTO lk VALUES ('a', 1), ('b', 2);`

// A {word} in a template becomes a random value of a kind, as a literal of one
// spelling or another, or as an argument of one Go type or another.
var historyReads = strings.Split(strings.TrimSpace(`
SELECT * FROM parent WHERE id = {id}
SELECT name, ver FROM parent WHERE {id} = id
SELECT ver FROM parent WHERE id = {id} AND ver >= 0
SELECT * FROM parent WHERE id IN ({id}, {id}) ORDER BY id
SELECT * FROM parent WHERE id IN ({id})
SELECT * FROM parent WHERE id = ANY({ids}) ORDER BY id
SELECT * FROM parent WHERE code = {code}
SELECT * FROM parent WHERE code IN ({code}, {code}) ORDER BY id
SELECT * FROM parent WHERE id = {id} AND code = {code}
SELECT * FROM parent WHERE (id, code) = ({id}, {code})
SELECT * FROM parent WHERE id = {id} OR code = {code} ORDER BY id
SELECT * FROM parent WHERE NOT (id = {id}) ORDER BY id
SELECT * FROM parent WHERE id = {id} AND id = {id}
SELECT * FROM parent WHERE id BETWEEN {id} AND {id} ORDER BY id
SELECT * FROM parent WHERE id + 1 = {id}
SELECT * FROM parent WHERE name = {text} AND ver > 2
SELECT count(*), sum(ver), max(id) FROM parent
SELECT count(*) FROM parent WHERE id = {id}
SELECT max(ver) FROM parent WHERE id = {id}
SELECT p.*, c.note FROM parent p JOIN child c ON c.parent_id = p.id WHERE p.id = {id} ORDER BY c.id
SELECT p.id, c.note FROM parent p LEFT JOIN child c ON c.parent_id = p.id AND c.note = {text} WHERE p.id = {id}
SELECT c.id, p.name FROM child c JOIN parent p ON p.id = c.parent_id WHERE c.id = {id}
SELECT p.name FROM child c LEFT JOIN parent p ON p.id = c.parent_id WHERE c.id = {id} AND p.id = {id}
SELECT * FROM parent p FULL JOIN dk ON dk.id = p.id WHERE p.id = {id} OR dk.id = {id} ORDER BY p.id, dk.id
SELECT id, note FROM child WHERE parent_id = {id} AND note = {text}
SELECT * FROM child WHERE parent_id = {id} ORDER BY id
SELECT EXISTS (SELECT FROM parent WHERE id = {id})
SELECT (SELECT name FROM parent WHERE id = {id}) FROM one
SELECT * FROM parent WHERE id = (SELECT max(parent_id) FROM child)
SELECT * FROM parent p WHERE id = {id} AND EXISTS (SELECT FROM child WHERE parent_id = p.id)
SELECT * FROM parent NATURAL JOIN dk ORDER BY id
WITH p AS (SELECT * FROM parent WHERE id = {id}) SELECT * FROM p
WITH RECURSIVE n AS (SELECT id FROM parent WHERE id = {id} UNION SELECT id + 1 FROM n WHERE id < 7) SELECT name FROM parent JOIN n USING (id) ORDER BY 1
SELECT id FROM parent WHERE id = {id} UNION ALL SELECT id FROM dk WHERE id = {id} ORDER BY 1
SELECT id, rank() OVER (ORDER BY id) FROM parent WHERE id = {id}
SELECT id FROM parent WHERE id = {id} LIMIT 1 OFFSET 0
SELECT DISTINCT ver FROM parent ORDER BY 1
SELECT * FROM parent a, parent b WHERE a.id = {id} AND b.id = {id}
SELECT * FROM pet WHERE id = {uuid}
SELECT * FROM pet WHERE tame = {bool}
SELECT * FROM pet ORDER BY id
SELECT * FROM toy WHERE id = {id}
SELECT id, parent_code FROM toy ORDER BY id
SELECT * FROM part WHERE id = {id} AND region = {region}
SELECT * FROM part WHERE region = {region} AND id IN ({id}, {id}) ORDER BY id
SELECT * FROM part WHERE id = {id} ORDER BY region
SELECT tableoid::int8 FROM part WHERE id = {id} AND region = {region}
SELECT * FROM part_eu WHERE id = {id} AND region = 'eu'
SELECT * FROM part_us ORDER BY id
SELECT * FROM part_us_low WHERE id = {id} AND region = {region}
SELECT count(*), sum(v) FROM part
SELECT * FROM base WHERE id = {id} ORDER BY v
SELECT * FROM ONLY base WHERE id = {id}
SELECT * FROM derived WHERE id = {id}
SELECT * FROM base ORDER BY id, v
SELECT count(*), max(id) FROM audit
SELECT what FROM audit WHERE id = {id}
SELECT * FROM r_in WHERE id = {id}
SELECT sum(v), count(*) FROM r_out
SELECT * FROM dk WHERE id = {id}
SELECT * FROM nd WHERE k = {letter}
SELECT * FROM ck WHERE k = {letter}
SELECT * FROM lk WHERE k = {letter}
SELECT * FROM lk WHERE lower(k) = {letter}
SELECT * FROM nk WHERE k = {num}
SELECT * FROM fk WHERE k = {num}
SELECT * FROM bk WHERE k = {bool}
SELECT * FROM bk WHERE k
SELECT v FROM tk WHERE k = {time}
SELECT * FROM ak WHERE k = {ids}
SELECT * FROM v_simple WHERE id = {id}
SELECT * FROM v_join WHERE id = {id} ORDER BY note
SELECT * FROM v_deep ORDER BY id
SELECT * FROM m_parent WHERE id = {id}
SELECT p.name, s.ver FROM parent p JOIN v_simple s USING (id) WHERE p.id = {id}`), "\n")

var historyWrites = strings.Split(strings.TrimSpace(`
UPDATE parent SET ver = ver + 1 WHERE id = {id}
UPDATE parent SET ver = ver + 1 WHERE code = {code}
UPDATE parent SET name = {text} WHERE id = {id}
UPDATE parent SET name = {text}, ver = 3 WHERE id = {id}
UPDATE parent SET ver = ver + 1 WHERE id IN ({id}, {id})
UPDATE parent SET ver = ver + 1 WHERE id = ANY({ids})
UPDATE parent SET ver = ver + 1 WHERE id = {id} OR code = {code}
UPDATE parent SET ver = ver + 1 WHERE id = {id} RETURNING *
UPDATE parent SET id = {id} WHERE id = {id}
UPDATE parent SET code = {code} WHERE id = {id}
UPDATE parent SET code = {code} WHERE code = {code}
UPDATE parent SET code = NULL WHERE id = {id}
UPDATE parent p SET ver = p.ver + 1 FROM child c WHERE c.parent_id = p.id AND c.id = {id}
UPDATE parent SET ver = (SELECT count(*) FROM child) WHERE id = {id}
DELETE FROM parent WHERE id = {id}
DELETE FROM parent WHERE code = {code}
DELETE FROM parent USING dk WHERE parent.id = dk.id AND dk.id = {id}
INSERT INTO parent VALUES ({id}, {code}, {text})
INSERT INTO parent VALUES ({id}, {code}, {text}) ON CONFLICT DO NOTHING
INSERT INTO parent VALUES ({id}, {code}, {text}) ON CONFLICT (id) DO UPDATE SET ver = parent.ver + 1, code = excluded.code
INSERT INTO parent (code, id) VALUES ({code}, {id}), ({code}, {id}) ON CONFLICT (id) DO NOTHING
INSERT INTO parent (id, code) VALUES ({id}, {code}) ON CONFLICT (code) DO UPDATE SET ver = parent.ver + 1
INSERT INTO parent (id, code) VALUES ({id}, {code}) ON CONFLICT ON CONSTRAINT parent_pkey DO UPDATE SET name = {text}
INSERT INTO parent SELECT i, chr(97 + i), 'name ' || i FROM generate_series(0, 7) i ON CONFLICT DO NOTHING
WITH u AS (UPDATE parent SET ver = ver + 1 WHERE id = {id} RETURNING id) INSERT INTO child (parent_id, note) SELECT id, {text} FROM u ON CONFLICT DO NOTHING
WITH d AS (DELETE FROM child WHERE id = {id} RETURNING *) SELECT count(*) FROM d
MERGE INTO parent p USING dk ON dk.id = p.id AND dk.id = {id} WHEN MATCHED THEN UPDATE SET ver = p.ver + 1
INSERT INTO child (parent_id, note) VALUES ({id}, {text})
UPDATE child SET note = {text} WHERE parent_id = {id} AND note = {text}
UPDATE child SET parent_id = {id} WHERE id = {id}
DELETE FROM child WHERE parent_id = {id}
INSERT INTO pet VALUES ({uuid}, {id}, {bool}) ON CONFLICT DO NOTHING
INSERT INTO pet VALUES ({uuid}, {id}, {bool}) ON CONFLICT (id) DO UPDATE SET owner = excluded.owner
UPDATE pet SET id = {uuid} WHERE id = {uuid}
UPDATE pet SET tame = NOT tame
UPDATE pet SET owner = {id} WHERE tame = {bool}
DELETE FROM pet WHERE id = {uuid}
INSERT INTO toy VALUES ({id}, {uuid}, {code}) ON CONFLICT (id) DO UPDATE SET pet = excluded.pet
UPDATE part SET v = v + 1 WHERE id = {id} AND region = {region}
UPDATE part SET v = v + 1 WHERE id = {id}
UPDATE part SET region = {region} WHERE id = {id} AND region = {region}
UPDATE part SET id = {id} WHERE id = {id} AND region = {region}
UPDATE part_eu SET v = v + 1 WHERE id = {id} AND region = {region}
UPDATE part_us SET v = v + 1 WHERE id = {id} AND region = {region}
UPDATE part_us_high SET v = v + 1 WHERE id = {id} AND region = 'us'
DELETE FROM part WHERE id = {id} AND region = {region}
DELETE FROM part_us_low WHERE id = {id}
INSERT INTO part VALUES ({id}, {region}, 1) ON CONFLICT (id, region) DO UPDATE SET v = part.v + 1
INSERT INTO part_us VALUES ({id}, 'us', 1) ON CONFLICT (region, id) DO UPDATE SET v = part_us.v + 1
UPDATE dk SET v = v + 1 WHERE id = {id}
UPDATE dk SET id = {id} WHERE id = {id}
INSERT INTO dk VALUES ({id}, 1) ON CONFLICT (id) DO UPDATE SET v = dk.v + 1
DELETE FROM dk WHERE id = {id}
UPDATE nd SET v = v + 1 WHERE k = {letter}
INSERT INTO nd VALUES ({letter}, 0) ON CONFLICT (k) DO UPDATE SET v = nd.v + 1
UPDATE ck SET v = v + 1 WHERE k = {letter}
INSERT INTO ck VALUES ({letter}, 0) ON CONFLICT (k) DO UPDATE SET v = ck.v + 1
UPDATE lk SET v = v + 1 WHERE k = {letter}
UPDATE lk SET v = v + 1 WHERE lower(k) = {letter}
INSERT INTO lk VALUES ({letter}, 0) ON CONFLICT (k) DO UPDATE SET v = lk.v + 1
INSERT INTO lk VALUES ({letter}, 0) ON CONFLICT (lower(k)) DO UPDATE SET v = lk.v + 1, k = excluded.k
DELETE FROM lk WHERE k = {letter}
UPDATE nk SET v = v + 1 WHERE k = {num}
INSERT INTO nk VALUES ({num}, 0) ON CONFLICT (k) DO UPDATE SET v = nk.v + 1, k = excluded.k
UPDATE fk SET v = v + 1 WHERE k = {num}
UPDATE bk SET v = v + 1 WHERE k = {bool}
UPDATE bk SET v = v + 1 WHERE k
UPDATE bk SET k = NOT k WHERE k = {bool}
UPDATE tk SET v = v + 1 WHERE k = {time}
UPDATE ak SET v = v + 1 WHERE k = {ids}
UPDATE v_simple SET ver = ver + 1 WHERE id = {id}
DELETE FROM v_simple WHERE id = {id}
INSERT INTO v_simple VALUES ({id}, {text}, 0) ON CONFLICT (id) DO UPDATE SET ver = 1
REFRESH MATERIALIZED VIEW m_parent
UPDATE parent SET ver = ver + 1 WHERE id = 1; UPDATE dk SET v = v + 1 WHERE id = 1
COPY dk FROM STDIN`), "\n")

// historyRareWrites invalidate more than most, and so hide what others fail to.
var historyRareWrites = strings.Split(strings.TrimSpace(`
TRUNCATE child
TRUNCATE parent CASCADE
TRUNCATE part_us_low
TRUNCATE part
UPDATE base SET v = {text} WHERE id = {id}
UPDATE ONLY base SET v = {text} WHERE id = {id}
UPDATE derived SET v = {text} WHERE id = {id}
UPDATE base SET id = {id} WHERE id = {id}
INSERT INTO base VALUES ({id}, {text}) ON CONFLICT (id) DO UPDATE SET v = excluded.v
INSERT INTO derived VALUES ({id}, {text}, 2) ON CONFLICT (id) DO NOTHING
DELETE FROM base WHERE id = {id}
DELETE FROM derived WHERE id = {id}
INSERT INTO r_in VALUES ({id}, 1) ON CONFLICT DO NOTHING
INSERT INTO r_in VALUES ({id}, 1)
DELETE FROM r_in WHERE id = {id}
UPDATE r_in SET v = v + 1 WHERE id = {id}
SELECT bump({id})
SELECT bump(id) FROM dk WHERE id = {id}
CALL bump_all()
DO $$ BEGIN UPDATE parent SET ver = ver + 1 WHERE id = 3; END $$
ALTER TABLE parent ADD COLUMN IF NOT EXISTS later int DEFAULT 5
ALTER TABLE parent DROP COLUMN IF EXISTS later
CREATE OR REPLACE VIEW v_simple AS SELECT id, name, ver FROM parent WHERE id < 4
CREATE OR REPLACE VIEW v_simple AS SELECT id, name, ver FROM parent WHERE id > 1
ALTER TABLE part DETACH PARTITION part_eu
ALTER TABLE part ATTACH PARTITION part_eu FOR VALUES IN ('eu')
ALTER TABLE lk DROP CONSTRAINT lk_pkey
ALTER TABLE lk ADD PRIMARY KEY (k)
ALTER TABLE dk RENAME COLUMN v TO w
ALTER TABLE dk RENAME COLUMN w TO v
ALTER TABLE bk RENAME TO bk2
ALTER TABLE bk2 RENAME TO bk`), "\n")
