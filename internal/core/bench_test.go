package core

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/planning"
)

// stub is a driver that has the row already: what is left is the cost of
// database/sql itself.
type (
	stub     struct{}
	stubRows struct{ left int }
)

func (stub) Open(string) (driver.Conn, error)             { return stub{}, nil }
func (stub) Connect(context.Context) (driver.Conn, error) { return stub{}, nil }
func (stub) Driver() driver.Driver                        { return stub{} }
func (stub) Prepare(string) (driver.Stmt, error)          { return nil, driver.ErrSkip }
func (stub) Begin() (driver.Tx, error)                    { return nil, driver.ErrSkip }
func (stub) Close() error                                 { return nil }
func (stub) ResetSession(context.Context) error           { return nil }
func (stub) CheckNamedValue(*driver.NamedValue) error     { return nil }
func (stub) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &stubRows{1}, nil
}

var stubColumns = []string{"name"}

func (r *stubRows) Columns() []string { return stubColumns }
func (r *stubRows) Close() error      { return nil }
func (r *stubRows) Next(dest []driver.Value) error {
	if r.left == 0 {
		return io.EOF
	}
	r.left--
	dest[0] = "bob"
	return nil
}

// side is one of the drivers that a benchmark compares.
type side struct {
	name string
	do   func(i int) error
}

// compare runs the sides in turns, so that what else the machine does hits
// them alike, and reports the median time of each and how many times that of
// the last one it is.
func compare(b *testing.B, sides ...side) {
	b.Helper()
	const turns = 200
	block := max(1, b.N/turns)
	spent := make([][]time.Duration, len(sides))
	run := func(s, first, n int) time.Duration {
		begin := time.Now()
		for i := range n {
			if err := sides[s].do(first + i); err != nil {
				b.Fatalf("%s: %v", sides[s].name, err)
			}
		}
		return time.Since(begin)
	}
	for s := range sides {
		run(s, 0, 5)
	}
	b.ResetTimer()
	for done := 5; done < b.N+5; done += block {
		for s := range sides {
			s = (s + done/block) % len(sides)
			spent[s] = append(spent[s], run(s, done, block))
		}
	}
	b.StopTimer()
	median := func(s int) float64 {
		slices.Sort(spent[s])
		return float64(spent[s][len(spent[s])/2]) / float64(block)
	}
	last := len(sides) - 1
	for s, side := range sides {
		b.ReportMetric(median(s), side.name+"-ns/op")
		if s != last {
			b.ReportMetric(median(s)/median(last), side.name+"/"+sides[last].name)
		}
	}
	b.ReportMetric(0, "ns/op") // of all sides together: it says nothing
}

// bench has one connection to PostgreSQL, which cached and plain use in turns:
// two backends are never equally fast.
type bench struct {
	ctx           context.Context
	cached, plain *sql.DB
	stub          *sql.DB
}

// fixed is a connector that gives always the same connection.
type fixed struct{ conn driver.Conn }

func (f fixed) Connect(context.Context) (driver.Conn, error) { return f.conn, nil }
func (f fixed) Driver() driver.Driver                        { return nil }

const benchRows = 10000

func newBench(b *testing.B) *bench {
	b.Helper()
	database := pgtest.Database(b)
	pgtest.Exec(b, database, fmt.Sprintf(`CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, city text, n int NOT NULL DEFAULT 0);
		INSERT INTO users SELECT i, 'bob', 'city ' || i FROM generate_series(0, %d) i; ANALYZE users`, benchRows-1))
	x := &bench{ctx: context.Background(), stub: sql.OpenDB(stub{})}
	var err error
	// A commit that waits for the disk would hide everything else.
	if x.cached, err = sql.Open("cachedpg", harness.WithKey(database, "synchronous_commit", "off")); err != nil {
		b.Fatal(err)
	}
	x.cached.SetMaxOpenConns(1)
	harness.AwaitCaching(b, x.cached)
	conn, err := x.cached.Conn(x.ctx)
	if err != nil {
		b.Fatal(err)
	}
	if err := conn.Raw(func(c any) error {
		if err := c.(driver.Pinger).Ping(x.ctx); err != nil {
			return err
		}
		x.plain = sql.OpenDB(fixed{connOf(c).inner.(*backend.Pgx).Conn})
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		b.Fatal(err)
	}
	for _, db := range []*sql.DB{x.cached, x.plain, x.stub} {
		db.SetMaxOpenConns(1)
		b.Cleanup(func() { db.Close() })
	}
	return x
}

func (x *bench) read(db *sql.DB, query string, args ...any) error {
	var name string
	return db.QueryRowContext(x.ctx, query, args...).Scan(&name)
}

const byKey = "SELECT name FROM users WHERE id = $1"

func BenchmarkHit(b *testing.B) {
	x := newBench(b)
	compare(b,
		side{"hit", func(int) error { return x.read(x.cached, byKey, 7) }},
		side{"stub", func(int) error { return x.read(x.stub, byKey, 7) }},
	)
}

func BenchmarkHitOrPgx(b *testing.B) {
	x := newBench(b)
	compare(b,
		side{"hit", func(int) error { return x.read(x.cached, byKey, 7) }},
		side{"pgx", func(int) error { return x.read(x.plain, byKey, 7) }},
	)
}

// BenchmarkHitAlone is the one to profile.
func BenchmarkHitAlone(b *testing.B) {
	x := newBench(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := x.read(x.cached, byKey, 7); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStub(b *testing.B) {
	x := newBench(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := x.read(x.stub, byKey, 7); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHitParallel(b *testing.B) {
	x := newBench(b)
	x.cached.SetMaxOpenConns(0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := x.read(x.cached, byKey, 7); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// A known text: the plan costs a map access.
func BenchmarkPlan(b *testing.B) {
	x := newBench(b)
	if err := x.read(x.cached, byKey, 1); err != nil {
		b.Fatal(err)
	}
	d := dbOf(x.cached)
	session, v := d.known.Load().session, d.space().View.Load()
	b.ReportAllocs()
	for b.Loop() {
		d.Plan(v, session, byKey)
	}
}

// A text that differs from known ones in its literals: the plan costs a scan.
func BenchmarkPlanLiterals(b *testing.B) {
	x := newBench(b)
	if err := x.read(x.cached, byKey, 1); err != nil {
		b.Fatal(err)
	}
	d := dbOf(x.cached)
	session, v := d.known.Load().session, d.space().View.Load()
	texts := make([]string, 2*planning.MaxPlanBytes/500)
	for i := range texts {
		texts[i] = fmt.Sprintf("SELECT name FROM users WHERE id = %d", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d.Plan(v, session, texts[i%len(texts)])
	}
}

func BenchmarkMiss(b *testing.B) {
	x := newBench(b)
	// The key is other each time and the row is not, so that PostgreSQL does the same.
	const query = "SELECT name FROM users WHERE id = $1 AND n <> $2"
	compare(b,
		side{"miss", func(i int) error { return x.read(x.cached, query, i%benchRows, -1-i) }},
		side{"pgx", func(i int) error { return x.read(x.plain, query, i%benchRows, -1-i) }},
	)
}

func BenchmarkBypass(b *testing.B) {
	for _, bc := range []struct{ name, query string }{
		{"function", "SELECT name FROM users WHERE id = $1 AND random() >= 0"},
		{"lock", "SELECT name FROM users WHERE id = $1 FOR UPDATE"},
		{"hint", "SELECT name FROM users WHERE id = $1 /* cachedpg: bypass */"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			x := newBench(b)
			compare(b,
				side{"bypass", func(i int) error { return x.read(x.cached, bc.query, i%benchRows) }},
				side{"pgx", func(i int) error { return x.read(x.plain, bc.query, i%benchRows) }},
			)
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	x := newBench(b)
	update := func(db *sql.DB) func(int) error {
		return func(i int) error {
			_, err := db.ExecContext(x.ctx, "UPDATE users SET n = n + 1 WHERE id = $1", i%benchRows)
			return err
		}
	}
	compare(b, side{"update", update(x.cached)}, side{"pgx", update(x.plain)})
}

func BenchmarkTransaction(b *testing.B) {
	x := newBench(b)
	transaction := func(db *sql.DB) func(int) error {
		return func(i int) error {
			tx, err := db.BeginTx(x.ctx, nil)
			if err != nil {
				return err
			}
			defer tx.Rollback()
			for k := range 2 {
				if _, err := tx.ExecContext(x.ctx, "UPDATE users SET n = n + 1 WHERE id = $1", (i+k)%benchRows); err != nil {
					return err
				}
			}
			return tx.Commit()
		}
	}
	compare(b, side{"transaction", transaction(x.cached)}, side{"pgx", transaction(x.plain)})
}

// What it costs to ask a transaction what it wrote, beside the same statement
// on a table whose trigger is understood, and through pgx.
func BenchmarkAsk(b *testing.B) {
	database := pgtest.Database(b)
	pgtest.Exec(b, database, harness.CodeTables+harness.DynamicCode+`
		CREATE TABLE twin (LIKE acts INCLUDING ALL); INSERT INTO twin SELECT * FROM acts;
		CREATE FUNCTION shown() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log (line) VALUES (TG_OP); RETURN NULL; END';
		CREATE TRIGGER hidden AFTER UPDATE ON acts FOR EACH ROW EXECUTE FUNCTION hidden();
		CREATE TRIGGER shown AFTER UPDATE ON twin FOR EACH ROW EXECUTE FUNCTION shown();`)
	for _, bm := range []struct{ name, driver, query string }{
		{"pgx", "pgx", "UPDATE twin SET note = $1 WHERE id = 1"},
		{"understood", "cachedpg", "UPDATE twin SET note = $1 WHERE id = 1"},
		{"asked", "cachedpg", "UPDATE acts SET note = $1 WHERE id = 1"},
	} {
		b.Run(bm.name, func(b *testing.B) {
			db, err := sql.Open(bm.driver, database)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			for b.Loop() {
				if _, err := db.Exec(bm.query, "x"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
