package main

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"

	"github.com/cachedpg/cachedpg" // registers "cachedpg"
	"github.com/cachedpg/cachedpg/keying"
)

// demo is the shop, opened through both drivers.
type demo struct {
	*page
	options
	pgx, cached *sql.DB
}

// open is where a program changes: one name.
func open(o options) (*demo, error) {
	dsn := withSearchPath(o.dsn, o.schema)
	plain, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, err
	}
	cached, err := sql.Open("cachedpg", dsn)
	if err != nil {
		plain.Close()
		return nil, err
	}
	if err := cached.Ping(); err != nil { // waits until the cache can answer
		plain.Close()
		cached.Close()
		return nil, err
	}
	for _, db := range []*sql.DB{plain, cached} {
		// database/sql keeps two idle connections if nobody says more; then
		// a busy program spends its time in connecting.
		db.SetMaxIdleConns(readers + 2)
	}
	return &demo{options: o, pgx: plain, cached: cached}, nil
}

func (d *demo) close() {
	d.pgx.Close()
	d.cached.Close()
}

// question is one of the shop's queries, with what it is asked for.
type question struct {
	name    string
	repeats int // in compare
	ask     func(context.Context, *sql.DB) (any, error)
}

func askProduct(id int64) question {
	return question{fmt.Sprintf("product %d", id), 500, func(ctx context.Context, db *sql.DB) (any, error) {
		return productByID(ctx, db, id)
	}}
}

var (
	askRevenue = question{"revenue by month", 5, func(ctx context.Context, db *sql.DB) (any, error) {
		return revenueByMonth(ctx, db)
	}}
	askSellers = question{"ten best sellers", 5, func(ctx context.Context, db *sql.DB) (any, error) {
		return topProducts(ctx, db)
	}}
)

// compare asks the same questions through both drivers.
func (d *demo) compare(ctx context.Context) error {
	d.title("1. The same program through pgx and through cachedpg")
	connecting := make(map[*sql.DB]time.Duration)
	for _, db := range []*sql.DB{d.pgx, d.cached} {
		begin := time.Now()
		if err := db.QueryRowContext(ctx, "SELECT 1").Scan(new(int)); err != nil {
			return err
		}
		connecting[db] = time.Since(begin)
	}
	d.text(fmt.Sprintf(`Each query runs once, then again as often as the column "again" says; the times
		are that of the first run and the median of the others. Both drivers are connected before: that took %s through
		pgx, and %s through cachedpg, which reads the schema once.`,
		short(connecting[d.pgx]), short(connecting[d.cached])))
	d.line("")
	d.columns("  %-20s %6s %9s %9s   %9s %9s", "", "", "pgx", "", "cachedpg", "")
	d.columns("  %-20s %6s %9s %9s   %9s %9s %10s", "query", "again", "first", "again", "first", "again", "faster")

	before := cachedpg.StatsOf(d.cached)
	questions := []question{
		askProduct(42),
		{"orders of a customer", 500, func(ctx context.Context, db *sql.DB) (any, error) { return ordersOf(ctx, db, 17) }},
		{"items of an order", 500, func(ctx context.Context, db *sql.DB) (any, error) { return itemsOf(ctx, db, 99) }},
		askRevenue, askSellers,
	}
	repeats := 0
	for _, q := range questions {
		answer, first, again, err := measure(ctx, d.pgx, q)
		if err != nil {
			return err
		}
		cachedAnswer, cachedFirst, cachedAgain, err := measure(ctx, d.cached, q)
		if err != nil {
			return err
		}
		d.line("  %-20s %6d %9s %9s   %9s %9s %10s", q.name, q.repeats,
			short(first), short(again), short(cachedFirst), short(cachedAgain), times(again, cachedAgain))
		d.expect(reflect.DeepEqual(answer, cachedAnswer), "%s: pgx answers %v, cachedpg %v", q.name, answer, cachedAnswer)
		repeats += q.repeats
	}
	met := since(before, d.cached)
	d.line("")
	d.text(fmt.Sprintf(`All answers were the same. The first runs through cachedpg were %d misses, which asked PostgreSQL; the
		others were %s hits, which did not.`, met.Misses, thousands(met.Hits)))
	d.expect(met.Misses == uint64(len(questions)) && met.Hits == uint64(repeats) && met.Bypassed == 0,
		"want %d misses, %d hits and no bypass, got %d, %d and %v", len(questions), repeats, met.Misses, met.Hits, met.Bypasses)
	return nil
}

// measure asks once, then q.repeats times more. All answers must be the same.
func measure(ctx context.Context, db *sql.DB, q question) (answer any, first, again time.Duration, err error) {
	durations := make([]time.Duration, q.repeats+1)
	for i := range durations {
		begin := time.Now()
		a, err := q.ask(ctx, db)
		durations[i] = time.Since(begin)
		if err != nil {
			return nil, 0, 0, fmt.Errorf("%s: %w", q.name, err)
		}
		if i == 0 {
			answer = a
		} else if !reflect.DeepEqual(a, answer) {
			return nil, 0, 0, fmt.Errorf("%s: answer %d is not the first one", q.name, i+1)
		}
	}
	first, durations = durations[0], durations[1:]
	slices.Sort(durations)
	return answer, first, durations[len(durations)/2], nil
}

// since is what the counters have gained.
func since(before cachedpg.Stats, db *sql.DB) cachedpg.Stats {
	s := cachedpg.StatsOf(db)
	s.Lookups -= before.Lookups
	s.Hits -= before.Hits
	s.Misses -= before.Misses
	s.Stale -= before.Stale
	s.Bypassed -= before.Bypassed
	maps.DeleteFunc(s.Bypasses, func(reason string, n uint64) bool { return n == before.Bypasses[reason] })
	for reason := range s.Bypasses {
		s.Bypasses[reason] -= before.Bypasses[reason]
	}
	return s
}

// met asks one question through cachedpg and says what became of it: "hit",
// "miss", or the reason why the cache was not consulted. The counters of the
// driver say so, not this program: nothing else uses the DB meanwhile.
func (d *demo) met(ctx context.Context, q question) (what string, answer any, err error) {
	before := cachedpg.StatsOf(d.cached)
	if answer, err = q.ask(ctx, d.cached); err != nil {
		return "", nil, fmt.Errorf("%s: %w", q.name, err)
	}
	s := since(before, d.cached)
	switch {
	case s.Hits == 1 && s.Misses+s.Bypassed == 0:
		what = "hit"
	case s.Misses == 1 && s.Hits+s.Bypassed == 0:
		what = "miss"
	case s.Bypassed == 1 && s.Lookups == 0:
		for what = range s.Bypasses {
		}
	default:
		return "", nil, fmt.Errorf("%s: one query counted as %d hits, %d misses, %v", q.name, s.Hits, s.Misses, s.Bypasses)
	}
	return what, answer, nil
}

// commit shows what a commit invalidates, and when.
func (d *demo) commit(ctx context.Context) error {
	d.title("2. What a commit invalidates")
	d.text(`A transaction raises the price of product 1 by 1.00. The table says what each read met, on
		another connection, by the counters of cachedpg.StatsOf. Each answer is compared with PostgreSQL's.`)
	d.line("")
	watched := []question{askProduct(1), askProduct(2), askRevenue, askSellers}
	for _, q := range watched {
		if _, err := q.ask(ctx, d.cached); err != nil { // fill
			return err
		}
	}
	tx, err := d.cached.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	t := newTimeline(d, watched)
	err = t.stages(ctx,
		stage{"before", nil, "hit hit hit hit", 0},
		stage{"uncommitted", func() error { return raisePrice(ctx, tx, 1, 100) }, "hit hit hit hit", 0},
		stage{"committed", tx.Commit, "miss hit hit hit", 100},
		stage{"again", nil, "hit hit hit hit", 100})
	if err != nil {
		return err
	}
	d.line("")
	d.text(`The row of product 2 stays, and so do the revenue, which does not read products, and the best
		sellers, which read their names and not their prices.`)
	return nil
}

// rollback shows that a rolled-back write invalidates nothing.
func (d *demo) rollback(ctx context.Context) error {
	d.title("3. What a rollback invalidates: nothing")
	tx, err := d.cached.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return newTimeline(d, []question{askProduct(1), askSellers}).stages(ctx,
		stage{"before", nil, "hit hit", 0},
		stage{"uncommitted", func() error { return raisePrice(ctx, tx, 1, 100) }, "hit hit", 0},
		stage{"rolled back", tx.Rollback, "hit hit", 0})
}

// timeline asks the same questions at several stages; its columns are the stages.
type timeline struct {
	*demo
	questions []question
	rows      []string
}

// stage is one column: do comes first, then each question meets one of want
// and is answered as through pgx.
type stage struct {
	name  string
	do    func() error // nil: nothing
	want  string       // what the questions meet, in their order
	raise int64        // of product 1's price since the first stage, in cents
}

func newTimeline(d *demo, questions []question) *timeline {
	t := &timeline{demo: d, questions: questions, rows: []string{fmt.Sprintf("  %-18s", "")}}
	for _, q := range questions {
		t.rows = append(t.rows, fmt.Sprintf("  %-18s", q.name))
	}
	return t
}

func (t *timeline) stages(ctx context.Context, stages ...stage) error {
	prices := make(map[int64]int64) // at the first stage
	var checks []func()             // after the table, which they would tear apart
	for _, s := range stages {
		if s.do != nil {
			if err := s.do(); err != nil {
				return err
			}
		}
		t.rows[0] += fmt.Sprintf(" %-15s", s.name)
		for i, want := range strings.Fields(s.want) {
			q := t.questions[i]
			what, answer, err := t.met(ctx, q)
			if err != nil {
				return err
			}
			truth, err := q.ask(ctx, t.pgx)
			if err != nil {
				return err
			}
			cell := what
			if p, ok := answer.(product); ok {
				cell = fmt.Sprintf("%-4s %s", what, money(p.PriceCents))
				if _, known := prices[p.ID]; !known {
					prices[p.ID] = p.PriceCents
				}
				price := prices[p.ID]
				if p.ID == 1 {
					price += s.raise
				}
				checks = append(checks, func() {
					t.expect(p.PriceCents == price, "%s, %s: price %s, want %s", s.name, q.name, money(p.PriceCents), money(price))
				})
			}
			t.rows[i+1] += fmt.Sprintf(" %-15s", cell)
			checks = append(checks, func() {
				t.expect(what == want, "%s, %s: %s, want %s", s.name, q.name, what, want)
				t.expect(reflect.DeepEqual(answer, truth), "%s, %s: got %v, pgx says %v", s.name, q.name, answer, truth)
			})
		}
	}
	t.columns("%s", t.rows[0])
	for _, row := range t.rows[1:] {
		t.line("%s", row)
	}
	for _, check := range checks {
		check()
	}
	return nil
}

// bypass shows queries that always go to PostgreSQL.
func (d *demo) bypass(ctx context.Context) error {
	d.title("4. What is not cached, and why")
	d.text(`Whatever cannot be proved to be the same next time goes to PostgreSQL, as with pgx. The
		counters name the reason.`)
	for _, c := range []struct{ query, reason string }{
		{"SELECT count(*) FROM orders WHERE ordered_at > now() - interval '30 days'", keying.StableFunction.String()},
		{"SELECT name FROM products ORDER BY random() LIMIT 1", keying.VolatileFunction.String()},
		{"SELECT stock FROM products WHERE id = 1 FOR UPDATE", keying.RowLock.String()},
	} {
		q := question{name: c.query, ask: func(ctx context.Context, db *sql.DB) (any, error) {
			var answer string
			return answer, db.QueryRowContext(ctx, c.query).Scan(&answer)
		}}
		d.line("")
		d.line("  %s", c.query)
		for range 2 { // the second time as the first
			what, _, err := d.met(ctx, q)
			if err != nil {
				return err
			}
			d.expect(what == c.reason, "%s: %s, want %s", c.query, what, c.reason)
		}
		i := slices.IndexFunc(keying.Reasons(), func(r keying.Reason) bool { return r.String() == c.reason })
		reason := keying.Reasons()[i]
		d.indented("      ", fmt.Sprintf("%s: %s. %s", reason, reason.Words(), reason.Remedy()))
	}
	d.line("")
	monthAgo := question{name: "orders since", ask: func(ctx context.Context, db *sql.DB) (any, error) {
		return ordersSince(ctx, db, opening.Add(twoYears).AddDate(0, 0, -30))
	}}
	first, _, err := d.met(ctx, monthAgo)
	if err != nil {
		return err
	}
	second, _, err := d.met(ctx, monthAgo)
	if err != nil {
		return err
	}
	d.text(fmt.Sprintf("The first one with the moment as an argument, WHERE ordered_at > $1: first a %s, then a %s.", first, second))
	d.expect(first == "miss" && second == "hit", "want a miss, then a hit")
	return nil
}

// summary prints what a program can ask at any time.
func (d *demo) summary(context.Context) error {
	d.title("6. What cachedpg.StatsOf(db) says at the end")
	s := cachedpg.StatsOf(d.cached)
	share := 0.0
	if s.Lookups > 0 {
		share = 100 * float64(s.Hits) / float64(s.Lookups)
	}
	d.line("  %-10s %12s   queries that the cache might answer", "lookups", thousands(s.Lookups))
	d.line("  %-10s %12s   %.1f %% of them, answered without PostgreSQL", "hits", thousands(s.Hits), share)
	d.line("  %-10s %12s   of which %s found a result that a commit had invalidated", "misses", thousands(s.Misses), thousands(s.Stale))
	d.line("  %-10s %12s   sent to PostgreSQL without asking the cache, because of", "bypassed", thousands(s.Bypassed))
	for _, reason := range slices.Sorted(maps.Keys(s.Bypasses)) {
		d.line("  %-10s %12s     %s %s", "", "", thousands(s.Bypasses[reason]), reason)
	}
	d.line("  %-10s %12s   in %s KiB", "entries", thousands(s.Entries), thousands(s.Bytes>>10))
	d.line("  %-10s %12s   that PostgreSQL would have spent on the hits", "saved", short(s.Saved))
	d.expect(s.Lookups == s.Hits+s.Misses, "lookups %d are not hits %d and misses %d", s.Lookups, s.Hits, s.Misses)
	sum := uint64(0)
	for _, n := range s.Bypasses {
		sum += n
	}
	d.expect(s.Bypassed == sum, "bypassed %d is not the sum of %v", s.Bypassed, s.Bypasses)

	d.title("In your program")
	d.line(`  import "github.com/cachedpg/cachedpg"                           // was: pgx/v5/stdlib`)
	d.line(`  db, err := sql.Open("cachedpg", "postgres://localhost/shop")    // was: "pgx"`)
	d.line(`  fmt.Println(cachedpg.StatsOf(db).Hits)                          // if you like`)
	return nil
}
