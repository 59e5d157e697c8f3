package core

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// The caller's limits are his, and where the question might not keep to them it is not asked.
func TestAQuestionBesideAWriteLeavesLimitsAlone(t *testing.T) {
	for _, tc := range []struct {
		setting, value string
		found          bool
	}{
		{"idle_in_transaction_session_timeout", "9s", false},
		{"idle_in_transaction_session_timeout", "10s", true},
		{"statement_timeout", "99ms", false},
		{"statement_timeout", "30s", true},
		{"lock_timeout", "99ms", false},
	} {
		t.Run(tc.setting+"="+tc.value, func(t *testing.T) {
			f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
			tx, look := openTx(f, f.Conn(f.With(tc.setting+"="+tc.value).DB))
			if _, err := tx.ExecContext(f.Ctx, renameUser, 1, "anna"); err != nil {
				t.Fatal(err)
			}
			look(func(c *Conn) {
				if got := c.tx.found.xid != ""; got != tc.found {
					t.Errorf("found: %v", got)
				}
			})
			var got string
			if err := tx.QueryRowContext(f.Ctx, "SHOW "+tc.setting).Scan(&got); err != nil || got != tc.value {
				t.Errorf("between statements it is %s, %v", got, err)
			}
			f.Commit(tx)
			f.Fresh(harness.UserByID, 1).Is("1 anna Oslo")
		})
	}
}

// A question that PostgreSQL refuses is as if it had not been asked: here its prepared statement is gone.
func TestARefusedQuestionCostsNoTransaction(t *testing.T) {
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+pgtest.Redis(t))
	conn := f.Conn(f.DB)
	for round := range 2 {
		for i := range 2 {
			write := fmt.Sprintf("%s AND (%d, %d) IS NOT NULL", renameUser, round, i) // one that pgx has not prepared
			tx, look := openTx(f, conn)
			if _, err := tx.ExecContext(f.Ctx, write, 1, string(rune('a'+i))); err != nil {
				t.Fatal(err)
			}
			look(func(c *Conn) {
				if got := c.inner.TxStatus(); got != 'T' {
					t.Errorf("the transaction is %c", got)
				}
				if got := c.tx.found.xid != ""; got != (i == 0) {
					t.Errorf("found: %v", got)
				}
				if i == 0 {
					if err := c.inner.(*backend.Pgx).PgxConn().PgConn().Exec(f.Ctx, "DEALLOCATE ALL").Close(); err != nil {
						t.Error(err)
					}
				}
			})
			f.Commit(tx)
			f.Fresh(harness.UserByID, 1)
		}
	}
}

// Who only reads is asked nothing, and nothing is marked of who rolls back.
func TestATransactionThatCommitsNothingCostsNothing(t *testing.T) {
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	wire := pgtest.Listen(t, f.DSN)
	db := f.Open("cachedpg", harness.WithKey(wire.DSN, "cache_store", pgtest.Redis(t)))
	f.Live(db)
	asked := func() (n int) {
		for _, text := range wire.Texts() {
			if strings.Contains(text.SQL, "pg_current_xact_id_if_assigned") {
				n++
			}
		}
		return n
	}
	conn := f.Conn(db)
	before := asked()
	tx, _ := openTx(f, conn)
	if err := tx.QueryRowContext(f.Ctx, "SELECT city FROM users WHERE id = $1 FOR UPDATE", 2).Scan(new(string)); err != nil {
		t.Fatal(err)
	}
	f.Commit(tx)
	if n := asked() - before; n != 0 {
		t.Errorf("who reads is asked %d times", n)
	}
	marked := dbOf(db).space().Writes.Stats().Intents
	tx, look := openTx(f, conn)
	if _, err := tx.ExecContext(f.Ctx, renameUser, 1, "anna"); err != nil {
		t.Fatal(err)
	}
	look(func(c *Conn) {
		if c.tx.found.xid == "" {
			t.Error("nothing was found")
		}
	})
	f.Rollback(tx)
	if n := dbOf(db).space().Writes.Stats().Intents - marked; n != 0 {
		t.Errorf("%d marks of a transaction that was rolled back", n)
	}
	f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
}
