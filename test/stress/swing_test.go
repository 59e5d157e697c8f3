package stress

import (
	"context"
	"fmt"
	"strings"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// swingReads read the view that swings between two tables, of which one counts.
var swingReads = []question{
	{"SELECT ver FROM swing", nil},
	{"SELECT ver FROM swing WHERE id = 1", nil},
	{"SELECT ver FROM swing WHERE id = $1", []any{1}},
	{"SELECT max(ver) FROM swing", nil},
	{"SELECT s.ver FROM swing s, account a WHERE a.id = 1 AND s.id = 1", nil},
}

func (w *worker) readSwing(ctx context.Context, q harness.Asker, mine own) error {
	at := w.swing.Load()
	question := swingReads[w.rng.IntN(len(swingReads))]
	rows, err := q.QueryContext(ctx, question.text, question.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var ver int64
		if err := rows.Scan(&ver); err != nil {
			return err
		}
		if ver < at {
			w.violate("%s: read version %d, but %d was committed before", question.text, ver, at)
		}
		if mine == nil {
			raise(&w.swing, ver)
		}
	}
	return rows.Err()
}

// writeSwing counts on through the view, or lets it swing to the other table
// and count on there.
func (w *worker) writeSwing(ctx context.Context) error {
	var ver int64
	const count = "UPDATE swing SET ver = ver + 1 WHERE id = 1 RETURNING ver"
	kind := w.rng.IntN(10)
	if kind > 4 {
		if err := w.db.QueryRowContext(ctx, count).Scan(&ver); err != nil {
			return err
		}
		raise(&w.swing, ver)
		return nil
	}
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if kind > 0 {
		if err := tx.QueryRowContext(ctx, count).Scan(&ver); err != nil {
			return err
		}
		if err := w.readSwing(ctx, tx, own{}); err != nil {
			return err
		}
	} else {
		var definition string
		if _, err := tx.ExecContext(ctx, "LOCK TABLE swing IN ACCESS EXCLUSIVE MODE"); err != nil { // it locks the table beneath as well
			return err
		}
		if err := tx.QueryRowContext(ctx, "SELECT pg_get_viewdef('swing'::regclass)").Scan(&definition); err != nil {
			return err
		}
		from, to := "tick", "tock"
		if strings.Contains(definition, to) {
			from, to = to, from
		}
		if _, err := tx.ExecContext(ctx, "CREATE OR REPLACE VIEW swing AS SELECT id, ver FROM "+to); err != nil {
			return err
		}
		query := fmt.Sprintf("UPDATE %s SET ver = (SELECT ver FROM %s) + 1 RETURNING ver", to, from)
		if err := tx.QueryRowContext(ctx, query).Scan(&ver); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	raise(&w.swing, ver)
	return nil
}
