package bench

import (
	"context"
	"database/sql"
	"fmt"
)

// The scale of a warehouse: that of TPC-C divided by about a hundred, so that a
// database is made in a second.
const (
	tpccWarehouses = 4 // one for each goroutine
	tpccDistricts  = 10
	tpccCustomers  = 100 // of a district
	tpccItems      = 1000
	tpccOrders     = 30 // of a district, at first; the last third of them are new
)

// lastNames are the syllables that TPC-C makes last names of.
var lastNames = [10]string{"BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING"}

func lastName(n int) string {
	return lastNames[n/100%10] + lastNames[n/10%10] + lastNames[n%10]
}

// tpccTables are the nine tables, and what is in them before the first transaction.
// Nothing of it is left to chance.
var tpccTables = []string{
	`CREATE TABLE warehouse (w_id int PRIMARY KEY, w_name varchar(10), w_street_1 varchar(20), w_street_2 varchar(20),
		w_city varchar(20), w_state char(2), w_zip char(9), w_tax numeric(4,4), w_ytd numeric(12,2))`,
	`CREATE TABLE district (d_id int, d_w_id int REFERENCES warehouse, d_name varchar(10), d_street_1 varchar(20),
		d_street_2 varchar(20), d_city varchar(20), d_state char(2), d_zip char(9), d_tax numeric(4,4), d_ytd numeric(12,2),
		d_next_o_id int, PRIMARY KEY (d_w_id, d_id))`,
	`CREATE TABLE customer (c_id int, c_d_id int, c_w_id int, c_first varchar(16), c_middle char(2), c_last varchar(16),
		c_street_1 varchar(20), c_street_2 varchar(20), c_city varchar(20), c_state char(2), c_zip char(9), c_phone char(16),
		c_since timestamptz, c_credit char(2), c_credit_lim numeric(12,2), c_discount numeric(4,4), c_balance numeric(12,2),
		c_ytd_payment numeric(12,2), c_payment_cnt int, c_delivery_cnt int, c_data varchar(500),
		PRIMARY KEY (c_w_id, c_d_id, c_id), FOREIGN KEY (c_w_id, c_d_id) REFERENCES district)`,
	`CREATE INDEX customer_by_name ON customer (c_w_id, c_d_id, c_last, c_first)`,
	`CREATE TABLE history (h_c_id int, h_c_d_id int, h_c_w_id int, h_d_id int, h_w_id int, h_date timestamptz,
		h_amount numeric(6,2), h_data varchar(24))`,
	`CREATE TABLE orders (o_id int, o_d_id int, o_w_id int, o_c_id int, o_entry_d timestamptz, o_carrier_id int,
		o_ol_cnt int, o_all_local int, PRIMARY KEY (o_w_id, o_d_id, o_id))`,
	`CREATE INDEX orders_by_customer ON orders (o_w_id, o_d_id, o_c_id, o_id)`,
	`CREATE TABLE new_order (no_o_id int, no_d_id int, no_w_id int, PRIMARY KEY (no_w_id, no_d_id, no_o_id))`,
	`CREATE TABLE item (i_id int PRIMARY KEY, i_im_id int, i_name varchar(24), i_price numeric(5,2), i_data varchar(50))`,
	`CREATE TABLE stock (s_i_id int, s_w_id int, s_quantity int, s_dist char(24), s_ytd int, s_order_cnt int,
		s_remote_cnt int, s_data varchar(50), PRIMARY KEY (s_w_id, s_i_id))`,
	`CREATE TABLE order_line (ol_o_id int, ol_d_id int, ol_w_id int, ol_number int, ol_i_id int, ol_supply_w_id int,
		ol_delivery_d timestamptz, ol_quantity int, ol_amount numeric(6,2), ol_dist_info char(24),
		PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number))`,

	fmt.Sprintf(`INSERT INTO warehouse SELECT w, 'w' || w, 'street', 'street', 'city', 'st', '123456789', 0.1, 300000
		FROM generate_series(1, %d) w`, tpccWarehouses),
	fmt.Sprintf(`INSERT INTO district SELECT d, w, 'd' || d, 'street', 'street', 'city', 'st', '123456789', 0.1, 30000, %d
		FROM generate_series(1, %d) w, generate_series(1, %d) d`, tpccOrders+1, tpccWarehouses, tpccDistricts),
	fmt.Sprintf(`INSERT INTO history SELECT c, d, w, d, w, '2024-01-01', 10, 'history'
		FROM generate_series(1, %d) w, generate_series(1, %d) d, generate_series(1, %d) c`, tpccWarehouses, tpccDistricts, tpccCustomers),
	fmt.Sprintf(`INSERT INTO orders SELECT o, d, w, 1 + o * 7919 %% %d, '2024-01-01', CASE WHEN o > %d THEN NULL ELSE 1 END, 10, 1
		FROM generate_series(1, %d) w, generate_series(1, %d) d, generate_series(1, %d) o`,
		tpccCustomers, tpccOrders*2/3, tpccWarehouses, tpccDistricts, tpccOrders),
	`INSERT INTO new_order SELECT o_id, o_d_id, o_w_id FROM orders WHERE o_carrier_id IS NULL`,
	fmt.Sprintf(`INSERT INTO item SELECT i, i, 'item ' || i, 1 + i %% 100, repeat('i', 26 + i %% 24) FROM generate_series(1, %d) i`, tpccItems),
	fmt.Sprintf(`INSERT INTO stock SELECT i, w, 50 + i %% 50, repeat('s', 24), 0, 0, 0, repeat('d', 26 + i %% 24)
		FROM generate_series(1, %d) w, generate_series(1, %d) i`, tpccWarehouses, tpccItems),
	fmt.Sprintf(`INSERT INTO order_line SELECT o_id, o_d_id, o_w_id, n, 1 + (o_id * 31 + n * 7919) %% %d, o_w_id,
		CASE WHEN o_carrier_id IS NULL THEN NULL ELSE o_entry_d END, 5, 10, repeat('s', 24) FROM orders, generate_series(1, o_ol_cnt) n`, tpccItems),
}

// loadTPCC makes the tables and fills them.
func loadTPCC(ctx context.Context, dsn string) error {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, statement := range tpccTables {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%w: %s", err, statement)
		}
	}
	const customer = `INSERT INTO customer SELECT c, d, w, 'first ' || c, 'OE', ($1::text[])[c], 'street', 'street', 'city', 'st', '123456789',
		'0123456789012345', '2024-01-01', CASE WHEN c % 10 = 0 THEN 'BC' ELSE 'GC' END, 50000, 0.1, -10, 10, 1, 0, repeat('c', 300)
		FROM generate_series(1, $2) w, generate_series(1, $3) d, generate_series(1, $4) c`
	names := make([]string, tpccCustomers)
	for i := range names {
		names[i] = lastName(i)
	}
	if _, err := db.ExecContext(ctx, customer, names, tpccWarehouses, tpccDistricts, tpccCustomers); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM ANALYZE")
	return err
}
