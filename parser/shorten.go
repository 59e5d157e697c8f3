package parser

import (
	"bytes"
	"strconv"
)

// Texts are long because something in them is repeated: the values of IN, the
// rows of VALUES, a condition after OR. PostgreSQL's grammar and what follows cost
// microseconds for each, and what is said about the first of a kind holds for all.
// So the others are white space to Parse. What is left stays where it was,
// because literals are found by their positions.

// MaxList is the number of elements that Parse tells of in a list of any length, at
// the least. What it leaves out of a longer one differs from something that it
// tells of in nothing but parameters and the values of literals. Whoever goes by
// the number of elements must treat all lists of more than MaxList alike.
//
// It is more than PostgreSQL takes as arguments of a function, so of a call with too
// many too many are left.
const MaxList = 128

// repetition is a list, or a chain of AND or OR, at one level of brackets.
type repetition struct {
	close byte // the bracket that ends the level, 0 for the text itself

	list bool // a comma separates elements of a list
	rows bool // which are the rows of VALUES

	separator byte // in front of the current element: , & or |, 0 if there is none
	count     int  // elements that stay
	begin     int  // of the current element, in the text
	shape     int  // and in shortener.shapes
	kinds     [8]span
	known     int // kinds seen, of which the last are kept

	odd     bool // the current element holds a clause, and stays
	clauses bool // the level does
	between bool // the next AND belongs to BETWEEN
}

// span is a piece of shortener.shapes.
type span struct{ begin, end int }

// shortener leaves elements out of a text.
type shortener struct {
	lexer
	keep   int
	exact  bool   // literals of other values are of another kind
	out    []byte // nil while nothing is left out
	levels []repetition
	shapes []byte // the tokens so far, without what may differ within a kind
	params int    // the highest of the text
}

// shorten gives a text with at most about keep elements of each list, and the highest
// parameter in it before. exact says that literals must not be taken for each other.
func shorten(sql string, keep int, exact bool) (short string, params int) {
	if len(sql) < 2*keep { // an element and its comma
		return sql, 0
	}
	s := shortener{lexer: lexer{sql: sql}, keep: keep, exact: exact, levels: []repetition{{}}}
	for {
		switch s.next() {
		case tokenEnd:
			if s.out == nil || s.doubtful || s.params > maxParam {
				return sql, 0
			}
			return string(s.out), s.params
		case tokenBad:
			return sql, 0
		}
		s.token()
	}
}

// token takes the current token in.
func (s *shortener) token() {
	text := s.sql[s.start:s.pos]
	top := &s.levels[len(s.levels)-1]
	switch s.kind {
	case tokenParam:
		n, _ := strconv.Atoi(text[1:])
		s.params = max(s.params, n)
	case tokenWord:
		switch word := keyword(text); {
		case word == "or":
			s.separate(top, '|')
			return
		case word == "and" && !top.between:
			s.separate(top, '&')
			return
		case word == "and":
			top.between = false
		case word == "between":
			top.between = true
		case word == "values":
			s.clause(top)
			top.list, top.rows = true, true
			return
		case clauseWords[word]:
			s.clause(top)
			return
		}
	case tokenMark:
		switch text {
		case "(", "[":
			// The values of a row go by their places to the columns of INSERT.
			row := top.rows && top.shape == len(s.shapes)
			s.note(text)
			s.levels = append(s.levels, repetition{close: closing[text], list: !row, begin: s.pos, shape: len(s.shapes)})
			return
		case ")", "]":
			s.note(text)
			if len(s.levels) > 1 && top.close == text[0] {
				s.levels = s.levels[:len(s.levels)-1]
				if outer := &s.levels[len(s.levels)-1]; top.clauses {
					outer.odd, outer.clauses = true, true
				}
			}
			return
		case ",":
			if top.list {
				s.separate(top, ',')
			} else {
				s.restart(top)
			}
			return
		case ";":
			s.restart(top)
			return
		}
	}
	s.note(text)
}

var closing = map[string]byte{"(": ')', "[": ']'}

// clauseWords begin what is no element of a list or chain, or end one. What is in
// float(n) decides about a type.
var clauseWords = map[string]bool{
	"select": true, "from": true, "where": true, "group": true, "having": true, "window": true, "order": true,
	"limit": true, "offset": true, "fetch": true, "for": true, "union": true, "intersect": true, "except": true,
	"with": true, "table": true, "insert": true, "update": true, "delete": true, "merge": true, "into": true,
	"set": true, "returning": true, "on": true, "using": true, "join": true, "case": true, "when": true,
	"then": true, "else": true, "end": true, "do": true, "float": true,
}

// note adds the current token to the shapes.
func (s *shortener) note(text string) {
	switch {
	case s.kind == tokenParam:
		s.shapes = append(s.shapes, '$')
	case s.kind == tokenLiteral && !s.exact:
		s.shapes = append(s.shapes, '0'+byte(s.class))
	case s.kind == tokenWord:
		for i := range len(text) {
			c := text[i]
			if chars[c]&charLetter != 0 {
				c |= 0x20
			}
			s.shapes = append(s.shapes, c)
		}
	default:
		s.shapes = append(s.shapes, text...)
	}
	s.shapes = append(s.shapes, 0, byte(s.kind))
}

// restart takes a token in that belongs to no element.
func (s *shortener) restart(top *repetition) {
	s.note(s.sql[s.start:s.pos])
	*top = repetition{close: top.close, begin: s.pos, shape: len(s.shapes), clauses: top.clauses}
}

// clause takes the word in by which a clause begins.
func (s *shortener) clause(top *repetition) {
	s.restart(top)
	top.clauses = true
}

// separate takes a separator in, which ends an element.
func (s *shortener) separate(top *repetition, separator byte) {
	// In front of the first AND or OR may stand anything; a list begins with its
	// bracket or behind VALUES.
	if first := top.separator == 0 && separator == ','; !first && top.separator != separator {
		top.count, top.known = 0, 0
	} else if top.odd || !s.surplus(top) {
		top.count++
	}
	s.note(s.sql[s.start:s.pos])
	top.separator, top.begin, top.shape = separator, s.pos, len(s.shapes)
	top.odd, top.between = false, false
}

// surplus leaves the current element out with the separator behind it, if there are
// enough and one of its kind.
func (s *shortener) surplus(top *repetition) bool {
	shape := s.shapes[top.shape:]
	for _, k := range top.kinds[:min(top.known, len(top.kinds))] {
		if !bytes.Equal(s.shapes[k.begin:k.end], shape) {
			continue
		}
		if top.count < s.keep {
			return false
		}
		if s.out == nil {
			s.out = []byte(s.sql)
		}
		for i := top.begin; i < s.pos; i++ {
			s.out[i] = ' '
		}
		return true
	}
	top.kinds[top.known%len(top.kinds)] = span{top.shape, len(s.shapes)}
	top.known++
	return false
}
