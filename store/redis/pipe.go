package redis

import (
	"context"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// pipe sends the commands of concurrent callers together. A caller alone sends
// its own and pays nothing for it; when several round trips are under way, those
// who come meanwhile share the next one.
type pipe struct {
	client  *goredis.Client
	timeout time.Duration

	mu      sync.Mutex // guards the fields below
	flying  int        // round trips under way
	waiting []*ride
}

type ride struct {
	cmd  goredis.Cmder
	done chan struct{}
}

const (
	maxFlying = 4
	maxBatch  = 128
)

// do sends cmd and waits for its reply, or for the end of ctx: then cmd may
// still be sent, and is not the caller's any more.
func (p *pipe) do(ctx context.Context, cmd goredis.Cmder) error {
	p.mu.Lock()
	if p.flying < maxFlying {
		p.flying++
		p.mu.Unlock()
		err := p.client.Process(ctx, cmd)
		if rides := p.landed(); rides != nil {
			go p.fly(rides)
		}
		return err
	}
	r := &ride{cmd: cmd, done: make(chan struct{})}
	p.waiting = append(p.waiting, r)
	p.mu.Unlock()
	select {
	case <-r.done:
		return cmd.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// landed ends a round trip and returns who is to share the next one.
func (p *pipe) landed() []*ride {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.waiting), maxBatch)
	if n == 0 {
		p.flying--
		p.waiting = nil
		return nil
	}
	rides := p.waiting[:n:n]
	p.waiting = p.waiting[n:]
	return rides
}

func (p *pipe) fly(rides []*ride) {
	for ; rides != nil; rides = p.landed() {
		ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
		batch := p.client.Pipeline()
		for _, r := range rides {
			_ = batch.Process(ctx, r.cmd)
		}
		_, _ = batch.Exec(ctx) // each command has its own error
		cancel()
		for _, r := range rides {
			close(r.done)
		}
	}
}
