package cachedpg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
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

// releaseFlushed is release for a commit that may not be on disk.
func (e *effect) releaseFlushed() {
	sp := e.space
	if e.marking() == markedAfterwards {
		// Nothing is marked, others may read and store it. What they have stored
		// dies once more when it is known to stay, or to be lost.
		tags, catalog := e.tags, e.also.catalog
		e.release()
		sp.flushed.after(func() {
			write := sp.writes.Begin()
			write.Remember(tags)
			if !catalog {
				write.Release()
				return
			}
			sp.gens.WhenOlderLeft(sp.dropView(), write.Release)
		})
		return
	}
	if e.also.catalog {
		sp.dropView() // this process has to know it at once
	}
	notice := e.leaveNotice
	e.leaveNotice = nil
	e.unblock()
	e.leaveNotice = notice // it stands as long as marks would
	sp.flushed.after(e.release)
}

// walLog is what is known of how far a server's log can be asked.
type walLog struct {
	mu      sync.Mutex // guards the fields below
	refused error      // by which it was refused
	again   time.Time  // when it is asked next
}

const (
	// flushMargin is added to the time in which PostgreSQL promises to flush.
	flushMargin = time.Second
)

// positionQuestion asks where the log will go on and how far it is on disk. Where it
// will go on at the beginning of a page, that is behind the page's header, which is
// not there before the page is begun; of the first page of a file it is longer.
const positionQuestion = "SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')," +
	" pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0')," +
	" pg_catalog.current_setting('wal_block_size'), pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')))"

const (
	pageHeader = 24
	fileHeader = 40
)

func parsePosition(answer string) (insert, flushed uint64, err error) {
	var page, file uint64
	if _, err := fmt.Sscan(answer, &insert, &flushed, &page, &file); err != nil || page == 0 || file == 0 {
		return 0, 0, fmt.Errorf("cachedpg: PostgreSQL answers %q when asked how far its log is", answer)
	}
	switch {
	case insert%file == fileHeader:
		insert -= fileHeader
	case insert%file != 0 && insert%page == pageHeader:
		insert -= pageHeader
	}
	return insert, flushed, nil
}

// position asks how far the log is. An error of which refusesPosition is true
// stays for a while.
func (l *walLog) position(ctx context.Context, ask backend.AskFunc) (insert, flushed uint64, err error) {
	l.mu.Lock()
	refused, again := l.refused, l.again
	l.mu.Unlock()
	if refused != nil && time.Now().Before(again) {
		return 0, 0, refused
	}
	answer, err := ask(ctx, positionQuestion)
	if err == nil {
		insert, flushed, err = parsePosition(answer)
	}
	if err == nil || refusesPosition(err) {
		l.mu.Lock()
		l.refused, l.again = err, time.Now().Add(backend.RefusedFor)
		l.mu.Unlock()
	}
	return insert, flushed, err
}

// problem is why the log cannot be asked how far it is, "" if it can.
func (l *walLog) problem() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused == nil {
		return ""
	}
	return "cachedpg: the role may not ask how far the write-ahead log is: grant it EXECUTE on pg_current_wal_insert_lsn()" +
		" and pg_current_wal_flush_lsn(); until then a commit with synchronous_commit=off counts as being on disk" +
		" after three times wal_writer_delay and a second: " + l.refused.Error()
}

// refusesPosition: the role lacks a right, or the server has no such log.
func refusesPosition(err error) bool {
	return pgerr.Is(err, pgerr.InsufficientPrivilege, pgerr.UndefinedFunction, pgerr.NotSupported)
}

// flushPoint is a place in the log: once it is on disk, so is everything that could
// be seen when passed was called for the first time. It is not safe for concurrent use.
type flushPoint struct {
	lsn uint64    // 0: not known
	due time.Time // where the log cannot be asked
}

// passed reports that the log is flushed past the point, or that the server has
// crashed since: then it goes on before it, and what could be seen is on disk or gone.
//
// Where the role may not ask, it is the time in which PostgreSQL promises to
// have flushed: three times wal_writer_delay, and flushMargin.
func (p *flushPoint) passed(ctx context.Context, l *walLog, ask backend.AskFunc) (bool, error) {
	insert, flushed, err := l.position(ctx, ask)
	switch {
	case err == nil && p.lsn == 0:
		p.lsn = insert
	case err == nil:
	case !refusesPosition(err):
		return false, err
	case p.due.IsZero():
		answer, err := ask(ctx, "SELECT setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'wal_writer_delay'")
		if err != nil {
			return false, err
		}
		delay, err := strconv.Atoi(answer) // milliseconds
		if err != nil {
			return false, fmt.Errorf("cachedpg: PostgreSQL gives %q as wal_writer_delay", answer)
		}
		p.due = time.Now().Add(3*time.Duration(delay)*time.Millisecond + flushMargin)
		return false, nil
	default:
		return !time.Now().Before(p.due), nil
	}
	return flushed >= p.lsn || insert < p.lsn, nil
}

// pushQuestion has PostgreSQL write a message, which means nothing to anybody who
// follows the log, and wait for the disk: it is on it then with everything before.
const pushQuestion = "SELECT pg_catalog.concat(pg_catalog.set_config('synchronous_commit', 'local', true)," +
	" pg_catalog.pg_logical_emit_message(true, 'cachedpg-flush', ''))"

// forced is passed for what is asked so rarely that PostgreSQL is made to flush the log
// instead of being waited for. A transaction that goes on writing may keep the end
// of the log from the disk for seconds.
func (p *flushPoint) forced(ctx context.Context, l *walLog, ask backend.AskFunc) (bool, error) {
	ok, err := p.passed(ctx, l, ask)
	if ok || err != nil || !p.due.IsZero() {
		return ok, err
	}
	_, err = ask(ctx, pushQuestion)
	if refusesPosition(err) {
		return false, nil // it is waited for
	}
	return err == nil, err
}

// flusher runs what has to wait until the log is flushed past everything that could
// be seen when it was given. Its goroutine is there while something waits, and for a
// while after.
type flusher struct {
	sp *space

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

// after has release run, unless the space ends before: then its cache does too, or
// other processes find the marks and ask for themselves.
func (f *flusher) after(release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.waiting++
	f.arrived = append(f.arrived, release)
	if f.done != nil {
		notify(f.wake)
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

// pending is how many commits are not known to be on disk.
func (f *flusher) pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting
}

// flushGroup is what arrived between two questions.
type flushGroup struct {
	point    flushPoint
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
		asking, cancel := context.WithTimeout(ctx, askTimeout)
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
		ok, err := g.point.passed(ctx, &f.sp.log, position)
		replaced := errors.Is(err, backend.ErrServerReplaced)
		if err != nil && !replaced {
			return groups, err
		}
		if !ok && !replaced {
			for _, g := range groups[1:] { // those that have just arrived
				if _, err := g.point.passed(ctx, &f.sp.log, position); err != nil {
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
			a.text, a.err = f.sp.guard.outcome(ctx, question)
			known[question] = a
		}
		return a.text, a.err
	}
}

// idle waits for more; false when the goroutine has to end.
func (f *flusher) idle(ctx context.Context, wake <-chan struct{}) bool {
	timer := time.NewTimer(guardRest)
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
