// Package parser takes SQL texts apart: Scan, by a lexer that is cheap enough
// for every call, and Parse, by PostgreSQL's own grammar, for a text that is
// seen for the first time.
//
// The parser says what a text says and nothing about what its names mean. It
// is pure: no I/O, no clock, nothing remembered, and every function may be called
// by any number of goroutines.
//
// # What is relied on
//
// The rules of PostgreSQL 16 apply, with standard_conforming_strings on and
// UTF-8 text. A session that turned that setting off may read a text in
// another way, so its statements must not be judged by what is said here.
//
// Default deny: a statement with anything that the walk over the tree does not
// know is Opaque, whatever else is in it. A text that PostgreSQL's grammar
// refuses, or that could harm the C parser, is an error, and to be treated
// like an Opaque statement.
//
// See docs/decisions/parser.md (D89, D90) and docs/decisions/writes.md (D18, D23).
package parser

import (
	"errors"
	"runtime"
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// slots bounds the calls into C at one time. Each thread that was ever in one
// keeps some memory of the parser's, and a thread-local key of the process's
// about thousand; without a bound, a thousand goroutines that start with a cold
// plan cache are a thousand threads.
var slots = make(chan struct{}, runtime.GOMAXPROCS(0))

var errNotParsed = errors.New("cachedpg: PostgreSQL's grammar does not accept the text")

// Parse gives the facts of every command in the text, in order; a text without
// a command is one Empty statement. literals are what Scan found in the same
// text, or nil when it refused it: operands refer to them by index. Of lists with more
// than MaxList elements it leaves some out.
//
// The facts do not depend on the values of the literals, so they hold for
// every text with the same normalised text. Those of DO would; Scan gives it none.
func Parse(sql string, literals []Literal) ([]*Statement, error) {
	return parse(sql, literals, MaxList, false)
}

func parse(sql string, literals []Literal, maxList int, body bool) ([]*Statement, error) {
	switch {
	case len(sql) > maxText:
		return nil, errTooLong
	case !utf8.ValidString(sql) || strings.IndexByte(sql, 0) >= 0:
		return nil, errNotText
	}
	if err := checkNesting(sql); err != nil {
		return nil, err
	}
	short, params := shorten(sql, maxList, literals == nil)
	slots <- struct{}{}
	tree, err := pg.Parse(short)
	<-slots
	if err != nil {
		// The parser's message quotes the text, and so perhaps a secret in it.
		return nil, errNotParsed
	}
	statements := make([]*Statement, 0, len(tree.Stmts))
	for _, raw := range tree.Stmts {
		if raw.Stmt == nil || raw.Stmt.Node == nil {
			continue
		}
		w := &walker{sql: sql, literals: literals, body: body}
		w.command(raw.Stmt)
		st := w.statement()
		st.Params = max(st.Params, params)
		statements = append(statements, st)
	}
	if len(statements) == 0 {
		statements = append(statements, &Statement{Kind: Empty})
	}
	return statements, nil
}

// Unread gives the facts of a text that Parse does not accept. It may be of a
// newer grammar, and is more often than not one command that begins as queries
// and changes of rows do.
func Unread(sql string) *Statement {
	st := &Statement{Kind: Opaque}
	if len(sql) > maxText || !utf8.ValidString(sql) || strings.IndexByte(sql, 0) >= 0 {
		return st
	}
	l := lexer{sql: sql}
	for first, over := true, false; ; first = false {
		switch kind := l.next(); {
		case kind == tokenEnd:
			st.Bounded = st.Bounded && !l.doubtful
			return st
		case first:
			st.Bounded = kind == tokenWord && boundedCommands[strings.ToLower(sql[l.start:l.pos])]
		case kind == tokenBad || over:
			return &Statement{Kind: Opaque}
		}
		over = l.kind == tokenMark && sql[l.start:l.pos] == ";"
	}
}

// boundedCommands are the words that no command begins with but queries and
// changes of rows.
var boundedCommands = map[string]bool{
	"select": true, "values": true, "table": true, "with": true,
	"insert": true, "update": true, "delete": true, "merge": true, "explain": true,
}

// walker collects the facts of one command.
type walker struct {
	sql      string
	literals []Literal

	st      Statement
	queries map[*pg.SelectStmt]columns // that were walked over
	reads   []*Relation
	writes  []*Write
	carried []carried
	body    bool // of a function, where NEW and OLD may be the rows of a trigger

	known map[*pg.Node][]Source // of calls and casts

	// What is listed in st once.
	operators, types noted[Name]
	attributes       noted[Attribute]
	keywords         noted[string]

	depth      int  // of query levels
	nullable   bool // within a side of an outer join that may be filled with NULL
	windows    bool // the top level has a window
	aggregates bool // an aggregate was seen that is not among the functions
	unknown    bool // something that is not understood was seen
}

// statement is the result of the walk.
func (w *walker) statement() *Statement {
	st := w.st
	if w.unknown {
		return &Statement{Kind: Opaque, Params: st.Params}
	}
	if st.Into {
		st.Kind = DDL
	}
	if st.Kind != Select {
		st.Plain, st.Grouped, st.Single, st.Outputs, st.Ordered, st.Grouping = false, false, false, nil, false, false
	}
	for _, r := range w.reads {
		st.Reads = append(st.Reads, *r)
	}
	for _, wr := range w.writes {
		st.Writes = append(st.Writes, *wr)
	}
	st.Carried = w.between()
	return &st
}

// deny makes the statement Opaque.
func (w *walker) deny() { w.unknown = true }

// noted are the things that are in a list already.
type noted[T comparable] map[T]struct{}

// add appends v to the list unless it is there.
func (n *noted[T]) add(list []T, v T) []T {
	if _, ok := (*n)[v]; ok {
		return list
	}
	if *n == nil {
		*n = make(noted[T])
	}
	(*n)[v] = struct{}{}
	return append(list, v)
}
