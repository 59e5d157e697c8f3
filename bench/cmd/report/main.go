// Command report measures cachedpg beside pgx and other caches, and prints a
// table for each workload: the median time of an operation, its ratio to pgx
// over interleaved rounds, and allocations. Two more tables count: round trips of
// an operation, and SELECTs when many processes miss the same key at once.
//
// It needs CACHEDPG_TEST_DATABASE and CACHEDPG_TEST_REDIS; `make bench` sets them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/bench"
)

func main() {
	bench.RunStampedeChild()
	rounds := flag.Int("rounds", 61, "number of rounds")
	slice := flag.Duration("slice", 25*time.Millisecond, "time of each system in each round")
	transactions := flag.Int("transactions", 200, "number of transactions of TPC-C in each round")
	only := flag.String("only", "", "measure only what has this in its name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := report(ctx, bench.Options{
		Stampede: bench.StampedeOptions{Processes: 4, Goroutines: 500, Rounds: 10},
		Rounds:   max(1, *rounds),
		Slice:    *slice,

		Transactions: *transactions,
		Only:         func(name string) bool { return strings.Contains(name, *only) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func report(ctx context.Context, o bench.Options) (err error) {
	dsn, redis := os.Getenv("CACHEDPG_TEST_DATABASE"), os.Getenv("CACHEDPG_TEST_REDIS")
	if dsn == "" || redis == "" {
		return errors.New("CACHEDPG_TEST_DATABASE and CACHEDPG_TEST_REDIS are not set; run `make bench`")
	}
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return errors.New("CACHEDPG_TEST_DATABASE must be a URL")
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	var version string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return err
	}
	fmt.Printf("PostgreSQL %s, %s, GOMAXPROCS=%d, %d rounds of %v\n", version, runtime.Version(), runtime.GOMAXPROCS(0), o.Rounds, o.Slice)
	printRivals()

	var databases []string
	defer func() {
		for _, name := range databases {
			_, dropErr := conn.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
			err = errors.Join(err, dropErr)
		}
	}()
	return bench.Report(ctx, os.Stdout, o, redis, func() (string, error) {
		name := fmt.Sprintf("bench_%d_%d", os.Getpid(), len(databases))
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
			return "", err
		}
		databases = append(databases, name)
		own := *u
		own.Path = "/" + name
		return own.String(), nil
	})
}

// printRivals prints the versions that are measured.
func printRivals() {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	var versions []string
	for _, dep := range info.Deps {
		for _, rival := range []string{"pgx/v5", "otter/v2", "ristretto/v2", "xorm.io/xorm", "go-redis/cache/v9", "go-zero"} {
			if strings.HasSuffix(dep.Path, rival) {
				versions = append(versions, dep.Path+" "+dep.Version)
			}
		}
	}
	fmt.Printf("%s\n\n", strings.Join(versions, "\n"))
}
