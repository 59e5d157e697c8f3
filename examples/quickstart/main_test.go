package main

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// smallSize is enough for every section to have something to show.
var smallSize = size{customers: 200, products: 100, orders: 2_000}

func TestQuickstart(t *testing.T) {
	dsn := pgtest.Database(t) // of its own, because the counters must not tell of the DDL of other tests
	o := options{dsn: dsn, schema: "quickstart", size: smallSize, updates: 100}
	var buffer strings.Builder
	if err := run(t.Context(), &buffer, o); err != nil {
		t.Fatalf("run: %v\n%s", err, buffer.String())
	}
	out := buffer.String()
	for _, want := range []string{
		"order_items", "1. The same program", "2. What a commit", "3. What a rollback", "4. What is not cached",
		"5. Readers beside a writer", "6. What cachedpg.StatsOf", "In your program", "expectations that this program checks",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if strings.ContainsAny(out, "\x1b\r") {
		t.Errorf("colour or a progress bar where there is no terminal:\n%q", out)
	}

	// The run has written to the shop and left its size as it was.
	for _, step := range []struct {
		name   string
		do     func()
		reused bool
	}{
		{"after a run", func() {}, true},
		{"after a row was lost", func() { pgtest.Exec(t, dsn, "DELETE FROM quickstart.order_items WHERE id = 5") }, false},
		{"after a load", func() {}, true},
		{"asked for anew", func() { o.fresh = true }, false},
		{"with another size", func() { o.fresh, o.size.orders = false, o.size.orders+1 }, false},
	} {
		step.do()
		var out strings.Builder
		unlock, err := load(t.Context(), newPage(&out), o)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		unlock()
		if reused := strings.Contains(out.String(), "data complete, so it is used again"); reused != step.reused {
			t.Errorf("%s: data used again: %v, want %v\n%s", step.name, reused, step.reused, out.String())
		}
	}
}

func TestTwoRunsDoNotShareASchema(t *testing.T) {
	schema, dsn := pgtest.Schema(t)
	o := options{dsn: dsn, schema: schema, size: size{customers: 1, products: 1, orders: 1}}
	unlock, err := load(t.Context(), newPage(&strings.Builder{}), o)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := load(t.Context(), newPage(&strings.Builder{}), o); err == nil || !strings.Contains(err.Error(), "in use by another run") {
		t.Errorf("a second load beside the first: %v, want a refusal", err)
	}
}

func TestWithoutADatabaseItSaysHow(t *testing.T) {
	err := run(context.Background(), &strings.Builder{}, options{})
	if !errors.Is(err, errNoDatabase) {
		t.Fatalf("got %v, want %v", err, errNoDatabase)
	}
	for _, want := range []string{"make demo", "-dsn", "CACHEDPG_DEMO_DATABASE"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message lacks %q: %v", want, err)
		}
	}
}

func TestAFailedExpectationIsTold(t *testing.T) {
	var out strings.Builder
	p := newPage(&out)
	p.expect(true, "not shown")
	p.expect(false, "got %d, want %d", 1, 2)
	if err := p.verdict(); !errors.Is(err, errWrongAnswer) {
		t.Errorf("verdict: %v, want %v", err, errWrongAnswer)
	}
	want := "FAILED: got 1, want 2\n\n1 of 2 expectations did not hold.\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

// A witness that never complains would prove nothing.
func TestWitnessCatches(t *testing.T) {
	tests := []struct {
		name         string
		story        func(w *witness)
		stale, early int64
	}{
		{"a read of the first version", func(w *witness) { w.read(w.oldest(), 7) }, 0, 0},
		{"a read of an update under way", func(w *witness) { w.begins(8); w.read(w.oldest(), 8) }, 0, 0},
		{"the old version while the commit is under way", func(w *witness) { w.begins(8); w.read(w.oldest(), 7) }, 0, 0},
		{"the old version by a read that began before the commit returned", func(w *witness) {
			oldest := w.oldest()
			w.begins(8)
			w.returned(8)
			w.read(oldest, 7)
		}, 0, 0},
		{"the old version after the commit returned", func(w *witness) {
			w.begins(8)
			w.returned(8)
			w.read(w.oldest(), 7)
		}, 1, 0},
		{"the old version after another one has read the new one", func(w *witness) {
			w.begins(8)
			w.read(w.oldest(), 8)
			w.read(w.oldest(), 7)
		}, 1, 0},
		{"a version that nobody has sent", func(w *witness) { w.read(w.oldest(), 8) }, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWitness(7)
			tt.story(w)
			if stale, early := w.stale.Load(), w.early.Load(); stale != tt.stale || early != tt.early {
				t.Errorf("stale %d, early %d, want %d and %d", stale, early, tt.stale, tt.early)
			}
		})
	}
}

func TestTheShopIsTheSameInEveryRun(t *testing.T) {
	a, b := newShop(smallSize), newShop(smallSize)
	if a.items != b.items {
		t.Fatalf("%d and %d items", a.items, b.items)
	}
	tables, others := a.tables(), b.tables()
	for i, table := range tables {
		for n := 1; n <= table.rows; n++ {
			row, other := table.row(n), others[i].row(n)
			if !reflect.DeepEqual(row, other) {
				t.Fatalf("%s, row %d: %v and %v", table.name, n, row, other)
			}
			if len(row) != len(table.columns) {
				t.Fatalf("%s, row %d: %d values for %d columns", table.name, n, len(row), len(table.columns))
			}
		}
	}
	if n := newShop(fullSize).items; n < 1_000_000 {
		t.Errorf("the full shop has %d order items, want a million at least", n)
	}
}

func TestWithSearchPath(t *testing.T) {
	tests := []struct{ dsn, want string }{
		{"postgres://u@h/d", "postgres://u@h/d?search_path=shop"},
		{"postgresql://u@h/d?search_path=old&sslmode=disable", "postgresql://u@h/d?search_path=shop&sslmode=disable"},
		{"host=h dbname=d", "host=h dbname=d search_path=shop"},
	}
	for _, tt := range tests {
		if got := withSearchPath(tt.dsn, "shop"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.dsn, got, tt.want)
		}
	}
}

func TestNumbersAsText(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{thousands(0), "0"}, {thousands(999), "999"}, {thousands(1000), "1,000"}, {thousands(1050456), "1,050,456"},
		{short(1900 * time.Nanosecond), "1.9 µs"}, {short(250 * time.Microsecond), "250 µs"},
		{short(2100 * time.Microsecond), "2.1 ms"}, {short(553 * time.Millisecond), "553 ms"}, {short(61 * time.Second), "61.0 s"},
		{times(90, 60), "1.5 x"}, {times(600_000, 2), "300,000 x"}, {times(1, 0), "-"},
		{money(33195), "331.95"}, {money(5), "0.05"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestParagraphsAreBroken(t *testing.T) {
	var out strings.Builder
	newPage(&out).text(strings.Repeat("word ", 40))
	for line := range strings.Lines(out.String()) {
		if n := len(strings.TrimSpace(line)); n > 78 {
			t.Errorf("%d characters in a line: %s", n, line)
		}
	}
}
