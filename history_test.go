package cachedpg

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

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

var slot = regexp.MustCompile(`\{\w+\}`)

// history is one run: writes, each followed by reads that must be as through
// plain pgx. Nothing runs at the same time, so that a seed tells the whole story.
type history struct {
	*testing.T
	rng   *rand.Rand
	dbs   []*sql.DB
	plain *sql.DB
	log   []string
	asked []question // lately, to be asked again
}

// fill makes a statement of a template.
func (h *history) fill(template string) question {
	var q question
	q.text = slot.ReplaceAllStringFunc(template, func(word string) string {
		literal, arg, typ := h.value(word[1 : len(word)-1])
		if arg == nil || h.rng.IntN(2) == 0 {
			return literal
		}
		q.args = append(q.args, arg)
		place := fmt.Sprintf("$%d", len(q.args))
		if h.rng.IntN(3) == 0 {
			return place + "::" + typ
		}
		return place
	})
	return q
}

// value gives a value of a kind as a literal and as an argument.
func (h *history) value(kind string) (literal string, arg any, typ string) {
	pick := func(list ...string) string { return list[h.rng.IntN(len(list))] }
	switch kind {
	case "id":
		n := h.rng.IntN(9)
		s := fmt.Sprint(n)
		return pick(s, s, s, "'"+s+"'", s+"::bigint", "'"+s+"'::int", "CAST("+s+" AS smallint)", "("+s+")", "+"+s, s+".0", "int '"+s+"'"),
			[]any{n, int64(n), int16(n), s, &n}[h.rng.IntN(5)], pick("int", "bigint", "int2")
	case "ids":
		list := []int{h.rng.IntN(9), h.rng.IntN(9), h.rng.IntN(9)}[:h.rng.IntN(4)]
		if h.rng.IntN(4) == 0 {
			list = []int{1, 2}
		}
		s := strings.ReplaceAll(strings.Trim(fmt.Sprint(list), "[]"), " ", ",")
		return pick("'{"+s+"}'", "ARRAY["+s+"]::int[]", "'{"+s+"}'::int[]"), list, "int[]"
	case "code":
		s := pick("a", "b", "c", "d", "e", "a ", "B", "")
		return pick(quoted(s), quoted(s)+"::text", quoted(s)+"::varchar", quoted(s)+"::char(3)"), s, pick("text", "varchar", "varchar(5)", "char(3)")
	case "text":
		s := pick("note 0", "note 1", "note 2", "name 1", "", "ü")
		return pick(quoted(s), "E"+quoted(s), quoted(s)+"::text"), s, "text"
	case "letter":
		s := pick("a", "A", "b", "B", "a ", "ab", "á")
		return quoted(s), s, pick("text", "varchar", "bpchar", "char(4)")
	case "region":
		s := pick("eu", "us", "xx", "yy")
		return quoted(s), s, "text"
	case "uuid":
		s := fmt.Sprintf("00000000-0000-0000-0000-00000000000%d", 1+h.rng.IntN(3))
		return pick(quoted(s), quoted("{"+strings.ReplaceAll(s, "-", "")+"}"), quoted(s)+"::uuid"), s, "uuid"
	case "bool":
		s := pick("true", "false")
		return pick(s, quoted(s[:1]), s), s == "true", "bool"
	case "num":
		s := pick("1", "1.0", "1.00", "2.5", "2.50", "25e-1", "0", "-0.0")
		return pick(s, quoted(s)), s, pick("numeric", "float8")
	case "time":
		s := pick("2024-01-01T00:00:00Z", "2024-01-01T09:00:00+09:00", "2024-01-01T00:00:01Z")
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			h.Fatal(err)
		}
		return quoted(s), []any{t, t.UTC(), s}[h.rng.IntN(3)], "timestamptz"
	}
	h.Fatalf("no value of kind %q", kind)
	return "", nil, ""
}

// rows writes down a result; an error is one, too.
func rowsOf(ctx context.Context, on asker, q question) string {
	rows, err := on.QueryContext(ctx, q.text, q.args...)
	if err != nil {
		return "error: " + err.Error()
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "error: " + err.Error()
	}
	var b strings.Builder
	fmt.Fprintln(&b, columns)
	for rows.Next() {
		values := make([]any, len(columns))
		dest := make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return "error: " + err.Error()
		}
		for _, v := range values {
			b.WriteString(describe(v) + " ")
		}
		b.WriteByte('\n')
	}
	if err := rows.Err(); err != nil {
		return "error: " + err.Error()
	}
	return b.String()
}

// check asks a question on a connection that may answer from the cache, and on one that does not.
func (h *history) check(q question, on, truth asker, truthContext context.Context) {
	h.Helper()
	got, want := rowsOf(context.Background(), on, q), rowsOf(truthContext, truth, q)
	if got != want {
		h.Fatalf("%s %v:\ngot  %s\nwant %s\nafter\n%s\nagain: go test -run '^%s$' -stress.seed=%d .", q.text, q.args, got, want,
			strings.Join(h.log[max(0, len(h.log)-30):], "\n"), h.Name(), *stressSeed)
	}
}

func (h *history) ask() {
	q := h.fill(historyReads[h.rng.IntN(len(historyReads))])
	if len(h.asked) > 0 && h.rng.IntN(5) > 0 { // again, so that there is something to invalidate
		q = h.asked[h.rng.IntN(len(h.asked))]
	} else {
		h.asked = append(h.asked, q)
		h.asked = h.asked[max(0, len(h.asked)-60):]
	}
	h.check(q, h.dbs[h.rng.IntN(len(h.dbs))], h.plain, context.Background())
}

// write executes a random write; most errors are as welcome as success.
func (h *history) write(on asker) error {
	templates := historyWrites
	if h.rng.IntN(25) == 0 {
		templates = historyRareWrites
	}
	q := h.fill(templates[h.rng.IntN(len(templates))])
	h.log = append(h.log, fmt.Sprintf("%s %v", q.text, q.args))
	if strings.HasPrefix(q.text, "COPY") {
		return h.copy(on)
	}
	if strings.Contains(q.text, "; ") && !strings.HasPrefix(q.text, "DO") {
		q.args = []any{pgx.QueryExecModeSimpleProtocol}
	}
	var err error
	if h.rng.IntN(2) == 0 {
		_, err = on.ExecContext(context.Background(), q.text, q.args...)
	} else if rows, queryErr := on.QueryContext(context.Background(), q.text, q.args...); queryErr != nil {
		err = queryErr
	} else {
		for rows.Next() && h.rng.IntN(2) == 0 {
		}
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		h.log = append(h.log, "  "+err.Error())
		if strings.Contains(err.Error(), "cachedpg") || strings.Contains(err.Error(), "syntax error") {
			h.Fatalf("%s %v: %v", q.text, q.args, err)
		}
	}
	return err
}

func (h *history) copy(on asker) error {
	db, ok := on.(*sql.DB)
	if !ok {
		return nil
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		h.Fatal(err)
	}
	defer conn.Close()
	return PgxConn(context.Background(), conn, func(c *pgx.Conn) error {
		_, err := c.CopyFrom(context.Background(), pgx.Identifier{"dk"}, []string{"id"}, pgx.CopyFromRows([][]any{{int32(h.rng.IntN(9))}}))
		return err
	})
}

// transaction writes and reads in a transaction, with a savepoint now and then.
func (h *history) transaction() {
	h.log = append(h.log, "BEGIN")
	tx, err := h.dbs[h.rng.IntN(len(h.dbs))].Begin()
	if err != nil {
		h.Fatal(err)
	}
	defer tx.Rollback()
	for range 1 + h.rng.IntN(4) {
		savepoint := h.rng.IntN(2) == 0
		if savepoint {
			h.log = append(h.log, "SAVEPOINT")
			if _, err := tx.Exec("SAVEPOINT s"); err != nil {
				h.Fatal(err)
			}
		}
		err := h.write(tx)
		if savepoint && (err != nil || h.rng.IntN(2) == 0) {
			h.log = append(h.log, "ROLLBACK TO")
			if _, err := tx.Exec("ROLLBACK TO s"); err != nil {
				h.Fatal(err)
			}
			err = nil
		}
		if err != nil {
			break
		}
		if len(h.asked) > 0 && err == nil {
			// Any error would end the transaction, so only what is known to work.
			q := h.asked[h.rng.IntN(len(h.asked))]
			if _, err := tx.Exec("SAVEPOINT r"); err != nil {
				h.log = append(h.log, "  "+err.Error())
				break
			}
			got := rowsOf(context.Background(), tx, q)
			_, _ = tx.Exec("ROLLBACK TO r")
			want := rowsOf(WithBypass(context.Background()), tx, q)
			_, _ = tx.Exec("ROLLBACK TO r")
			if got != want {
				h.Fatalf("in the transaction: %s %v:\ngot  %s\nwant %s\nafter\n%s\nseed %d", q.text, q.args, got, want,
					strings.Join(h.log[max(0, len(h.log)-30):], "\n"), *stressSeed)
			}
		}
	}
	if h.rng.IntN(3) == 0 {
		h.log = append(h.log, "ROLLBACK")
		err = tx.Rollback()
	} else {
		h.log = append(h.log, "COMMIT")
		err = tx.Commit()
	}
	if err != nil {
		h.log = append(h.log, "  "+err.Error())
	}
}

func TestARandomHistoryIsAsThroughPgx(t *testing.T) {
	t.Parallel()
	if *stressSeed == 0 {
		*stressSeed = uint64(time.Now().UnixNano())
	}
	h := &history{T: t, rng: rand.New(rand.NewPCG(*stressSeed, 7))}
	database := withKey(pgtest.Database(t), "synchronous_commit", "off")
	pgtest.Exec(t, database, historyTables)
	open := func(name, dsn string) *sql.DB {
		db, err := sql.Open(name, dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	h.plain = open("pgx", withKey(database, "default_query_exec_mode", "exec"))
	for _, mode := range []string{"describe_exec", "simple_protocol"} {
		h.dbs = append(h.dbs, open("cachedpg", withKey(database, "default_query_exec_mode", mode)))
	}
	deadline := time.Now().Add(*stressDuration / 3)
	for n := 0; time.Now().Before(deadline); n++ {
		for range 6 {
			h.ask()
		}
		switch h.rng.IntN(4) {
		case 0:
			h.transaction()
		default:
			h.write(h.dbs[h.rng.IntN(len(h.dbs))])
		}
		if n%50 == 49 {
			h.log = append(h.log, "(everything is asked)")
			for _, q := range slices.Clone(h.asked) {
				for _, db := range h.dbs {
					h.check(q, db, h.plain, context.Background())
				}
			}
			h.refill()
		}
	}
	stats := StatsOf(h.dbs[1])
	t.Logf("%d steps, hits %d, misses %d, stale %d, bypassed %v", len(h.log), stats.Hits, stats.Misses, stats.Stale, stats.Bypasses)
	if stats.Hits == 0 || stats.Stale == 0 {
		t.Error("the cache was hardly used")
	}
}

// refill brings back rows that the writes have deleted.
func (h *history) refill() {
	for _, text := range []string{
		"INSERT INTO parent SELECT i, chr(97 + i), 'name ' || i FROM generate_series(0, 7) i ON CONFLICT DO NOTHING",
		"INSERT INTO dk SELECT i, i FROM generate_series(0, 7) i ON CONFLICT DO NOTHING",
		"INSERT INTO part SELECT i, r, 0 FROM generate_series(0, 7) i, unnest(ARRAY['eu', 'us', 'xx']) r ON CONFLICT DO NOTHING",
		"INSERT INTO base SELECT i, 'v' FROM generate_series(0, 3) i ON CONFLICT DO NOTHING",
		"INSERT INTO lk VALUES ('a', 1), ('b', 2) ON CONFLICT DO NOTHING",
		"REFRESH MATERIALIZED VIEW m_parent",
	} {
		if _, err := h.dbs[0].Exec(text); err != nil {
			h.log = append(h.log, "  "+err.Error())
		}
	}
}
