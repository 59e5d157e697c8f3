package space

import (
	"database/sql"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
)

func spaceOf(db *sql.DB) *Space { return inside.Space(db).(*Space) }

func keeperOf(v harness.Via) *Keeper { return spaceOf(v.DB).Keeper }

func run(f *harness.Fixture, conn *pgx.Conn, texts ...string) {
	f.Helper()
	for _, text := range texts {
		if _, err := conn.Exec(f.Ctx, text); err != nil {
			f.Fatalf("%s: %v", text, err)
		}
	}
}

// another is process for either store.
func another(f *harness.Fixture, name string) harness.Via {
	f.Helper()
	if !f.InMemory() {
		return f.Process(name)
	}
	return f.Beside(name)
}
