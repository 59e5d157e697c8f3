package main

import (
	"context"
	"database/sql"
	"time"
)

// The functions of this file are the shop: plain database/sql that knows
// nothing of a cache. The same functions run through pgx and through cachedpg.

type product struct {
	ID         int64
	Name       string
	PriceCents int64
	Stock      int64
}

// productByID reads one row by its primary key.
func productByID(ctx context.Context, db *sql.DB, id int64) (product, error) {
	var p product
	err := db.QueryRowContext(ctx, `SELECT id, name, price_cents, stock FROM products WHERE id = $1`, id).
		Scan(&p.ID, &p.Name, &p.PriceCents, &p.Stock)
	return p, err
}

type order struct {
	ID        int64
	OrderedAt time.Time
	Status    string
}

// ordersOf lists a customer's orders, the latest first.
func ordersOf(ctx context.Context, db *sql.DB, customer int64) ([]order, error) {
	return collect(ctx, db, func(rows *sql.Rows, o *order) error {
		return rows.Scan(&o.ID, &o.OrderedAt, &o.Status)
	}, `
		SELECT id, ordered_at, status FROM orders
		WHERE customer_id = $1 ORDER BY ordered_at DESC, id DESC`, customer)
}

type item struct {
	Line       int64
	Product    string
	Quantity   int64
	PriceCents int64
}

// itemsOf lists what was ordered, with the names of the products.
func itemsOf(ctx context.Context, db *sql.DB, order int64) ([]item, error) {
	return collect(ctx, db, func(rows *sql.Rows, i *item) error {
		return rows.Scan(&i.Line, &i.Product, &i.Quantity, &i.PriceCents)
	}, `
		SELECT i.id, p.name, i.quantity, i.price_cents
		FROM order_items i JOIN products p ON p.id = i.product_id
		WHERE i.order_id = $1 ORDER BY i.id`, order)
}

type month struct {
	Start        time.Time
	RevenueCents int64
}

// revenueByMonth adds up all order items.
func revenueByMonth(ctx context.Context, db *sql.DB) ([]month, error) {
	return collect(ctx, db, func(rows *sql.Rows, m *month) error {
		return rows.Scan(&m.Start, &m.RevenueCents)
	}, `
		SELECT date_trunc('month', o.ordered_at), sum(i.quantity * i.price_cents)
		FROM orders o JOIN order_items i ON i.order_id = o.id
		GROUP BY 1 ORDER BY 1`)
}

type seller struct {
	Product string
	Sold    int64
}

// topProducts finds the ten products that sold most.
func topProducts(ctx context.Context, db *sql.DB) ([]seller, error) {
	return collect(ctx, db, func(rows *sql.Rows, s *seller) error {
		return rows.Scan(&s.Product, &s.Sold)
	}, `
		SELECT p.name, sum(i.quantity) AS sold
		FROM order_items i JOIN products p ON p.id = i.product_id
		GROUP BY p.id, p.name ORDER BY sold DESC, p.id LIMIT 10`)
}

// ordersSince counts the orders after a moment.
func ordersSince(ctx context.Context, db *sql.DB, at time.Time) (n int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM orders WHERE ordered_at > $1`, at).Scan(&n)
	return n, err
}

// stockOf reads how many pieces of a product there are.
func stockOf(ctx context.Context, db *sql.DB, id int64) (n int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT stock FROM products WHERE id = $1`, id).Scan(&n)
	return n, err
}

// deliver puts one more piece of a product into stock.
func deliver(ctx context.Context, db *sql.DB, id int64) error {
	_, err := db.ExecContext(ctx, `UPDATE products SET stock = stock + 1 WHERE id = $1`, id)
	return err
}

// raisePrice is part of the caller's transaction.
func raisePrice(ctx context.Context, tx *sql.Tx, id, cents int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE products SET price_cents = price_cents + $2 WHERE id = $1`, id, cents)
	return err
}

// collect runs a query and scans each row into a T.
func collect[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var t T
		if err := scan(rows, &t); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}
