package parser

import (
	"strings"
	"unicode/utf8"
)

// The placeholders of literals in a normalised text. No SQL has such a token:
// behind $ PostgreSQL wants a digit, or the $ that makes it a dollar quote.
const (
	placeInteger = "$int"
	placeNumber  = "$num"
	placeString  = "$str"
	placeBits    = "$bit"
)

var places = [...]string{Integer: placeInteger, Number: placeNumber, String: placeString, BitString: placeBits}

// Scan takes a text apart without parsing it. It answers false for a text that
// it does not understand in every detail; the caller then uses the text as it
// is, and of the result only the hints that were found so far have a meaning.
//
// Integers that change the meaning of a text and not only its result stay in
// the normalised text: the precision of float(n), which chooses between two
// types, and the ordinals of GROUP BY and ORDER BY. So does the name that set_config
// is given.
func Scan(sql string) (Scanned, bool) {
	l := lexer{sql: sql}
	n := normaliser{by: -1}
	n.buf.Grow(len(sql) + len(sql)/8 + 16)
	l.doubtful = !utf8.ValidString(sql) || strings.IndexByte(sql, 0) >= 0
	for {
		switch l.next() {
		case tokenEnd:
			if l.doubtful {
				return Scanned{Hints: l.hints}, false
			}
			return Scanned{Text: n.buf.String(), Literals: n.literals, Hints: l.hints}, true
		case tokenBad:
			return Scanned{Hints: l.hints}, false
		}
		n.add(&l)
	}
}

// normaliser writes tokens as one text that can be cut into the same tokens
// again. White space is a function of the tokens around it, so two texts with
// the same tokens get the same text.
type normaliser struct {
	buf      strings.Builder
	literals []Literal

	last lastToken
	glue bool // no space before the next token, whatever it is

	depth  int // of brackets
	by     int // the depth of the GROUP BY or ORDER BY around, or -1
	float  int // 1 behind the word float, 2 behind float (
	config int // 1 behind the word set_config, 2 behind set_config (
}

// lastToken is what the white space and the literals behind a token depend on.
type lastToken uint8

const (
	lastNone   lastToken = iota
	lastOther            // literals, parameters, operators, …
	lastName             // a word or quoted identifier
	lastClause           // a word that is set apart from a bracket behind it
	lastBy
	lastClose // ) or ]
	lastComma
	lastDot    // a dot glued to what it qualifies
	lastDotRaw // any other dot
	lastCast   // ::
)

// space separates the next token from the last one.
func (n *normaliser) space() {
	if n.buf.Len() > 0 && !n.glue {
		n.buf.WriteByte(' ')
	}
	n.glue = false
}

// add appends the current token.
func (n *normaliser) add(l *lexer) {
	float, config := n.float, n.config
	n.float, n.config = 0, 0
	switch l.kind {
	case tokenWord:
		if n.last == lastDot || n.last == lastCast {
			n.glue = true
		}
		n.space()
		begin := n.buf.Len()
		for i := l.start; i < l.pos; i++ {
			c := l.sql[i]
			if chars[c]&charLetter != 0 {
				c |= 0x20
			}
			n.buf.WriteByte(c)
		}
		n.word(l, begin)
	case tokenQuoted:
		if n.last == lastDot || n.last == lastCast {
			n.glue = true
		}
		n.space()
		n.buf.WriteString(l.sql[l.start:l.pos])
		n.last = lastName
	case tokenMark:
		n.mark(l.sql[l.start:l.pos])
		if float == 1 && l.sql[l.start] == '(' {
			n.float = 2
		}
		if config == 1 && l.sql[l.start] == '(' {
			n.config = 2
		}
	case tokenLiteral:
		n.space()
		if l.class == Integer && (float == 2 || n.last == lastBy || n.last == lastComma && n.by == n.depth) {
			n.buf.WriteString(l.value)
		} else if config == 2 && l.class == String {
			n.buf.WriteString("'" + strings.ReplaceAll(l.value, "'", "''") + "'")
		} else {
			n.buf.WriteString(places[l.class])
			if n.literals == nil {
				n.literals = make([]Literal, 0, 4)
			}
			n.literals = append(n.literals, Literal{Pos: l.start, Kind: l.class, Text: l.value})
		}
		n.last = lastOther
	case tokenOp:
		op := l.sql[l.start:l.pos]
		if n.last == lastDot && op == "*" {
			n.glue = true
		}
		n.space()
		n.buf.WriteString(op)
		n.last = lastOther
	default: // tokenParam, tokenNumeral
		n.space()
		n.buf.WriteString(l.sql[l.start:l.pos])
		n.last = lastOther
	}
}

// word looks at the word that was written from begin on.
func (n *normaliser) word(l *lexer, begin int) {
	n.last = lastName
	word := n.buf.String()[begin:]
	if word == "n" && l.pos < len(l.sql) && l.sql[l.pos] == '\'' {
		// N'…', which is the keyword NCHAR and a string.
		n.buf.WriteString("char")
		return
	}
	switch word {
	case "do":
		// What DO does stands in its literal.
		l.doubtful = l.doubtful || begin == 0 || strings.HasSuffix(n.buf.String()[:begin], "; ")
	case "by":
		n.last, n.by = lastBy, n.depth
	case "float":
		n.float = 1
	case "set_config":
		n.config = 1
	case "uescape":
		// It changes what the U& token before it means.
		l.doubtful = l.doubtful || l.unicode
	case "select", "values":
		n.last, n.by = lastClause, -1
	case "and", "as", "else", "filter", "from", "in", "not", "on", "or", "over",
		"then", "union", "using", "when", "where":
		n.last = lastClause
	}
}

// mark appends punctuation.
func (n *normaliser) mark(s string) {
	last := n.last
	n.last = lastOther
	open := false
	switch s[0] {
	case ',':
		n.glue = true
		n.last = lastComma
	case ';':
		n.glue = true
		n.by = -1
	case '(', '[':
		if last == lastName || s[0] == '[' && last == lastClose {
			n.glue = true
		}
		open = true
		n.depth++
	case ')', ']':
		n.glue = true
		n.last = lastClose
		if n.depth--; n.depth < n.by {
			n.by = -1
		}
	case '.':
		n.last = lastDotRaw
		if last == lastName || last == lastClose {
			n.glue = true
			n.last = lastDot
		}
	case ':':
		if s == "::" {
			if last == lastName || last == lastClose || last == lastOther && n.literalBefore() {
				n.glue = true
			}
			n.last = lastCast
		}
	}
	n.space()
	n.buf.WriteString(s)
	n.glue = open
}

// literalBefore reports that the text ends with a placeholder, a parameter or
// a number, to which a cast may be glued.
func (n *normaliser) literalBefore() bool {
	s := n.buf.String()
	return s != "" && chars[s[len(s)-1]]&charCont != 0
}
