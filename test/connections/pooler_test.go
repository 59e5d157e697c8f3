package connections

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// poolModes are ways to PostgreSQL. All but the first are those of pgbouncer.
var poolModes = []string{"direct", "session", "transaction", "statement"}

const shelfTables = 6

// shelf is a story in one exec mode and one store, by one way to a database of its own.
type shelf struct {
	*harness.Fixture
	pool, mode string
	through    string    // the DSN through the pooler
	conn       *pgx.Conn // another client of it
	between    atomic.Bool
}

// shelves runs a test for every way and exec mode, see harness.ModesIn for the stores. Each has tables of its own:
// t0, t1, … hold the same ids and say which they are.
func shelves(t *testing.T, test func(s *shelf)) {
	t.Helper()
	t.Parallel()
	for _, name := range []string{"memory", "redis"} {
		for _, pool := range poolModes {
			database := pgtest.Database(t)
			dsn := database
			if pool != "direct" {
				dsn = pgtest.PgbouncerTo(t, database, pool)
			}
			for i, mode := range harness.ModesIn(t, name) {
				var keys []string
				if name == "redis" {
					keys = append(keys, "cache_store="+harness.RedisDatabase(t, 1+i))
				}
				t.Run(name+"/"+pool+"/"+mode, func(t *testing.T) {
					var setup strings.Builder
					for i := range shelfTables {
						fmt.Fprintf(&setup, "CREATE TABLE t%d (id int PRIMARY KEY, v text NOT NULL); INSERT INTO t%[1]d SELECT id, 't%[1]d-' || id FROM generate_series(1, 30) id;", i)
					}
					f := &harness.Fixture{T: t, DSN: harness.WithKey(harness.WithKey(database, "search_path", mode), "default_query_exec_mode", mode), Keys: keys}
					pgtest.Exec(t, database, "CREATE SCHEMA "+mode)
					pgtest.Exec(t, harness.WithKey(database, "search_path", mode), setup.String())
					ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
					t.Cleanup(cancel)
					f.Ctx = ctx
					s := &shelf{Fixture: f, pool: pool, mode: mode, through: harness.WithKey(dsn, "default_query_exec_mode", mode)}
					f.Plain = f.Open("pgx", f.DSN) // the truth goes past the pooler
					f.DB = s.open()
					f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
					test(s)
				})
			}
		}
	}
}

// open returns a DB through the pooler. Between two messages of its connections the
// other client prepares a statement, while s.between says so.
func (s *shelf) open() *sql.DB {
	s.Helper()
	dsn, config, err := cachedpg.ParseConfig(harness.WithKeys(s.through, s.Keys))
	if err != nil {
		s.Fatal(err)
	}
	pg, err := pgx.ParseConfig(dsn)
	if err != nil {
		s.Fatal("the DSN cannot be read")
	}
	pg.Tracer = s
	s.conn = pgtest.Connect(s.T, s.through)
	c, err := cachedpg.NewConnector(*pg, config)
	if err != nil {
		s.Fatal(err)
	}
	return harness.OpenDB(s.Fixture, c)
}

func (s *shelf) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (s *shelf) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *shelf) TracePrepareStart(ctx context.Context, _ *pgx.Conn, data pgx.TracePrepareStartData) context.Context {
	return context.WithValue(ctx, sentText{}, data.SQL)
}

// harmless begins a text between whose messages the other client prepares a write.
const harmless = "/* harmless */ "

// TracePrepareEnd has the other client prepare what takes the same arguments.
func (s *shelf) TracePrepareEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TracePrepareEndData) {
	if !s.between.Load() {
		return
	}
	mine, _ := ctx.Value(sentText{}).(string)
	other := strings.Replace(mine, s.mode+".t0", s.mode+".t1", 1)
	if strings.HasPrefix(mine, harmless) {
		other = "UPDATE " + s.table(1) + " SET v = v || 'x' WHERE id = $1"
	}
	if _, err := s.conn.Prepare(s.Ctx, "", other); err != nil {
		s.Error(err)
	}
}

func (s *shelf) table(i int) string { return fmt.Sprintf("%s.t%d", s.mode, i) }

func (s *shelf) byID(i int) string { return "SELECT v FROM " + s.table(i) + " WHERE id = $1" }

// right is fresh, but for what fails with pgx too. It reports a hit.
func (s *shelf) right(query string, args ...any) (hit bool) {
	s.Helper()
	before := cachedpg.StatsOf(s.DB).Hits
	got := s.Fixture.Read(s.DB, query, args)
	if s.asPgxFails(got.Err) {
		return false
	}
	if got, want := got.String(), s.Fixture.Read(s.Plain, query, args).String(); got != want {
		s.Errorf("%s: got %s, want %s", query, got, want)
	}
	return cachedpg.StatsOf(s.DB).Hits > before
}

// cached returns when the query is answered from the cache, if it may be.
func (s *shelf) cached(query string, args ...any) {
	s.Helper()
	if s.pool == "statement" {
		s.right(query, args...)
		s.right(query, args...)
		return
	}
	s.Until("a hit", func() bool { return s.right(query, args...) })
}

// asPgxFails reports an error that pgx has too: a named statement was prepared over
// another backend, or is there already.
func (s *shelf) asPgxFails(err error) bool { return s.mode == "cache_statement" && s.asNamesFail(err) }

// asNamesFail is asPgxFails for a statement that the application has prepared, in whatever mode.
func (s *shelf) asNamesFail(err error) bool {
	var refused *pgconn.PgError
	return s.pool != "direct" && s.pool != "session" && errors.As(err, &refused) && (refused.Code == "26000" || refused.Code == "42P05")
}

// Whatever runs on the backend between two messages of a connection: what it gets, stores and
// changes is what its text says.
func TestATextIsAnsweredAndNoOtherBehindAPooler(t *testing.T) {
	shelves(t, func(s *shelf) {
		t := s.T
		s.cached(s.byID(2), 1)
		mine, others := s.table(0), s.table(1)
		s.between.Store(true)
		for id := range 3 {
			s.cached(s.byID(0), id+1)
			s.right(s.byID(0)+" AND now() > $2", id+1, "2000-01-01")
		}
		if tx, err := s.DB.BeginTx(s.Ctx, nil); s.pool == "statement" {
			if err == nil {
				t.Error("a transaction is begun")
				tx.Rollback()
			}
		} else if err != nil {
			s.Fatal(err)
		} else {
			s.On(tx).Fresh(s.byID(0), 4)
			s.Commit(tx)
		}
		prepared, err := s.DB.PrepareContext(s.Ctx, s.byID(0))
		if err == nil {
			for range 2 {
				var v string
				if err = prepared.QueryRowContext(s.Ctx, 5).Scan(&v); err == nil && v != "t0-5" {
					t.Errorf("a prepared statement gives %s, want t0-5", v)
				}
			}
		}
		if err != nil && !s.asNamesFail(err) {
			t.Error(err)
		}
		if prepared != nil { // pgx sends a text by the name that it has been prepared under
			prepared.Close()
		}

		for id := range 3 {
			s.cached(s.byID(1), id+1)
			s.cached("SELECT count(*) FROM "+mine+" WHERE v LIKE $1", "%!%")
			_, err := s.DB.ExecContext(s.Ctx, "UPDATE "+mine+" SET v = v || $2 WHERE id = $1", id+1, "!")
			if err == nil {
				var v string
				if err = s.DB.QueryRowContext(s.Ctx, "UPDATE "+mine+" SET v = v || $2 WHERE id = $1 RETURNING v", id+1, "?").Scan(&v); err == nil && v != fmt.Sprintf("t0-%d!?", id+1) {
					t.Errorf("RETURNING gives %s", v)
				}
			}
			if err == nil { // as a text that the driver does not understand
				_, err = s.DB.ExecContext(s.Ctx, "EXPLAIN ANALYZE UPDATE "+mine+" SET v = v || $2 WHERE id = $1", id+1, ".")
			}
			if err == nil {
				_, err = s.DB.ExecContext(s.Ctx, harmless+s.byID(0), id+1)
			}
			if err != nil && !s.asPgxFails(err) {
				t.Error(err)
			}
			for range 2 {
				s.right(s.byID(0), id+1)
				s.right(s.byID(1), id+1)
				s.right("SELECT count(*) FROM "+mine+" WHERE v LIKE $1", "%!%")
			}
		}
		s.between.Store(false)
		s.same("SELECT string_agg(v, ',' ORDER BY id) FROM "+others, "SELECT string_agg('t1-' || id, ',' ORDER BY id) FROM generate_series(1, 30) id")
	})
}

// same compares two answers of PostgreSQL.
func (s *shelf) same(got, want string) {
	s.Helper()
	if got, want := s.Fixture.Read(s.Plain, got, nil).String(), s.Fixture.Read(s.Plain, want, nil).String(); got != want {
		s.Errorf("got %s, want %s", got, want)
	}
}

// Many read different tables over a few backends at once, and what they have stored is right.
func TestReadersAtOnceBehindAPoolerStoreWhatIsTrue(t *testing.T) {
	shelves(t, func(s *shelf) {
		t := s.T
		s.cached("SELECT count(*) FROM " + s.table(0))
		ask := func(i, id int) error {
			var v string
			err := s.DB.QueryRowContext(s.Ctx, s.byID(i), id).Scan(&v)
			if want := fmt.Sprintf("t%d-%d", i, id); err == nil && v != want {
				return fmt.Errorf("got %s, want %s", v, want)
			}
			return err
		}
		s.DB.SetMaxOpenConns(shelfTables)
		failed := make(chan error, shelfTables)
		var start, ended sync.WaitGroup
		start.Add(1)
		for i := range shelfTables {
			ended.Go(func() {
				start.Wait()
				var failure error
				for id := range 30 {
					if err := ask(i, id+1); err != nil && !s.asPgxFails(err) {
						failure = cmp.Or(failure, err)
					}
				}
				failed <- failure
			})
		}
		start.Done()
		ended.Wait()
		for range shelfTables {
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
		for i := range shelfTables {
			for id := range 30 {
				s.cached(s.byID(i), id+1)
			}
		}
	})
}

// documented is what ../../docs/poolers.md says of a mode behind a pooler.
func (s *shelf) documented() string {
	s.Helper()
	text, err := os.ReadFile("../../docs/poolers.md")
	if err != nil {
		s.Fatal(err)
	}
	columns := map[string]int{"direct": 2, "session": 3, "transaction": 4, "statement": 5}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 7 && strings.TrimSpace(cells[1]) == "`"+s.mode+"`" {
			return strings.TrimSpace(cells[columns[s.pool]])
		}
	}
	s.Fatal("../../docs/poolers.md does not say it")
	return ""
}

func TestPoolersAreAsTheirTableSays(t *testing.T) {
	shelves(t, func(s *shelf) {
		says := s.documented()
		cached, passes, asPgx := strings.HasPrefix(says, "cached"), strings.HasPrefix(says, "passes through"), strings.HasSuffix(says, "as pgx")
		if cached == passes || asPgx != (s.mode == "cache_statement" && s.pool != "direct" && s.pool != "session") {
			s.Fatalf("../../docs/poolers.md says %q", says)
		}
		if cached {
			s.cached(s.byID(0), 1)
		}
		s.between.Store(true)
		before := cachedpg.StatsOf(s.DB)
		for id := range 3 {
			for _, query := range []string{s.byID(0), s.byID(0) + " AND now() > '2000-01-01'"} {
				for range 2 {
					var v string
					err := s.DB.QueryRowContext(s.Ctx, query, id+1).Scan(&v)
					if want := fmt.Sprintf("t0-%d", id+1); (err != nil || v != want) && !s.asPgxFails(err) {
						s.Errorf("%s gives %s, %v; want %s", query, v, err, want)
					}
				}
			}
		}
		if hits := cachedpg.StatsOf(s.DB).Hits - before.Hits; cached != (hits >= 3) || passes != (hits == 0) {
			s.Errorf("%d hits of 6, and ../../docs/poolers.md says %q", hits, says)
		}
	})
}

// sentText is the key of the text that a context is about.
type sentText struct{}
