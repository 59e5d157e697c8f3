package stress

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

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

var slot = regexp.MustCompile(`\{\w+\}`)

// history is one run: writes, each followed by reads that must be as through
// plain pgx. Nothing runs at the same time, so that a seed tells the whole story.
type history struct {
	*testing.T
	seed  uint64
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
		return pick(harness.Quoted(s), harness.Quoted(s)+"::text", harness.Quoted(s)+"::varchar", harness.Quoted(s)+"::char(3)"), s, pick("text", "varchar", "varchar(5)", "char(3)")
	case "text":
		s := pick("note 0", "note 1", "note 2", "name 1", "", "ü")
		return pick(harness.Quoted(s), "E"+harness.Quoted(s), harness.Quoted(s)+"::text"), s, "text"
	case "letter":
		s := pick("a", "A", "b", "B", "a ", "ab", "á")
		return harness.Quoted(s), s, pick("text", "varchar", "bpchar", "char(4)")
	case "region":
		s := pick("eu", "us", "xx", "yy")
		return harness.Quoted(s), s, "text"
	case "uuid":
		s := fmt.Sprintf("00000000-0000-0000-0000-00000000000%d", 1+h.rng.IntN(3))
		return pick(harness.Quoted(s), harness.Quoted("{"+strings.ReplaceAll(s, "-", "")+"}"), harness.Quoted(s)+"::uuid"), s, "uuid"
	case "bool":
		s := pick("true", "false")
		return pick(s, harness.Quoted(s[:1]), s), s == "true", "bool"
	case "num":
		s := pick("1", "1.0", "1.00", "2.5", "2.50", "25e-1", "0", "-0.0")
		return pick(s, harness.Quoted(s)), s, pick("numeric", "float8")
	case "time":
		s := pick("2024-01-01T00:00:00Z", "2024-01-01T09:00:00+09:00", "2024-01-01T00:00:01Z")
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			h.Fatal(err)
		}
		return harness.Quoted(s), []any{t, t.UTC(), s}[h.rng.IntN(3)], "timestamptz"
	}
	h.Fatalf("no value of kind %q", kind)
	return "", nil, ""
}

// rows writes down a result; an error is one, too.
func rowsOf(ctx context.Context, on harness.Asker, q question) string {
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
			b.WriteString(harness.Describe(v) + " ")
		}
		b.WriteByte('\n')
	}
	if err := rows.Err(); err != nil {
		return "error: " + err.Error()
	}
	return b.String()
}

// check asks a question on a connection that may answer from the cache, and on one that does not.
func (h *history) check(q question, on, truth harness.Asker, truthContext context.Context) {
	h.Helper()
	got, want := rowsOf(context.Background(), on, q), rowsOf(truthContext, truth, q)
	if got != want {
		h.differs(q, got, want)
	}
}

func (h *history) differs(q question, got, want string) {
	h.Helper()
	h.Fatalf("%s %v:\ngot  %s\nwant %s\nafter\n%s\nagain: go test -run '^%s$' -stress.seed=%d -stress.duration=%v ./test/stress", q.text, q.args, got, want,
		strings.Join(h.log[max(0, len(h.log)-30):], "\n"), h.Name(), h.seed, *stressDuration)
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
func (h *history) write(on harness.Asker) error {
	templates := historyWrites
	if h.rng.IntN(25) == 0 {
		templates = historyRareWrites
	}
	q := h.fill(templates[h.rng.IntN(len(templates))])
	if strings.HasPrefix(q.text, "MERGE") && harness.ServerVersion(h) < 15 {
		return nil
	}
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

func (h *history) copy(on harness.Asker) error {
	db, ok := on.(*sql.DB)
	if !ok {
		return nil
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		h.Fatal(err)
	}
	defer conn.Close()
	return cachedpg.PgxConn(context.Background(), conn, func(c *pgx.Conn) error {
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
		err = h.write(tx)
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
			want := rowsOf(cachedpg.WithBypass(context.Background()), tx, q)
			_, _ = tx.Exec("ROLLBACK TO r")
			if got != want {
				h.differs(q, got, want)
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
	seed := newSeed()
	h := &history{T: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0))}
	database := pgtest.Database(t)
	pgtest.Exec(t, database, historyTables)
	open := func(name, dsn string) *sql.DB {
		db, err := sql.Open(name, dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	h.plain = open("pgx", harness.WithKey(database, "default_query_exec_mode", "exec"))
	for _, mode := range []string{"describe_exec", "simple_protocol"} {
		h.dbs = append(h.dbs, open("cachedpg", harness.WithKey(database, "default_query_exec_mode", mode)))
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
	stats := cachedpg.StatsOf(h.dbs[1])
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
