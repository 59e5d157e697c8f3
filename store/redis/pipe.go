package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// maxFlights is how many pipelines of a node may be under way at once. With more,
	// fewer commands fit into each; with three, eight callers waited for each other
	// and took 1.4 times as long as eight bare commands, instead of 1.05.
	maxFlights = 8

	// maxFlight bounds the calls in one pipeline, so that the first of them does
	// not wait for the answers to very many others.
	maxFlight = 64

	// slowFlight is how long a flight may take before the next callers send theirs off
	// in another goroutine, so that they can leave.
	slowFlight = 5 * time.Millisecond
)

// pipe sends commands to a node. Who comes while maxFlights are under way goes
// with the next one, together with all the others who wait: nobody waits for
// company, and the busier it is the fewer system calls a command takes.
type pipe struct {
	node *node
	slow atomic.Bool // the last flight took long

	mu      sync.Mutex // guards the fields below
	flights int
	waiting []call
}

// call is a command that somebody waits for. Who gave up waiting leaves it
// behind: it belongs to the flight.
type call struct {
	cmd  goredis.Cmder
	done chan struct{}
}

// do sends a command and waits for the answer. If the context ends, its error is
// returned; the command may be sent all the same, and is not to be looked at.
//
// A caller who is alone sends the command itself, which costs nothing more than go-redis
// does. It heeds its deadline then, but cannot be called off: if Redis, which was
// quick until then, hangs now, that takes a time-out, once.
func (p *pipe) do(ctx context.Context, cmd goredis.Cmder) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := call{cmd: cmd}
	p.mu.Lock()
	switch {
	case p.flights >= maxFlights:
		c.done = make(chan struct{})
		p.waiting = append(p.waiting, c)
		p.mu.Unlock()
	case ctx.Done() == nil || !p.slow.Load():
		p.flights++
		p.mu.Unlock()
		err := p.alone(ctx, cmd)
		p.landed()
		return err
	default:
		p.flights++
		p.mu.Unlock()
		c.done = make(chan struct{})
		go p.fly([]call{c})
	}
	select {
	case <-c.done:
		return cmd.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// alone sends a command within the caller's deadline.
func (p *pipe) alone(ctx context.Context, cmd goredis.Cmder) error {
	begin := time.Now()
	bound := deadline{background, begin.Add(p.node.store.timeout)}
	own, ok := ctx.Deadline()
	ours := ok && own.Before(bound.at)
	if ours {
		bound.at = own
	}
	err := p.node.client.Process(&bound, cmd)
	p.slow.Store(time.Since(begin) > slowFlight)
	if err != nil && ours && isTimeout(err) && !time.Now().Before(own) {
		// It says that the caller was in a hurry, and nothing of Redis.
		p.node.store.count(nil)
		return context.DeadlineExceeded
	}
	p.node.store.met(p.node.owner, err)
	return err
}

// deadline is a context that has one and never ends: go-redis bounds what it
// does by the deadline, and a timer for each round trip is saved.
type deadline struct {
	context.Context
	at time.Time
}

var background = context.Background()

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// fly sends calls, and those who wait when it is over, and so on.
func (p *pipe) fly(calls []call) {
	for calls != nil {
		begin := time.Now()
		cmds := make([]goredis.Cmder, len(calls))
		for i, c := range calls {
			cmds[i] = c.cmd
		}
		p.node.send(&deadline{background, begin.Add(p.node.store.timeout)}, cmds)
		p.slow.Store(time.Since(begin) > slowFlight)
		for _, c := range calls {
			close(c.done)
		}
		calls = p.board()
	}
}

// landed ends the flight of a caller who was alone, or begins the next with those who
// wait, in a goroutine of its own: the caller need not wait for that.
func (p *pipe) landed() {
	if calls := p.board(); calls != nil {
		go p.fly(calls)
	}
}

// board returns those who go next. If there are none the flight is over.
func (p *pipe) board() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.waiting), maxFlight)
	if n == 0 {
		p.flights--
		return nil
	}
	calls := p.waiting[:n:n]
	p.waiting = p.waiting[n:]
	if len(p.waiting) == 0 {
		p.waiting = nil
	}
	return calls
}
