package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
)

const setupText = `Usage: cachedpg setup [--dsn DSN] [--role ROLE]… [--wal] [--remove] [--print]

Makes the driver's own tables in the schema cachedpg, where they are not there
yet: cachedpg.outbox for cache_outbox, cachedpg.queue for strategy write-behind.
Running it again mends what is missing, and changes nothing else.

  --dsn DSN    of a role that may create a schema; $CACHEDPG_DSN if not given
  --role ROLE  let the role of an application, or of a relay, use them;
               may be given several times
  --wal        as well what cache_external=wal needs: the publication and the
               event triggers, as a superuser; see docs/wal-feed.md
  --remove     take away instead what setup has made, with or without --wal: all of
               it; with --wal what that needs, and no more. Tables get the replica
               identity back that they had
  --print      print the SQL instead of running it
`

// setupTimeout bounds connecting and making the tables.
const setupTimeout = time.Minute

// names is a flag that may be given several times.
type names []string

func (n *names) String() string { return strings.Join(*n, ",") }

func (n *names) Set(name string) error {
	if name == "" {
		return errors.New("empty")
	}
	*n = append(*n, name)
	return nil
}

func setup(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := flag.NewFlagSet("setup", flag.ContinueOnError)
	dsn := flags.String("dsn", os.Getenv("CACHEDPG_DSN"), "")
	wal := flags.Bool("wal", false, "")
	remove := flags.Bool("remove", false, "")
	print := flags.Bool("print", false, "")
	var roles names
	flags.Var(&roles, "role", "")
	if err := parse(flags, args, setupText, stdout); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return misused("setup: %d arguments too many", flags.NArg())
	case *remove && len(roles) > 0:
		return misused("setup: --role does not go with --remove")
	case *print && *remove:
		text := cachedpg.RemoveSetupSQL()
		if *wal {
			text = cachedpg.WALRemoveSQL
		}
		_, err := io.WriteString(stdout, text)
		return err
	case *print:
		text := cachedpg.SetupSQL(roles...)
		if *wal {
			text += cachedpg.WALSetupSQL
		}
		_, err := io.WriteString(stdout, text)
		return err
	case *dsn == "":
		return misused("setup: no --dsn")
	}
	_, pgConfig, err := readDSN("setup", *dsn)
	if err != nil {
		return err
	}
	db := sql.OpenDB(stdlib.GetConnector(*pgConfig))
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	switch {
	case *remove && *wal:
		return cachedpg.RemoveWAL(ctx, db)
	case *remove:
		return cachedpg.RemoveSetup(ctx, db)
	}
	if err := cachedpg.Setup(ctx, db, roles...); err != nil || !*wal {
		return err
	}
	return cachedpg.SetupWAL(ctx, db)
}

const relayText = `Usage: cachedpg relay [--dsn DSN] [--batch N] [--interval DURATION]

Works off the outbox until it is interrupted: marks in the shared store for
writers that cannot reach it, and tells it what writers could not. Several may
run at once. What goes wrong and is tried again is printed.

An application that sends events elsewhere runs cachedpg.Relay with a sink of
its own instead: what this relay takes is delivered to the store alone.

  --dsn DSN            that of the application, cache_store included;
                       $CACHEDPG_DSN if not given
  --batch N            rows that are taken at once; 500 if not given
  --interval DURATION  how often the table is looked at; 200ms if not given
`

func relay(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("relay", flag.ContinueOnError)
	dsn := flags.String("dsn", os.Getenv("CACHEDPG_DSN"), "")
	batch := flags.Int("batch", 0, "")
	interval := flags.Duration("interval", 0, "")
	if err := parse(flags, args, relayText, stdout); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return misused("relay: %d arguments too many", flags.NArg())
	case *dsn == "":
		return misused("relay: no --dsn")
	}
	config, pgConfig, err := parseDSN("relay", *dsn)
	if err != nil {
		return err
	}
	db, err := cachedpg.OpenDB(*pgConfig, config)
	if err != nil {
		return misused("relay: %s", trim(err))
	}
	defer db.Close()
	var last string
	err = cachedpg.Relay(ctx, db, cachedpg.RelayOptions{Batch: *batch, Interval: *interval, Problem: func(err error) {
		if text := err.Error(); text != last { // what is tried again is printed once
			last = text
			fmt.Fprintln(stderr, text)
		}
	}})
	if ctx.Err() != nil {
		return nil
	}
	return err
}
