package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

// config is what a run is.
type config struct {
	duration time.Duration
	seed     uint64
	variant  string
	store    string
	keep     bool
	quiet    bool
	only     *regexp.Regexp // faults
}

const (
	strict       = "strict"
	writeThrough = "write-through"
	postCommit   = "post-commit"
	private      = "private"

	storeRedis  = "redis"
	storeMemory = "memory"
)

// broken reports that the variant is to be found out.
func (c config) broken() bool { return c.variant != strict && c.variant != writeThrough }

func (c config) validate() error {
	switch {
	case c.duration <= 0:
		return fmt.Errorf("chaos: -duration %v: must be positive", c.duration)
	case !slices.Contains([]string{strict, writeThrough, postCommit, private}, c.variant):
		return fmt.Errorf("chaos: -variant %s: want %s, %s, %s or %s", c.variant, strict, writeThrough, postCommit, private)
	case c.store != storeRedis && c.store != storeMemory:
		return fmt.Errorf("chaos: -store %s: want %s or %s", c.store, storeRedis, storeMemory)
	case c.variant == postCommit && c.store != storeRedis:
		return errors.New("chaos: -variant post-commit needs -store redis")
	}
	return nil
}

func main() {
	if os.Getenv(taskVariable) != "" {
		if err := runWorker(os.Stdin, os.NewFile(3, "said")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var c config
	flag.DurationVar(&c.duration, "duration", 90*time.Second, "how long to do harm")
	flag.Uint64Var(&c.seed, "seed", 0, "of what is done; 0 takes one from the clock")
	flag.StringVar(&c.variant, "variant", strict, "strict, or write-through; or broken on purpose: post-commit, private")
	flag.StringVar(&c.store, "store", storeRedis, "redis, shared by all processes; or memory, with one process")
	flag.BoolVar(&c.keep, "keep", false, "keep the logs of the processes")
	flag.BoolVar(&c.quiet, "quiet", false, "do not print what the nemesis does")
	only := flag.String("only", "", "a regular expression: which faults")
	flag.Parse()
	if c.seed == 0 {
		c.seed = uint64(time.Now().UnixNano())
	}
	var err error
	if c.only, err = regexp.Compile(*only); err == nil {
		err = c.validate()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	good, err := run(ctx, c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if !good || err != nil {
		os.Exit(1)
	}
}

// run makes the servers and processes, does harm to them, heals it, and judges.
// It reports whether what should be found was found.
func run(ctx context.Context, c config) (good bool, err error) {
	s, err := newScope()
	if err != nil {
		return false, err
	}
	defer os.Remove(s.dir) // unless logs are kept in it
	r := &runner{config: c, scope: s, logs: filepath.Join(s.dir, "logs")}
	err = s.attempt(func() { good = r.run(ctx) })
	for _, problem := range s.close() {
		err = errors.Join(err, errors.New("chaos: "+problem))
	}
	if c.keep || err != nil || !good {
		fmt.Println("logs: " + r.logs)
	} else if removed := os.RemoveAll(r.logs); err == nil {
		err = removed
	}
	return good, err
}
