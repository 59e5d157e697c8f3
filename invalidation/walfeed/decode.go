package walfeed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Transaction is a committed transaction. It belongs to who gets it.
type Transaction struct {
	XID       uint32
	LSN       uint64    // the end of its commit record
	Committed time.Time // by PostgreSQL's clock
	Tables    []*Table  // in order of their first change
	Changes   uint64    // rows changed and tables truncated

	// Schema says that it may have changed the schema.
	Schema bool

	// Refreshed are materialised views that it has refreshed.
	Refreshed []uint32

	// Redefined are tables that PostgreSQL has described again: something about
	// them, or their indexes, may have changed since.
	Redefined []uint32
}

// Table is what a transaction changed in one table.
type Table struct {
	Relation uint32 // OID

	// All says that the rows are not known: it was truncated, or there are more
	// than MaxRows.
	All bool

	// Rows are those that were changed or deleted, as they were before. Rows
	// that were inserted are not among them.
	Rows []Row
}

// Row holds the columns of the replica identity of one row.
type Row []Field

// Field is a column's value. A column that is not in a Row is not known.
type Field struct {
	Column string
	Null   bool
	Text   string // as PostgreSQL writes it
}

// MaxRows bounds the rows of a Table.
const MaxRows = 1000

// maxKey is the length of the longest value that is kept of a row. No index
// takes a longer one.
const maxKey = 4096

// MessagePrefix is the prefix of the logical messages that SetupSQL's triggers emit.
const MessagePrefix = "cachedpg"

var errMessage = errors.New("cachedpg: a message of pgoutput cannot be read")

// Decoder reads the messages of pgoutput, protocol version 1. The zero Decoder
// is ready. It is not safe for concurrent use.
type Decoder struct {
	relations map[uint32]*relation
	tx        *Transaction
	tables    map[uint32]*Table
	resent    []uint32
}

type relation struct {
	columns []column
}

type column struct {
	name     string
	identity bool
}

// Decode reads one message. It returns the transaction if that ends with it.
// Nothing is trusted: bytes that are no message are an error. After an error the
// Decoder is of no more use.
func (d *Decoder) Decode(message []byte) (*Transaction, error) {
	r := &reader{b: message}
	kind := r.uint8()
	var done *Transaction
	err := error(nil)
	switch kind {
	case 'B':
		err = d.begin(r)
	case 'C':
		done, err = d.commit(r)
	case 'R':
		d.relation(r)
	case 'I', 'U', 'D':
		err = d.row(r, kind)
	case 'T':
		err = d.truncate(r)
	case 'M':
		d.message(r)
	case 'O', 'Y': // the origin, and types, say nothing about rows
		r.b = nil
	default:
		return nil, fmt.Errorf("%w: of kind %q", errMessage, kind)
	}
	if err == nil && (r.failed || len(r.b) > 0) {
		err = fmt.Errorf("%w: kind %q, length %d", errMessage, kind, len(message))
	}
	if err != nil {
		return nil, err
	}
	return done, nil
}

func (d *Decoder) begin(r *reader) error {
	if d.tx != nil {
		return fmt.Errorf("%w: a transaction begins in another", errMessage)
	}
	r.uint64() // the LSN of its end
	r.uint64() // its time, which comes again
	d.tx = &Transaction{XID: r.uint32()}
	d.tables = make(map[uint32]*Table)
	return nil
}

func (d *Decoder) commit(r *reader) (*Transaction, error) {
	if d.tx == nil {
		return nil, errOutside
	}
	r.uint8()  // flags
	r.uint64() // the LSN of the commit
	tx := d.tx
	tx.LSN = r.uint64()
	tx.Committed = timeOf(r.uint64())
	tx.Redefined, d.resent = d.resent, nil
	d.tx, d.tables = nil, nil
	return tx, nil
}

var errOutside = fmt.Errorf("%w: outside of a transaction", errMessage)

// relation reads the description of a table. It comes before the first change
// of the table, and again after something about it has changed.
func (d *Decoder) relation(r *reader) {
	oid := r.uint32()
	r.text() // schema
	r.text() // name
	r.uint8()
	n := int(r.uint16())
	rel := &relation{}
	for i := 0; i < n && !r.failed; i++ {
		identity := r.uint8()&1 != 0
		rel.columns = append(rel.columns, column{name: r.text(), identity: identity})
		r.uint32() // type
		r.uint32() // its modifier
	}
	if r.failed {
		return
	}
	if d.relations == nil {
		d.relations = make(map[uint32]*relation)
	}
	if d.relations[oid] != nil && !slices.Contains(d.resent, oid) {
		d.resent = append(d.resent, oid)
	}
	d.relations[oid] = rel
}

// row reads INSERT, UPDATE and DELETE.
func (d *Decoder) row(r *reader, kind byte) error {
	oid := r.uint32()
	rel := d.relations[oid]
	if d.tx == nil {
		return errOutside
	}
	if rel == nil {
		return fmt.Errorf("%w: a change of a table that was not described", errMessage)
	}
	t := d.table(oid)
	d.tx.Changes++
	if kind == 'I' {
		if r.uint8() != 'N' {
			r.failed = true
		}
		r.tuple(rel, false)
		return nil
	}
	var old Row
	switch r.uint8() {
	case 'K', 'O':
		old = r.tuple(rel, true)
		if kind == 'U' {
			if r.uint8() != 'N' {
				r.failed = true
			}
			r.tuple(rel, false)
		}
	case 'N':
		// Without an old row the columns of its identity are as they were.
		if kind == 'D' {
			r.failed = true
		}
		old = r.tuple(rel, true)
	default:
		r.failed = true
	}
	if r.failed || t.All {
		return nil
	}
	if len(t.Rows) == MaxRows {
		t.All, t.Rows = true, nil
		return nil
	}
	t.Rows = append(t.Rows, old)
	return nil
}

func (d *Decoder) truncate(r *reader) error {
	if d.tx == nil {
		return errOutside
	}
	n := int(r.uint32())
	r.uint8() // options
	for i := 0; i < n && !r.failed; i++ {
		oid := r.uint32()
		if r.failed {
			break
		}
		t := d.table(oid)
		t.All, t.Rows = true, nil
		d.tx.Changes++
	}
	return nil
}

// message reads what pg_logical_emit_message wrote. One that is not part of a
// transaction comes at any time and is nothing of ours.
func (d *Decoder) message(r *reader) {
	transactional := r.uint8()&1 != 0
	r.uint64() // its LSN
	prefix := r.text()
	content := r.bytes(int(r.uint32()))
	if r.failed || !transactional || prefix != MessagePrefix || d.tx == nil {
		return
	}
	var oid uint32
	if n, err := fmt.Sscanf(string(content), "refresh %d", &oid); n == 1 && err == nil && oid != 0 {
		d.tx.Refreshed = append(d.tx.Refreshed, oid)
		return
	}
	d.tx.Schema = true // also what a later version may say
}

func (d *Decoder) table(oid uint32) *Table {
	t := d.tables[oid]
	if t == nil {
		t = &Table{Relation: oid}
		d.tables[oid] = t
		d.tx.Tables = append(d.tx.Tables, t)
	}
	return t
}

// epoch is where PostgreSQL's times begin.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func timeOf(microseconds uint64) time.Time {
	return epoch.Add(time.Duration(int64(microseconds)) * time.Microsecond)
}

// reader takes values off the front of a message. Once something is missing it
// has failed and gives zero values.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.failed, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uint8() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text reads a string that ends with a zero byte.
func (r *reader) text() string {
	end := slices.Index(r.b, 0)
	if end < 0 {
		r.failed, r.b = true, nil
		return ""
	}
	s := string(r.b[:end])
	r.b = r.b[end+1:]
	return s
}

// tuple reads a row. It returns the columns of its identity, if they are wanted.
func (r *reader) tuple(rel *relation, wanted bool) (row Row) {
	n := int(r.uint16())
	if n != len(rel.columns) {
		r.failed = true
		return nil
	}
	for i := 0; i < n && !r.failed; i++ {
		c := &rel.columns[i]
		keep := wanted && c.identity
		switch r.uint8() {
		case 'n':
			if keep {
				row = append(row, Field{Column: c.name, Null: true})
			}
		case 'u': // stored elsewhere and not changed: the value is not sent
		case 't':
			if b := r.bytes(int(r.uint32())); keep && !r.failed && len(b) <= maxKey {
				row = append(row, Field{Column: c.name, Text: string(b)})
			}
		default: // 'b', binary, was not asked for
			r.failed = true
		}
	}
	return row
}
