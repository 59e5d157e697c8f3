package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/cachedpg/cachedpg/internal/core"
	"github.com/cachedpg/cachedpg/internal/inside"
)

func init() {
	inside.Core = func(of any) any {
		switch of := of.(type) {
		case *Conn:
			return of.conn
		case Database:
			return dbOf(of)
		}
		return nil
	}
	inside.Face = func(db any) driver.Connector { return newConnector(db.(*core.DB), Config{}) }
	inside.Cached = func(ctx context.Context, db *sql.DB) (func() bool, error) {
		d, err := findDB(ctx, db)
		return d.Reached, err
	}
	inside.ExplainOn = func(ctx context.Context, conn any, query string) (any, error) {
		x, err := conn.(*Conn).conn.Explain(ctx, query, nil)
		if err != nil {
			return nil, err
		}
		return explanationOf(x), nil
	}
}
