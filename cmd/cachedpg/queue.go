package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cachedpg/cachedpg"
)

const queueText = `Usage: cachedpg queue [--dsn DSN] [take-over | dead]

Says how the queue of strategy write-behind fares, and whether the server of the
DSN owns it.

  take-over    makes the server of the DSN its owner: after a restore from a backup,
               or the promotion of a standby that lacks the last commits. The
               processes of the owner until now have to be stopped. Prints how many
               writes it had applied that this server does not have.
  dead         prints the writes that were refused, with their values

  --dsn DSN    that of the application, cache_* keys included; $CACHEDPG_DSN if not given
`

// queueTimeout bounds what a command waits for.
const queueTimeout = time.Minute

func queue(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := flag.NewFlagSet("queue", flag.ContinueOnError)
	dsn := flags.String("dsn", os.Getenv("CACHEDPG_DSN"), "")
	if err := parse(flags, args, queueText, stdout); err != nil {
		return err
	}
	what := flags.Arg(0)
	switch {
	case flags.NArg() > 1:
		return misused("queue: %d arguments too many", flags.NArg()-1)
	case what != "" && what != "take-over" && what != "dead":
		return misused("queue: no such thing as %q", what)
	case *dsn == "":
		return misused("queue: no --dsn")
	}
	config, pgConfig, err := parseDSN("queue", *dsn)
	if err != nil {
		return err
	}
	db, err := cachedpg.OpenDB(*pgConfig, config)
	if err != nil {
		return misused("queue: %s", trim(err))
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	switch what {
	case "take-over":
		missing, err := cachedpg.TakeOverQueue(ctx, db)
		if err == nil {
			fmt.Fprintf(stdout, "this server owns the queue; missing writes: %d\n", missing)
		}
		return err
	case "dead":
		return cachedpg.DeadLetters(ctx, db, func(l cachedpg.DeadLetter) bool {
			fmt.Fprintf(stdout, "%s %s %q\n  %q %v\n", l.ID, l.SQLState, l.Message, l.SQL, l.Args)
			return true
		})
	}
	err = db.PingContext(ctx)
	s := cachedpg.StatsOf(db).Queue
	fmt.Fprintf(stdout, "queued       %d\nrisk         %s\n", s.Length, or(s.Risk, "none"))
	return err
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
