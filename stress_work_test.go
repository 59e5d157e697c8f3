package cachedpg

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

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

func idKey(id int64) string                 { return fmt.Sprint("id ", id) }
func itemKey(slot int) string               { return fmt.Sprint("item ", slot) }
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
	err = PgxConn(ctx, conn, func(conn *pgx.Conn) error {
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

type question struct {
	text string
	args []any
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
