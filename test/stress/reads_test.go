package stress

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// own are the slots that the surrounding transaction wrote; nil outside of one.
type own map[int]bool

// saw checks the version of an account that a read returned.
func (w *worker) saw(what string, slot int, ver int64, at *[slots]int64, mine own) {
	if ver < at[slot] {
		w.violate("%s: read version %d of account %d, but %d was committed before", what, ver, slot, at[slot])
	}
	if !mine[slot] {
		raise(&w.floors[slot], ver)
	}
}

// absent checks that a key which a read did not find may be gone.
func (w *worker) absent(what, key string, seen int64) {
	if gone := w.key(key).gone.Load(); seen > 0 && gone <= seen {
		w.violate("%s: nothing under %s, which version %d had; only up to version %d was it taken away", what, key, seen, gone)
	}
}

func (w *worker) read(ctx context.Context, q harness.Asker, mine own) error {
	slot := w.rng.IntN(slots)
	id := w.ids[slot].Load()
	switch w.rng.IntN(10) {
	case 0:
		return w.one(ctx, q, mine, idKey(id), "SELECT slot, ver FROM account WHERE id = $1", id)
	case 1:
		return w.one(ctx, q, mine, idKey(id), fmt.Sprintf("SELECT slot, ver FROM account WHERE id = %d /* %d */", id, w.rng.IntN(3)))
	case 2:
		stmt := w.byID
		if tx, ok := q.(*sql.Tx); ok {
			stmt = tx.StmtContext(ctx, stmt)
			defer stmt.Close()
		}
		return w.one(ctx, harness.Prepared{Stmt: stmt}, mine, idKey(id), "prepared", id)
	case 3:
		email := fmt.Sprintf("%d-%c", slot, "ab"[w.rng.IntN(2)])
		return w.one(ctx, q, mine, email, "SELECT slot, ver FROM account WHERE email = $1", email)
	case 4:
		return w.one(ctx, q, mine, idKey(id), "SELECT slot, ver FROM ledger WHERE id = $1", id)
	case 5:
		return w.one(ctx, q, mine, itemKey(slot), "SELECT slot, a.ver FROM item i JOIN account a ON a.id = i.account_id WHERE i.id = $1", slot)
	case 6:
		return w.item(ctx, q, mine, slot)
	case 7:
		ids := []int64{int64(w.rng.IntN(steady)), int64(w.rng.IntN(steady)), id}
		if w.rng.IntN(2) == 0 {
			return w.several(ctx, q, mine, "SELECT slot, ver FROM account WHERE id IN ($1, $2, $3) ORDER BY slot", ids[0], ids[1], ids[2])
		}
		return w.several(ctx, q, mine, "SELECT slot, ver FROM account WHERE id = ANY($1)", ids)
	case 8:
		return w.sum(ctx, q, mine, w.rng.IntN(2))
	default:
		return w.several(ctx, q, mine, "SELECT slot, ver FROM account ORDER BY slot")
	}
}

func idKey(id int64) string { return fmt.Sprint("id ", id) }

func itemKey(slot int) string { return fmt.Sprint("item ", slot) }

func emailOf(slot int, variant byte) string { return fmt.Sprintf("%d-%c", slot, variant) }

// one reads the account under a key.
func (w *worker) one(ctx context.Context, q harness.Asker, mine own, key, query string, args ...any) error {
	p := w.key(key)
	at, seen := w.floorsNow(), p.seen.Load()
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := false
	for rows.Next() {
		var slot int
		var ver int64
		if err := rows.Scan(&slot, &ver); err != nil {
			return err
		}
		found = true
		w.saw(query, slot, ver, &at, mine)
		if !mine[slot] {
			raise(&p.seen, ver)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if !found {
		w.absent(query, key, seen)
	}
	return nil
}

// several reads any accounts. All that are never deleted must be among them if
// the query asks for all.
func (w *worker) several(ctx context.Context, q harness.Asker, mine own, query string, args ...any) error {
	at := w.floorsNow()
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var slot int
		var ver int64
		if err := rows.Scan(&slot, &ver); err != nil {
			return err
		}
		n++
		w.saw(query, slot, ver, &at, mine)
	}
	if err := rows.Err(); err == nil && len(args) == 0 && n < moving {
		w.violate("%s: %d rows, want at least %d", query, n, moving)
	}
	return rows.Err()
}

func (w *worker) sum(ctx context.Context, q harness.Asker, mine own, group int) error {
	at, before := w.floorsNow(), w.groups[group].Load()
	const query = "SELECT count(*), sum(ver)::bigint FROM account WHERE grp = $1"
	rows, err := q.QueryContext(ctx, query, group)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n, sum int64
		if err := rows.Scan(&n, &sum); err != nil {
			return err
		}
		least := int64(0)
		for slot := group; slot < steady; slot += 2 {
			least += at[slot]
		}
		if n != steady/2 || sum < least || sum < before {
			w.violate("%s: %d accounts with sum %d in group %d, but the sum was %d and the parts %d before", query, n, sum, group, before, least)
		}
		if len(mine) == 0 {
			raise(&w.groups[group], sum)
		}
	}
	return rows.Err()
}

func (w *worker) item(ctx context.Context, q harness.Asker, mine own, slot int) error {
	p := w.key(itemKey(slot))
	seen, before, owner := p.seen.Load(), w.items[slot].Load(), w.owners[slot].Load()
	const query = "SELECT account_id, ver FROM item WHERE id = $1"
	rows, err := q.QueryContext(ctx, query, slot)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := false
	for rows.Next() {
		var id, ver int64
		if err := rows.Scan(&id, &ver); err != nil {
			return err
		}
		found = true
		if ver < before {
			w.violate("%s: version %d of item %d after %d", query, ver, slot, before)
		}
		if id < owner {
			w.violate("%s: item %d belongs to %d, but it belonged to %d before", query, slot, id, owner)
		}
		if !mine[slot] {
			raise(&w.items[slot], ver)
			raise(&p.seen, ver) // the account's when the item came
			raise(&w.owners[slot], id)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if !found {
		w.absent(query, itemKey(slot), seen)
	}
	return nil
}

// everyRead lists what the workers have read, with the keys as they are now.
func (s *stress) everyRead() (all []question) {
	for slot := range slots {
		id := s.ids[slot].Load()
		all = append(all,
			question{"SELECT slot, ver FROM account WHERE id = $1", []any{id}},
			question{fmt.Sprintf("SELECT slot, ver FROM account WHERE id = %d", id), nil},
			question{"SELECT slot, ver FROM account WHERE email = $1", []any{emailOf(slot, 'a')}},
			question{"SELECT slot, ver FROM account WHERE email = $1", []any{emailOf(slot, 'b')}},
			question{"SELECT slot, ver FROM ledger WHERE id = $1", []any{id}},
			question{"SELECT slot, a.ver FROM item i JOIN account a ON a.id = i.account_id WHERE i.id = $1", []any{slot}},
			question{"SELECT account_id, ver FROM item WHERE id = $1", []any{slot}},
		)
		for other := range steady {
			all = append(all, question{"SELECT slot, ver FROM account WHERE id IN ($1, $2, $3) ORDER BY slot", []any{int64(other), int64(slot % steady), id}})
		}
	}
	for group := range 2 {
		all = append(all, question{"SELECT count(*), sum(ver)::bigint FROM account WHERE grp = $1", []any{group}})
	}
	return append(all, question{"SELECT slot, ver FROM account ORDER BY slot", nil})
}
