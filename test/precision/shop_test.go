package precision

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
)

const (
	shopCustomers  = 500
	shopSessions   = 400
	shopProducts   = 300
	shopCategories = 20
	shopOrders     = 1500
	shopDays       = 10
)

const shopTables = `
	CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL UNIQUE, name text NOT NULL, status text NOT NULL, last_seen timestamptz NOT NULL);
	CREATE TABLE sessions (token text PRIMARY KEY, customer_id int NOT NULL REFERENCES customers ON DELETE CASCADE, expires timestamptz NOT NULL);
	CREATE TABLE products (id int PRIMARY KEY, category int NOT NULL, name text NOT NULL, price int NOT NULL, stock int NOT NULL);
	CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, status text NOT NULL, placed timestamptz NOT NULL);
	CREATE TABLE items (order_id int REFERENCES orders ON DELETE CASCADE, line int, product_id int NOT NULL REFERENCES products, quantity int NOT NULL,
		PRIMARY KEY (order_id, line));
	CREATE TABLE prices (product_id int REFERENCES products, day date, amount int NOT NULL, PRIMARY KEY (product_id, day));
	CREATE INDEX ON products (category);
	CREATE INDEX ON orders (customer_id);
	CREATE INDEX ON items (product_id);

	INSERT INTO customers SELECT i, 'c' || i || '@example.com', 'customer ' || i, 'active', '2024-01-01Z' FROM generate_series(1, 500) i;
	INSERT INTO sessions SELECT 'token-' || i, i, '2025-01-01Z' FROM generate_series(1, 400) i;
	INSERT INTO products SELECT i, i % 20, 'product ' || i, 100 + i, 1000 FROM generate_series(1, 300) i;
	INSERT INTO orders SELECT i, 1 + i * 7919 % 500, CASE WHEN i % 3 = 0 THEN 'open' ELSE 'sent' END, '2024-01-01Z' FROM generate_series(1, 1500) i;
	INSERT INTO items SELECT i, line, 1 + (i * 31 + line * 17) % 300, 1 + (i + line) % 4 FROM generate_series(1, 1500) i, generate_series(1, 3) line;
	INSERT INTO prices SELECT i, '2024-01-01'::date + day, 100 + i + day FROM generate_series(1, 300) i, generate_series(0, 9) day;
	ANALYZE;`

// shop has customers, who log in by tokens and are looked up by e-mail too, products in
// categories, orders with items, and a list of prices by day.
type shop struct {
	r                                    *rand.Rand
	clock                                clock
	customers, products, orders, session *rows
	extraDays                            map[int]int // of prices that were added, by product
}

func newShop(r *rand.Rand) application {
	s := &shop{r: r, customers: numbered(r, shopCustomers), products: numbered(r, shopProducts),
		orders: newestFirst(r, shopOrders), session: numbered(r, shopSessions), extraDays: make(map[int]int)}
	return application{name: "shop", tables: shopTables, shapes: s.shapes(), writes: s.writes()}
}

func (s *shop) category() int { return below(s.r, shopCategories) }
func (s *shop) token() string { return fmt.Sprintf("token-%d", s.session.pick()) }

// email is that of a customer, unless it was changed.
func (s *shop) email() string { return fmt.Sprintf("c%d@example.com", s.customers.pick()) }

// wanted is an e-mail address of which somebody asks whether it is free, which it is mostly.
func (s *shop) wanted() string {
	if s.r.IntN(10) == 0 {
		return s.email()
	}
	return fmt.Sprintf("new%d@example.com", below(s.r, 100))
}

// day is one of the last days of the price list, mostly.
func (s *shop) day() any { return epoch.AddDate(0, 0, shopDays-1-below(s.r, shopDays)) }

func (s *shop) shapes() []shape {
	return []shape{
		{"customer by key", 10, "SELECT id, name, status FROM customers WHERE id = $1", one(s.customers.pick)},
		{"customer by e-mail", 4, "SELECT id, name, status FROM customers WHERE email = $1", one(s.email)},
		{"whether an e-mail is taken", 2, "SELECT EXISTS (SELECT 1 FROM customers WHERE email = $1)", one(s.wanted)},
		{"customer of a token", 10, `SELECT c.id, c.name, s.expires FROM sessions s JOIN customers c ON c.id = s.customer_id
			WHERE s.token = $1`, one(s.token)},
		{"product by key", 10, "SELECT id, name, price, stock FROM products WHERE id = $1", one(s.products.pick)},
		{"products of a category", 8, "SELECT id, name, price FROM products WHERE category = $1 ORDER BY id LIMIT 20", one(s.category)},
		{"price by product and day", 6, "SELECT amount FROM prices WHERE product_id = $1 AND day = $2",
			func() []any { return []any{s.products.pick(), s.day()} }},
		{"orders of a customer", 5, "SELECT id, status, placed FROM orders WHERE customer_id = $1 ORDER BY id", one(s.customers.pick)},
		{"number of orders of a customer", 4, "SELECT count(*) FROM orders WHERE customer_id = $1", one(s.customers.pick)},
		{"whether a customer has an open order", 4, "SELECT EXISTS (SELECT 1 FROM orders WHERE customer_id = $1 AND status = 'open')",
			one(s.customers.pick)},
		{"order with its customer", 6, `SELECT o.id, o.status, c.id, c.name FROM orders o JOIN customers c ON c.id = o.customer_id
			WHERE o.id = $1`, one(s.orders.pick)},
		{"items of an order with products", 6, `SELECT i.line, i.quantity, p.name FROM items i JOIN products p ON p.id = i.product_id
			WHERE i.order_id = $1 ORDER BY i.line`, one(s.orders.pick)},
		{"item by order and line", 4, "SELECT product_id, quantity FROM items WHERE order_id = $1 AND line = $2",
			func() []any { return []any{s.orders.pick(), 1 + s.r.IntN(3)} }},
		{"best sellers", 3, "SELECT product_id, sum(quantity) FROM items GROUP BY product_id ORDER BY 2 DESC, 1 LIMIT 10", none},
		{"page of all orders", 3, "SELECT id, customer_id, status FROM orders ORDER BY id DESC LIMIT 20 OFFSET $1",
			func() []any { return []any{20 * below(s.r, 20)} }},
	}
}

func (s *shop) writes() []change {
	return []change{
		{16, exec("UPDATE customers SET last_seen = $2 WHERE id = $1", func() []any { return []any{s.customers.pick(), s.clock.tick()} })},
		{14, exec("UPDATE products SET stock = stock - 1 WHERE id = $1", one(s.products.pick))},
		{10, exec("UPDATE orders SET status = $2 WHERE id = $1", func() []any {
			return []any{s.orders.pick(), []string{"open", "paid", "sent"}[s.r.IntN(3)]}
		})},
		{10, inTx(s.order)},
		{4, exec("UPDATE items SET quantity = quantity + 1 WHERE order_id = $1 AND line = $2",
			func() []any { return []any{s.orders.pick(), 1 + s.r.IntN(3)} })},
		{3, exec("UPDATE orders SET customer_id = $2 WHERE id = $1", func() []any { return []any{s.orders.pick(), s.customers.pick()} })},
		{3, exec("DELETE FROM orders WHERE id = $1", one(s.orders.remove))},
		{4, exec("INSERT INTO sessions VALUES ($1, $2, $3)", func() []any {
			return []any{fmt.Sprintf("token-%d", s.session.add()), s.customers.pick(), s.clock.tick()}
		})},
		{3, exec("DELETE FROM sessions WHERE token = $1", func() []any { return []any{fmt.Sprintf("token-%d", s.session.remove())} })},
		{3, exec("UPDATE products SET price = price + 1 WHERE id = $1", one(s.products.pick))},
		{2, exec("UPDATE products SET category = $2 WHERE id = $1", func() []any { return []any{s.products.pick(), s.category()} })},
		{3, exec("UPDATE prices SET amount = amount + 1 WHERE product_id = $1 AND day = $2",
			func() []any { return []any{s.products.pick(), s.day()} })},
		{2, exec("INSERT INTO prices VALUES ($1, $2, 1)", func() []any {
			product := s.products.pick()
			s.extraDays[product]++
			return []any{product, epoch.AddDate(0, 0, shopDays-1+s.extraDays[product])}
		})},
		{3, exec("INSERT INTO customers VALUES ($1, $2, 'somebody', 'active', $3)", func() []any {
			id := s.customers.add()
			return []any{id, fmt.Sprintf("c%d@example.com", id), s.clock.tick()}
		})},
		{2, exec("UPDATE customers SET email = $2 WHERE id = $1", func() []any {
			return []any{s.customers.pick(), fmt.Sprintf("other%d@example.com", s.clock.tick().Unix())}
		})},
		{2, exec("UPDATE customers SET status = $2 WHERE id = $1", func() []any {
			return []any{s.customers.pick(), []string{"active", "blocked"}[s.r.IntN(2)]}
		})},
	}
}

// order places one, with its items, and takes them out of the stock.
func (s *shop) order(ctx context.Context, tx *sql.Tx) error {
	id := s.orders.add()
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES ($1, $2, 'open', $3)", id, s.customers.pick(), s.clock.tick()); err != nil {
		return err
	}
	for line := range 1 + s.r.IntN(3) {
		product := s.products.pick()
		if _, err := tx.ExecContext(ctx, "INSERT INTO items VALUES ($1, $2, $3, 1)", id, line+1, product); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE products SET stock = stock - 1 WHERE id = $1", product); err != nil {
			return err
		}
	}
	return nil
}
