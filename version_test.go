package cachedpg

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// server is the major version of the test database's server.
func server(tb testing.TB) int {
	tb.Helper()
	var version int
	if err := pgtest.Connect(tb, pgtest.DSN(tb)).QueryRow(tb.Context(), "SELECT current_setting('server_version_num')::int / 10000",
		pgx.QueryExecModeSimpleProtocol).Scan(&version); err != nil {
		tb.Fatal(err)
	}
	return version
}

// needsServer skips a test, or a step of one, that only newer servers can run.
func needsServer(tb testing.TB, major int) {
	tb.Helper()
	if version := server(tb); version < major {
		tb.Skipf("needs PostgreSQL %d or later; the server is %d", major, version)
	}
}

// A run that was meant for one version must not pass on another.
func TestTheServerIsTheOneThatWasAskedFor(t *testing.T) {
	t.Parallel()
	asked, version := os.Getenv("CACHEDPG_POSTGRES"), server(t)
	t.Logf("PostgreSQL %d", version)
	switch major, _, _ := strings.Cut(asked, "."); {
	case asked == "newest":
		if version < 18 {
			t.Errorf("the newest PostgreSQL is %d", version)
		}
	case asked != "" && major != strconv.Itoa(version):
		t.Errorf("got PostgreSQL %d, asked for %s", version, asked)
	}
}
