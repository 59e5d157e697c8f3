package keying

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Where stand-ins name rows is where arguments of the columns' types do, and
// every row has words of its own.
func TestStandInsNameRows(t *testing.T) {
	snapshot := testSchema(t)
	for sql, want := range map[string]string{
		"SELECT name FROM users WHERE id = $1":                         "row public.users(id = $1)",
		"SELECT name FROM users WHERE id = $1 AND name = $2":           "row public.users(id = $1)",
		"SELECT name FROM users WHERE id = ANY($1)":                    "row public.users(id = ANY ($1))",
		"SELECT name FROM users WHERE id IN ($1, $2)":                  "row public.users(id = $1) row public.users(id = $2)",
		"SELECT name FROM users WHERE name = $1":                       "",
		"DELETE FROM users WHERE id IN ($2, $1)":                       "row public.users(id = $2) row public.users(id = $1)",
		"DELETE FROM users WHERE id = ANY($1)":                         "row public.users(id = ANY ($1))",
		"UPDATE users SET name = $1 WHERE id = 5":                      "row public.users(id = $int)",
		"UPDATE users SET name = $1 WHERE id = -5":                     "row public.users(id = -$int)",
		"UPDATE users SET name = $1 WHERE id = '5'":                    "row public.users(id = $str)",
		"SELECT 1 FROM users a, users b WHERE a.id = $1 AND b.id = $2": "row public.users(id = $1) row public.users(id = $2)",
	} {
		p, literals := planFor(t, snapshot, sql)
		v := Values{Args: p.StandIns(2), Literals: literals}
		tags, always, _ := p.ReadTags(nil, v)
		tags = p.WriteTags(tags[:always], v)
		var got []string
		for _, tag := range tags {
			if words := p.TagWords(tag, v, snapshot); tag.Kind == store.TagRow {
				if words, _, _ = strings.Cut(words, " without "); !slices.Contains(got, words) { // in another part
					got = append(got, words)
				}
			} else if words != TagName(tag, snapshot) {
				t.Errorf("%s: got %s, want %s", sql, words, TagName(tag, snapshot))
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
}

// The words of literals are those that a normalised text has in their place.
func TestWordsOfLiterals(t *testing.T) {
	scanned, ok := parser.Scan("SELECT 1, 1.5, 'a', B'1'")
	if !ok || len(scanned.Literals) != len(literalWords) {
		t.Fatalf("got %+v", scanned)
	}
	words := strings.FieldsFunc(scanned.Text, func(r rune) bool { return r == ' ' || r == ',' })
	for i, l := range scanned.Literals {
		if got := literalWords[l.Kind]; !slices.Contains(words, got) || words[i+1] != got {
			t.Errorf("literal %d: got %s, the text is %s", i, got, scanned.Text)
		}
	}
}
