// Package psql reads scripts for PostgreSQL's psql, so that tests can use them without it.
package psql

import (
	"regexp"
	"slices"
	"strings"
)

// Script cuts a text for psql into what psql would send, one step at a time,
// because what a step does decides how the next one is read: \gset sets
// variables, and data follows a COPY.
type Script struct {
	text string
	pos  int
	line int // of pos, from 1
	Vars map[string]string

	backslashes bool // standard_conforming_strings is off
}

// Step is one statement, or one command of psql's own.
type Step struct {
	Line    int
	SQL     string   // without the semicolon; statements joined by \; are one
	Command string   // such as \gset; SQL is then what it is about, if anything
	Data    []string // what follows a COPY … FROM STDIN
	Notes   []string // the comments "-- expect: …" and "-- run: …" above it
}

// New returns a script that is read from its beginning.
func New(text string) *Script {
	return &Script{text: text, line: 1, Vars: make(map[string]string)}
}

var (
	// CopyFromStdin matches a COPY that is followed by data.
	CopyFromStdin = regexp.MustCompile(`(?is)^copy\b.*\bfrom\s+std(?:in|out)\b`)
	conforming    = regexp.MustCompile(`(?i)^\s*set\s+(?:session\s+|local\s+)?standard_conforming_strings\s*(?:=|to)\s*'?(\w+)`)
	notData       = regexp.MustCompile(`^\s*(--|\\[a-z]|(?i:copy|select|create|drop|insert|update|delete|truncate|alter|set|reset|begin)\b.*;)`)
	noteComment   = regexp.MustCompile(`^-- ((?:expect|run): .*)$`)
)

// Next reads one step; false at the end of the text.
func (s *Script) Next() (st Step, ok bool) {
	var b strings.Builder
	var words []string // the first ones, to know the body of a BEGIN ATOMIC
	parens, blocks := 0, 0
	st.Line = 0
	blank := func() bool { return strings.TrimSpace(b.String()) == "" }
	for s.pos < len(s.text) {
		rest := s.text[s.pos:]
		switch ch := rest[0]; {
		case strings.HasPrefix(rest, "--"):
			comment, _, _ := strings.Cut(rest, "\n")
			if m := noteComment.FindStringSubmatch(comment); m != nil && blank() {
				st.Notes = append(st.Notes, m[1])
			}
			s.take(&b, len(comment), !blank())
			continue
		case strings.HasPrefix(rest, "/*"):
			s.take(&b, commentLength(rest), true)
			continue
		case ch == '\'':
			escapes := s.backslashes
			if before := b.String(); before != "" {
				if e := before[len(before)-1]; (e == 'e' || e == 'E') && (len(before) == 1 || !isWord(before[len(before)-2])) {
					escapes = true
				}
			}
			s.take(&b, QuotedLength(rest, '\'', escapes), true)
			continue
		case ch == '"':
			s.take(&b, QuotedLength(rest, '"', false), true)
			continue
		case ch == '$' && !endsInWord(b.String()):
			if m := dollarTag.FindString(rest); m != "" {
				n := len(rest)
				if end := strings.Index(rest[len(m):], m); end >= 0 {
					n = end + 2*len(m)
				}
				if blank() {
					st.Line = s.line
				}
				s.take(&b, n, true)
				continue
			}
		case ch == '\\' && strings.HasPrefix(rest, `\;`):
			s.take(&b, 2, false)
			b.WriteByte(';')
			continue
		case ch == '\\':
			command, _, _ := strings.Cut(rest, "\n")
			line := s.line
			s.take(&b, len(command), false)
			st.Command = strings.TrimSpace(command)
			if st.Line == 0 {
				st.Line = line
			}
			if sends := slices.Contains([]string{`\g`, `\gx`, `\gset`, `\gexec`, `\gdesc`, `\crosstabview`}, FirstWord(command)); sends || blank() {
				st.SQL = strings.TrimSpace(b.String())
				return st, true
			}
			st.Command = "" // one that prints or sets, in the middle of a statement
			continue
		case ch == ':' && !strings.HasPrefix(rest, "::"):
			if n := s.Variable(&b, rest); n > 0 {
				s.take(&b, n, false)
				continue
			}
		case ch == ':':
			s.take(&b, 2, true)
			continue
		case ch == '(':
			parens++
		case ch == ')':
			parens--
		case ch == ';' && parens <= 0 && blocks == 0:
			s.take(&b, 1, false)
			if blank() {
				b.Reset()
				words = nil
				continue
			}
			st.SQL = strings.TrimSpace(b.String())
			s.after(&st)
			return st, true
		case isWord(ch) && !endsInWord(b.String()):
			if blank() {
				b.Reset()
				st.Line = s.line
			}
			n := 1
			for n < len(rest) && isWord(rest[n]) {
				n++
			}
			word := strings.ToLower(rest[:n])
			if len(words) < 4 {
				words = append(words, word)
			}
			if makesRoutine(words) && parens == 0 {
				switch {
				case word == "begin", word == "case" && blocks > 0:
					blocks++
				case word == "end" && blocks > 0:
					blocks--
				}
			}
			if n < len(rest) && rest[n] == '\'' && strings.HasSuffix(word, "e") && n == 1 {
				s.take(&b, n, true) // E'…': the quote sees it
				continue
			}
			s.take(&b, n, true)
			continue
		}
		s.take(&b, 1, true)
	}
	if st.SQL = strings.TrimSpace(b.String()); st.SQL == "" {
		return st, false
	}
	return st, true
}

// take moves over n bytes, and keeps them if they are part of the statement.
func (s *Script) take(b *strings.Builder, n int, keep bool) {
	part := s.text[s.pos : s.pos+n]
	if keep {
		b.WriteString(part)
	}
	s.line += strings.Count(part, "\n")
	s.pos += n
}

// after reads what follows a statement in the text because of it.
func (s *Script) after(st *Step) {
	if m := conforming.FindStringSubmatch(st.SQL); m != nil {
		s.backslashes = strings.EqualFold(m[1], "off")
	}
	if !CopyFromStdin.MatchString(WithoutComments(st.SQL)) {
		return
	}
	// A COPY that PostgreSQL refuses has no data behind it.
	_, rest, _ := strings.Cut(s.text[s.pos:], "\n")
	lines := strings.SplitAfter(rest, "\n")
	for i, line := range lines {
		text := strings.TrimRight(line, "\r\n")
		if text == `\.` {
			for _, data := range lines[:i] {
				st.Data = append(st.Data, strings.TrimSuffix(data, "\n"))
			}
			if st.Data == nil {
				st.Data = []string{}
			}
			var nothing strings.Builder
			s.take(&nothing, len(s.text)-s.pos-len(rest)+len(strings.Join(lines[:i+1], "")), false)
			return
		}
		if notData.MatchString(text) {
			return
		}
	}
}

var variableName = regexp.MustCompile(`^:(?:'(\w+)'|"(\w+)"|(\w+))`)

// Variable writes the value of a variable and returns the length of its name.
func (s *Script) Variable(b *strings.Builder, rest string) int {
	m := variableName.FindStringSubmatch(rest)
	if m == nil {
		return 0
	}
	value, set := s.Vars[m[1]+m[2]+m[3]]
	switch {
	case !set:
		return 0
	case m[1] != "":
		b.WriteString("'" + strings.ReplaceAll(value, "'", "''") + "'")
	case m[2] != "":
		b.WriteString(`"` + strings.ReplaceAll(value, `"`, `""`) + `"`)
	default:
		b.WriteString(value)
	}
	return len(m[0])
}

var dollarTag = regexp.MustCompile(`^\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$`)

// makesRoutine: PostgreSQL's psql counts BEGIN and END only in these.
func makesRoutine(words []string) bool {
	if len(words) == 0 || words[0] != "create" {
		return false
	}
	i := 1
	if len(words) > 3 && words[1] == "or" && words[2] == "replace" {
		i = 3
	}
	return len(words) > i && (words[i] == "function" || words[i] == "procedure")
}

// QuotedLength is the length of what a quote begins, up to the one that ends it.
func QuotedLength(s string, quote byte, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == quote:
			return i + 1 // a doubled quote begins another one
		}
	}
	return len(s)
}

func commentLength(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

func isWord(b byte) bool {
	return b == '_' || b == '$' || b >= 0x80 || b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z'
}

func endsInWord(s string) bool { return s != "" && isWord(s[len(s)-1]) }

// FirstWord is the first word of a statement, "" if there is none.
func FirstWord(s string) string {
	if fields := strings.Fields(s); len(fields) > 0 {
		return fields[0]
	}
	return ""
}

// WithoutComments is good enough to know a statement by its first words.
func WithoutComments(s string) string {
	for {
		s = strings.TrimLeft(s, " \t\r\n(")
		switch {
		case strings.HasPrefix(s, "--"):
			_, s, _ = strings.Cut(s, "\n")
		case strings.HasPrefix(s, "/*"):
			s = s[commentLength(s):]
		default:
			return s
		}
	}
}
