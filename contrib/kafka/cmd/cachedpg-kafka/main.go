// Command cachedpg-kafka carries invalidation events from one region to others
// through a topic of Apache Kafka:
//
//	cachedpg-kafka produce --from outbox|wal --dsn DSN --brokers LIST --topic TOPIC
//	cachedpg-kafka consume --group REGION    --dsn DSN --brokers LIST --topic TOPIC
//
// It runs until it is interrupted. It exits with 0 when it did what was asked
// for, with 1 when it could not, and with 2 when it was called wrongly.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

const usage = `Usage: cachedpg-kafka produce --from outbox|wal [flags]
       cachedpg-kafka consume --group REGION [flags]

produce sends the invalidation events of a database to a topic, consume applies
them to the shared store of another region. Both run until they are
interrupted; what goes wrong and is tried again is printed.

  --from outbox|wal   outbox: what writers posted there (cache_outbox=always), in
                      the place of "cachedpg relay"; wal: every change of the
                      database, by whomever
  --group REGION      the consumer group, one for each store
  --dsn DSN           as for sql.Open, with the region's cache_store;
                      $CACHEDPG_DSN if not given
  --brokers LIST      host:port,…; $CACHEDPG_KAFKA_BROKERS if not given
  --topic TOPIC       $CACHEDPG_KAFKA_TOPIC if not given
  --user NAME         for SASL, with the password in $CACHEDPG_KAFKA_PASSWORD
  --mechanism NAME    plain, scram-sha-256 (if not given) or scram-sha-512
  --tls               the brokers speak TLS
  --ca FILE           whom to trust, if not those that the system trusts; PEM
  --cert FILE, --key FILE
                      a certificate of this client's; PEM
  --timeout DURATION  for one question to a broker; 5s if not given
  --batch N, --interval DURATION
                      of the outbox: rows that are taken at once, and how often
                      the table is looked at
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	commands := map[string]func(context.Context, *options, io.Writer) error{"produce": produce, "consume": consume}
	command, ok := commands[args[0]]
	switch {
	case args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help":
		fmt.Fprint(stdout, usage)
		return exitOK
	case !ok:
		fmt.Fprintf(stderr, "cachedpg-kafka: no command %q\n\n%s", args[0], usage)
		return exitUsage
	}
	o, err := parse(args[0], args[1:])
	if err == nil {
		err = command(ctx, o, stderr)
	}
	var misuse *usageError
	switch {
	case err == nil, ctx.Err() != nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitOK
	case errors.As(err, &misuse):
		fmt.Fprintf(stderr, "%v\nSee cachedpg-kafka -h.\n", err)
		return exitUsage
	}
	fmt.Fprintln(stderr, err)
	return exitFailed
}

// usageError is a mistake in how the program was called.
type usageError struct{ problem string }

func (e *usageError) Error() string { return e.problem }

func misused(format string, args ...any) error {
	return &usageError{"cachedpg-kafka: " + fmt.Sprintf(format, args...)}
}
