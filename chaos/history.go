package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// now returns CLOCK_MONOTONIC in nanoseconds, which on Linux is one clock for
// all processes.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // it takes no arguments that could be wrong
	}
	return ts.Nano()
}

// values are the values of rows by their id. A value is written once; "" is the
// absence of the row.
type values map[int]string

// shape is the id under which the name of a table's column is kept, as if it
// were the value of a row.
const shape = -1

// record is one line of a process's log: the invocation of an operation, or its
// response.
type record struct {
	Op int   `json:"op"` // counts the operations of the log
	At int64 `json:"at"`

	// Of an invocation.
	What string `json:"what,omitempty"`
	Set  values `json:"set,omitempty"` // what it writes if it takes effect
	GID  string `json:"gid,omitempty"` // of the prepared transaction that holds Set, or that is to be ended
	Ends bool   `json:"ends,omitempty"`

	// Of a response.
	Outcome outcome `json:"outcome,omitempty"`
	Saw     values  `json:"saw,omitempty"`    // rows that it read
	Took    values  `json:"took,omitempty"`   // what it replaced, where it knows
	Missed  []int   `json:"missed,omitempty"` // those that it would have written, but were not there

	Stats *tally `json:"stats,omitempty"` // neither: counters of the process until now
	Bad   string `json:"bad,omitempty"`   // neither: what the process itself found wrong
}

type outcome string

const (
	ok      outcome = "ok"
	failed  outcome = "failed"  // it has no effect, now or later
	unknown outcome = "unknown" // it may have one, now or later
)

// recorder appends records to a file. A line is one write, so that what was
// begun is known of a process that was killed.
type recorder struct {
	mu   sync.Mutex // guards the fields below
	file *os.File
	ops  int
}

func newRecorder(path string) (*recorder, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	return &recorder{file: file}, err
}

// invoke notes the beginning of an operation and returns its number.
func (r *recorder) invoke(rec record) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops++
	rec.Op, rec.At = r.ops, now()
	r.write(rec)
	return rec.Op
}

// respond notes the end of an operation.
func (r *recorder) respond(op int, rec record) {
	at := now() // not after waiting for the lock
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Op, rec.At = op, at
	r.write(rec)
}

func (r *recorder) write(rec record) {
	line, err := json.Marshal(rec)
	if err == nil {
		_, err = r.file.Write(append(line, '\n'))
	}
	if err != nil {
		panic(err) // without its log a process proves nothing
	}
}

// readLog reads what a process has written. The last line may be cut short.
func readLog(path string) (records []record, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var rec record
		if err := json.Unmarshal(scanner.Bytes(), &rec); err != nil {
			if scanner.Scan() {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			break
		}
		records = append(records, rec)
	}
	return records, scanner.Err()
}

// op is what an operation did to one row: it may have seen its value,
// and may have set another one.
type op struct {
	process   string
	what      string
	call, ret int64 // ret is never if the outcome is not known

	sees  bool
	saw   string
	sets  bool
	value string
}

// never is when an operation returns of which nothing was heard again.
const never = math.MaxInt64

// history is all that was done to each row.
type history map[int][]op

// attempt is one COMMIT PREPARED or ROLLBACK PREPARED.
type attempt struct {
	process, what string
	call, ret     int64
	outcome       outcome
}

// newHistory takes the logs apart, by the name of their process.
func newHistory(logs map[string][]record) history {
	h := history{}
	prepared := map[string]values{}
	ends := map[string][]attempt{}
	for process, records := range logs {
		responses := map[int]record{}
		for _, rec := range records {
			if rec.Outcome != "" {
				responses[rec.Op] = rec
			}
		}
		for _, inv := range records {
			if inv.Op == 0 || inv.Outcome != "" {
				continue
			}
			res, responded := responses[inv.Op]
			if !responded {
				res = record{At: never, Outcome: unknown}
			}
			switch {
			case inv.Ends:
				ends[inv.GID] = append(ends[inv.GID], attempt{process, inv.What, inv.At, res.At, res.Outcome})
			case inv.GID != "":
				prepared[inv.GID] = inv.Set
			default:
				h.add(process, inv, res)
			}
		}
	}
	for gid, attempts := range ends {
		h.addPrepared(prepared[gid], attempts)
	}
	for _, ops := range h {
		slices.SortFunc(ops, func(a, b op) int { return cmp.Compare(a.call, b.call) })
	}
	return h
}

// add takes in one operation.
func (h history) add(process string, inv, res record) {
	one := func(id int) op {
		return op{process: process, what: inv.What, call: inv.At, ret: res.At}
	}
	switch res.Outcome {
	case ok:
		for id, v := range res.Saw {
			o := one(id)
			o.sees, o.saw = true, v
			h[id] = append(h[id], o)
		}
		for _, id := range res.Missed {
			o := one(id)
			o.sees = true
			h[id] = append(h[id], o)
		}
		for id, v := range inv.Set {
			if slices.Contains(res.Missed, id) {
				continue
			}
			o := one(id)
			o.sets, o.value = true, v
			o.saw, o.sees = res.Took[id], res.Took != nil
			h[id] = append(h[id], o)
		}
	case unknown:
		for id, v := range inv.Set {
			o := one(id)
			o.ret, o.sets, o.value = never, true, v
			h[id] = append(h[id], o)
		}
	}
}

// addPrepared takes in a prepared transaction that somebody tried to end. Only
// one attempt has had an effect. If none is known to have, one that is in doubt
// may have, at any time since it began.
func (h history) addPrepared(set values, attempts []attempt) {
	var doubt *attempt
	for _, a := range attempts {
		commits := strings.HasPrefix(a.what, "COMMIT")
		if a.outcome == ok && !commits {
			return
		}
		if a.outcome == ok {
			doubt = &a
			break
		}
		if a.outcome == unknown && commits && (doubt == nil || a.call < doubt.call) {
			doubt = &attempt{a.process, a.what, a.call, never, unknown}
		}
	}
	if doubt == nil {
		return
	}
	for id, v := range set {
		h[id] = append(h[id], op{process: doubt.process, what: doubt.what, call: doubt.call, ret: doubt.ret, sets: true, value: v})
	}
}
