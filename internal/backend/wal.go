package backend

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// Log is what is known of how far a server's write-ahead log can be asked. It is safe for concurrent use.
type Log struct {
	mu      sync.Mutex // guards the fields below
	refused error      // by which it was refused
	again   time.Time  // when it is asked next
}

// flushMargin is added to the time in which PostgreSQL promises to flush.
const flushMargin = time.Second

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
func (l *Log) position(ctx context.Context, ask AskFunc) (insert, flushed uint64, err error) {
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
		l.refused, l.again = err, time.Now().Add(RefusedFor)
		l.mu.Unlock()
	}
	return insert, flushed, err
}

// Problem is why the log cannot be asked how far it is, "" if it can.
func (l *Log) Problem() string {
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

// FlushPoint is a place in the log: once it is on disk, so is everything that could
// be seen when passed was called for the first time. It is not safe for concurrent use.
type FlushPoint struct {
	lsn uint64    // 0: not known
	due time.Time // where the log cannot be asked
}

// Passed reports that the log is flushed past the point, or that the server has
// crashed since: then it goes on before it, and what could be seen is on disk or gone.
//
// Where the role may not ask, it is the time in which PostgreSQL promises to
// have flushed: three times wal_writer_delay, and flushMargin.
func (p *FlushPoint) Passed(ctx context.Context, l *Log, ask AskFunc) (bool, error) {
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

// Forced is passed for what is asked so rarely that PostgreSQL is made to flush the log
// instead of being waited for. A transaction that goes on writing may keep the end
// of the log from the disk for seconds.
func (p *FlushPoint) Forced(ctx context.Context, l *Log, ask AskFunc) (bool, error) {
	ok, err := p.Passed(ctx, l, ask)
	if ok || err != nil || !p.due.IsZero() {
		return ok, err
	}
	_, err = ask(ctx, pushQuestion)
	if refusesPosition(err) {
		return false, nil // it is waited for
	}
	return err == nil, err
}
