package core

import (
	"context"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// effectRows are the rows of a statement with an effect, which ends when they
// are closed: an INSERT … RETURNING commits when its last row was read.
type effectRows struct {
	*stdlib.Rows // with all its optional interfaces
	effect       *effect
}

// Close reads what is left and ends the effect.
func (r *effectRows) Close() error {
	return r.effect.closes(r.Rows)
}

// scriptedRows are effectRows of an inner connection that is not pgx's.
type scriptedRows struct {
	backend.ResultSet
	effect *effect
}

func (r *scriptedRows) Close() error {
	return r.effect.closes(r.ResultSet)
}

// effectOwnRows are effectRows that the driver decodes.
type effectOwnRows struct {
	*Rows
	effect *effect
}

func (r *effectOwnRows) Close() error {
	return r.effect.closes(r.Rows)
}

// closes ends the effect with the rows.
func (e *effect) closes(rows backend.ResultSet) error {
	err := e.c.hears(rows.Close())
	e.done(err)
	e.c.refill(context.Background())
	return err
}

func withEffect(rows backend.ResultSet, e *effect) backend.ResultSet {
	switch r := rows.(type) {
	case *stdlib.Rows:
		return &effectRows{Rows: r, effect: e}
	case *Rows:
		return &effectOwnRows{Rows: r, effect: e}
	}
	return &scriptedRows{ResultSet: rows, effect: e}
}
