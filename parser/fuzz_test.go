package parser

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// corpus is every text of the transcripts.
func corpus(t testing.TB) []string {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, file := range files {
		for _, b := range readTranscript(t, file) {
			texts = append(texts, strings.TrimSuffix(b.text, "\n"))
		}
	}
	return texts
}

// TestCorpus holds every text of the transcripts against the oracles.
func TestCorpus(t *testing.T) {
	for _, sql := range corpus(t) {
		checkScan(t, sql)
		checkParse(t, sql)
	}
}

func FuzzScan(f *testing.F) {
	for _, sql := range corpus(f) {
		f.Add(sql)
	}
	// Where tokens end: comments in operators, signs behind operators, dots.
	f.Add("a+--b\n-c*-/*x*/d@-e.f..g.5.h::i:=j=>k")
	// Placeholders, and what looks like them.
	f.Add(`a$int "$str" $bit$ $num$ '$int' $1$int`)
	// Continued strings of every form, with and without comments between.
	f.Add("'a' -- x\n'b' E'c'\n'\\'' B'1'\r'0' N'd'\t\f\n'e' U&'\\0041'\n'\\+000042'")
	// A prefix is one only directly before the quote.
	f.Add("e 'a' be'a' b\"a\" n\"a\" u&a U&\"a\" u &'a' $e$'$e$'x'1'")
	// Numbers that end in the middle of something.
	f.Add("1e 1e+ 1.e5 1. .5.5 0x 0x_ 1_ 1__0 00x1 2147483647 2147483648 $1_")
	// Brackets that do not match, with ordinals and float(n) in them.
	f.Add("order by 1,(2,3),4) ,5 float(1) float ( 2 ) \"float\"(3) float(-4)")
	// The name of a setting, in every form of a string.
	f.Add(`set_config($$a$$) set_config('b''c') set_config(E'd\'\\') set_config(U&'\0041') set_config(n'e')`)
	f.Fuzz(func(t *testing.T, sql string) { checkScan(t, sql) })
}

func FuzzParse(f *testing.F) {
	for _, sql := range corpus(f) {
		f.Add(sql)
	}
	// Writes at places where only reads are expected; the grammar must refuse
	// them or the facts must have them.
	f.Add("SELECT (WITH x AS (DELETE FROM a RETURNING 1) SELECT * FROM x)")
	f.Add("SELECT * FROM (WITH x AS (INSERT INTO a VALUES (1) RETURNING *) SELECT * FROM x FOR UPDATE) s")
	f.Add("INSERT INTO a WITH x AS (UPDATE b SET c = 1 RETURNING *) SELECT * FROM x")
	f.Add("COPY (WITH x AS (MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE) SELECT 1) TO STDOUT")
	f.Add("EXPLAIN ANALYZE WITH x AS (DELETE FROM a) SELECT INTO t FROM x")
	f.Fuzz(func(t *testing.T, sql string) { checkParse(t, sql) })
}

// token is a token as it is compared: in lower case when case has no meaning.
type token struct {
	kind tokenKind
	text string
}

// tokens cuts a text and gives what each token stands for.
func tokens(sql string) (list []token, spans [][2]int, ok bool) {
	l := lexer{sql: sql}
	for {
		switch l.next() {
		case tokenEnd:
			return list, spans, true
		case tokenBad:
			return nil, nil, false
		}
		text := sql[l.start:l.pos]
		switch l.kind {
		case tokenWord:
			text = strings.Map(func(r rune) rune {
				if r >= 'A' && r <= 'Z' {
					return r + 'a' - 'A'
				}
				return r
			}, text)
			if text == "n" && l.at(l.pos) == '\'' {
				text = "nchar"
			}
		case tokenLiteral:
			text = places[l.class]
			if l.class == Integer {
				// Some integers stay in the text, so their value counts here.
				text = l.value
			}
		}
		list = append(list, token{l.kind, text})
		spans = append(spans, [2]int{l.start, l.pos})
	}
}

// fill puts literals where a normalised text has placeholders.
func fill(text string, literals []Literal) string {
	var out strings.Builder
	next := 0
	for i := 0; i < len(text); i++ {
		if quote := text[i]; quote == '"' || quote == '\'' { // a name, or a string that is kept: up to its end, where "" is an end and a begin
			n := strings.IndexByte(text[i+1:], quote) + 2
			out.WriteString(text[i : i+n])
			i += n - 1
			continue
		}
		if text[i] == '$' && (i == 0 || chars[text[i-1]]&charCont == 0) && (i+1 < len(text) && chars[text[i+1]]&charDigit == 0) {
			l := literals[next]
			switch next++; l.Kind {
			case Integer, Number:
				out.WriteString(l.Text)
			case String:
				out.WriteString("'" + strings.ReplaceAll(l.Text, "'", "''") + "'")
			case BitString:
				out.WriteString(l.Text[:1] + "'" + l.Text[1:] + "'")
			}
			i += len(placeInteger) - 1
			continue
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// checkScan holds Scan against its promises: the normalised text has the same
// tokens as the text, so texts with different tokens never share one; and
// PostgreSQL's own scanner cuts the text in the same way.
func checkScan(t testing.TB, sql string) {
	s, ok := Scan(sql)
	if !ok {
		return
	}
	want, spans, ok := tokens(sql)
	if !ok {
		t.Fatalf("%q: scanned, but not cut into tokens", sql)
	}
	filled := fill(s.Text, s.Literals)
	got, _, ok := tokens(filled)
	if !ok || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q: normalised to %q, which has tokens %v, want %v", sql, s.Text, got, want)
	}
	again, ok := Scan(filled)
	if !ok || again.Text != s.Text || len(again.Literals) != len(s.Literals) {
		t.Fatalf("%q: normalised to %q and then to %q", sql, s.Text, again.Text)
	}
	for i, l := range again.Literals {
		if o := s.Literals[i]; l.Kind != o.Kind || l.Text != o.Text {
			t.Fatalf("%q: literal %d became %v from %v", sql, i, l, o)
		}
	}
	if len(sql) < 1<<16 {
		checkScanner(t, sql, spans)
	}
}

// checkScanner compares token boundaries with PostgreSQL's.
func checkScanner(t testing.TB, sql string, spans [][2]int) {
	result, err := pg.Scan(sql)
	if err != nil {
		return // the caller only loses a text that PostgreSQL refuses
	}
	var want [][2]int
	for _, k := range result.Tokens {
		if k.Token != pg.Token_SQL_COMMENT && k.Token != pg.Token_C_COMMENT {
			want = append(want, [2]int{int(k.Start), int(k.End)})
		}
	}
	for i := range min(len(spans), len(want)) {
		if c := sql[spans[i][0]]; c|0x20 == 'u' && want[i][0] == spans[i][0] && strings.HasPrefix(sql[spans[i][0]+1:spans[i][1]], "&") {
			// The library gives U& tokens a wrong end.
			want[i][1] = spans[i][1]
		}
	}
	if !reflect.DeepEqual(spans, want) {
		t.Fatalf("%q: got tokens at %v, want %v", sql, spans, want)
	}
}

// checkParse holds the facts of a text against the oracle, and those of its
// normalised text with the same and with other literals against them.
func checkParse(t testing.TB, sql string) {
	s, ok := Scan(sql)
	if !ok {
		s.Literals = nil
	}
	statements, err := Parse(sql, s.Literals)
	if err == nil {
		checkOracle(t, sql, statements)
	}
	if !ok || len(sql) > maxText/2 {
		return
	}
	for round := range 3 {
		literals := make([]Literal, len(s.Literals))
		for i, l := range s.Literals {
			if round > 0 {
				l.Text = otherValue(l, i, round)
			}
			literals[i] = l
		}
		other := fill(s.Text, literals)
		o, ok := Scan(other)
		if !ok || o.Text != s.Text {
			t.Fatalf("%q: with other literals %q is normalised to %q, want %q", sql, other, o.Text, s.Text)
		}
		got, err2 := Parse(other, o.Literals)
		if (err == nil) != (err2 == nil) {
			if round == 0 {
				t.Fatalf("%q: parses with %v, but %q with %v", sql, err, other, err2)
			}
			continue // a value that the grammar refuses
		}
		if !reflect.DeepEqual(got, statements) {
			t.Fatalf("%q and %q differ:\n%s\n%s", sql, other, describe(statements), describe(got))
		}
	}
}

func otherValue(l Literal, i, round int) string {
	switch l.Kind {
	case Integer:
		return [...]string{"0", "1", "2147483647"}[(i+round)%3]
	case Number:
		return [...]string{"2147483648", "1.5", ".5e-3"}[(i+round)%3]
	case String:
		return [...]string{"", "it's", "0"}[(i+round)%3]
	}
	return [...]string{"b", "b101", "xff"}[(i+round)%3]
}

func describe(statements []*Statement) string {
	var out strings.Builder
	for _, st := range statements {
		fmt.Fprintf(&out, "%+v\n", *st)
	}
	return out.String()
}
