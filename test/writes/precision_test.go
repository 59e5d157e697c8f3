package writes

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

var rewrite = flag.Bool("rewrite", false, "write what TestPrecision sees into testdata/precision/table.golden")

// TestPrecision prints the table of what a commit takes out of the cache. Every
// read of the corpus is made a hit; a write is committed; every read is asked
// again. A hit was kept, a miss invalidated; both are compared with plain pgx.
// Review a change with
//
//	go test -run '^TestPrecision$' ./test/writes -rewrite && git diff test/writes/testdata
//
// Whatever the golden file says, these rules hold: every read of the corpus is
// cached, and no write takes away an answer that it has nothing to do with (meet).
func TestPrecision(t *testing.T) {
	t.Parallel()
	p := newPrecision(t, pgtest.Database(t), "cache_statement")
	table := make([][]bool, len(precisionWrites))
	for i := range precisionWrites {
		table[i] = p.row(&precisionWrites[i])
	}
	got := precisionTable(table)
	golden := filepath.Join("testdata", "precision", "table.golden")
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the table is another than in %s; go test -run '^TestPrecision$' . -rewrite writes it\ngot:\n%s", golden, got)
	}
}

// The table is of one store and one exec mode; the others must draw the same line
// where it matters: a write by key and the reads by key.
func TestPrecisionElsewhere(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"memory", "redis"} {
		database := pgtest.Database(t)
		var keys []string
		if store == "redis" {
			keys = append(keys, "cache_store="+pgtest.Redis(t))
		}
		for _, mode := range harness.ModesIn(t, store) {
			t.Run(store+"/"+mode, func(t *testing.T) {
				p := newPrecision(t, database, mode, keys...)
				for _, name := range []string{"rename user 2", "pay order 1"} {
					i := slices.IndexFunc(precisionWrites, func(w precisionWrite) bool { return w.name == name })
					p.row(&precisionWrites[i])
				}
			})
		}
	}
}

// precision is one database with the corpus's schema.
type precision struct {
	*harness.Fixture
	dsn       string
	cacheable bool // every read was a hit once
}

func newPrecision(t *testing.T, database, mode string, keys ...string) *precision {
	t.Helper()
	schema, err := os.ReadFile(filepath.Join("testdata", "precision", "schema.sql"))
	if err != nil {
		t.Fatal(err)
	}
	f := harness.New(t, database, mode, string(schema), keys...)
	harness.AwaitCaching(t, f.DB)
	return &precision{Fixture: f, dsn: harness.WithKey(database, "search_path", mode)}
}

// row executes one write on the corpus's rows, and returns which reads it
// invalidated.
func (p *precision) row(w *precisionWrite) []bool {
	p.Helper()
	rows, err := os.ReadFile(filepath.Join("testdata", "precision", "rows.sql"))
	if err != nil {
		p.Fatal(err)
	}
	pgtest.Exec(p.T, p.dsn, string(rows))
	if err := cachedpg.Invalidate(p.Ctx, p.DB); err != nil {
		p.Fatal(err)
	}
	for i := range precisionReads {
		r := &precisionReads[i]
		if _, met := p.ask(r); met != "miss" {
			p.Errorf("%s: got a %s, want a miss", r.name, met)
		}
		if p.cacheable {
			continue
		}
		if _, met := p.ask(r); met != "hit" {
			p.Errorf("%s: got a %s, want a hit: every read of the corpus is cacheable", r.name, met)
		}
	}
	p.cacheable = true
	if err := p.commit(w); err != nil {
		p.Fatalf("%s (%s): %v", w.name, w.from, err)
	}
	p.Released()
	invalidated := make([]bool, len(precisionReads))
	var wrong []string
	for i := range precisionReads {
		r := &precisionReads[i]
		got, met := p.ask(r)
		p.Compare(got, r.sql, r.args)
		invalidated[i] = met != "hit"
		if invalidated[i] && !meet(w.about, r.about) {
			wrong = append(wrong, fmt.Sprintf("%s (%s): %s", r.name, r.about, met))
		}
	}
	if wrong != nil {
		p.Errorf("%s (%s), which writes %s, invalidated what is about others: %s", w.name, w.from, w.about, strings.Join(wrong, ", "))
	}
	return invalidated
}

// ask asks a read and says where the answer came from.
func (p *precision) ask(r *precisionRead) (got harness.Result, met string) {
	p.Helper()
	before := inside.Counted(p.DB)
	got = p.Read(p.DB, r.sql, r.args)
	if got.Err != nil {
		p.Fatalf("%s: %v\nin: %s", r.name, got.Err, r.sql)
	}
	return got, harness.Difference(before, inside.Counted(p.DB))
}

// commit does what a write does.
func (p *precision) commit(w *precisionWrite) error {
	if w.ends == alone {
		return p.do(p.DB, w.calls)
	}
	tx, err := p.DB.BeginTx(p.Ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := p.do(tx, w.calls); err != nil || w.ends == rolledBack {
		return err
	}
	return tx.Commit()
}

func (p *precision) do(x harness.Asker, calls []asked) error {
	for _, c := range calls {
		if !strings.Contains(c.sql, "RETURNING") && !strings.HasPrefix(c.sql, "SELECT") {
			if _, err := x.ExecContext(p.Ctx, c.sql, c.args...); err != nil {
				return err
			}
		} else if r := p.Read(x, c.sql, c.args); r.Err != nil {
			return r.Err
		}
	}
	return nil
}

// meet reports whether what a write and a read are about may be the same.
func meet(write, read string) bool {
	for _, w := range strings.Fields(write) {
		for _, r := range strings.Fields(read) {
			i, j := strings.IndexAny(w, "#~+*"), strings.IndexAny(r, "#~*")
			if w[:i] != r[:j] {
				continue // other tables
			}
			switch {
			case r[j] == '*' || w[i] == '*':
				return true
			case w[i] == '+':
			case w[i] != r[j] || w == r:
				return true
			}
		}
	}
	return false
}

// precisionTable writes the table, with a legend.
func precisionTable(table [][]bool) string {
	var b strings.Builder
	b.WriteString("What a commit takes out of the cache: x is invalidated, . is kept.\n\n")
	width := 0
	for _, w := range precisionWrites {
		width = max(width, len(w.name+w.from))
	}
	for _, digit := range []int{10, 1} {
		fmt.Fprintf(&b, "%*s ", width+6, "")
		for i := range precisionReads {
			if i%5 == 0 {
				b.WriteByte(' ')
			}
			if n := i + 1; digit == 1 || n >= 10 {
				fmt.Fprintf(&b, "%d", n/digit%10)
			} else {
				b.WriteByte(' ')
			}
		}
		b.WriteString("\n")
	}
	for i, row := range table {
		w := precisionWrites[i]
		fmt.Fprintf(&b, "%-*s ", width+6, fmt.Sprintf("%2d %s (%s)", i+1, w.name, w.from))
		kept := 0
		for j, invalidated := range row {
			if j%5 == 0 {
				b.WriteByte(' ')
			}
			if invalidated {
				b.WriteByte('x')
			} else {
				b.WriteByte('.')
				kept++
			}
		}
		fmt.Fprintf(&b, "  %d of %d kept\n", kept, len(row))
	}
	b.WriteString("\nThe reads, in columns:\n\n")
	for i, r := range precisionReads {
		fmt.Fprintf(&b, "%2d %s (%s), about %s\n", i+1, r.name, r.from, r.about)
		r.write(&b)
	}
	b.WriteString("\nThe writes, in lines:\n\n")
	for i, w := range precisionWrites {
		fmt.Fprintf(&b, "%2d %s (%s), writes %s\n", i+1, w.name, w.from, w.about)
		for _, c := range w.calls {
			c.write(&b)
		}
	}
	return b.String()
}

// write writes a statement in one line, with its arguments.
func (c asked) write(b *strings.Builder) {
	fmt.Fprintf(b, "   %s", strings.ReplaceAll(c.sql, "\n", " ⏎ "))
	if len(c.args) > 0 {
		fmt.Fprintf(b, "  %v", c.args)
	}
	b.WriteString("\n")
}
