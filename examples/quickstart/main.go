// Command quickstart loads a shop with a million order items into PostgreSQL
// and shows what changes when a program opens it with "cachedpg" instead of
// "pgx": how fast repeated queries become, what a commit invalidates, what is
// never cached, and that nobody reads a stale row.
//
//	go run ./examples/quickstart -dsn postgres://localhost/scratch
//
// It works in a schema of its own, cachedpg_demo, and checks everything that it
// says: the exit status is 1 when an expectation does not hold.
//
// queries.go is the program of the shop, written for database/sql alone. show.go
// and race.go put it through its paces, load.go makes the data, page.go lays out
// what is printed.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	dsn := flag.String("dsn", cmp.Or(os.Getenv("CACHEDPG_DEMO_DATABASE"), os.Getenv("CACHEDPG_TEST_DATABASE")),
		"PostgreSQL `database` to work in, a URL or keywords (default $CACHEDPG_DEMO_DATABASE, then $CACHEDPG_TEST_DATABASE)")
	fresh := flag.Bool("fresh", false, "load the data again even if an earlier run left it complete")
	flag.Parse()

	// The first interrupt ends the run in good order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop)

	err := run(ctx, os.Stdout, options{
		dsn: *dsn, schema: "cachedpg_demo", size: fullSize, fresh: *fresh, updates: 1000,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// options say what to run. The test of this program runs it with a smaller shop.
type options struct {
	dsn     string
	schema  string // dropped and made anew unless it holds the same data already
	size    size
	fresh   bool
	updates int // of the row that is read concurrently
}

// errNoDatabase tells how to run the program.
var errNoDatabase = errors.New(`no database given. Either

    make demo                                        starts PostgreSQL and runs this
    go run ./examples/quickstart -dsn postgres://user@localhost/database

or set CACHEDPG_DEMO_DATABASE. The schema cachedpg_demo is made there, nothing else is touched`)

// run is the program: load the shop, open it through pgx and through cachedpg, compare.
func run(ctx context.Context, out io.Writer, o options) error {
	if o.dsn == "" {
		return errNoDatabase
	}
	p := newPage(out)
	unlock, err := load(ctx, p, o)
	if err != nil {
		return fmt.Errorf("loading the shop: %w", err)
	}
	defer unlock()

	// From here on everything goes through database/sql. The cache is opened
	// only now because it does not see what other programs write, and the load
	// was one.
	d, err := open(o)
	if err != nil {
		return err
	}
	defer d.close()
	d.page = p
	for _, section := range []func(context.Context) error{
		d.compare, d.commit, d.rollback, d.bypass, d.race, d.summary,
	} {
		if err := section(ctx); err != nil {
			return err
		}
	}
	return p.verdict()
}
