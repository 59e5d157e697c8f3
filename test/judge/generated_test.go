package judge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/sqlgen"
	"github.com/cachedpg/cachedpg/store"
)

var (
	generatedDuration = flag.Duration("generated.duration", 15*time.Second, "how long TestGeneratedStatements… runs")
	generatedSeed     = flag.Uint64("generated.seed", 0, "seed of the first schema of TestGeneratedStatements…; 0 takes one from the clock")
)

// One session, so that everything can be compared exactly. What PostgreSQL says
// of random statements is the judge:
//
//   - a SELECT gives the same directly, as a miss and as a hit;
//   - the relations that a write has locked for writing are among those that
//     its transaction will invalidate;
//   - after a commit, and inside the transaction before it, every SELECT that
//     was cached still gives what PostgreSQL gives.
func TestGeneratedStatementsAgreeWithPostgreSQL(t *testing.T) {
	t.Parallel()
	seed := *generatedSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	var total score
	dsn := worldDatabase(t)
	for end := time.Now().Add(*generatedDuration); time.Now().Before(end) || total.worlds == 0; seed++ {
		h := newRecording(dsn, seed, seed%3 == 0)
		w := h.world(t, h.ddl, true)
		err := h.alone(w, end, &total)
		total.worlds++
		total.add(w)
		w.close()
		if err != nil {
			t.Fatal(h.report(t, err, fmt.Sprintf("go test -run '^%s$' -generated.seed=%d ./test/judge", t.Name(), seed)))
		}
	}
	t.Log(&total)
}

// score counts what was tried.
type score struct {
	worlds, writes, failed, transactions, compared, inconclusive int
	hits, misses                                                 uint64
	covered, asked                                               int // write transactions whose locks were seen; that would ask themselves
}

func (c *score) String() string {
	return fmt.Sprintf("%d schemas, %d writes (%d failed) in %d units, %d comparisons (%d more inconclusive), %d hits, %d misses, locks of %d writes, %d that ask",
		c.worlds, c.writes, c.failed, c.transactions, c.compared, c.inconclusive, c.hits, c.misses, c.covered, c.asked)
}

func (c *score) sum(d *score) {
	c.writes += d.writes
	c.failed += d.failed
	c.transactions += d.transactions
	c.compared += d.compared
	c.inconclusive += d.inconclusive
	c.covered += d.covered
	c.asked += d.asked
}

func (c *score) add(w *world) {
	for _, db := range w.cached {
		stats := cachedpg.StatsOf(db)
		c.hits += stats.Hits
		c.misses += stats.Misses
	}
}

// rounds are how often all SELECTs of a world are compared. It is a number and
// not a time, so that a seed always does the same.
const rounds = 25

// alone plays one session, and stops at a time at the latest.
func (h *recording) alone(w *world, end time.Time, total *score) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	p, err := w.actor(ctx, int(h.seed%4))
	if err != nil {
		return err
	}
	defer p.close()
	p.judged = true
	g := sqlgen.New(h.seed + 1)
	queries := make([]sqlgen.Statement, 25)
	for i := range queries {
		queries[i] = h.schema.Query(g)
	}
	for round := 0; ; round++ {
		for _, q := range queries {
			total.compared++
			if err := w.compare(ctx, q, "while nobody writes"); err != nil {
				return err
			}
		}
		if round == rounds || round > 1 && time.Now().After(end) {
			return nil
		}
		for range 1 + g.Below(3) {
			if err := h.unit(ctx, p, g, queries, total); err != nil {
				return err
			}
		}
		w.released(ctx)
		for range 3 {
			queries[g.Below(len(queries))] = h.schema.Query(g)
		}
	}
}

// unit makes and does one write, or a transaction of several. Errors of
// PostgreSQL are part of the story; what is returned is not.
func (h *recording) unit(ctx context.Context, p *actor, g *sqlgen.Gen, queries []sqlgen.Statement, total *score) error {
	total.transactions++
	if g.Percent(45) {
		total.writes++
		s := h.schema.Write(g)
		if err := h.do(ctx, p, s); err != nil {
			total.failed++
			if err := p.serious(s, err); err != nil {
				return err
			}
		}
		return nil
	}
	begin := "BEGIN"
	if g.Percent(15) {
		begin = []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN; SELECT 1"}[g.Below(3)]
	}
	if err := h.do(ctx, p, sqlgen.Statement{SQL: begin, Kind: kindBegin}); err != nil {
		return err
	}
	saved, failed := false, false
	for i := 0; i < 4 && !failed && (i == 0 || g.Percent(60)); i++ {
		if g.Percent(20) {
			saved = h.do(ctx, p, sqlgen.Statement{SQL: "SAVEPOINT s", Kind: kindInside}) == nil || saved
		}
		s := h.schema.Write(g)
		if s.Alone && g.Percent(90) {
			continue
		}
		total.writes++
		if err := h.do(ctx, p, s); err != nil {
			total.failed++
			if err := p.serious(s, err); err != nil {
				return err
			}
		}
		if saved && (p.failed() || g.Percent(20)) {
			h.do(ctx, p, sqlgen.Statement{SQL: "ROLLBACK TO s", Kind: kindInside})
		}
		failed = p.failed()
		if p.judged && !failed {
			if err := p.covered(ctx, total); err != nil {
				return err
			}
		}
		if g.Percent(35) && !failed {
			q := queries[g.Below(len(queries))]
			total.compared++
			q.Kind = kindCheck
			if err := h.do(ctx, p, q); err != nil {
				return err
			}
			failed = p.failed()
		}
	}
	if p.judged && !failed && g.Percent(30) { // to see the locks of what would run in COMMIT
		h.do(ctx, p, sqlgen.Statement{SQL: "SET CONSTRAINTS ALL IMMEDIATE", Kind: kindInside})
		if err := p.covered(ctx, total); err != nil {
			return err
		}
	}
	end := "COMMIT"
	if g.Percent(20) {
		end = "ROLLBACK"
	}
	h.do(ctx, p, sqlgen.Statement{SQL: end, Kind: kindEnd}) // an error is that of a deferred constraint, say
	return nil
}

// failed reports that the transaction is over but for its ROLLBACK.
func (p *actor) failed() (failed bool) {
	_ = p.conn.Raw(func(c any) error {
		failed = inside.Inner(c).TxStatus() == 'E'
		return nil
	})
	return failed
}

// serious returns an error that PostgreSQL did not give, or that has cost the
// connection.
func (p *actor) serious(s sqlgen.Statement, err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) || p.conn.PingContext(context.Background()) == nil {
		return nil
	}
	return fmt.Errorf("session %d cannot go on: %w\nafter %s", p.number, err, s)
}

// locked are the tables that the transaction has locked as writes do. CREATE INDEX locks in
// mode SHARE, under which nobody changes a row, who holds it neither.
const locked = `SELECT DISTINCT c.oid::int8, c.relname::text FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
	WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareLock', 'SIReadLock')
	AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND c.relnamespace <> 'pg_catalog'::pg_catalog.regnamespace AND c.relnamespace <> 'pg_toast'::pg_catalog.regnamespace`

// covered checks that the tables which the open transaction has locked for
// writing are among those that its commit will invalidate. Nobody else may
// change the schema meanwhile: a commit planned with an old one invalidates
// everything, as is found out in it.
func (p *actor) covered(ctx context.Context, total *score) error {
	if p.unsure {
		return nil
	}
	rows, err := p.conn.QueryContext(cachedpg.WithBypass(ctx), locked)
	if err != nil {
		return nil // the transaction has failed
	}
	defer rows.Close()
	wrote := make(map[uint32]string)
	for rows.Next() {
		var oid uint32
		var name string
		if err := rows.Scan(&oid, &name); err != nil {
			return err
		}
		wrote[oid] = name
	}
	if rows.Err() != nil {
		return nil
	}
	rows.Close()
	var forgotten []string
	err = p.conn.Raw(func(c any) error {
		asks, tags, _ := inside.Transaction(c)
		switch {
		case tags == nil:
			return errors.New("the driver does not know of the transaction")
		case asks:
			total.asked++
			return nil
		}
		total.covered++
		known := make(map[uint32]bool)
		for _, tag := range tags.Tags() {
			known[tag.Relation] = true
		}
		if tags.Has(store.Tag{Kind: store.TagSchema}) {
			return nil
		}
		for oid, name := range wrote {
			if !known[oid] {
				forgotten = append(forgotten, name)
			}
		}
		return nil
	})
	if err == nil && len(forgotten) > 0 {
		slices.Sort(forgotten)
		return uncovered(fmt.Sprintf("the transaction has locked %v for writing, which its commit would not invalidate", forgotten))
	}
	return err
}

// uncovered says which tables a commit would forget.
type uncovered string

func (u uncovered) Error() string { return string(u) }
