package parser

import "strings"

// tokenKind is the lexical class of a token.
type tokenKind uint8

const (
	tokenEnd     tokenKind = iota
	tokenBad               // PostgreSQL rejects it, or its versions disagree about it
	tokenWord              // an unquoted identifier or a keyword
	tokenQuoted            // "…" or U&"…"
	tokenMark              // one of , ( ) [ ] . ; : or the pairs :: and :=
	tokenOp                // an operator
	tokenParam             // $1
	tokenLiteral           // described by class and value
	tokenNumeral           // a number in PostgreSQL 16's notation (0x1f, 1_000)
)

// lexer cuts a text into tokens by the rules of PostgreSQL's scan.l, with
// standard_conforming_strings on and UTF-8 text without NUL bytes.
//
// Where PostgreSQL's versions cut differently (1a, 1..2, a vertical tab) it
// answers tokenBad rather than choose.
type lexer struct {
	sql   string
	pos   int // where the next token is looked for
	start int // of the current token
	kind  tokenKind

	class LiteralKind // of a tokenLiteral
	value string      // of a tokenLiteral

	hints Hints

	// doubtful says that the text must be left as it is, although it could be
	// cut into tokens.
	doubtful bool

	// dots says that .. is a token, as in PL/pgSQL's FOR i IN 1..10.
	dots bool

	// unicode says that a U& token was seen: a later UESCAPE would change
	// what it means.
	unicode bool
}

// Longer runs than these make PostgreSQL's scanner, which looks at them again
// for every token in them, take time with the square of their length.
const (
	maxOperator = 256 // characters in a row that may be part of operators
	maxComments = 32  // comments in one another
)

const (
	charSpace  = 1 << iota // white space in every version
	charStart              // may begin an identifier
	charCont               // may continue one
	charDigit              // 0–9
	charOp                 // may be part of an operator
	charMark               // a token by itself
	charHex                // a hexadecimal digit
	charLetter             // A–Z
)

var chars = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
			t[c] = charSpace
		case c >= 'a' && c <= 'z' || c == '_' || c >= 0x80:
			t[c] = charStart | charCont
		case c >= 'A' && c <= 'Z':
			t[c] = charStart | charCont | charLetter
		case c >= '0' && c <= '9':
			t[c] = charDigit | charCont | charHex
		case c == '$':
			t[c] = charCont
		case strings.IndexByte("~!@#^&|`?+-*/%<>=", byte(c)) >= 0:
			t[c] = charOp
		case strings.IndexByte(",()[].;:", byte(c)) >= 0:
			t[c] = charMark
		}
		if c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' {
			t[c] |= charHex
		}
	}
	return t
}()

// at is the byte at i, or 0 behind the end.
func (l *lexer) at(i int) byte {
	if i < len(l.sql) {
		return l.sql[i]
	}
	return 0
}

// next moves to the next token. After tokenEnd and tokenBad it must not be
// called again.
func (l *lexer) next() tokenKind {
	if !l.space() {
		l.kind = tokenBad
		return tokenBad
	}
	l.kind = l.token()
	return l.kind
}

// space skips white space and comments; false means an unterminated comment.
func (l *lexer) space() bool {
	sql, i := l.sql, l.pos
	for i < len(sql) {
		c := sql[i]
		switch {
		case chars[c]&charSpace != 0:
			i++
		case c == '-' && l.at(i+1) == '-':
			end := lineEnd(sql, i)
			l.comment(sql[i+2 : end])
			i = end
		case c == '/' && l.at(i+1) == '*':
			end := commentEnd(sql, i)
			if end < 0 {
				return false
			}
			l.comment(sql[i+2 : end-2])
			i = end
		default:
			l.pos = i
			return true
		}
	}
	l.pos = i
	return true
}

func lineEnd(sql string, i int) int {
	for i < len(sql) && sql[i] != '\n' && sql[i] != '\r' {
		i++
	}
	return i
}

// commentEnd finds the end of the comment that begins at i; comments nest. It
// is -1 if there is none.
func commentEnd(sql string, i int) int {
	depth := 0
	for i+1 < len(sql) {
		switch {
		case sql[i] == '/' && sql[i+1] == '*':
			if depth++; depth > maxComments || operatorRun(sql[i:]) > maxOperator {
				return -1
			}
			i += 2
		case sql[i] == '*' && sql[i+1] == '/':
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return -1
}

// operatorRun counts the operator characters that s begins with, up to one
// more than maxOperator.
func operatorRun(s string) int {
	n := 0
	for n < len(s) && n <= maxOperator && chars[s[n]]&charOp != 0 {
		n++
	}
	return n
}

func (l *lexer) token() tokenKind {
	sql, i := l.sql, l.pos
	l.start = i
	if i >= len(sql) {
		return tokenEnd
	}
	c := sql[i]
	class := chars[c]
	switch {
	case class&charStart != 0:
		if next := l.at(i + 1); next == '\'' || next == '&' {
			if kind, ok := l.prefixed(c | 0x20); ok {
				return kind
			}
		}
		for i++; i < len(sql) && chars[sql[i]]&charCont != 0; i++ {
		}
		l.pos = i
		return tokenWord
	case class&charDigit != 0:
		return l.number()
	case c == '\'':
		return l.quoted(i, plainString)
	case c == '"':
		return l.identifier(i)
	case c == '$':
		return l.dollar()
	case class&charMark != 0:
		next := l.at(i + 1)
		switch {
		case c == '.' && next >= '0' && next <= '9':
			return l.number()
		case c == '.' && next == '.' && !l.dots:
			return tokenBad
		case c == '.' && next == '.':
			i++
		case c == ':' && (next == ':' || next == '='):
			i++
		}
		l.pos = i + 1
		return tokenMark
	case class&charOp != 0:
		n := operatorLen(sql[i:])
		if n > maxOperator {
			return tokenBad
		}
		l.pos = i + n
		return tokenOp
	}
	return tokenBad
}

// operatorLen is the length of the operator that s begins with. A comment ends
// it, and + and - may end a longer operator only if it has a character that
// SQL's own operators do not use. More than maxOperator means too long.
func operatorLen(s string) int {
	n := 1
	for n < len(s) && chars[s[n]]&charOp != 0 {
		if s[n] == '-' && s[n-1] == '-' || s[n] == '*' && s[n-1] == '/' {
			n--
			break
		}
		if n++; n > maxOperator {
			return n
		}
	}
	if n > 1 && (s[n-1] == '+' || s[n-1] == '-') && !strings.ContainsAny(s[:n-1], "~!@#^&|`?%") {
		for n > 1 && (s[n-1] == '+' || s[n-1] == '-') {
			n--
		}
	}
	return n
}

// identifier reads "…", which ends at a quote that is not doubled.
func (l *lexer) identifier(i int) tokenKind {
	for i++; i < len(l.sql); i++ {
		if l.sql[i] == '"' {
			if l.at(i+1) != '"' {
				l.pos = i + 1
				return tokenQuoted
			}
			i++
		}
	}
	return tokenBad
}

// prefixed reads what begins with a letter that may belong to a string.
func (l *lexer) prefixed(letter byte) (tokenKind, bool) {
	i := l.start
	if l.sql[i+1] == '&' {
		if letter != 'u' {
			return 0, false
		}
		switch l.at(i + 2) {
		case '\'':
			l.unicode = true
			return l.quoted(i+2, unicodeString), true
		case '"':
			l.unicode = true
			return l.identifier(i + 2), true
		}
		return 0, false
	}
	switch letter {
	case 'e':
		return l.quoted(i+1, escapeString), true
	case 'b', 'x':
		return l.quoted(i+1, bitString), true
	case 'n':
		// N'…' is NCHAR '…' to PostgreSQL: a keyword, then a string.
		l.pos = i + 1
		return tokenWord, true
	}
	return 0, false
}

// dollar reads $1 or a dollar-quoted string.
func (l *lexer) dollar() tokenKind {
	sql, i := l.sql, l.start+1
	if chars[l.at(i)]&charDigit != 0 {
		for ; i < len(sql) && chars[sql[i]]&charDigit != 0; i++ {
		}
		// More digits than any parameter number has would overflow in
		// PostgreSQL, and letters behind it are an error in some versions.
		if i-l.start > 6 || chars[l.at(i)]&charCont != 0 {
			return tokenBad
		}
		l.pos = i
		return tokenParam
	}
	for ; i < len(sql) && sql[i] != '$'; i++ {
		if c := chars[sql[i]]; c&charCont == 0 || i == l.start+1 && c&charStart == 0 {
			return tokenBad
		}
	}
	if i >= len(sql) {
		return tokenBad
	}
	body := i + 1
	delimiter := sql[l.start:body]
	n := strings.Index(sql[body:], delimiter)
	if n < 0 {
		return tokenBad
	}
	l.class, l.value = String, sql[body:body+n]
	l.pos = body + n + len(delimiter)
	return tokenLiteral
}
