package precision

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// connections are those that statements are run on by turns.
const connections = 4

// run is a random program on a database of its own. Statements run one after
// the other: nothing is committed between the driver's answer and PostgreSQL's, so that both must be the same.
//
// The answer of a hit is one that PostgreSQL gave to the same text with the same arguments, and the
// last that it gave: any later one was a miss, and that had found the entry no longer valid, for good. So a
// hit that is right is one that was possible.
type run struct {
	seed   uint64
	store  string
	writes int // percent
	r      *rand.Rand
	apps   []application
	db     *sql.DB
	conns  []*sql.Conn
	plain  *sql.Conn

	last    map[string]string // the last answer to a text with its arguments
	figures map[string]*figure
	passed  map[string]int // reads that the cache was not asked for, by the reason
}

// newRun opens a database with the tables of the applications.
func newRun(tb testing.TB, storeName string, seed uint64, writes int) *run {
	tb.Helper()
	r := rand.New(rand.NewPCG(seed, uint64(writes)))
	w := &run{seed: seed, store: storeName, writes: writes, r: r, apps: []application{newShop(r), newForum(r)},
		last: make(map[string]string), figures: make(map[string]*figure), passed: make(map[string]int)}
	database := pgtest.Database(tb)
	for _, a := range w.apps {
		pgtest.Exec(tb, database, a.tables)
	}
	// What is asked once is kept, and for longer than a run, so that nothing but commits drops a result.
	keys := []string{"cache_admission=all", "cache_ttl=24h"}
	if storeName == "redis" {
		keys = append(keys, "cache_store="+pgtest.Redis(tb))
	}
	w.db = open(tb, "cachedpg", harness.WithKeys(database, keys))
	harness.AwaitCaching(tb, w.db)
	for range connections {
		w.conns = append(w.conns, take(tb, w.db))
	}
	w.plain = take(tb, open(tb, "pgx", database))
	return w
}

func open(tb testing.TB, driverName, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open(driverName, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return db
}

func take(tb testing.TB, db *sql.DB) *sql.Conn {
	tb.Helper()
	conn, err := db.Conn(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// play fills the cache with half as many operations, and counts then.
func (w *run) play(ctx context.Context, operations int) error {
	for i := range operations/2 + operations {
		if i == operations/2 {
			clear(w.figures)
			clear(w.passed)
		}
		a := w.apps[w.r.IntN(len(w.apps))]
		conn := w.conns[w.r.IntN(len(w.conns))]
		var err error
		if w.r.IntN(100) < w.writes {
			c := a.writes[chosen(w.r, len(a.writes), func(i int) int { return a.writes[i].weight })]
			err = c.do(ctx, conn)
		} else {
			s := a.shapes[chosen(w.r, len(a.shapes), func(i int) int { return a.shapes[i].weight })]
			err = w.read(ctx, conn, a.name, s)
		}
		if err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return nil
}

// chosen returns one of n by their weights.
func chosen(r *rand.Rand, n int, weight func(int) int) int {
	sum := 0
	for i := range n {
		sum += weight(i)
	}
	at := r.IntN(sum)
	for i := range n {
		if at -= weight(i); at < 0 {
			return i
		}
	}
	panic("weights changed")
}

var errWrong = errors.New("a wrong answer")

// read asks the driver and PostgreSQL.
func (w *run) read(ctx context.Context, conn *sql.Conn, application string, s shape) error {
	args := s.args()
	before := inside.Counted(w.db)
	got, err := answer(ctx, conn, s.text, args)
	if err != nil {
		return err
	}
	met := harness.Difference(before, inside.Counted(w.db))
	want, err := answer(ctx, w.plain, s.text, args)
	if err != nil {
		return err
	}
	key := application + "\x00" + s.name + "\x00" + fmt.Sprint(args)
	was, asked := w.last[key]
	w.last[key] = want
	f := w.figures[application+s.name]
	if f == nil {
		f = &figure{Application: application, Shape: s.name}
		w.figures[application+s.name] = f
	}
	possible := asked && was == want
	f.Reads++
	if possible {
		f.Possible++
	}
	switch {
	case got != want:
		return fmt.Errorf("%w: %s %v, a %s\ngot  %s\npgx's %s", errWrong, s.text, args, met, got, want)
	case met == "hit" && !possible:
		return fmt.Errorf("a hit that is not possible: %s %v\nbefore %s\nnow    %s", s.text, args, was, want)
	case met == "hit":
		f.Hits++
	case strings.HasPrefix(met, "bypass "):
		f.Bypassed++
		w.passed[strings.TrimPrefix(met, "bypass ")]++
	case met != "miss":
		return fmt.Errorf("%s %v is counted as %q", s.text, args, met)
	}
	return nil
}

// answer is everything that a program reads of a result.
func answer(ctx context.Context, conn *sql.Conn, text string, args []any) (string, error) {
	rows, err := conn.QueryContext(ctx, text, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var all strings.Builder
	values, dest := make([]any, len(names)), make([]any, len(names))
	for i := range values {
		dest[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return "", err
		}
		for i, value := range values {
			fmt.Fprintf(&all, "%s=%s ", names[i], harness.Describe(value))
		}
		all.WriteByte('\n')
	}
	return all.String(), rows.Err()
}
