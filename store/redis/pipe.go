package redis

import (
	"context"
	"sync"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// maxFlights is how many pipelines of a node may be under way at once. More of
	// them do not make a Redis with one thread faster, and fewer commands fit
	// into each.
	maxFlights = 3

	// maxFlight bounds the calls in one pipeline, so that the first of them does
	// not wait for the answers to very many others.
	maxFlight = 64
)

// pipe sends commands to a node. Who comes while maxFlights are under way goes
// with the next one, together with all the others who wait: nobody waits for
// company, and the busier it is the fewer system calls a command takes.
type pipe struct {
	send func(cmds []goredis.Cmder) // one round trip; sets the commands' errors

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
// returned at once; the command is sent all the same, and is not to be looked at.
func (p *pipe) do(ctx context.Context, cmd goredis.Cmder) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := call{cmd: cmd}
	p.mu.Lock()
	if p.flights < maxFlights {
		p.flights++
		p.mu.Unlock()
		if ctx.Done() == nil {
			p.send([]goredis.Cmder{cmd})
			p.landed()
			return cmd.Err()
		}
		c.done = make(chan struct{})
		go func() {
			p.send([]goredis.Cmder{cmd})
			close(c.done)
			p.landed()
		}()
	} else {
		c.done = make(chan struct{})
		p.waiting = append(p.waiting, c)
		p.mu.Unlock()
	}
	select {
	case <-c.done:
		return cmd.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// landed ends a flight, or begins the next with those who wait. That is no
// affair of the caller's.
func (p *pipe) landed() {
	if calls := p.board(); calls != nil {
		go func() {
			for calls != nil {
				cmds := make([]goredis.Cmder, len(calls))
				for i, c := range calls {
					cmds[i] = c.cmd
				}
				p.send(cmds)
				for _, c := range calls {
					close(c.done)
				}
				calls = p.board()
			}
		}()
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
