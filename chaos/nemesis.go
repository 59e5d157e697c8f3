package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// nemesis does harm, in two lanes at once: to the servers, and to the worker
// processes. Each goes through all its faults in a random order, again and
// again, so that a run of a minute has met nearly all of them.
type nemesis struct {
	scope    *scope
	logs     string
	seed     uint64
	postgres *postgres
	pair     *pair // nil without Redis
	only     *regexp.Regexp
	workers  []*proc
	out      func(format string, args ...any)

	// slow is held by who does harm to PostgreSQL: two lanes do.
	slow sync.Mutex
	lost int // times that commits were lost, guarded by slow
	// memory is held by who does harm to Redis. It is taken after slow.
	memory sync.Mutex

	mu      sync.Mutex // guards the fields below
	moments []moment
	counts  map[string]int
	bad     []string // what cannot be, beside what the histories show
}

// moment is something that the nemesis did.
type moment struct {
	at   int64
	text string
}

// fault is one kind of harm. do returns when it is healed.
type fault struct {
	name string
	do   func(*lane)
}

// lane is a sequence of faults.
type lane struct {
	*nemesis
	ctx    context.Context
	rng    *rand.Rand
	faults []fault
	gap    time.Duration // the longest time between two faults
}

// run does harm until ctx ends. It returns when all is healed.
func (n *nemesis) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lanes := []*lane{
		// A server that lost its memory takes a lease to warm up.
		{faults: n.serverFaults(), gap: 10 * time.Second},
		{faults: n.workerFaults(), gap: 5 * time.Second},
	}
	errs := make(chan error, len(lanes))
	for i, l := range lanes {
		l.nemesis, l.ctx, l.rng = n, ctx, rand.New(rand.NewPCG(n.seed, uint64(i)))
		l.faults = slices.DeleteFunc(l.faults, func(f fault) bool { return !n.only.MatchString(f.name) })
		go func() { errs <- n.scope.attempt(l.run) }()
	}
	var first error
	for range lanes {
		if err := <-errs; first == nil && err != nil {
			first = err
			cancel()
		}
	}
	return first
}

func (l *lane) run() {
	if len(l.faults) == 0 {
		return
	}
	for {
		for _, i := range l.rng.Perm(len(l.faults)) {
			if l.pause(l.gap/10, l.gap); l.ctx.Err() != nil {
				return
			}
			l.count(l.faults[i].name)
			l.faults[i].do(l)
		}
	}
}

// lease is longer than one in package store: what lasts as long meets one that
// runs out.
const lease = store.Lease + time.Second

// pause lets some time pass, less if the run ends.
func (l *lane) pause(least, most time.Duration) {
	rest(l.ctx, least+time.Duration(l.rng.Int64N(int64(most-least))))
}

// did notes what was done.
func (n *nemesis) did(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	n.mu.Lock()
	n.moments = append(n.moments, moment{now(), text})
	n.mu.Unlock()
	n.out("%s", text)
}

func (n *nemesis) count(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.counts == nil {
		n.counts = map[string]int{}
	}
	n.counts[name]++
}
