// Package outside is what tests share that see the driver from outside, and that needs its API.
package outside

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

// Main is the TestMain of a package below test/.
func Main(m *testing.M) { harness.Main(m) }

// Explain explains a query in the place where the via asks.
func Explain(v harness.Via, query string, args ...any) *cachedpg.Explanation {
	v.F.Helper()
	x, err := cachedpg.Explain(v.AskContext(), v.DB, query, args...)
	if err != nil {
		v.F.Fatalf("explain: %v\nin: %s", err, query)
	}
	return x
}

// Raw calls do with the pgx connection of a new session.
func Raw(f *harness.Fixture, do func(conn *pgx.Conn) error) {
	f.Helper()
	conn := f.Conn(f.DB)
	if err := cachedpg.PgxConn(f.Ctx, conn, do); err != nil {
		f.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		f.Fatal(err)
	}
}

// SessionQuestions counts the questions for a session that PostgreSQL got, and the DISCARD PLANS.
func SessionQuestions(texts []pgtest.Text) (sessions, discards int) {
	for _, text := range texts {
		switch {
		case strings.Contains(text.SQL, backend.QuestionOfSession):
			sessions++
		case text.SQL == "DISCARD PLANS":
			discards++
		}
	}
	return sessions, discards
}

// SetUpOutbox makes the table of the outbox, for the roles too.
func SetUpOutbox(f *harness.Fixture, roles ...string) {
	f.Helper()
	if err := cachedpg.Setup(f.Ctx, f.Plain, roles...); err != nil {
		f.Fatal(err)
	}
}

// ExplainOn explains on one connection, in the state that it is in, and sees
// that the query is counted accordingly when it runs there.
func ExplainOn(v harness.Via, conn *sql.Conn, query string) *cachedpg.Explanation {
	v.F.Helper()
	var x *cachedpg.Explanation
	err := conn.Raw(func(driverConn any) error {
		explanation, err := inside.ExplainOn(v.F.Ctx, driverConn, query)
		x, _ = explanation.(*cachedpg.Explanation)
		return err
	})
	if err != nil {
		v.F.Fatalf("explain: %v\nin: %s", err, query)
	}
	CountedAs(v.On(conn), x, query)
	return x
}

// CountedAs sees that what is explained to be a bypass is counted as that when it runs.
func CountedAs(v harness.Via, x *cachedpg.Explanation, query string) *cachedpg.Explanation {
	v.F.Helper()
	if x.Cacheable {
		return x
	}
	before := inside.Counted(v.DB)
	v.Read(v.Ask, query, nil) // it may fail
	if got := harness.Difference(before, inside.Counted(v.DB)); got != "bypass "+x.Reason {
		v.F.Errorf("%s: counted as %q, explained as %q", query, got, x.Reason)
	}
	return x
}

// Withheld sees that nothing comes from the cache, and that everything that can be asked says why.
func Withheld(v harness.Via, who, query string, args ...any) {
	v.F.Helper()
	v.F.Until("the hits to be withheld", func() bool {
		before := cachedpg.StatsOf(v.DB).Bypasses[keying.OtherWriter.String()]
		v.Fresh(query, args...)
		return cachedpg.StatsOf(v.DB).Bypasses[keying.OtherWriter.String()] > before
	})
	v.F.Until("Ping to say why", func() bool {
		err := v.DB.PingContext(v.F.Ctx)
		return errors.Is(err, cachedpg.ErrWithheld) && strings.Contains(err.Error(), who) && strings.Contains(err.Error(), "cache_store")
	})
	if s := cachedpg.StatsOf(v.DB).Peers.Withheld; !strings.Contains(s, who) {
		v.F.Errorf("Stats.Peers.Withheld is %q, want it to name %s", s, who)
	}
	if x := Explain(v, query, args...); x.Cacheable || x.Reason != keying.OtherWriter.String() || x.Remedy == "" {
		v.F.Errorf("Explain says:\n%s", x)
	}
}
