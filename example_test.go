package cachedpg_test

import (
	"context"
	"database/sql"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
)

// One pool for both: what is written on it directly invalidates, and what is
// read by way of db is cached.
func ExampleNewTracer() {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig("postgres://app@localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	tracer := cachedpg.NewTracer()
	config.ConnConfig.Tracer = tracer // or multitracer.New(tracer, another)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	connector, err := cachedpg.WrapConnector(stdlib.GetPoolConnector(pool), cachedpg.Config{}, tracer)
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()

	if _, err := pool.Exec(ctx, "UPDATE products SET price = 2 WHERE id = 1"); err != nil {
		log.Fatal(err)
	}
	var price int
	if err := db.QueryRowContext(ctx, "SELECT price FROM products WHERE id = 1").Scan(&price); err != nil {
		log.Fatal(err)
	}
}
