package connections

import (
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A connection beside the first costs one question more than with pgx, and the first one no second one of the
// kind once the catalog is there; nor does a change of the schema, but for one of the schemas themselves.
func TestASessionIsAskedForOnceForEachConnection(t *testing.T) {
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	wire := pgtest.Listen(t, f.DSN)
	v := f.Asking(f.Open("cachedpg", wire.DSN))
	v.DB.SetMaxIdleConns(2)
	seen := 0
	learned := func() (n int) {
		t.Helper()
		texts := wire.Texts()
		own := map[int]bool{} // connections of the pool
		for _, text := range texts {
			own[text.Client] = own[text.Client] || strings.Contains(text.SQL, "FROM users") || strings.HasPrefix(text.SQL, "SELECT 'ours'")
		}
		for _, text := range texts[seen:] {
			if own[text.Client] && strings.Contains(text.SQL, backend.QuestionOfSession) {
				n++
			}
		}
		seen = len(texts)
		return n
	}
	v.DB.SetMaxOpenConns(1)
	v.Again(harness.UserByID, 1)
	if n := learned(); n != 1 {
		t.Errorf("the first connection was asked for its session %d times", n)
	}
	v.DB.SetMaxOpenConns(2)
	first, second := f.Conn(v.DB), f.Conn(v.DB)
	if _, err := second.ExecContext(f.Ctx, "SELECT 'ours'"); err != nil {
		t.Fatal(err)
	}
	texts := wire.Texts()
	last, sent := texts[len(texts)-1].Client, 0
	for i := range texts {
		if strings.HasPrefix(texts[i].SQL, "SELECT 'ours'") {
			last = texts[i].Client
		}
	}
	for _, text := range texts {
		if text.Client == last {
			sent++
		}
	}
	if sent != 2 { // the question, and the statement
		t.Errorf("a further connection has sent %d texts", sent)
	}
	learned()
	v.On(second).Exec("CREATE TABLE beside (id int)") // the session that makes it is asked again, for it may be a temporary one
	f.Until("a hit", func() bool {
		before := cachedpg.StatsOf(v.DB).Hits
		v.On(first).Fresh(harness.UserByID, 1)
		v.On(second).Fresh(harness.UserByID, 1)
		return cachedpg.StatsOf(v.DB).Hits > before
	})
	if n := learned(); n > 1 {
		t.Errorf("after a table was made two connections were asked for their sessions %d times", n)
	}
	v.On(second).Exec("CREATE SCHEMA other")
	f.Until("both sessions", func() bool {
		v.On(first).Fresh(harness.UserByID, 1)
		v.On(second).Fresh(harness.UserByID, 1)
		n := learned()
		return n >= 1 && inside.Catalog(v.DB) != nil
	})
	first.Close()
	second.Close()
}

// After a change of the schema only what has changed is read again.
func TestAChangeOfTheSchemaLoadsWhatHasChanged(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
		wire := pgtest.Listen(t, f.DSN)
		v := f.Asking(f.Open("cachedpg", harness.WithKeys(wire.DSN, keys)))
		v.Again(harness.UserByID, 1)
		v.Exec("CREATE TABLE beside (id int)")
		v.Again(harness.UserByID, 1)
		v.Exec("ALTER TABLE users ADD COLUMN more int DEFAULT 7")
		v.Again("SELECT * FROM users WHERE id = $1", 1)
		whole, again := 0, 0
		for _, text := range wire.Texts() {
			switch {
			case !strings.Contains(text.SQL, "FROM pg_proc p JOIN pg_namespace n"):
			case strings.Contains(text.SQL, "p.oid >= 16384\nUNION ALL"):
				again++
			default:
				whole++
			}
		}
		if whole != 1 || again < 2 {
			t.Errorf("the catalog was read %d times, and what had changed %d times", whole, again)
		}
	})
}

// The first query waits for nothing that PostgreSQL can do without: beside what pgx sends there is the question for the
// session, and the catalog is loaded meanwhile.
func TestTheFirstQueryDoesNotWaitForTheCache(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
		wire := pgtest.Listen(t, f.DSN)
		v := f.Asking(f.Open("cachedpg", harness.WithKeys(wire.DSN, keys)))
		inside.Patience(v.DB, 0)
		unlock := f.LockedCatalog("pg_depend")
		v.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
		if inside.Catalog(v.DB) != nil {
			t.Error("it has waited for the catalog")
		}
		own := wire.Texts()[0].Client
		sent := 0
		for _, text := range wire.Texts() {
			if text.Client == own {
				sent++
			}
		}
		if sent != 2 { // the question for the session, and the query
			t.Errorf("the caller's connection has sent %d texts", sent)
		}
		unlock()
		v.Again(harness.UserByID, 1)
	})
}

// A process begins with few connections, and asks each once where it leads.
func TestAStartTakesFewConnections(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
		wire := pgtest.Listen(t, f.DSN)
		v := f.Asking(f.Open("cachedpg", harness.WithKeys(wire.DSN, keys)))
		v.Again(harness.UserByID, 1)
		clients := map[int]bool{}
		sessions, loads := 0, 0
		for _, text := range wire.Texts() {
			clients[text.Client] = true
			if strings.Contains(text.SQL, backend.QuestionOfSession) {
				sessions++
			}
			if strings.Contains(text.SQL, "FROM pg_proc p JOIN pg_namespace n") {
				loads++
			}
		}
		// The caller's, one for what is asked again and again, and one for the catalog, which others may change meanwhile.
		if len(clients) > 2+loads || sessions != len(clients) {
			t.Errorf("%d connections, %d questions for the session, %d loads of the catalog", len(clients), sessions, loads)
		}
	})
}

// A DB that pings at its start begins warm.
func TestAPingWaitsUntilTheCacheCanAnswer(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People) // its own DB is not used: another one of the process would have begun already
		v := f.Asking(f.Open("cachedpg", harness.WithKeys(f.DSN, keys)))
		inside.Patience(v.DB, 0)
		if err := v.DB.PingContext(f.Ctx); err != nil {
			t.Fatal(err)
		}
		if inside.Catalog(v.DB) == nil || !inside.Warm(v.DB) {
			t.Error("the cache has not begun")
		}
	})
}
