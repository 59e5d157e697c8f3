//go:build unix

package harness

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Unflushing is a server that writes its log to disk when somebody waits for it.
func Unflushing(t *testing.T) *pgtest.Server {
	t.Helper()
	s := pgtest.StartServer(t, "bgwriter_delay=10s", "autovacuum=off", "checkpoint_timeout=1d")
	s.StopWALWriter()
	return s
}

// IsUnflushed reports that the log goes on at a place that is not on disk.
func (f *Fixture) IsUnflushed() bool {
	f.Helper()
	var behind bool
	if err := f.Plain.QueryRowContext(f.Ctx, "SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()").Scan(&behind); err != nil {
		f.Fatal(err)
	}
	return behind
}
