// Package keying turns a parsed statement and a schema into keys and tags:
// what a result is stored under, what it depends on, what a write invalidates.
//
// Everything here is pure: no I/O, no clock, no context.
//
// Two rules decide every doubt. A read in doubt gets a Reason and is not
// cached. A write in doubt gets more tags, in the end the schema tag, on which
// every result depends.
//
// See docs/decisions/reads.md (D4, D5, D6, D7), docs/decisions/writes.md (D16, D19)
// and docs/decisions/temporary-objects.md (D35, D36, D38).
package keying

import (
	"crypto/sha256"
	"database/sql/driver"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Plan is what one statement text means in one schema. It is immutable and
// safe for concurrent use.
type Plan struct {
	// Reason says why the text is never answered from the cache; NoReason when it may be.
	Reason Reason

	// Detail is the name of the relation, function, operator, type or keyword
	// that led to Reason; "" where there is none. It is never a value.
	Detail string

	// Lasting says why not even a limit of the age would do: it is NoReason if
	// all that is against caching the text is that an answer is of its moment.
	// LastingDetail is to it what Detail is to Reason.
	Lasting       Reason
	LastingDetail string

	// Momentary is all that a limit of the age makes up for.
	Momentary []Moment

	// Beyond says that it may read more tables than ReadTags tells of: those behind
	// a foreign table, those that a policy looks into.
	Beyond bool

	// Writes says that the text changes tables, or may: WriteTags must be
	// intended before its effect can become visible.
	Writes bool

	// Asks says that it runs code which is not understood: triggers, rules or
	// functions. What that has written, the transaction is to be asked before
	// COMMIT, and WrittenTags added to WriteTags; who cannot ask adds the schema tag. The
	// code may also have changed the catalog and the session.
	Asks bool

	// Commits says that it may commit or roll back by itself, outside a
	// transaction block: CALL, DO, and what is not understood.
	Commits bool

	// Opaque says that what it changes cannot be bounded, the catalog included;
	// WriteTags is then the schema tag.
	Opaque bool

	// Catalog says that it changes the catalog, so that snapshots are out of date after it.
	Catalog bool

	// Session says that settings of the session that keys stand for, or others that the
	// driver keeps track of, may be others after it. Sets is what they are then if that is all
	// that the text does; without it they are unknown.
	// Temporary is the same of a text that changes the session's temporary objects.
	Session   bool
	Sets      *Setting
	Temporary *TemporaryChange

	// Leaves says that it may leave something with its connection that is nobody else's
	// business, whether keys stand for it or not: LISTEN, SET, PREPARE, an advisory lock.
	Leaves bool

	// Analyses says that PostgreSQL analyses again, after it, what is prepared: DISCARD PLANS.
	Analyses bool

	// Limits says that PostgreSQL may end statements sooner after it, or later.
	Limits bool

	// Level says that a transaction may get another isolation level by it than transactions
	// have by default.
	Level bool

	// Durability says that it changes synchronous_commit, or may, which decides whether
	// a commit waits for the disk. What code does that is not seen is not in it.
	Durability bool

	// Unknown says that a name is not in the snapshot. If the snapshot may be
	// out of date it should be loaded again and the plan made anew: the tags of
	// this one are right, but coarser than need be.
	Unknown bool

	// Counted says that it has changed nothing if it reports that it has changed no row.
	Counted bool

	// Calls says that it calls user-defined functions, which may read any table.
	Calls bool

	// Later says that it is one change of rows whose effect does not depend on
	// when it runs, but for the rows that it finds; see MayWait.
	Later bool

	// Kinds are the kinds of the statements in the text, in order.
	Kinds []parser.Kind

	digest [sha256.Size]byte
	prefix atomic.Pointer[prefix]

	always    []store.Tag // ReadTags of every result
	lookups   []lookup    // relations whose key may be fixed
	integers  []span      // by parameter, those that are certainly integers
	single    bool        // a row of the result is made of one row of the one relation in lookups
	written   []store.Tag // WriteTags of every execution
	inserted  []store.Tag // see InsertedTags
	named     []namedRows // rows that the text names
	returning *Returning
	told      []told      // rows that what the statement returns names
	untold    []store.Tag // in their place where it is not known

	reads, writes []uint32
	mentions      []string // names that a temporary object would have in front of others
}

// Values are what a plan's operands refer to.
type Values struct {
	// Args are the arguments in order of $1, $2, …, without pgx's special
	// leading ones.
	Args []driver.NamedValue

	// Literals are those that parser.Scan took out of the text; nil when the
	// text was planned as it is.
	Literals []parser.Literal

	// Encoded says that the bytes of a text that is not ASCII may be others in
	// PostgreSQL, or other texts in other sessions: such a text names no row.
	Encoded bool
}

// New makes the plan of a text whose statements are given. text is the
// normalised text of parser.Scan, or the text itself where Scan gave none; it
// becomes part of the key. path is the session's effective search_path
// (current_schemas(true)), in order. A nil snapshot stands for a schema that
// could not be loaded.
func New(text string, statements []*parser.Statement, snapshot *catalog.Snapshot, path []string) *Plan {
	return NewAmong(text, statements, snapshot, path, nil)
}

// NewAmong is New for a session that has temporary objects. path is without their schema.
func NewAmong(text string, statements []*parser.Statement, snapshot *catalog.Snapshot, path []string, temporaries *Temporaries) *Plan {
	p := &Plan{digest: sha256.Sum256([]byte(text))}
	if snapshot == nil {
		p.Unknown = true
		snapshot = catalog.NewSnapshot(catalog.Contents{})
		p.deny(CatalogUnavailable, "")
	}
	a := newAnalysis(p, snapshot, path, text)
	a.temporaries = temporaries
	a.run(statements)
	p.mentions = slices.Clip(p.mentions)
	return p
}

// mention notes a name that is looked up along the search_path.
func (p *Plan) mention(name string) {
	if !slices.Contains(p.mentions, name) {
		p.mentions = append(p.mentions, name)
	}
}

// deny gives a reason; the first counts.
func (p *Plan) deny(r Reason, detail string) {
	if p.Reason == NoReason {
		p.Reason, p.Detail = r, detail
	}
	switch m := (Moment{r, detail}); {
	case p.Lasting != NoReason:
	case !excusable(r, detail):
		p.Lasting, p.LastingDetail = r, detail
	case !slices.Contains(p.Momentary, m):
		p.Momentary = append(p.Momentary, m)
	}
}

// opaque: the text may write anything.
func (p *Plan) opaque() { p.Writes, p.Opaque = true, true }

// opaqueCode: the text runs code that may write anything and set anything.
func (p *Plan) opaqueCode() {
	p.opaque()
	p.Catalog, p.Session = true, true
}

// Reads returns the OIDs of the relations that the text reads: the tables below
// views, not their partitions. The slice belongs to the plan.
func (p *Plan) Reads() []uint32 { return p.reads }

// WritesTo returns the OIDs of the relations that the text is known to write,
// those included that it reaches through views, foreign keys, partitions and
// inheritance. It is not complete for an Opaque plan. The slice belongs to the plan.
func (p *Plan) WritesTo() []uint32 { return p.writes }

// Key returns the key of the result in a session. session is a digest of
// everything outside the text and the values that a result depends on: format
// version, database name and identity, session and current role, search_path,
// exec mode, and the settings that change results: TimeZone, DateStyle,
// IntervalStyle, lc_monetary, lc_numeric, lc_time, default_text_search_config,
// bytea_output, extra_float_digits and the like.
// buf is scratch space; Key returns it grown. The reason is NoReason, or why
// these values cannot be cached; for ClockInput there is a key all the same.
func (p *Plan) Key(session *[32]byte, v Values, buf []byte) (store.Key, []byte, Reason) {
	e := encoder{buf: p.appendPrefix(buf[:0], session)}
	e.uint(uint64(len(v.Literals)))
	for i := range v.Literals {
		l := &v.Literals[i]
		e.buf = append(e.buf, byte(l.Kind))
		if l.Kind == parser.String {
			e.text(l.Text)
		} else {
			e.name(l.Text)
		}
	}
	e.uint(uint64(len(v.Args)))
	for i := range v.Args {
		if v.Args[i].Name != "" {
			return store.Key{}, e.buf, NamedArgument
		}
		if i < len(p.integers) && e.integer(v.Args[i].Value, p.integers[i]) {
			continue
		}
		if !e.value(v.Args[i].Value) {
			return store.Key{}, e.buf, Argument
		}
	}
	if e.clock {
		return sha256.Sum256(e.buf), e.buf, ClockInput
	}
	return sha256.Sum256(e.buf), e.buf, NoReason
}

// prefix is the hash of a session's and the plan's digest: with it a key of a
// few short values takes one block of SHA-256 instead of two.
type prefix struct {
	session, sum [sha256.Size]byte
}

// appendPrefix remembers the prefix of the session that came first; most
// programs have one.
func (p *Plan) appendPrefix(buf []byte, session *[32]byte) []byte {
	if known := p.prefix.Load(); known != nil && known.session == *session {
		return append(buf, known.sum[:]...)
	}
	buf = append(append(buf, session[:]...), p.digest[:]...)
	sum := sha256.Sum256(buf)
	if p.prefix.Load() == nil {
		p.prefix.Store(&prefix{session: *session, sum: sum})
	}
	return append(buf[:0], sum[:]...)
}

// Size returns about the bytes of memory that the plan takes, without the catalog.
func (p *Plan) Size() int {
	size := int(unsafe.Sizeof(*p)+unsafe.Sizeof(prefix{})) + len(p.Detail) + len(p.LastingDetail) + cap(p.Kinds) +
		int(unsafe.Sizeof(Moment{}))*cap(p.Momentary) + int(unsafe.Sizeof(store.Tag{}))*(cap(p.always)+cap(p.written)+cap(p.untold)+cap(p.inserted)) +
		int(unsafe.Sizeof(span{}))*cap(p.integers) + int(unsafe.Sizeof(lookup{}))*cap(p.lookups) +
		int(unsafe.Sizeof(namedRows{}))*cap(p.named) + int(unsafe.Sizeof(told{}))*cap(p.told) + 4*(cap(p.reads)+cap(p.writes))
	for _, name := range p.mentions {
		size += int(unsafe.Sizeof(name)) + len(name)
	}
	for k := range p.keyParts {
		size += int(unsafe.Sizeof(*k)) + int(unsafe.Sizeof(k.parts))*cap(k.rows)
		for _, row := range append(k.rows, k.parts) {
			for i := range row {
				size += int(unsafe.Sizeof(row[i])) + int(unsafe.Sizeof(operand{}))*cap(row[i].values)
			}
		}
	}
	return size
}
