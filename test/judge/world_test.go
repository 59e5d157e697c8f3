package judge

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/sqlgen"
)

// world is a database of its own with a random schema, asked through the cache
// and directly.
type world struct {
	tb     testing.TB
	plain  *sql.DB   // pgx, which prepares nothing that a DDL could outdate
	cached []*sql.DB // of one process each

	windows atomic.Int64 // comparisons that readers have made, see window
}

// worldKind is how the driver is used in a world.
type worldKind struct {
	redis bool   // and then by two processes, else by one with the store in memory
	mode  string // pgx's exec mode
}

func (k worldKind) String() string {
	if k.redis {
		return "redis/" + k.mode
	}
	return "memory/" + k.mode
}

// worldDatabase makes a database for worlds, one after the other. What is set
// for it is the same for everybody in it. Locks are not waited for long, so that
// a history can be repeated by one goroutine.
func worldDatabase(tb testing.TB) (dsn string) {
	tb.Helper()
	dsn = pgtest.Database(tb)
	u, err := url.Parse(dsn)
	if err != nil || u.Path == "" {
		tb.Fatal("the DSN of the test database has to be a URL")
	}
	var settings strings.Builder
	for _, setting := range []string{"deadlock_timeout = '20ms'", "lock_timeout = '300ms'", "max_stack_depth = '1MB'"} {
		fmt.Fprintf(&settings, "ALTER DATABASE %s SET %s;", strings.TrimPrefix(u.Path, "/"), setting)
	}
	pgtest.Exec(tb, dsn, settings.String())
	return dsn
}

// newWorld makes a world in the place of the one before. Of the DDL what fails
// is left out, so that a part of a schema can be tried; strict says that none
// may fail.
func newWorld(tb testing.TB, dsn string, kind worldKind, ddl []string, strict bool) *world {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := &world{tb: tb}
	setup := pgtest.Connect(tb, dsn)
	begin := "SET lock_timeout = 0; DROP SCHEMA IF EXISTS other CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public"
	for _, text := range append([]string{begin}, ddl...) {
		if _, err := setup.Exec(ctx, text); err != nil && (strict || text == begin) {
			tb.Fatalf("%v\nin: %s", err, text)
		}
	}
	setup.Close(ctx)

	open := func(process string) *sql.DB {
		keys := []string{"default_query_exec_mode=" + kind.mode}
		if kind.redis {
			keys = append(keys, "cache_store="+pgtest.Redis(tb))
		}
		c, err := (&cachedpg.Driver{}).OpenConnector(harness.WithKeys(dsn, keys))
		if err != nil {
			tb.Fatal(err)
		}
		inside.Process(c, process)
		db := sql.OpenDB(c)
		w.cached = append(w.cached, db)
		harness.AwaitCaching(tb, db)
		for ; !inside.Live(db); time.Sleep(time.Millisecond) {
			if err := db.PingContext(ctx); err != nil {
				tb.Fatal(err)
			}
		}
		return db
	}
	if kind.redis {
		open("one")
		open("two")
	} else {
		open("")
	}
	// A shared store may remember the world before.
	if err := cachedpg.Invalidate(ctx, w.cached[0]); err != nil {
		tb.Fatal(err)
	}
	plain := kind.mode
	if strings.HasPrefix(plain, "cache") {
		plain = "describe_exec" // the same formats
	}
	var err error
	if w.plain, err = sql.Open("pgx", harness.WithKey(dsn, "default_query_exec_mode", plain)); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.close)
	return w
}

// close may be called again. A test that makes many keeps no catalog of those that are over.
func (w *world) close() {
	for _, db := range w.cached {
		db.Close()
	}
	if w.cached = nil; w.plain != nil {
		w.plain.Close()
		w.plain = nil
	}
}

// released returns when what has been committed is released, so that results
// can be hits again.
func (w *world) released(ctx context.Context) {
	for _, db := range w.cached {
		for inside.Writes(db).Stats().Pending > 0 && ctx.Err() == nil {
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// reply is what a query gave, in a form that can be compared.
type reply struct {
	columns string
	rows    []string
	err     error
}

// answered asks a SELECT. Rows without an order are sorted.
func answered(ctx context.Context, x harness.Asker, s sqlgen.Statement) (a reply) {
	rows, err := x.QueryContext(ctx, s.SQL, s.Args...)
	if err != nil {
		return reply{err: err}
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return reply{err: err}
	}
	var columns []string
	for _, t := range types {
		columns = append(columns, t.Name()+" "+t.DatabaseTypeName())
	}
	a.columns = strings.Join(columns, ", ")
	values, dest := make([]any, len(types)), make([]any, len(types))
	for i := range values {
		dest[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return reply{err: err}
		}
		line := make([]string, len(values))
		for i, v := range values {
			line[i] = harness.Describe(v)
		}
		a.rows = append(a.rows, strings.Join(line, "; "))
	}
	if a.err = rows.Err(); a.err != nil {
		return reply{err: a.err} // how many rows came before it is a matter of chance
	}
	if !s.Ordered {
		slices.Sort(a.rows)
	}
	return a
}

func (a reply) same(b reply) bool {
	return fmt.Sprint(a.err) == fmt.Sprint(b.err) && a.columns == b.columns && reflect.DeepEqual(a.rows, b.rows)
}

func (a reply) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	const most = 12
	lines := append([]string{"(" + a.columns + ")"}, a.rows[:min(len(a.rows), most)]...)
	if len(a.rows) > most {
		lines = append(lines, fmt.Sprintf("… %d rows", len(a.rows)))
	}
	return strings.Join(lines, "\n  ")
}

// excused says that an error is one that plain pgx would give on a connection
// that had prepared the statement before a DDL, or for a lock.
func (a reply) excused() bool {
	var refused *pgconn.PgError
	return errors.As(a.err, &refused) && (refused.Code == "0A000" && strings.Contains(refused.Message, "cached plan") ||
		refused.Code == "08P01" && strings.Contains(refused.Message, "result formats") || refused.Code == "26000" || refused.Code == "55P03" || refused.Code == "40P01")
}

// disagreement is one SELECT with two answers.
type disagreement struct {
	query     sqlgen.Statement
	where     string
	got, want reply
}

func (d *disagreement) Error() string {
	return fmt.Sprintf("%s\n%s\nfrom the cache:\n  %s\nof PostgreSQL:\n  %s", d.where, d.query, d.got, d.want)
}

// compare asks a SELECT of PostgreSQL and of each cache, while nobody writes. It
// is for queries that are asked again and again: what it fills is a hit the next time.
func (w *world) compare(ctx context.Context, q sqlgen.Statement, where string) error {
	want := answered(ctx, w.plain, q)
	for _, db := range w.cached {
		got := answered(ctx, db, q)
		for tries := 0; got.excused() && !want.same(got) && tries < 3; tries++ {
			got = answered(ctx, db, q)
		}
		if !got.same(want) && !want.excused() && ctx.Err() == nil {
			return &disagreement{query: q, where: where, got: got, want: want}
		}
	}
	return nil
}

// actor is one session: it does what it is told, and notes it.
type actor struct {
	*world
	number int
	db     *sql.DB
	conn   *sql.Conn
	tx     *sql.Tx                        // open transaction that was begun by BeginTx
	inTx   bool                           // a transaction is open, however it was begun
	judged bool                           // its locks are looked at
	unsure bool                           // it has locked tables without writing them
	after  func(*actor, sqlgen.Statement) // a broken driver
}

func (w *world) actor(ctx context.Context, number int) (*actor, error) {
	p := &actor{world: w, number: number, db: w.cached[number%len(w.cached)]}
	var err error
	p.conn, err = p.db.Conn(ctx)
	return p, err
}

// close ends the session: whoever got it next would have its temporary tables
// and its settings.
func (p *actor) close() {
	if p.tx != nil {
		_ = p.tx.Rollback()
	}
	_ = p.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = p.conn.Close()
}

// Kinds of statements beside those of sqlgen.
const (
	kindBegin  = "begin"
	kindEnd    = "end"
	kindCheck  = "check" // a SELECT to be compared inside the transaction
	kindInside = "inside"
)

// do executes one statement. The error is PostgreSQL's, or a *disagreement.
func (p *actor) do(ctx context.Context, s sqlgen.Statement) (err error) {
	odd := p.number%2 == 1 // these begin and end by database/sql's methods where they can
	switch {
	case s.Kind == kindCheck:
		return p.check(ctx, s)
	case s.SQL == "BEGIN" && odd && !p.inTx:
		p.tx, err = p.conn.BeginTx(ctx, nil)
	case s.SQL == "COMMIT" && p.tx != nil:
		err, p.tx = p.tx.Commit(), nil
	case s.SQL == "ROLLBACK" && p.tx != nil:
		err, p.tx = p.tx.Rollback(), nil
	case s.Copy != nil:
		err = cachedpg.PgxConn(ctx, p.conn, func(c *pgx.Conn) error {
			_, err := c.CopyFrom(ctx, pgx.Identifier{s.Copy.Table}, s.Copy.Columns, pgx.CopyFromRows(s.Copy.Rows))
			return err
		})
	case s.Rows:
		var rows *sql.Rows
		if rows, err = p.conn.QueryContext(ctx, s.SQL, s.Args...); err != nil {
			break
		}
		for rows.Next() {
		}
		if err = rows.Err(); err == nil {
			err = rows.Close()
		}
		rows.Close()
	default:
		_, err = p.conn.ExecContext(ctx, s.SQL, s.Args...)
	}
	switch s.Kind {
	case kindBegin:
		p.inTx = p.inTx || err == nil
	case kindEnd:
		p.inTx, p.unsure = false, false
	}
	p.unsure = p.inTx && (p.unsure || s.Kind == "other" || strings.HasPrefix(s.SQL, "ANALYZE") || strings.HasPrefix(s.SQL, "COMMENT"))
	if p.after != nil {
		p.after(p, s)
	}
	return err
}

// check compares a SELECT with itself past the cache, on this connection and so
// in its transaction, if nothing was committed by others meanwhile.
func (p *actor) check(ctx context.Context, q sqlgen.Statement) error {
	past := cachedpg.WithBypass(ctx)
	before, err := snapshotOf(past, p.conn)
	if err != nil {
		return nil // the transaction has failed
	}
	got, want := answered(ctx, p.conn, q), answered(past, p.conn, q)
	if after, err := snapshotOf(past, p.conn); err != nil || !before.same(after) || got.same(want) || got.excused() || want.excused() {
		return nil
	}
	return &disagreement{query: q, where: fmt.Sprintf("inside a transaction of session %d", p.number), got: got, want: want}
}

// snapshot is what PostgreSQL says of the transactions that one sees.
type snapshot struct {
	end  uint64 // the first id that is not assigned yet
	open []uint64
}

func snapshotOf(ctx context.Context, x interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) (s snapshot, err error) {
	var text string
	if err = x.QueryRowContext(ctx, "SELECT pg_catalog.pg_current_snapshot()::text").Scan(&text); err != nil {
		return s, err
	}
	field := strings.Split(text, ":")
	if _, err = fmt.Sscan(field[1], &s.end); err != nil {
		return s, err
	}
	for id := range strings.SplitSeq(field[2], ",") {
		var n uint64
		if _, err := fmt.Sscan(id, &n); err == nil {
			s.open = append(s.open, n)
		}
	}
	return s, nil
}

// same reports that a snapshot taken later sees the same transactions: of those
// that this one does not see, none has ended.
func (s snapshot) same(later snapshot) bool {
	for _, id := range s.open {
		if !slices.Contains(later.open, id) {
			return false
		}
	}
	for id := s.end; id < later.end; id++ {
		if !slices.Contains(later.open, id) {
			return false
		}
	}
	return true
}
