package bench

import (
	"context"
	"database/sql"
	"fmt"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver pgx

	_ "github.com/cachedpg/cachedpg"
)

// Item is a row of the application.
type Item struct {
	ID    int64  `db:"id"`
	Name  string `db:"name"`
	Price string `db:"price"`
	Stock int64  `db:"stock"`
}

// Client is the data layer of the application, written for one system.
// Its methods may be called concurrently.
type Client interface {
	// Item reads a row by its primary key.
	Item(ctx context.Context, id int64) (Item, error)
	// SetStock updates a row by its primary key; Item shows it afterwards.
	SetStock(ctx context.Context, id, stock int64) error
	Close() error
}

// querier is a Client that takes any SQL, so that a query can be new to its
// cache, or not cacheable at all.
type querier interface {
	Client
	// Fresh is Item by a query that depends on nonce as well.
	Fresh(ctx context.Context, id, nonce int64) (Item, error)
	// Volatile is Item by a query that no cache may answer.
	Volatile(ctx context.Context, id int64) (Item, error)
	// SetStockInTx is SetStock in a transaction of its own.
	SetStockInTx(ctx context.Context, id, stock int64) error
}

// maxConns bounds every pool. It is enough for a connection per goroutine, so
// that no system waits for its pool, and lets every connection stay open.
const maxConns = 64

func openDB(driver, dsn string) (*sql.DB, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	return db, nil
}

// sqlClient is the application on database/sql alone: the code that stays the
// same whatever the driver.
type sqlClient struct{ db *sql.DB }

const (
	selectItem     = "SELECT id, name, price::text, stock FROM item WHERE id = $1"
	selectFresh    = "SELECT id, name, price::text, stock FROM item WHERE id = $1 AND $2::bigint IS NOT NULL"
	selectVolatile = "SELECT id, name, price::text, stock FROM item WHERE id = $1 AND clock_timestamp() IS NOT NULL"
	updateStock    = "UPDATE item SET stock = $2 WHERE id = $1"
)

func (c *sqlClient) Item(ctx context.Context, id int64) (Item, error) {
	return scanItem(c.db.QueryRowContext(ctx, selectItem, id))
}

func (c *sqlClient) Fresh(ctx context.Context, id, nonce int64) (Item, error) {
	return scanItem(c.db.QueryRowContext(ctx, selectFresh, id, nonce))
}

func (c *sqlClient) Volatile(ctx context.Context, id int64) (Item, error) {
	return scanItem(c.db.QueryRowContext(ctx, selectVolatile, id))
}

func (c *sqlClient) SetStock(ctx context.Context, id, stock int64) error {
	_, err := c.db.ExecContext(ctx, updateStock, id, stock)
	return err
}

func (c *sqlClient) SetStockInTx(ctx context.Context, id, stock int64) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, updateStock, id, stock); err != nil {
		return err
	}
	return tx.Commit()
}

func (c *sqlClient) Close() error { return c.db.Close() }

func scanItem(row *sql.Row) (item Item, err error) {
	err = row.Scan(&item.ID, &item.Name, &item.Price, &item.Stock)
	return item, err
}

// rows is the size of the table, hot the number of rows that are read again and again.
const (
	rows = 10_000
	hot  = 1_000
)

// Load creates the application's table.
func Load(ctx context.Context, dsn string) error {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, statement := range []string{
		"CREATE TABLE item (id bigint PRIMARY KEY, name text NOT NULL, price numeric(12,2) NOT NULL, stock bigint NOT NULL)",
		fmt.Sprintf("INSERT INTO item SELECT i, 'item ' || i, i + 0.99, 10 FROM generate_series(1, %d) i", rows),
		"VACUUM ANALYZE item",
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
