// Package outside is what tests share that see the driver from outside, and that needs its API.
package outside

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
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
