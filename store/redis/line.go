package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

// line is the way to the servers: connected, or down. After a failure it is down
// at once, for everybody, until one goroutine that tries has connected again;
// so one round trip may take Options.Timeout, and none after it.
type line struct {
	s       *Store
	ctx     context.Context
	cancel  context.CancelFunc
	probing sync.WaitGroup

	first chan struct{} // holds a token while nobody makes the first connection

	mu   sync.Mutex // guards the fields below
	down bool
	err  error // why
}

const (
	probeMin = 50 * time.Millisecond
	probeMax = 2 * time.Second
)

func (l *line) init(s *Store) {
	l.s, l.first = s, make(chan struct{}, 1)
	l.first <- struct{}{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
}

// close drops the connections and waits for the prober.
func (l *line) close() error {
	l.mu.Lock()
	l.down, l.err = true, store.ErrClosed
	l.mu.Unlock()
	l.cancel()
	l.probing.Wait()
	if sv := l.s.current.Swap(nil); sv != nil {
		return sv.close()
	}
	return nil
}

// servers returns the servers, and connects if nobody has yet.
func (s *Store) servers(ctx context.Context) (*servers, error) {
	if sv := s.current.Load(); sv != nil {
		return sv, nil
	}
	l := &s.line
	select {
	case <-l.first:
		defer func() { l.first <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if sv := s.current.Load(); sv != nil {
		return sv, nil
	}
	l.mu.Lock()
	down, why := l.down, l.err
	l.mu.Unlock()
	if down {
		return nil, fmt.Errorf("%w: %w", store.ErrDown, why)
	}
	sv, err := l.connect(ctx)
	if err != nil && ctx.Err() == nil {
		l.fall(err)
		err = fmt.Errorf("%w: %w", store.ErrDown, err)
	}
	return sv, err
}

func (l *line) connect(ctx context.Context) (*servers, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*l.s.o.Timeout)
	defer cancel()
	sv, err := connect(ctx, l.s.target, l.s.o)
	if err != nil {
		return nil, plain(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.err, store.ErrClosed) {
		_ = sv.close()
		return nil, store.ErrClosed
	}
	l.down, l.err = false, nil
	l.s.current.Store(sv)
	return sv, nil
}

// fall takes the line down and starts to try.
func (l *line) fall(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return
	}
	l.down, l.err = true, cause
	l.probing.Add(1)
	go l.probe()
}

func (l *line) probe() {
	defer l.probing.Done()
	for wait := probeMin; ; wait = min(2*wait, probeMax) {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			timer.Stop()
			return
		}
		_, err := l.connect(l.ctx)
		if err == nil {
			return
		}
		l.mu.Lock()
		if l.err != store.ErrClosed {
			l.err = err
		}
		l.mu.Unlock()
	}
}

// state reports whether the line is down, and why.
func (l *line) state() (down bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down, l.err
}

// failed judges the error of a command: is it the caller's, the command's, or
// the end of these servers for us? It returns what the caller gets.
func (s *Store) failed(ctx context.Context, sv *servers, err error) error {
	if errors.Is(err, store.ErrCold) || errors.Is(err, errReply) {
		return err
	}
	s.stats.errors.Add(1)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		s.stats.timeouts.Add(1)
	}
	var reply goredis.Error
	if errors.As(err, &reply) && !unusable(err) {
		return fmt.Errorf("cachedpg: %w", err) // one command's affair, such as OOM
	}
	if s.current.CompareAndSwap(sv, nil) {
		s.line.fall(plain(err))
		go sv.close()
	}
	return fmt.Errorf("%w: %w", store.ErrDown, plain(err))
}

// unusable reports replies after which nothing can be done with the connections
// that there are.
func unusable(err error) bool {
	for _, prefix := range []string{"READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOREPLICAS", "NOAUTH", "WRONGPASS"} {
		if goredis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// plain says what is wrong without what could be secret.
func plain(err error) error {
	if errors.Is(err, errIncarnation) || errors.Is(err, errReadOnly) || errors.Is(err, store.ErrClosed) {
		return err
	}
	return fmt.Errorf("cachedpg: cache_store: %w", err)
}
