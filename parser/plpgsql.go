package parser

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// PL/pgSQL is read as PostgreSQL's pl_gram.y reads it: the language's own words
// are few and reserved, and what stands between them is SQL up to the next such
// word outside brackets. Every piece of SQL goes to Parse. What does not fit is
// not understood; nothing is guessed.

// plToken is one of a function's text.
type plToken struct {
	kind       tokenKind
	start, end int
	word       string // of a tokenWord in lower case, of a mark or operator itself
}

// plReader reads a PL/pgSQL function from its tokens.
type plReader struct {
	source string
	tokens []plToken
	at     int
	depth  int
	body   Body
	failed bool
}

// maxBlocks bounds statements in one another.
const maxBlocks = 100

func parsePLpgSQL(source string) (*Body, error) {
	if !utf8.ValidString(source) || strings.IndexByte(source, 0) >= 0 {
		return nil, errNotText
	}
	r := plReader{source: source}
	l := lexer{sql: source, dots: true}
	for l.next() != tokenEnd {
		t := plToken{kind: l.kind, start: l.start, end: l.pos}
		switch l.kind {
		case tokenBad:
			return nil, errBody
		case tokenWord:
			t.word = folded(source[t.start:t.end])
		case tokenMark, tokenOp:
			t.word = source[t.start:t.end]
		}
		r.tokens = append(r.tokens, t)
	}
	for r.is("#") { // #option dump, #variable_conflict use_column
		r.at += 3
	}
	r.label()
	r.block()
	if r.is(";") {
		r.at++
	}
	if r.failed || r.at != len(r.tokens) {
		return nil, errBody
	}
	return &r.body, nil
}

// fail makes the text one that is not understood, and ends the reading.
func (r *plReader) fail() {
	r.failed = true
	r.at = len(r.tokens)
}

// is reports whether the next token is one of the words, unquoted.
func (r *plReader) is(words ...string) bool {
	return r.at < len(r.tokens) && r.tokens[r.at].word != "" && slices.Contains(words, r.tokens[r.at].word)
}

// accept takes the next token if it is the word.
func (r *plReader) accept(word string) bool {
	if !r.is(word) {
		return false
	}
	r.at++
	return true
}

func (r *plReader) expect(words ...string) {
	for _, w := range words {
		if !r.accept(w) {
			r.fail()
			return
		}
	}
}

// label skips <<name>>.
func (r *plReader) label() {
	if r.accept("<<") {
		r.name()
		r.expect(">>")
	}
}

// name skips an identifier.
func (r *plReader) name() {
	if r.at == len(r.tokens) || r.tokens[r.at].kind != tokenWord && r.tokens[r.at].kind != tokenQuoted {
		r.fail()
		return
	}
	r.at++
}

// isRow reports whether a token is, or may be, the name NEW or OLD.
func (r *plReader) isRow(t plToken) bool {
	if t.kind != tokenWord && t.kind != tokenQuoted {
		return false
	}
	name := r.identifier(t)
	return name == "new" || name == "old" || r.source[t.start] != '"' && t.kind == tokenQuoted
}

// identifier is a token as a name of a column, "" if it is none that is known:
// PostgreSQL cuts long ones, and folds others by its locale.
func (r *plReader) identifier(t plToken) string {
	name := r.source[t.start:t.end]
	switch {
	case t.kind == tokenWord:
		name = t.word
	case t.kind == tokenQuoted && name[0] == '"':
		name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
	default:
		return ""
	}
	if len(name) > 63 || strings.IndexFunc(name, func(r rune) bool { return r >= 0x80 }) >= 0 {
		return ""
	}
	return name
}

// folded is a word in lower case, as far as it is ASCII.
func folded(word string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r |= 0x20
		}
		return r
	}, word)
}

// until takes the tokens before the next one of the words outside brackets. It
// fails where there is none, and where a semicolon comes first.
func (r *plReader) until(words ...string) []plToken {
	begin, depth := r.at, 0
	for ; r.at < len(r.tokens); r.at++ {
		t := r.tokens[r.at]
		if depth == 0 && t.word != "" && slices.Contains(words, t.word) {
			return r.tokens[begin:r.at]
		}
		switch t.word {
		case "(", "[":
			depth++
		case ")", "]":
			depth--
		case ";":
			r.fail()
			return nil
		}
	}
	r.fail()
	return nil
}

func (r *plReader) text(tokens []plToken) string {
	if len(tokens) == 0 {
		return ""
	}
	return r.source[tokens[0].start:tokens[len(tokens)-1].end]
}

// sql adds the facts of one command.
func (r *plReader) sql(text string) {
	statements, err := parse(text, nil, MaxList, true)
	if err != nil || len(statements) != 1 {
		r.fail()
		return
	}
	r.body.Statements = append(r.body.Statements, statements...)
}

// expr adds the facts of an expression, or of what may follow SELECT.
func (r *plReader) expr(tokens []plToken) {
	if len(tokens) == 0 {
		r.fail()
		return
	}
	r.sql("SELECT " + r.text(tokens))
}

// block reads [DECLARE …] BEGIN … [EXCEPTION …] END [label], behind its label.
func (r *plReader) block() {
	if r.accept("declare") {
		for !r.failed && !r.is("begin") {
			if !r.accept("declare") {
				r.declaration()
			}
		}
	}
	r.expect("begin")
	r.statements("end", "exception")
	if r.accept("exception") {
		for r.is("when") {
			r.at++
			r.until("then") // names of conditions
			r.expect("then")
			r.statements("when", "end")
		}
	}
	r.expect("end")
	if !r.failed && r.at < len(r.tokens) && !r.is(";") {
		r.name()
	}
}

// declaration reads one variable, alias or cursor.
func (r *plReader) declaration() {
	if r.is("<<") { // a label behind DECLARE belongs to nothing that is known
		r.fail()
		return
	}
	if r.at < len(r.tokens) && r.isRow(r.tokens[r.at]) {
		r.fail() // it hides a trigger's row
	}
	r.name()
	tokens := r.until(";")
	r.expect(";")
	if r.failed {
		return
	}
	cursor := slices.IndexFunc(tokens, func(t plToken) bool { return t.word == "cursor" })
	switch {
	case len(tokens) > 2 && tokens[0].word == "alias":
		for _, t := range tokens {
			r.body.AssignsAll = r.body.AssignsAll || r.isRow(t)
		}
	case cursor >= 0 && cursor <= 2:
		rest := tokens[cursor+1:]
		if i := indexOutside(rest, "for", "is"); i >= 0 {
			r.query(rest[i+1:])
			return
		}
		r.fail()
	default:
		if i := indexOutside(tokens, "default", ":=", "="); i >= 0 {
			r.expr(tokens[i+1:])
		}
	}
}

// indexOutside finds the first of the words outside brackets.
func indexOutside(tokens []plToken, words ...string) int {
	depth := 0
	for i, t := range tokens {
		switch {
		case depth == 0 && t.word != "" && slices.Contains(words, t.word):
			return i
		case t.word == "(" || t.word == "[":
			depth++
		case t.word == ")" || t.word == "]":
			depth--
		}
	}
	return -1
}

// statements reads statements up to one of the words, which it leaves.
func (r *plReader) statements(ends ...string) {
	if r.depth++; r.depth > maxBlocks {
		r.fail()
	}
	for !r.failed && !r.is(ends...) {
		if r.at == len(r.tokens) {
			r.fail()
			break
		}
		r.statement()
	}
	r.depth--
}

func (r *plReader) statement() {
	r.label()
	switch {
	case r.failed:
	case r.at == len(r.tokens):
		r.fail()
	case r.is("declare", "begin"):
		r.block()
		r.expect(";")
	case r.accept("if"):
		r.conditional()
	case r.accept("case"):
		r.choice()
	case r.accept("loop"):
		r.loop()
	case r.accept("while"):
		r.expr(r.until("loop"))
		r.expect("loop")
		r.loop()
	case r.accept("for"):
		r.each()
	case r.accept("foreach"):
		r.assigned(r.until("in"))
		r.expect("in", "array")
		r.expr(r.until("loop"))
		r.expect("loop")
		r.loop()
	default:
		r.simple()
	}
}

// conditional reads IF behind its first word.
func (r *plReader) conditional() {
	for {
		r.expr(r.until("then"))
		r.expect("then")
		r.statements("elsif", "elseif", "else", "end")
		if !r.accept("elsif") && !r.accept("elseif") {
			break
		}
	}
	if r.accept("else") {
		r.statements("end")
	}
	r.expect("end", "if", ";")
}

// choice reads CASE behind its first word.
func (r *plReader) choice() {
	subject := r.until("when")
	if len(subject) > 0 {
		r.expr(subject)
	}
	for r.accept("when") {
		value := r.until("then")
		switch {
		case len(value) == 0:
			r.fail()
		case len(subject) > 0:
			r.sql("SELECT (" + r.text(subject) + ") IN (" + r.text(value) + ")") // as PostgreSQL compares them
		default:
			r.expr(value)
		}
		r.expect("then")
		r.statements("when", "else", "end")
	}
	if r.accept("else") {
		r.statements("end")
	}
	r.expect("end", "case", ";")
}

// loop reads the statements of a loop behind LOOP.
func (r *plReader) loop() {
	r.statements("end")
	r.expect("end", "loop")
	if !r.is(";") {
		r.name()
	}
	r.expect(";")
}

// each reads FOR behind its first word: over integers, a query, or a cursor.
func (r *plReader) each() {
	r.assigned(r.until("in"))
	r.expect("in")
	tokens := r.until("loop")
	r.expect("loop")
	if r.failed || len(tokens) == 0 {
		r.fail()
		return
	}
	switch i := indexOutside(tokens, ".."); {
	case i >= 0:
		if tokens[0].word == "reverse" {
			tokens, i = tokens[1:], i-1
		}
		r.expr(tokens[:i])
		rest := tokens[i+1:]
		if by := indexOutside(rest, "by"); by >= 0 {
			r.expr(rest[by+1:])
			rest = rest[:by]
		}
		r.expr(rest)
	case tokens[0].word == "execute":
		r.body.Dynamic = true
	case len(tokens) == 1: // a cursor, whose query was declared
	case tokens[1].word == "(" && tokens[0].kind != tokenMark: // a cursor and its arguments
		if tokens[len(tokens)-1].word != ")" {
			r.fail()
		} else if arguments := tokens[2 : len(tokens)-1]; len(arguments) > 0 {
			r.arguments(arguments)
		}
	default:
		r.query(tokens)
	}
	r.loop()
}

// query reads a query, which may stand in brackets.
func (r *plReader) query(tokens []plToken) {
	switch {
	case len(tokens) == 0:
		r.fail()
	case tokens[0].word == "execute":
		r.body.Dynamic = true
	default:
		r.sql(r.text(tokens))
	}
}

// arguments reads those of a cursor, which may be named.
func (r *plReader) arguments(tokens []plToken) {
	for len(tokens) > 0 {
		end := indexOutside(tokens, ",")
		one := tokens
		if end >= 0 {
			one, tokens = tokens[:end], tokens[end+1:]
		} else {
			tokens = nil
		}
		if len(one) > 2 && (one[1].word == ":=" || one[1].word == "=" && one[2].word == ">" || one[1].word == "=>") {
			one = one[2:]
		}
		r.expr(one)
	}
}

// assigned notes what a list of variables says of NEW and OLD.
func (r *plReader) assigned(tokens []plToken) {
	for i, t := range tokens {
		if !r.isRow(t) {
			continue
		}
		column := ""
		if r.identifier(t) == "new" && i+2 < len(tokens) && (i == 0 || tokens[i-1].word != ".") && tokens[i+1].word == "." {
			column = r.identifier(tokens[i+2])
		}
		if column == "" {
			r.body.AssignsAll = true
		} else {
			r.body.Assigns = append(r.body.Assigns, column)
		}
	}
}
