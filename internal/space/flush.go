package space

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
)

// With synchronous_commit=off PostgreSQL answers a COMMIT, and shows it to everybody,
// before it is on disk. If it crashes then, the commit has never been:
//
//	writer                          PostgreSQL              reader
//	intend, COMMIT
//	                                visible, answered
//	(release)
//	                                                        miss, SELECT → new, fill
//	                                crashes, recovers: old
//	                                                        hit of new
//
// So the marks of such a commit stay until the log is flushed past it (I20). Until
// then reads go to PostgreSQL, which shows what it shows; nobody else waits. What
// flushes the log is PostgreSQL's WAL writer, every wal_writer_delay.
//
// That a server has crashed cannot be told by when it began: if one backend is
// killed, the others lose their memory with the log in it, and the postmaster goes on.

// flusher runs what has to wait until the log is flushed past everything that could
// be seen when it was given. Its goroutine is there while something waits, and for a
// while after.
type flusher struct {
	sp *Space

	mu      sync.Mutex // guards the fields below
	waiting int
	arrived []func()
	closed  bool
	wake    chan struct{}
	cancel  context.CancelFunc
	done    chan struct{} // closed when the goroutine has ended; nil while there is none
}

const (
	flushMinWait = 2 * time.Millisecond
	flushMaxWait = 50 * time.Millisecond
	flushBackoff = 5 * time.Second // after an error, at most
)

// After has release run, unless the space ends before: then its cache does too, or
// other processes find the marks and ask for themselves.
func (f *flusher) After(release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.waiting++
	f.arrived = append(f.arrived, release)
	if f.done != nil {
		pause.End(f.wake)
		return
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	f.wake, f.done = make(chan struct{}, 1), make(chan struct{})
	go f.run(ctx, f.wake, f.done)
}

func (f *flusher) close() {
	f.mu.Lock()
	f.closed = true
	cancel, done := f.cancel, f.done
	f.mu.Unlock()
	if done != nil {
		cancel()
		<-done
	}
}

// Pending is how many commits are not known to be on disk.
func (f *flusher) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting
}

// flushGroup is what arrived between two questions.
type flushGroup struct {
	point    backend.FlushPoint
	releases []func()
}

func (f *flusher) run(ctx context.Context, wake <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	var groups []*flushGroup
	wait := flushMinWait
	for {
		f.mu.Lock()
		if arrived := f.arrived; len(arrived) > 0 {
			f.arrived, wait = nil, flushMinWait
			groups = append(groups, &flushGroup{releases: arrived})
		}
		f.mu.Unlock()
		asking, cancel := context.WithTimeout(ctx, guard.AskTimeout)
		left, err := f.round(asking, groups)
		cancel()
		groups = left
		if len(groups) == 0 && !f.idle(ctx, wake) {
			return
		}
		if err != nil {
			wait = min(max(2*wait, flushMaxWait), flushBackoff)
		} else {
			wait = min(2*wait, flushMaxWait)
		}
		if len(groups) == 0 {
			continue
		}
		more := wake
		if err != nil {
			more = nil // it is not asked more often for that
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-more:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// round asks once for all groups and returns those that are not on disk. One that
// is implies all before it.
func (f *flusher) round(ctx context.Context, groups []*flushGroup) ([]*flushGroup, error) {
	position := f.once()
	for len(groups) > 0 {
		g := groups[0]
		ok, err := g.point.Passed(ctx, &f.sp.Log, position)
		replaced := errors.Is(err, backend.ErrServerReplaced)
		if err != nil && !replaced {
			return groups, err
		}
		if !ok && !replaced {
			for _, g := range groups[1:] { // those that have just arrived
				if _, err := g.point.Passed(ctx, &f.sp.Log, position); err != nil {
					return groups, err
				}
			}
			return groups, nil
		}
		if ok {
			for _, release := range g.releases {
				release()
			}
		} // else nobody asks for what was cached of that server; its marks stay
		f.mu.Lock()
		f.waiting -= len(g.releases)
		f.mu.Unlock()
		groups = groups[1:]
	}
	return nil, nil
}

// once asks each question once.
func (f *flusher) once() backend.AskFunc {
	type answer struct {
		text string
		err  error
	}
	known := make(map[string]answer)
	return func(ctx context.Context, question string) (string, error) {
		a, ok := known[question]
		if !ok {
			a.text, a.err = f.sp.Guard.Outcome(ctx, question)
			known[question] = a
		}
		return a.text, a.err
	}
}

// idle waits for more; false when the goroutine has to end.
func (f *flusher) idle(ctx context.Context, wake <-chan struct{}) bool {
	timer := time.NewTimer(guard.Rest)
	defer timer.Stop()
	select {
	case <-wake:
		return true
	case <-ctx.Done():
		return false
	case <-timer.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.arrived) > 0 {
		return true
	}
	f.cancel()
	f.done = nil
	return false
}
