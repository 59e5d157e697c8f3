// Command cachedpg answers questions about the driver of the same name, and does
// what it needs done beside an application:
//
//	cachedpg explain --dsn DSN [--json] 'SQL' [argument…]
//	cachedpg setup --dsn DSN [--role ROLE]… [--wal] [--remove] [--print]
//	cachedpg relay --dsn DSN
//	cachedpg queue --dsn DSN [take-over | dead]
//	cachedpg invalidate --dsn DSN [table…]
//
// It exits with 0 when it did what was asked for, with 1 when it could not, and
// with 2 when it was called wrongly.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/cachedpg/cachedpg/internal/redact"
)

// Exit codes.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

// command is one of the program's subcommands. run gets the arguments behind
// its name; an error of it is printed behind the program's name.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

var commands = []command{
	{"invalidate", "make results stale in the shared store, after writes past the driver", invalidate},
	{"relay", "work off the outbox", relay},
	{"queue", "say how the queue of write-behind fares, or take it over", queue},
	{"setup", "make what the outbox, write-behind and the feed need in the database", setup},
	{"explain", "say whether a statement is cached, why not, and what it invalidates", explain},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(stdout)
		return exitOK
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, args[1:], stdout, stderr)
		var misuse *usageError
		switch {
		case err == nil || errors.Is(err, flag.ErrHelp):
			return exitOK
		case errors.As(err, &misuse):
			fmt.Fprintf(stderr, "%v\nSee cachedpg %s -h.\n", err, c.name)
			return exitUsage
		}
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	fmt.Fprintf(stderr, "cachedpg: no command %q\n\n", redact.Value(args[0]))
	usage(stderr)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: cachedpg COMMAND …\n\nCommands (each has -h):\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.summary)
	}
}

// usageError is a mistake in how the program was called.
type usageError struct{ problem string }

func (e *usageError) Error() string { return e.problem }

func misused(format string, args ...any) error {
	return &usageError{"cachedpg: " + fmt.Sprintf(format, args...)}
}

// parse reads the flags of a subcommand; -h prints text. The flag package's
// own listing would show defaults, and so the password of a DSN.
func parse(flags *flag.FlagSet, args []string, text string, stdout io.Writer) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, text)
	case err != nil:
		message := err.Error()
		if _, flag, ok := strings.Cut(message, " for flag "); ok { // the value comes before, and a reason behind
			flag, _, _ = strings.Cut(flag, ":")
			message = "the value cannot be used of flag " + flag
		}
		return misused("%s: %s", flags.Name(), message)
	}
	return err
}
