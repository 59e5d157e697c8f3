package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// tpccWorker does transactions with a warehouse.
type tpccWorker struct {
	db        *sql.DB
	warehouse int
	rand      *rand.Rand
}

// transaction does one, in the mix of TPC-C.
func (w *tpccWorker) transaction(ctx context.Context) error {
	do := w.newOrder
	switch chance := w.rand.IntN(100); {
	case chance >= 96:
		do = w.stockLevel
	case chance >= 92:
		do = w.delivery
	case chance >= 88:
		do = w.orderStatus
	case chance >= 45:
		do = w.payment
	}
	sqlTx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer sqlTx.Rollback()
	t := &tpccTx{ctx: ctx, tx: sqlTx}
	do(t)
	if t.err != nil {
		return fmt.Errorf("%w: %s", t.err, t.query)
	}
	return sqlTx.Commit()
}

func (w *tpccWorker) district() int { return 1 + w.rand.IntN(tpccDistricts) }
func (w *tpccWorker) customer() int { return 1 + w.rand.IntN(tpccCustomers) }

// tpccTx does nothing more after its first error.
type tpccTx struct {
	ctx   context.Context
	tx    *sql.Tx
	query string // the last one
	err   error
}

func (t *tpccTx) exec(query string, args ...any) {
	if t.err != nil {
		return
	}
	t.query = query
	_, t.err = t.tx.ExecContext(t.ctx, query, args...)
}

// row reads one row, and reports that there is one.
func (t *tpccTx) row(query string, args []any, into ...any) bool {
	if t.err != nil {
		return false
	}
	t.query = query
	err := t.tx.QueryRowContext(t.ctx, query, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false
	}
	t.err = err
	return err == nil
}

// each reads all rows into the same places and calls f after each.
func (t *tpccTx) each(query string, args []any, f func(), into ...any) {
	if t.err != nil {
		return
	}
	t.query = query
	rows, err := t.tx.QueryContext(t.ctx, query, args...)
	if err != nil {
		t.err = err
		return
	}
	defer rows.Close()
	for rows.Next() {
		if t.err = rows.Scan(into...); t.err != nil {
			return
		}
		f()
	}
	t.err = rows.Err()
}

// list is "$first, …" with n parameters.
func list(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", first+i)
	}
	return b.String()
}

func (w *tpccWorker) newOrder(t *tpccTx) {
	district, customer := w.district(), w.customer()
	items := w.rand.Perm(tpccItems)[:5+w.rand.IntN(11)]
	slices.Sort(items)
	var ids []any
	for _, item := range items {
		ids = append(ids, item+1)
	}
	var discount, tax, districtTax, last, credit string
	t.row(`SELECT c_discount, c_last, c_credit, w_tax FROM customer, warehouse
		WHERE w_id = $1 AND c_w_id = w_id AND c_d_id = $2 AND c_id = $3`,
		[]any{w.warehouse, district, customer}, &discount, &last, &credit, &tax)
	var order int
	t.row("SELECT d_next_o_id, d_tax FROM district WHERE d_w_id = $1 AND d_id = $2 FOR UPDATE",
		[]any{w.warehouse, district}, &order, &districtTax)
	t.exec("UPDATE district SET d_next_o_id = $1 WHERE d_w_id = $2 AND d_id = $3", order+1, w.warehouse, district)
	t.exec("INSERT INTO orders (o_id, o_d_id, o_w_id, o_c_id, o_entry_d, o_ol_cnt, o_all_local) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		order, district, w.warehouse, customer, time.Now(), len(ids), 1)
	t.exec("INSERT INTO new_order (no_o_id, no_d_id, no_w_id) VALUES ($1, $2, $3)", order, district, w.warehouse)
	prices := make(map[int]float64)
	var id, quantity int
	var price float64
	var name, data, dist string
	t.each("SELECT i_id, i_price, i_name, i_data FROM item WHERE i_id IN ("+list(1, len(ids))+")", ids,
		func() { prices[id] = price }, &id, &price, &name, &data)
	stock := make(map[int]int)
	t.each("SELECT s_i_id, s_quantity, s_data, s_dist FROM stock WHERE s_w_id = $1 AND s_i_id IN ("+list(2, len(ids))+") ORDER BY s_i_id FOR UPDATE",
		append([]any{w.warehouse}, ids...), func() { stock[id] = quantity }, &id, &quantity, &data, &dist)
	var lines strings.Builder
	var values []any
	for i, item := range items {
		ordered := 1 + w.rand.IntN(10)
		left := stock[item+1] - ordered
		if left < 10 {
			left += 91
		}
		t.exec("UPDATE stock SET s_quantity = $1, s_ytd = s_ytd + $2, s_order_cnt = s_order_cnt + 1 WHERE s_w_id = $3 AND s_i_id = $4",
			left, ordered, w.warehouse, item+1)
		if i > 0 {
			lines.WriteString(", ")
		}
		lines.WriteString("(" + list(1+9*i, 9) + ")")
		values = append(values, order, district, w.warehouse, i+1, item+1, w.warehouse, ordered, float64(ordered)*prices[item+1], "dist")
	}
	t.exec(`INSERT INTO order_line (ol_o_id, ol_d_id, ol_w_id, ol_number, ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_dist_info)
		VALUES `+lines.String(), values...)
}

// byName finds the middle one of the customers with a last name.
func (w *tpccWorker) byName(t *tpccTx, district int) int {
	var ids []int
	var id int
	t.each("SELECT c_id FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_last = $3 ORDER BY c_first",
		[]any{w.warehouse, district, lastName(w.rand.IntN(tpccCustomers))}, func() { ids = append(ids, id) }, &id)
	if len(ids) == 0 {
		return 1
	}
	return ids[len(ids)/2]
}

func (w *tpccWorker) payment(t *tpccTx) {
	district := w.district()
	amount := float64(1 + w.rand.IntN(5000))
	t.exec("UPDATE warehouse SET w_ytd = w_ytd + $1 WHERE w_id = $2", amount, w.warehouse)
	var address [6]string
	t.row("SELECT w_street_1, w_street_2, w_city, w_state, w_zip, w_name FROM warehouse WHERE w_id = $1",
		[]any{w.warehouse}, &address[0], &address[1], &address[2], &address[3], &address[4], &address[5])
	t.exec("UPDATE district SET d_ytd = d_ytd + $1 WHERE d_w_id = $2 AND d_id = $3", amount, w.warehouse, district)
	t.row("SELECT d_street_1, d_street_2, d_city, d_state, d_zip, d_name FROM district WHERE d_w_id = $1 AND d_id = $2",
		[]any{w.warehouse, district}, &address[0], &address[1], &address[2], &address[3], &address[4], &address[5])
	customer := w.customer()
	if w.rand.IntN(100) < 60 {
		customer = w.byName(t, district)
	}
	var first, last, credit, balance string
	t.row(`SELECT c_first, c_last, c_street_1, c_street_2, c_city, c_state, c_credit, c_balance FROM customer
		WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3 FOR UPDATE`, []any{w.warehouse, district, customer},
		&first, &last, &address[0], &address[1], &address[2], &address[3], &credit, &balance)
	if credit == "BC" {
		var data string
		t.row("SELECT c_data FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3", []any{w.warehouse, district, customer}, &data)
		data = fmt.Sprintf("%d %d %d %v|%s", customer, district, w.warehouse, amount, data)
		t.exec(`UPDATE customer SET c_balance = c_balance - $1, c_ytd_payment = c_ytd_payment + $1, c_payment_cnt = c_payment_cnt + 1, c_data = $2
			WHERE c_w_id = $3 AND c_d_id = $4 AND c_id = $5`, amount, data[:300], w.warehouse, district, customer)
	} else {
		t.exec(`UPDATE customer SET c_balance = c_balance - $1, c_ytd_payment = c_ytd_payment + $1, c_payment_cnt = c_payment_cnt + 1
			WHERE c_w_id = $2 AND c_d_id = $3 AND c_id = $4`, amount, w.warehouse, district, customer)
	}
	t.exec("INSERT INTO history (h_c_d_id, h_c_w_id, h_c_id, h_d_id, h_w_id, h_date, h_amount, h_data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		district, w.warehouse, customer, district, w.warehouse, time.Now(), amount, address[5])
}

func (w *tpccWorker) orderStatus(t *tpccTx) {
	district := w.district()
	customer := w.customer()
	if w.rand.IntN(100) < 60 {
		customer = w.byName(t, district)
	}
	var balance, first, middle, last string
	t.row("SELECT c_balance, c_first, c_middle, c_last FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
		[]any{w.warehouse, district, customer}, &balance, &first, &middle, &last)
	var order int
	var carrier sql.NullInt64
	var entry time.Time
	if !t.row(`SELECT o_id, o_carrier_id, o_entry_d FROM orders WHERE o_w_id = $1 AND o_d_id = $2 AND o_c_id = $3 ORDER BY o_id DESC LIMIT 1`,
		[]any{w.warehouse, district, customer}, &order, &carrier, &entry) {
		return
	}
	var item, supply, quantity int
	var amount string
	var delivered sql.NullTime
	t.each("SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d FROM order_line WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3",
		[]any{w.warehouse, district, order}, func() {}, &item, &supply, &quantity, &amount, &delivered)
}

func (w *tpccWorker) delivery(t *tpccTx) {
	carrier := 1 + w.rand.IntN(10)
	for district := 1; district <= tpccDistricts; district++ {
		var order, customer int
		if !t.row("SELECT no_o_id FROM new_order WHERE no_w_id = $1 AND no_d_id = $2 ORDER BY no_o_id LIMIT 1 FOR UPDATE",
			[]any{w.warehouse, district}, &order) {
			continue
		}
		t.exec("DELETE FROM new_order WHERE no_w_id = $1 AND no_d_id = $2 AND no_o_id = $3", w.warehouse, district, order)
		t.row("SELECT o_c_id FROM orders WHERE o_w_id = $1 AND o_d_id = $2 AND o_id = $3", []any{w.warehouse, district, order}, &customer)
		t.exec("UPDATE orders SET o_carrier_id = $1 WHERE o_w_id = $2 AND o_d_id = $3 AND o_id = $4", carrier, w.warehouse, district, order)
		t.exec("UPDATE order_line SET ol_delivery_d = $1 WHERE ol_w_id = $2 AND ol_d_id = $3 AND ol_o_id = $4", time.Now(), w.warehouse, district, order)
		var amount string
		t.row("SELECT coalesce(sum(ol_amount), 0) FROM order_line WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3",
			[]any{w.warehouse, district, order}, &amount)
		t.exec("UPDATE customer SET c_balance = c_balance + $1, c_delivery_cnt = c_delivery_cnt + 1 WHERE c_w_id = $2 AND c_d_id = $3 AND c_id = $4",
			amount, w.warehouse, district, customer)
	}
}

func (w *tpccWorker) stockLevel(t *tpccTx) {
	district := w.district()
	var next, low int
	t.row("SELECT d_next_o_id FROM district WHERE d_w_id = $1 AND d_id = $2", []any{w.warehouse, district}, &next)
	t.row(`SELECT count(DISTINCT s_i_id) FROM order_line, stock WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id < $3 AND ol_o_id >= $4
		AND s_w_id = $1 AND s_i_id = ol_i_id AND s_quantity < $5`, []any{w.warehouse, district, next, next - 20, 10 + w.rand.IntN(11)}, &low)
}
