package sqlgen

import (
	"context"
	"errors"
	"flag"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	pg_query "github.com/pganalyze/pg_query_go/v5"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

var seeds = flag.Int("seeds", 6, "how many schemas the tests make")

func TestTheSameSeedMakesTheSame(t *testing.T) {
	make := func(seed uint64) (all []Statement) {
		g := New(seed)
		s := g.Schema()
		for _, text := range s.DDL {
			all = append(all, Statement{SQL: text})
		}
		for range 200 {
			all = append(all, s.Query(g), s.Write(g))
		}
		return all
	}
	for seed := range uint64(20) {
		if !reflect.DeepEqual(make(seed), make(seed)) {
			t.Errorf("seed %d makes something else each time", seed)
		}
	}
	if reflect.DeepEqual(make(1), make(2)) {
		t.Error("two seeds make the same")
	}
}

func TestEverythingParses(t *testing.T) {
	check := func(what string, s Statement) {
		if s.Copy != nil {
			return
		}
		if _, err := pg_query.Parse(s.SQL); err != nil {
			t.Errorf("%s: %v\nin: %s", what, err, s.SQL)
		}
	}
	for seed := range uint64(50) {
		g := New(seed)
		s := g.Schema()
		for _, text := range s.DDL {
			check("DDL", Statement{SQL: text})
		}
		for range 300 {
			check("query", s.Query(g))
			check("write", s.Write(g))
		}
	}
}

// Statements that fail test little. What each rule makes has to succeed often
// enough; what PostgreSQL refuses otherwise is logged.
func TestMostStatementsSucceed(t *testing.T) {
	ctx := context.Background()
	type count struct{ made, failed int }
	counts := make(map[string]*count)
	codes := make(map[string]int)
	var queries, writes count
	for seed := range uint64(*seeds) {
		dsn := pgtest.Database(t)
		conn := pgtest.Connect(t, dsn)
		g := New(seed)
		s := g.Schema()
		for _, text := range s.DDL {
			if _, err := conn.Exec(ctx, text); err != nil {
				t.Fatalf("seed %d: %v\nin: %s", seed, err, text)
			}
		}
		run := func(statement Statement) error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			if c := statement.Copy; c != nil {
				_, err := conn.CopyFrom(ctx, pgx.Identifier{c.Table}, c.Columns, pgx.CopyFromRows(c.Rows))
				return err
			}
			_, err := conn.Exec(ctx, statement.SQL, statement.Args...)
			return err
		}
		tally := func(all *count, what string, statement Statement) {
			name := what + " " + statement.Kind
			if counts[name] == nil {
				counts[name] = &count{}
			}
			all.made++
			counts[name].made++
			if err := run(statement); err != nil {
				all.failed++
				counts[name].failed++
				var refused *pgconn.PgError
				if !errors.As(err, &refused) {
					t.Errorf("seed %d: %v\nin: %s", seed, err, statement)
					return
				}
				codes[refused.Code]++
				// What no schema could make succeed is a mistake in the grammar.
				switch refused.Code {
				case "42601", "42P18", "42P08", "42804", "42846", "42883", "42725", "42702":
					codes[refused.Code+" "+refused.Message]++
					if testing.Verbose() && codes[refused.Code+" "+refused.Message] == 1 {
						t.Logf("seed %d: %v\nin: %s", seed, err, statement)
					}
				}
			}
		}
		for range 150 {
			tally(&queries, "query", s.Query(g))
			tally(&writes, "write", s.Write(g))
		}
		conn.Close(ctx)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%-28s %5d, %3d%% succeed", name, counts[name].made, 100-100*counts[name].failed/counts[name].made)
	}
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		t.Logf("%5d × %s", codes[code], code)
	}
	for _, of := range []struct {
		what  string
		count count
		least int // percent, below what was measured: 96 and 81
	}{{"queries", queries, 90}, {"writes", writes, 72}} {
		share := 100 - 100*of.count.failed/of.count.made
		t.Logf("%d%% of the %s succeed", share, of.what)
		if share < of.least {
			t.Errorf("%d%% of the %s succeed, want %d%%", share, of.what, of.least)
		}
	}
}
