package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// size is how big a shop is. The number of order items follows from it.
type size struct{ customers, products, orders int }

// fullSize makes 1,050,000 order items, give or take a few hundred.
var fullSize = size{customers: 50_000, products: 5_000, orders: 300_000}

// The tables are filled before they get keys and indexes, which is several
// times faster than the other way round.
const createTables = `
CREATE TABLE customers (
	id         bigint NOT NULL,
	name       text NOT NULL,
	email      text NOT NULL,
	city       text NOT NULL,
	created_at timestamptz NOT NULL
);
CREATE TABLE products (
	id          bigint NOT NULL,
	name        text NOT NULL,
	category    text NOT NULL,
	price_cents integer NOT NULL CHECK (price_cents > 0),
	stock       integer NOT NULL
);
CREATE TABLE orders (
	id          bigint NOT NULL,
	customer_id bigint NOT NULL,
	ordered_at  timestamptz NOT NULL,
	status      text NOT NULL
);
CREATE TABLE order_items (
	id          bigint NOT NULL,
	order_id    bigint NOT NULL,
	product_id  bigint NOT NULL,
	quantity    integer NOT NULL CHECK (quantity > 0),
	price_cents integer NOT NULL
)`

var createKeys = []string{
	`ALTER TABLE customers ADD PRIMARY KEY (id), ADD UNIQUE (email)`,
	`ALTER TABLE products ADD PRIMARY KEY (id)`,
	`ALTER TABLE orders ADD PRIMARY KEY (id), ADD FOREIGN KEY (customer_id) REFERENCES customers`,
	`ALTER TABLE order_items ADD PRIMARY KEY (id)`,
	`ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders, ADD FOREIGN KEY (product_id) REFERENCES products`,
	`CREATE INDEX ON orders (customer_id)`,
	`CREATE INDEX ON order_items (order_id)`,
}

var analyse = []string{
	// VACUUM too, as otherwise the first queries would do its work and be slower than the next.
	`VACUUM (ANALYZE) customers`, `VACUUM (ANALYZE) products`, `VACUUM (ANALYZE) orders`, `VACUUM (ANALYZE) order_items`,
}

// load makes the shop in o.schema, or finds that an earlier run has. It keeps
// the schema locked against other runs, whose writes this one's cache would not
// see, until unlock is called.
func load(ctx context.Context, p *page, o options) (unlock func(), err error) {
	conn, err := pgx.Connect(ctx, withSearchPath(o.dsn, o.schema))
	if err != nil {
		return nil, err
	}
	end := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		// The lock goes with its session, but PostgreSQL ends that a little
		// after Close returns. An error leaves it at that.
		conn.Exec(ctx, `SELECT pg_advisory_unlock_all()`)
		conn.Close(ctx)
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	var locked bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtext($1))`, o.schema).Scan(&locked); err != nil {
		return nil, err
	}
	if !locked {
		return nil, fmt.Errorf("schema %s is in use by another run", o.schema)
	}

	shop := newShop(o.size)
	p.title("The shop")
	p.text(fmt.Sprintf("Database %s on %s, schema %s.", conn.Config().Database, conn.Config().Host, o.schema))
	if !o.fresh && isComplete(ctx, conn, o.schema, shop) {
		p.text("An earlier run has left the data complete, so it is used again (-fresh loads anew).")
		p.line("")
		for _, t := range shop.tables() {
			p.line("  %-24s %12s rows", t.name, thousands(t.rows))
		}
		return end, nil
	}
	p.text("Loading made-up data, the same in every run.")
	p.line("")
	return end, shop.load(ctx, conn, p, o.schema)
}

// complete is the comment that a finished load leaves on its schema.
func (s *shop) complete() string {
	return fmt.Sprintf("quickstart, version 1: %d customers, %d products, %d orders, %d order items",
		s.customers, s.products, s.orders, s.items)
}

// isComplete reports whether the schema holds all rows of s. An error means no:
// then the load meets it again and reports it.
func isComplete(ctx context.Context, conn *pgx.Conn, schema string, s *shop) bool {
	var comment string
	err := conn.QueryRow(ctx, `SELECT coalesce(obj_description(to_regnamespace(quote_ident($1)), 'pg_namespace'), '')`, schema).Scan(&comment)
	if err != nil || comment != s.complete() {
		return false
	}
	for _, t := range s.tables() {
		var n int
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM `+t.name).Scan(&n); err != nil || n != t.rows {
			return false
		}
	}
	return true
}

// load replaces the schema.
func (s *shop) load(ctx context.Context, conn *pgx.Conn, p *page, schema string) error {
	begin := time.Now()
	name := pgx.Identifier{schema}.Sanitize()
	for _, statement := range []string{
		`SET client_min_messages = warning`, // not a notice for each table that the cascade drops
		`DROP SCHEMA IF EXISTS ` + name + ` CASCADE`, `CREATE SCHEMA ` + name, createTables,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	for _, t := range s.tables() {
		bar := p.progress(t.name, t.rows)
		n := 0
		_, err := conn.CopyFrom(ctx, pgx.Identifier{schema, t.name}, t.columns, pgx.CopyFromFunc(func() ([]any, error) {
			if n == t.rows {
				return nil, nil
			}
			n++
			bar.at(n)
			return t.row(n), nil
		}))
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		bar.done(thousands(t.rows) + " rows")
	}
	for _, step := range []struct {
		label      string
		statements []string
	}{{"keys and indexes", createKeys}, {"vacuum and analyze", analyse}} {
		bar := p.progress(step.label, len(step.statements))
		for i, statement := range step.statements {
			bar.at(i)
			if _, err := conn.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", step.label, err)
			}
		}
		bar.done("")
	}
	// The last statement: without it the next run loads again.
	_, err := conn.Exec(ctx, `COMMENT ON SCHEMA `+name+` IS '`+s.complete()+`'`)
	p.line("  %-24s %17s %10s", "in all", "", seconds(time.Since(begin)))
	return err
}

// shop makes rows. Each table has a generator of its own with a fixed seed, so
// that every run gets the same shop.
type shop struct {
	size
	items  int
	lines  []int   // of each order
	prices []int64 // of each product, in cents
}

func newShop(s size) *shop {
	made := &shop{size: s}
	r := rand.New(rand.NewPCG(1, 0))
	for range s.orders {
		n := 1 + r.IntN(6)
		made.lines = append(made.lines, n)
		made.items += n
	}
	for range s.products {
		// Many cheap things, few dear ones: 1.95 to about 400.
		x := r.Float64()
		made.prices = append(made.prices, 195+int64(x*x*x*400)*100)
	}
	return made
}

// table is what COPY needs to fill one. row is called with 1, 2, … rows in order.
type table struct {
	name    string
	rows    int
	columns []string
	row     func(n int) []any
}

var (
	opening   = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	twoYears  = opening.AddDate(2, 0, 0).Sub(opening)
	firsts    = strings.Fields("Ada Alan Barbara Claude Dana Edgar Frances Grace Hedy Irene John Katherine Linus Margaret Niklaus Olga Peter Radia Sophie Tim")
	lasts     = strings.Fields("Adler Berger Castro Diaz Eriksen Fischer Garcia Haas Ito Jansen Kowalski Larsen Moreau Novak Okafor Petrov Rossi Santos Tanaka Weber")
	cities    = strings.Fields("Amsterdam Athens Berlin Bilbao Dublin Ghent Helsinki Krakow Lisbon Lyon Milan Oslo Porto Prague Riga Tallinn Turin Vienna Vilnius Zagreb")
	materials = strings.Fields("Oak Walnut Steel Copper Linen Wool Cotton Leather Ceramic Glass Bamboo Marble Cork Enamel Brass Paper Silk Slate Felt Rattan")
	colours   = strings.Fields("White Black Grey Blue Green Red Yellow Brown Sand Indigo")
	things    = strings.Fields("Table Chair Lamp Bowl Mug Plate Vase Kettle Pan Knife Board Tray Basket Shelf Mirror Clock Rug Blanket Pillow Towel Apron Jar Candle Stool Hook")
	groups    = strings.Fields("furniture furniture lighting kitchen kitchen kitchen decoration kitchen kitchen kitchen kitchen kitchen storage furniture decoration decoration textiles textiles textiles textiles textiles storage decoration furniture storage")
)

func (s *shop) tables() []table {
	customers := rand.New(rand.NewPCG(1, 1))
	products := rand.New(rand.NewPCG(1, 2))
	orders := rand.New(rand.NewPCG(1, 3))
	items := rand.New(rand.NewPCG(1, 4))
	current, left := 0, 0 // the order whose items are being made, and how many are to come
	return []table{{
		"customers", s.customers, []string{"id", "name", "email", "city", "created_at"}, func(n int) []any {
			first, last := pick(customers, firsts), pick(customers, lasts)
			email := fmt.Sprintf("%s.%s.%d@example.com", strings.ToLower(first), strings.ToLower(last), n)
			return []any{int64(n), first + " " + last, email, pick(customers, cities), opening.Add(-time.Duration(customers.IntN(1000)) * 24 * time.Hour)}
		},
	}, {
		"products", s.products, []string{"id", "name", "category", "price_cents", "stock"}, func(n int) []any {
			i := n - 1 // 5,000 names before one comes again
			thing := i % len(things)
			name := strings.Join([]string{
				colours[i/len(things)%len(colours)], materials[i/len(things)/len(colours)%len(materials)], things[thing],
			}, " ")
			return []any{int64(n), name, groups[thing], s.prices[i], int64(products.IntN(500))}
		},
	}, {
		"orders", s.orders, []string{"id", "customer_id", "ordered_at", "status"}, func(n int) []any {
			// In the order of time, as a sequence would have numbered them.
			at := opening.Add(time.Duration((float64(n-1) + orders.Float64()) / float64(s.orders) * float64(twoYears)))
			status := "delivered"
			if n > s.orders-s.orders/100 {
				status = "open"
			} else if orders.IntN(50) == 0 {
				status = "returned"
			}
			return []any{int64(n), int64(1 + orders.IntN(s.customers)), at, status}
		},
	}, {
		"order_items", s.items, []string{"id", "order_id", "product_id", "quantity", "price_cents"}, func(n int) []any {
			if left == 0 {
				left = s.lines[current]
				current++
			}
			left--
			// A square makes some products much more popular than others.
			x := items.Float64()
			p := int(x * x * float64(s.products))
			return []any{int64(n), int64(current), int64(p + 1), int64(1 + items.IntN(3)), s.prices[p]}
		},
	}}
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// withSearchPath makes schema the one in which unqualified names are looked up.
func withSearchPath(dsn, schema string) string {
	if u, err := url.Parse(dsn); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		query := u.Query()
		query.Set("search_path", schema)
		u.RawQuery = query.Encode()
		return u.String()
	}
	return dsn + " search_path=" + schema // the last of two equal keys counts
}
