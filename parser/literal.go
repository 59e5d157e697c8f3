package parser

import (
	"strings"
	"unicode/utf8"
)

// number reads an integer, a decimal or a float. The value of an Integer has
// no leading zeros; that of a Number is as it was written.
func (l *lexer) number() tokenKind {
	sql, i := l.sql, l.start
	if sql[i] == '0' {
		if digits := radix(l.at(i + 1)); digits != "" {
			return l.numeral(digits)
		}
	}
	digits := func() {
		for i < len(sql) && chars[sql[i]]&charDigit != 0 {
			i++
		}
	}
	l.class = Integer
	digits()
	if l.at(i) == '_' {
		return l.numeral("0123456789")
	}
	if l.at(i) == '.' && l.at(i+1) == '.' && !l.dots {
		return tokenBad
	}
	if l.at(i) == '.' && l.at(i+1) != '.' {
		l.class = Number
		i++
		digits()
	}
	if c := l.at(i); c == 'e' || c == 'E' {
		l.class = Number
		i++
		if c := l.at(i); c == '+' || c == '-' {
			i++
		}
		if chars[l.at(i)]&charDigit == 0 {
			return tokenBad
		}
		digits()
	}
	if chars[l.at(i)]&charCont != 0 {
		return tokenBad // 1a: an error, or 1 AS a before PostgreSQL 15
	}
	l.pos = i
	l.value = sql[l.start:i]
	if l.class == Integer {
		l.value = strings.TrimLeft(l.value, "0")
		switch n := len(l.value); {
		case n == 0:
			l.value = "0"
		case n > 10 || n == 10 && l.value > "2147483647":
			l.class = Number
		}
	}
	return tokenLiteral
}

// radix gives the digits that may follow 0x, 0o and 0b.
func radix(letter byte) string {
	switch letter {
	case 'x', 'X':
		return "0123456789abcdefABCDEF"
	case 'o', 'O':
		return "01234567"
	case 'b', 'B':
		return "01"
	}
	return ""
}

// numeral reads a number that only PostgreSQL 16 and later takes for one
// token. It is no literal: earlier versions see 0 and an alias x1f, so texts
// that differ in it must stay different.
func (l *lexer) numeral(digits string) tokenKind {
	i, sql := l.start, l.sql
	if len(digits) != 10 {
		i += 2
	}
	begin := i
	for i < len(sql) {
		if sql[i] == '_' && len(digits) != 10 || sql[i] == '_' && i > begin {
			i++
		}
		if i >= len(sql) || strings.IndexByte(digits, sql[i]) < 0 {
			return tokenBad
		}
		for i < len(sql) && strings.IndexByte(digits, sql[i]) >= 0 {
			i++
		}
		if i >= len(sql) || sql[i] != '_' {
			break
		}
	}
	if i == begin || i < len(sql) && (chars[sql[i]]&charCont != 0 || sql[i] == '.') {
		return tokenBad
	}
	l.pos = i
	return tokenNumeral
}

// stringForm is how the inside of a quoted string is read.
type stringForm uint8

const (
	plainString   stringForm = iota // '…', where only '' is special
	escapeString                    // E'…'
	unicodeString                   // U&'…'
	bitString                       // B'…' and X'…', where nothing is special
)

// quoted reads the string whose first quote is at i, with its continuations
// on later lines.
func (l *lexer) quoted(i int, form stringForm) tokenKind {
	sql := l.sql
	var buf []byte // the value, once it is more than a part of sql
	l.class = String
	if form == bitString {
		l.class = BitString
		buf = append(buf, sql[l.start]|0x20)
	}
	for {
		body := i + 1
		end, special := stringEnd(sql, body, form)
		if end < 0 {
			return tokenBad
		}
		i = l.continuation(end + 1)
		if !special && buf == nil && i < 0 {
			l.value, l.pos = sql[body:end], end+1
			return tokenLiteral
		}
		var ok bool
		if buf, ok = unescape(buf, sql[body:end], form); !ok {
			return tokenBad
		}
		if i < 0 {
			l.pos = end + 1
			break
		}
		if buf == nil {
			buf = []byte{}
		}
	}
	if form == unicodeString {
		// The escapes are replaced behind the lexer, when all parts are joined.
		var ok bool
		if buf, ok = unicodeEscapes(string(buf)); !ok {
			return tokenBad
		}
	}
	l.value = string(buf)
	if form == escapeString && (!utf8.ValidString(l.value) || strings.IndexByte(l.value, 0) >= 0) {
		return tokenBad
	}
	return tokenLiteral
}

// stringEnd finds the quote that ends the part beginning at i, and says
// whether the part is anything but its own value.
func stringEnd(sql string, i int, form stringForm) (end int, special bool) {
	special = form == unicodeString
	for ; i < len(sql); i++ {
		switch sql[i] {
		case '\'':
			if form == bitString || i+1 >= len(sql) || sql[i+1] != '\'' {
				return i, special
			}
			special = true
			i++
		case '\\':
			if form == escapeString {
				special = true
				i++
			}
		}
	}
	return -1, false
}

// continuation finds the quote that goes on with the string that ended before
// i: only white space with a line break and -- comments may be between. It is
// -1 when there is none.
func (l *lexer) continuation(i int) int {
	sql := l.sql
	if i >= len(sql) || sql[i] == ',' || sql[i] == ')' {
		return -1
	}
	line := false
	from := i
	for i < len(sql) {
		switch c := sql[i]; {
		case c == '\n' || c == '\r':
			line = true
			i++
		case chars[c]&charSpace != 0:
			i++
		case c == '-' && l.at(i+1) == '-':
			i = lineEnd(sql, i)
			if i == len(sql) {
				return -1
			}
		case c == '\'' && line:
			if n := strings.Index(sql[from:i], "--"); n >= 0 {
				// PostgreSQL joins the parts, but the parser library, which
				// has comments as tokens, does not.
				l.doubtful = true
				l.comments(sql[from+n : i])
			}
			return i
		default:
			return -1
		}
	}
	return -1
}

// comments reads the hints of the -- comments in white space.
func (l *lexer) comments(s string) {
	for i := strings.Index(s, "--"); i >= 0; i = strings.Index(s, "--") {
		end := lineEnd(s, i)
		l.comment(s[i+2 : end])
		s = s[end:]
	}
}

// unescape appends the value of one part of a string.
func unescape(buf []byte, s string, form stringForm) ([]byte, bool) {
	if form == bitString {
		return append(buf, s...), true
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\'' {
			i++ // it is doubled
		} else if c == '\\' && form == escapeString {
			var ok bool
			if buf, i, ok = escape(buf, s, i+1); !ok {
				return nil, false
			}
			continue
		}
		buf = append(buf, c)
	}
	return buf, true
}

// escape appends what the escape whose letter is at i stands for, and gives
// the index of its last byte.
func escape(buf []byte, s string, i int) ([]byte, int, bool) {
	if i >= len(s) {
		return nil, 0, false
	}
	hex := func(from, most int) (v rune, n int) {
		for n < most && from+n < len(s) && chars[s[from+n]]&charHex != 0 {
			v = v<<4 | rune(hexValue(s[from+n]))
			n++
		}
		return v, n
	}
	switch c := s[i]; c {
	case 'b':
		return append(buf, '\b'), i, true
	case 'f':
		return append(buf, '\f'), i, true
	case 'n':
		return append(buf, '\n'), i, true
	case 'r':
		return append(buf, '\r'), i, true
	case 't':
		return append(buf, '\t'), i, true
	case 'v':
		// PostgreSQL's versions disagree: before 16 it is a plain v.
		return nil, 0, false
	case 'x':
		v, n := hex(i+1, 2)
		if n == 0 {
			return append(buf, 'x'), i, true
		}
		return append(buf, byte(v)), i + n, true
	case 'u', 'U':
		want := 4
		if c == 'U' {
			want = 8
		}
		v, n := hex(i+1, want)
		if n != want || v <= 0 || !utf8.ValidRune(v) {
			return nil, 0, false
		}
		return utf8.AppendRune(buf, v), i + n, true
	case '0', '1', '2', '3', '4', '5', '6', '7':
		v, n := 0, 0
		for n < 3 && i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '7' {
			v = v<<3 | int(s[i+n]-'0')
			n++
		}
		return append(buf, byte(v)), i + n - 1, true
	default:
		return append(buf, c), i, true
	}
}

// unicodeEscapes replaces \XXXX and \+XXXXXX; surrogates are left to PostgreSQL.
func unicodeEscapes(s string) ([]byte, bool) {
	buf := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			buf = append(buf, s[i])
			continue
		}
		i++
		n := 4
		switch {
		case i < len(s) && s[i] == '\\':
			buf = append(buf, '\\')
			continue
		case i < len(s) && s[i] == '+':
			i++
			n = 6
		}
		if i+n > len(s) {
			return nil, false
		}
		var v rune
		for _, c := range []byte(s[i : i+n]) {
			if chars[c]&charHex == 0 {
				return nil, false
			}
			v = v<<4 | rune(hexValue(c))
		}
		if v == 0 || !utf8.ValidRune(v) {
			return nil, false
		}
		buf = utf8.AppendRune(buf, v)
		i += n - 1
	}
	return buf, true
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}
