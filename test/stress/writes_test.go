package stress

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
)

// write is what one write of an account leads to, if it is committed.
type write struct {
	slot  int
	ver   int64
	id    int64  // -1 if the account is not there then
	email string // "" if it is not known
	item  bool   // the item was inserted with it
}

// know takes in what was committed.
func (s *stress) know(c write) {
	raise(&s.floors[c.slot], c.ver)
	if c.id < 0 {
		return
	}
	raise(&s.ids[c.slot], c.id)
	raise(&s.owners[c.slot], c.id)
	raise(&s.key(idKey(c.id)).seen, c.ver)
	if c.email != "" {
		raise(&s.key(c.email).seen, c.ver)
	}
	if c.item {
		raise(&s.items[c.slot], c.ver)
	}
	raise(&s.key(itemKey(c.slot)).seen, c.ver)
}

const bump = "UPDATE account SET ver = ver + 1 WHERE id = $1"

func (w *worker) write(ctx context.Context) error {
	slot := w.rng.IntN(slots)
	id := w.ids[slot].Load()
	switch w.rng.IntN(16) {
	case 0, 1: // the version that it made is at least one more than any known before
		at := w.floorsNow()
		result, err := w.db.ExecContext(ctx, bump, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err
		}
		raise(&w.floors[slot], at[slot]+1)
		return nil
	case 2:
		return w.returning(ctx, bump+" RETURNING slot, ver, id, email", id)
	case 3:
		return w.returning(ctx, "UPDATE account SET ver = ver + 1 WHERE email = $1 RETURNING slot, ver, id, email", emailOf(slot, "ab"[w.rng.IntN(2)]))
	case 4:
		slot = w.rng.IntN(steady)
		return w.returning(ctx, `INSERT INTO account AS a VALUES ($1, $2, 1, $3, 0) ON CONFLICT (id) DO UPDATE SET ver = a.ver + 1
			RETURNING slot, ver, id, email`, slot, slot, emailOf(slot, 'c'))
	case 5:
		return w.returning(ctx, `WITH l AS (SELECT id FROM account WHERE grp = $1 ORDER BY slot FOR UPDATE)
			UPDATE account a SET ver = ver + 1 FROM l WHERE a.id = l.id RETURNING slot, ver, a.id, email`, w.rng.IntN(2))
	case 6:
		return w.pastTheDriver(ctx, slot, id)
	case 7:
		return w.byText(ctx, slot, id)
	case 8:
		at := w.floorsNow()
		one, two := w.rng.IntN(steady/2), steady/2+w.rng.IntN(steady/2)
		_, err := w.db.ExecContext(ctx, fmt.Sprintf("UPDATE account SET ver = ver + 1 WHERE id = %d; UPDATE account SET ver = ver + 1 WHERE id = %d", one, two),
			pgx.QueryExecModeSimpleProtocol)
		if err == nil {
			raise(&w.floors[one], at[one]+1)
			raise(&w.floors[two], at[two]+1)
		}
		return err
	case 9:
		if w.rng.IntN(20) > 0 {
			return nil
		}
		_, err := w.db.ExecContext(ctx, "COMMENT ON TABLE account IS 'DDL that changes nothing'")
		return err
	default:
		return w.transaction(ctx)
	}
}

// returning runs a statement that gives what it made of accounts. It is
// committed when the rows were closed without an error.
func (w *worker) returning(ctx context.Context, query string, args ...any) error {
	rows, err := w.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var made []write
	for rows.Next() {
		var c write
		if err := rows.Scan(&c.slot, &c.ver, &c.id, &c.email); err != nil {
			return err
		}
		made = append(made, c)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := rows.Close(); err != nil {
		return err
	}
	for _, c := range made {
		w.know(c)
	}
	return nil
}

// pastTheDriver writes on the pgx connection beneath.
func (w *worker) pastTheDriver(ctx context.Context, slot int, id int64) error {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := write{slot: slot, id: id}
	err = cachedpg.PgxConn(ctx, conn, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, bump+" RETURNING ver, email", id).Scan(&c.ver, &c.email)
	})
	if err == nil {
		w.know(c)
	}
	if err == pgx.ErrNoRows {
		return nil
	}
	return err
}

// byText opens and ends the transaction by texts.
func (w *worker) byText(ctx context.Context, slot int, id int64) error {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	c := write{slot: slot, id: id}
	if err := conn.QueryRowContext(ctx, bump+" RETURNING ver, email", id).Scan(&c.ver, &c.email); err != nil && err != sql.ErrNoRows {
		return err // the connection goes back in its transaction, and is closed
	}
	if err := w.read(ctx, conn, own{slot: true}); err != nil {
		return err
	}
	end := []string{"COMMIT", "ROLLBACK", "END"}[w.rng.IntN(3)]
	if _, err := conn.ExecContext(ctx, end); err != nil || end == "ROLLBACK" || c.ver == 0 {
		return err
	}
	w.know(c)
	return nil
}

// transaction writes several accounts, reads between, rolls back to a
// savepoint now and then, and commits or not.
func (w *worker) transaction(ctx context.Context) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	mine := own{}
	var made []write
	chosen := w.rng.Perm(slots)[:1+w.rng.IntN(3)]
	slices.Sort(chosen) // so that there is no deadlock
	for _, slot := range chosen {
		if w.rng.IntN(2) == 0 {
			if err := w.read(ctx, tx, mine); err != nil {
				return err
			}
		}
		savepoint := w.rng.IntN(3) == 0
		if savepoint {
			if _, err := tx.ExecContext(ctx, "SAVEPOINT s"); err != nil {
				return err
			}
		}
		mine[slot] = true
		c, ok, err := w.change(ctx, tx, slot)
		if err != nil {
			return err
		}
		if w.rng.IntN(2) == 0 {
			if err := w.read(ctx, tx, mine); err != nil {
				return err
			}
		}
		if savepoint && w.rng.IntN(2) == 0 {
			if _, err := tx.ExecContext(ctx, "ROLLBACK TO s"); err != nil {
				return err
			}
			ok = false
		}
		if ok {
			made = append(made, c)
		}
	}
	if w.rng.IntN(5) == 0 {
		return tx.Rollback()
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	for _, c := range made {
		w.know(c)
	}
	return nil
}

// change changes an account in a way that suits its slot. ok is false if there
// was nothing to change. What it takes away is noted before it can be committed.
func (w *worker) change(ctx context.Context, tx *sql.Tx, slot int) (c write, ok bool, err error) {
	id := w.ids[slot].Load()
	c = write{slot: slot, id: id}
	scan := func(query string, args ...any) {
		dest := []any{&c.ver, &c.id, &c.email}
		err = tx.QueryRowContext(ctx, query+" RETURNING ver, id, email", args...).Scan(dest...)
	}
	switch kind := w.rng.IntN(3); {
	case kind == 0:
		scan(bump, id)
	case kind == 1:
		variant := "ab"[w.rng.IntN(2)]
		scan("UPDATE account SET ver = ver + 1, email = $2 WHERE id = $1", id, emailOf(slot, variant))
		if err == nil {
			raise(&w.key(emailOf(slot, 'a'+'b'-variant)).gone, c.ver)
		}
	case slot < steady:
		scan("UPDATE account SET ver = ver + 1 WHERE slot = $1", slot)
	case slot < moving:
		scan("UPDATE account SET ver = ver + 1, id = slot + 1000 * (ver + 1) WHERE id = $1", id)
		if err == nil {
			raise(&w.key(idKey(id)).gone, c.ver)
		}
	default:
		return w.deleteOrInsert(ctx, tx, slot)
	}
	if err == sql.ErrNoRows {
		return c, false, nil
	}
	return c, err == nil, err
}

// deleteOrInsert takes a mortal account away, or brings it back with a higher version.
func (w *worker) deleteOrInsert(ctx context.Context, tx *sql.Tx, slot int) (c write, ok bool, err error) {
	var ver int64
	err = tx.QueryRowContext(ctx, "DELETE FROM account WHERE id = $1 RETURNING ver", slot).Scan(&ver)
	switch {
	case err == nil:
		ver++
		for _, key := range []string{idKey(int64(slot)), emailOf(slot, 'a'), emailOf(slot, 'b'), itemKey(slot)} {
			raise(&w.key(key).gone, ver)
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO grave VALUES ($1, $2)", slot, ver)
		return write{slot: slot, ver: ver, id: -1}, err == nil, err
	case err != sql.ErrNoRows:
		return c, false, err
	}
	err = tx.QueryRowContext(ctx, "DELETE FROM grave WHERE slot = $1 RETURNING ver", slot).Scan(&ver)
	if err != nil {
		if err == sql.ErrNoRows { // someone else was first
			err = nil
		}
		return c, false, err
	}
	c = write{slot: slot, ver: ver + 1, id: int64(slot), email: emailOf(slot, 'a'), item: true}
	if _, err := tx.ExecContext(ctx, "INSERT INTO account VALUES ($1, $2, $3, $4, 2)", slot, slot, c.ver, c.email); err != nil {
		return c, false, err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO item VALUES ($1, $2, $3)", slot, slot, c.ver)
	return c, err == nil, err
}
