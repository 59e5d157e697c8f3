package cachedpg

import (
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A connection beside the first costs one question more than with pgx, and the first one no second one of the
// kind once the catalog is there; nor does a change of the schema, but for one of the schemas themselves.
func TestASessionIsAskedForOnceForEachConnection(t *testing.T) {
	f := newFixture(t, pgtest.Database(t), "cache_statement", people)
	wire := pgtest.Listen(t, f.dsn)
	v := f.asking(f.open("cachedpg", wire.DSN))
	v.db.SetMaxIdleConns(2)
	seen := 0
	learned := func() (n int) {
		t.Helper()
		texts := wire.Texts()
		own := map[int]bool{} // connections of the pool
		for _, text := range texts {
			own[text.Client] = own[text.Client] || strings.Contains(text.SQL, "FROM users") || strings.HasPrefix(text.SQL, "SELECT 'ours'")
		}
		for _, text := range texts[seen:] {
			if own[text.Client] && strings.Contains(text.SQL, questionOfSession) {
				n++
			}
		}
		seen = len(texts)
		return n
	}
	v.db.SetMaxOpenConns(1)
	v.again(userByID, 1)
	if n := learned(); n != 1 {
		t.Errorf("the first connection was asked for its session %d times", n)
	}
	v.db.SetMaxOpenConns(2)
	first, second := f.conn(v.db), f.conn(v.db)
	if _, err := second.ExecContext(f.ctx, "SELECT 'ours'"); err != nil {
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
	v.on(second).exec("CREATE TABLE beside (id int)") // the session that makes it is asked again, for it may be a temporary one
	f.until("a hit", func() bool {
		before := StatsOf(v.db).Hits
		v.on(first).fresh(userByID, 1)
		v.on(second).fresh(userByID, 1)
		return StatsOf(v.db).Hits > before
	})
	if n := learned(); n > 1 {
		t.Errorf("after a table was made two connections were asked for their sessions %d times", n)
	}
	v.on(second).exec("CREATE SCHEMA other")
	f.until("both sessions", func() bool {
		v.on(first).fresh(userByID, 1)
		v.on(second).fresh(userByID, 1)
		n := learned()
		return n >= 1 && connectorOf(v.db).space().view.Load() != nil
	})
	first.Close()
	second.Close()
}

// After a change of the schema only what has changed is read again.
func TestAChangeOfTheSchemaLoadsWhatHasChanged(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people)
		wire := pgtest.Listen(t, f.dsn)
		v := f.asking(f.open("cachedpg", withKeys(wire.DSN, keys)))
		v.again(userByID, 1)
		v.exec("CREATE TABLE beside (id int)")
		v.again(userByID, 1)
		v.exec("ALTER TABLE users ADD COLUMN more int DEFAULT 7")
		v.again("SELECT * FROM users WHERE id = $1", 1)
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
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people)
		wire := pgtest.Listen(t, f.dsn)
		v := f.asking(f.open("cachedpg", withKeys(wire.DSN, keys)))
		connectorOf(v.db).readPatience = 0
		unlock := f.lockedCatalog("pg_depend")
		v.fresh(userByID, 1).is("1 ann Oslo")
		if !connectorOf(v.db).space().loads.begins() {
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
		v.again(userByID, 1)
	})
}

// A process begins with few connections, and asks each once where it leads.
func TestAStartTakesFewConnections(t *testing.T) {
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people)
		wire := pgtest.Listen(t, f.dsn)
		v := f.asking(f.open("cachedpg", withKeys(wire.DSN, keys)))
		v.again(userByID, 1)
		clients := map[int]bool{}
		sessions, loads := 0, 0
		for _, text := range wire.Texts() {
			clients[text.Client] = true
			if strings.Contains(text.SQL, questionOfSession) {
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
	inBothStores(t, func(t *testing.T, keys ...string) {
		f := newFixture(t, pgtest.Database(t), "cache_statement", people) // its own DB is not used: another one of the process would have begun already
		v := f.asking(f.open("cachedpg", withKeys(f.dsn, keys)))
		connectorOf(v.db).readPatience = 0
		if err := v.db.PingContext(f.ctx); err != nil {
			t.Fatal(err)
		}
		if sp := connectorOf(v.db).space(); sp.view.Load() == nil || !sp.before.Load().warm.Load() {
			t.Error("the cache has not begun")
		}
	})
}
