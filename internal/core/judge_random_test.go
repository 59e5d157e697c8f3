package core

import (
	"context"
	"database/sql/driver"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/sqlgen"
)

var (
	judgeDuration = flag.Duration("judge.duration", 10*time.Second, "how long TestPostgresJudgesRandomStatements begins new schemas")
	judgeSeed     = flag.Uint64("judge.seed", 0, "seed of its first schema; 0 takes one from the clock")
)

// statementsPerSchema bounds a schema's life: after a while its tables are
// empty or its keys used up.
const statementsPerSchema = 60

// The third corpus is made up: schemas full of what a write may lead to, and
// statements over them, each judged like those of the others. The seed chooses
// pgx's exec mode and the store, too.
func TestPostgresJudgesRandomStatements(t *testing.T) {
	t.Parallel()
	seed := *judgeSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	var total tally
	schemas := 0
	for end := time.Now().Add(*judgeDuration); (schemas == 0 || time.Now().Before(end)) && !t.Failed(); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("again: go test -run '^TestPostgresJudgesRandomStatements$' -judge.duration 1ns -judge.seed %d .", seed)
				}
			})
			g := sqlgen.New(seed)
			schema := g.Schema()
			database := pgtest.Database(t)
			conn := pgtest.Connect(t, database)
			for _, ddl := range schema.DDL {
				if _, err := conn.Exec(context.Background(), ddl, pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Fatalf("%v\nin: %s", err, ddl)
				}
			}
			var keys []string
			if seed%3 == 0 {
				keys = []string{"cache_store=" + pgtest.Redis(t)}
			}
			judging(t, database, harness.Modes[seed%uint64(len(harness.Modes))], keys, func(j *judge) {
				j.rows, j.keep = true, 30
				j.random(g, schema)
				total = total.plus(j.tally)
			})
		})
		schemas++
	}
	t.Logf("%d schemas, the last of seed %d: %v", schemas, seed-1, total)
}

func (j *judge) random(g *sqlgen.Gen, schema *sqlgen.Schema) {
	left := 0 // statements of the transaction that is open
	for n := range statementsPerSchema {
		j.where = fmt.Sprintf("statement %d", n)
		switch status := j.c.inner.TxStatus(); {
		case status == 'E' || status == 'T' && left == 0 && g.Percent(20):
			_ = j.run("ROLLBACK")
		case status == 'T' && left == 0:
			_ = j.run("COMMIT")
		case status == 'T':
			left--
		case g.Percent(8):
			left = 1 + g.Below(4)
			_ = j.run("BEGIN")
		}
		j.autocommit = g.Percent(40)
		var s sqlgen.Statement
		if g.Percent(45) {
			s = schema.Query(g)
		} else {
			s = schema.Write(g)
		}
		j.where = fmt.Sprintf("statement %d, %v", n, s)
		if s.Copy != nil {
			_ = j.copyRows(pgx.Identifier{s.Copy.Table}, s.Copy.Columns, s.Copy.Rows)
			continue
		}
		args := make([]driver.NamedValue, len(s.Args))
		for i, a := range s.Args {
			args[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
		}
		_ = j.run(s.SQL, args...)
	}
	if j.c.inner.TxStatus() != 'I' {
		_ = j.run("ROLLBACK")
	}
}
