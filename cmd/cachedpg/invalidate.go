package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg"
)

const invalidateText = `Usage: cachedpg invalidate [--dsn DSN] [TABLE…]

Makes results stale that are kept in the shared store: those that read one of the
tables, or all without a TABLE. For a job that has written past the driver, after
its commit. A TABLE is a name as in SQL, with its schema or found by the
search_path of the DSN; one that does not exist is an error, and nothing is done.

The cache in the memory of a process cannot be reached from outside: with
cache_store=memory this is an error. There call Invalidate in the program.

  --dsn DSN   that of the application, cache_store included;
              $CACHEDPG_DSN if not given
`

// invalidateTimeout bounds connecting and telling the store.
const invalidateTimeout = time.Minute

func invalidate(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := flag.NewFlagSet("invalidate", flag.ContinueOnError)
	dsn := flags.String("dsn", os.Getenv("CACHEDPG_DSN"), "")
	if err := parse(flags, args, invalidateText, stdout); err != nil {
		return err
	}
	tables := flags.Args()
	for _, table := range tables {
		if strings.HasPrefix(table, "-") {
			return misused("invalidate: %s: flags come before the tables", table)
		}
	}
	if *dsn == "" {
		return misused("invalidate: no --dsn")
	}
	config, pgConfig, err := parseDSN("invalidate", *dsn)
	if err != nil {
		return err
	}
	switch config.Store {
	case "", "memory":
		return misused("invalidate: cache_store=memory: the memory of a process cannot be reached from outside; name the shared store, or call Invalidate in the program")
	case "off":
		return misused("invalidate: cache_store=off: nothing is cached; name the store of the application")
	}
	config.Outbox = ""
	for i, p := range config.Policies {
		if p.Strategy == "write-behind" { // it comes to invalidate, not to empty a queue
			config.Policies[i].Strategy = "cache-aside"
		}
	}
	db, err := cachedpg.OpenDB(*pgConfig, config)
	if err != nil {
		return misused("invalidate: %s", trim(err))
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, invalidateTimeout)
	defer cancel()
	if err := db.PingContext(ctx); err != nil { // which says what is wrong with a store
		return fmt.Errorf("cachedpg: invalidate: %s", trim(err))
	}
	var replica bool
	if err := db.QueryRowContext(ctx, "SELECT pg_catalog.pg_is_in_recovery()").Scan(&replica); err != nil {
		return fmt.Errorf("cachedpg: invalidate: %s", trim(err))
	}
	if replica {
		return fmt.Errorf("cachedpg: invalidate: --dsn leads to a replica; connect to the primary")
	}
	if err := cachedpg.Invalidate(ctx, db, tables...); err != nil {
		return fmt.Errorf("cachedpg: invalidate: %s", strings.TrimPrefix(trim(err), "Invalidate: "))
	}
	if len(tables) == 0 {
		_, err = fmt.Fprintln(stdout, "invalidated everything")
	} else {
		_, err = fmt.Fprintf(stdout, "invalidated %s\n", strings.Join(tables, ", "))
	}
	return err
}
