package store

import (
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// WriterID identifies one writer's intents; it is never reused. It says what
// PostgreSQL can be asked to learn that the writer is over: its transaction's
// id, its backend, or nothing.
type WriterID [16]byte

const (
	writerTransaction = 1 // nonce (7 bytes), transaction id (8)
	writerBackend     = 2 // nonce (3), pid (4), start of the backend in microseconds since 1970 (8)
	writerUnknown     = 3 // random (15)
	writerAsync       = 4 // as writerTransaction
)

// nonces tell writers of one transaction or backend apart: a release that
// arrives late must not take a later writer's intent with it.
var nonces atomic.Uint64

func init() {
	var b [8]byte
	rand.Read(b[:])
	nonces.Store(binary.BigEndian.Uint64(b[:]))
}

// NewTransactionWriter returns the id of a writer whose effect becomes visible
// when the transaction with this id (pg_current_xact_id) commits.
func NewTransactionWriter(xid uint64) (w WriterID) {
	binary.BigEndian.PutUint64(w[:8], nonces.Add(1))
	w[0] = writerTransaction
	binary.BigEndian.PutUint64(w[8:], xid)
	return w
}

// NewAsyncWriter is NewTransactionWriter of one whose commit may be visible before
// it is on disk.
func NewAsyncWriter(xid uint64) WriterID {
	w := NewTransactionWriter(xid)
	w[0] = writerAsync
	return w
}

// NewBackendWriter returns the id of a writer whose effect is visible, or never
// will be, when the backend with this pid and start is gone.
func NewBackendWriter(pid uint32, start time.Time) (w WriterID) {
	binary.BigEndian.PutUint32(w[:4], uint32(nonces.Add(1)))
	w[0] = writerBackend
	binary.BigEndian.PutUint32(w[4:8], pid)
	binary.BigEndian.PutUint64(w[8:], uint64(start.UnixMicro()))
	return w
}

// NewWriter returns the id of a writer that only its owner can ever release.
func NewWriter() (w WriterID) {
	rand.Read(w[:])
	w[0] = writerUnknown
	return w
}

// Transaction returns the transaction id, if that is what the writer is known by.
func (w WriterID) Transaction() (xid uint64, ok bool) {
	return binary.BigEndian.Uint64(w[8:]), w[0] == writerTransaction || w[0] == writerAsync
}

// Async reports that what the writer committed may be visible before it is on disk:
// a crash of PostgreSQL may still undo it.
func (w WriterID) Async() bool { return w[0] != writerTransaction }

// Backend returns pid and start of the backend, if that is what the writer is
// known by.
func (w WriterID) Backend() (pid uint32, start time.Time, ok bool) {
	return binary.BigEndian.Uint32(w[4:8]), time.UnixMicro(int64(binary.BigEndian.Uint64(w[8:]))), w[0] == writerBackend
}
