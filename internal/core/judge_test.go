package core

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// judge runs statements through the driver and lets PostgreSQL say what they
// really did:
//
//   - a write: the relations that its transaction locked or changed, and the rows
//     that it changed, are among what the driver invalidates;
//   - a read that may be cached: the relations that it locked are among what the
//     driver makes it depend on; miss, hit and plain pgx agree;
//   - after every write: no entry of the pool that is still a hit is stale;
//   - an error is the one that plain pgx gives.
//
// Nothing of this looks at the analysis; only the tags are taken from the driver.
type judge struct {
	testing.TB
	db    *sql.DB
	c     *Conn     // runs the script
	other *Conn     // a session in its first state, which asks the pool
	watch *pgx.Conn // sees the locks of c from outside
	pid   uint32

	autocommit bool // writes run as they are, not in transactions that can be looked at
	rows       bool // the contents of tables are compared
	unordered  bool // the sessions have other planner settings
	newest     int  // and those of so many tables only; 0 is all

	seen      map[string]bool // texts in the pool
	selects   []*entry        // SELECTs of the script, to be asked again after each write
	keep      int             // how many of them
	made      []*entry        // made from the tables
	pool      []*entry
	contents  map[uint32]*contents
	before    map[uint32]facts
	permanent string // j.schema() then
	locked    bool   // the open transaction has locked what it did not write
	exchanged bool   // it has exchanged the storage of a table
	where     string // for messages
	tally     tally
	defects   int
}

// tally counts what a judge has seen, and shows that it has seen something.
type tally [nCounts]int

const (
	nReads    = iota // that may be cached
	nCached          // answers from the cache
	nBypassed        // statements that neither write nor are looked up
	nWrites
	nBounded // by their text alone
	nAsked   // of the transaction before COMMIT
	nOpaque  // that invalidate everything
	nAlone   // that PostgreSQL refuses in a transaction
	nRefused
	nSkipped
	nQuestions // to the pool after a write
	nFell      // without a hit
	nUnchanged // with the answer of before
	nKept      // and a hit
	nChangedRows
	nCounts
)

func (a tally) plus(b tally) tally {
	for i := range b {
		a[i] += b[i]
	}
	return a
}

func (a tally) String() string {
	return fmt.Sprintf("%d reads (%d answers from the cache), %d that are never, %d writes (%d by their text, %d asked, %d unbounded, %d alone), %d refused, %d skipped;"+
		" pool: %d questions, %d hits, %d of %d whose answer did not change; %d changed rows",
		a[nReads], a[nCached], a[nBypassed], a[nWrites], a[nBounded], a[nAsked], a[nOpaque], a[nAlone], a[nRefused], a[nSkipped],
		a[nQuestions], a[nQuestions]-a[nFell], a[nKept], a[nUnchanged], a[nChangedRows])
}

// entry is a SELECT of the pool.
type entry struct {
	sql      string
	args     []driver.NamedValue
	relation string   // that it was made for
	key      bool     // by its primary key
	answer   []string // when it was asked last
	hit      bool     // then
	same     bool     // as the time before
}

// statementTimeout keeps a statement that waits for something from hanging the run.
const statementTimeout = 60 * time.Second

// maxDefects ends a script that has gone wrong.
const maxDefects = 40

// judging calls story with a judge of a database.
func judging(t testing.TB, database, mode string, keys []string, story func(j *judge)) {
	t.Helper()
	dsn := harness.WithKey(database, "default_query_exec_mode", mode)
	db, err := sql.Open("cachedpg", harness.WithKeys(dsn, keys))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	harness.AwaitCaching(t, db)
	if sp := dbOf(db).space(); sp.Keeper != nil {
		poll(t, "a lease", sp.Keeper.Live.Load)
	}
	j := &judge{TB: t, db: db, seen: make(map[string]bool), keep: 64}
	j.watch = pgtest.Connect(t, database)
	lend := func(f func(c *Conn)) {
		conn, err := db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Raw(func(c any) error { f(connOf(c)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	lend(func(other *Conn) {
		lend(func(c *Conn) {
			j.other, j.c = other, c
			for _, c := range []*Conn{j.other, j.c} {
				if err := c.ready(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			j.pid = j.c.inner.PID()
			story(j)
		})
	})
}

// poll returns when what the driver does in the background has come about.
func poll(tb testing.TB, what string, happened func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("waiting for %s", what)
		}
	}
}

// defect notes a difference and goes on.
func (j *judge) defect(format string, args ...any) {
	j.Helper()
	j.Errorf("%s: %s", j.where, fmt.Sprintf(format, args...))
	if j.defects++; j.defects >= maxDefects {
		j.Fatalf("%d differences are enough", j.defects)
	}
}

func (j *judge) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), statementTimeout)
}

// planOf is what the driver takes a text for in the state that the session is in.
func (j *judge) planOf(query string, args []driver.NamedValue) *call {
	ctx, cancel := j.context()
	defer cancel()
	if err := j.c.enter(); err != nil {
		j.Fatal(err)
	}
	q, err := j.c.newCall(ctx, query, args)
	if err == nil {
		j.c.settle()
		err = j.c.plan(ctx, &q)
	}
	if err != nil {
		j.Fatalf("%s: planning: %v", j.where, err)
	}
	return &q
}

// run judges one statement.
func (j *judge) run(query string, args ...driver.NamedValue) (err error) {
	q := j.planOf(query, args)
	plan := q.text.Plan
	if j.c.inner.TxStatus() == 'I' {
		j.locked, j.exchanged = false, false
	}
	j.exchanged = j.exchanged || q.text.Has(parser.Truncate) || q.text.Has(parser.Refresh)
	for _, kind := range []parser.Kind{parser.Lock, parser.Explain, parser.PrepareStatement, parser.Maintenance, parser.Cursor} {
		j.locked = j.locked || q.text.Has(kind) && !plan.Writes
	}
	switch idle := j.c.inner.TxStatus() == 'I'; {
	case plan.Reason == keying.NoReason:
		return j.read(q)
	case !idle && q.text.Has(parser.Commit) && len(plan.Kinds) == 1 && j.c.inner.TxStatus() == 'T' && !strings.Contains(strings.ToLower(query), "chain"):
		return j.end()
	case !idle:
		_, err := j.transcript(spoken{j.c}, query, args)
		if j.c.inner.TxStatus() == 'I' {
			j.verify()
		}
		return err
	case q.text.Has(parser.Begin):
		j.warm()
		j.before, j.permanent = j.facts(), j.schema() // and not inside, where SET TRANSACTION may follow
		_, err := j.transcript(spoken{j.c}, query, args)
		return err
	case !j.rehearsable(plan):
		j.warm()
		_, err := j.transcript(spoken{j.c}, query, args)
		j.verify()
		return err
	}
	return j.write(q)
}

// rehearsable: a ROLLBACK undoes everything that the text does, but for sequences.
func (j *judge) rehearsable(plan *keying.Plan) bool {
	if len(plan.Kinds) != 1 {
		return false
	}
	switch plan.Kinds[0] {
	case parser.Select, parser.Insert, parser.Update, parser.Delete, parser.Merge, parser.Truncate, parser.Refresh,
		parser.DDL, parser.Do, parser.Call, parser.Execute, parser.Opaque, parser.Explain:
		return true
	}
	return false
}

// rehearse runs a text past the driver and undoes it.
func (j *judge) rehearse(query string, args []driver.NamedValue, look func()) (lines []string, err error) {
	if err := j.command("BEGIN"); err != nil {
		j.Fatalf("%s: BEGIN: %v", j.where, err)
	}
	lines, err = j.plainly(j.c, query, args)
	if err == nil && j.c.inner.TxStatus() == 'T' {
		look()
	}
	if status := j.c.inner.TxStatus(); status != 'I' {
		if err := j.command("ROLLBACK"); err != nil {
			j.Fatalf("%s: ROLLBACK: %v", j.where, err)
		}
	}
	return lines, err
}

const (
	refusedInTransaction = "25001"
	refusedTermination   = "2D000" // a procedure that commits
)

// write judges a statement outside of transactions that may change something.
func (j *judge) write(q *call) (err error) {
	plan := q.text.Plan
	if plan.Writes {
		j.tally[nWrites]++
	} else {
		j.tally[nBypassed]++
	}
	sequences := j.sequences()
	want, wantErr := j.rehearse(q.sql, q.args, func() {})
	if j.pool = j.pool[:0]; !j.autocommit || !plan.Catalog { // of DDL one way is enough: it costs most
		j.warm()
	}
	if c := code(wantErr); c == refusedInTransaction || c == refusedTermination {
		j.tally[nAlone]++
		_, err := j.transcript(spoken{j.c}, q.sql, q.args)
		j.verify()
		return err
	}
	if wantErr != nil {
		j.tally[nRefused]++
	}
	switch {
	case plan.Opaque:
		j.tally[nOpaque]++
	case plan.Asks:
		j.tally[nAsked]++
	case plan.Writes:
		j.tally[nBounded]++
	}
	if !j.autocommit {
		if _, err := j.transcript(spoken{j.c}, "BEGIN", nil); err != nil {
			j.Fatalf("%s: BEGIN: %v", j.where, err)
		}
		j.before, j.permanent = j.facts(), j.schema()
	}
	got, err := j.transcript(spoken{j.c}, q.sql, q.args)
	answered := err
	switch {
	case j.autocommit:
		j.verify()
	case err != nil:
		if _, err := j.transcript(spoken{j.c}, "ROLLBACK", nil); err != nil {
			j.Fatalf("%s: ROLLBACK: %v", j.where, err)
		}
		j.verify()
	default:
		err = j.end()
	}
	if j.autocommit && wantErr == nil && answered != nil {
		wantErr = j.atCommit(q) // a deferred constraint fires in COMMIT
	}
	switch {
	case refusal(answered) != refusal(wantErr) && j.sequences() != sequences: // it may do something else each time, at its end too
		j.tally[nSkipped]++
	case refusal(answered) != refusal(wantErr):
		j.defect("through the driver: %s\nplain: %s\nin: %s %v", refusal(answered), refusal(wantErr), q.sql, values(q.args))
	case len(got) != len(want) && answered == nil:
		j.defect("through the driver %d lines, plain %d:\n%s\n%s\nin: %s %v", len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"), q.sql, values(q.args))
	}
	return err
}

// sequences differs after one has given a value.
func (j *judge) sequences() any {
	return j.ask(j.other, "SELECT coalesce(sum(last_value), 0)::text FROM pg_catalog.pg_sequences")[0][0]
}

// atCommit returns the error that a statement meets at the end of its transaction.
func (j *judge) atCommit(q *call) (err error) {
	_, _ = j.rehearse(q.sql, q.args, func() { err = j.command("SET CONSTRAINTS ALL IMMEDIATE") })
	return err
}
