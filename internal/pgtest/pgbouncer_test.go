//go:build unix

package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// In transaction mode a client gets whichever backend is free, so what it sets
// for its session is met by others.
func TestPgbouncerSharesBackends(t *testing.T) {
	base := Database(t)
	tests := []struct {
		poolMode string
		shared   bool
	}{{"session", false}, {"transaction", true}}
	for _, tt := range tests {
		t.Run(tt.poolMode, func(t *testing.T) {
			dsn := PgbouncerTo(t, base, tt.poolMode) + "&default_query_exec_mode=exec"
			ctx := context.Background()
			var pids [2]int
			var name string
			for i := range pids {
				conn := Connect(t, dsn)
				if err := conn.QueryRow(ctx, "SELECT pg_backend_pid(), current_database()").Scan(&pids[i], &name); err != nil {
					t.Fatal(err)
				}
			}
			if shared := pids[0] == pids[1]; shared != tt.shared {
				t.Errorf("backends %v, want one for both: %v", pids, tt.shared)
			}
			if config, err := pgx.ParseConfig(base); err != nil || config.Database != name {
				t.Errorf("connected to %s, want %s (%v)", name, config.Database, err)
			}
		})
	}
}

func TestPgbouncerEndsWithItsTest(t *testing.T) {
	var dsn string
	t.Run("inside", func(t *testing.T) { dsn = Pgbouncer(t, "transaction") })
	if conn, err := pgx.Connect(context.Background(), dsn); err == nil {
		conn.Close(context.Background())
		t.Error("it still answers")
	}
}
