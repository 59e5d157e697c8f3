package keying

import (
	"slices"
	"testing"

	"github.com/cachedpg/cachedpg/store"
)

// The type of a parameter in a list is that of the list, wherever else it stands. As
// a float8 it is equal to its neighbours among large integers.
func TestAListGivesItsParametersTheirType(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT * FROM users WHERE id = $1 AND id IN ($1, $2)":                         true,
		"SELECT * FROM users WHERE id = $1 AND id IN ($1, $2::int8)":                   true,
		"SELECT * FROM users WHERE id = $1 AND id IN ($1, $2::float8)":                 false,
		"SELECT * FROM users WHERE id IN ($2::float8, $1) AND id = $1":                 false,
		"SELECT * FROM users WHERE id = $1 AND id = ANY (ARRAY[$1, $2::float8])":       false,
		"SELECT * FROM users WHERE id = $1 AND ($1, id) = ($2::float8, $2)":            false,
		"SELECT * FROM users WHERE id = $1 AND id IN ($1, 1.5)":                        true, // numeric holds every integer
		"DELETE FROM users WHERE id IN ($1, $2::float8) AND id = $1":                   false,
		"DELETE FROM users WHERE id IN ($1, $2::int8) AND id = $1 AND $3::bool":        true,
		"UPDATE users SET name = 'a' WHERE id = $1 AND email IN ('a', $2, $1::float8)": false,
	} {
		p, literals := planFor(t, testSchema(t), text)
		v := Values{Args: named(1<<53, 1<<53+1, true), Literals: literals}
		tags, _, _ := p.ReadTags(nil, v)
		tags = append(tags, p.WriteTags(nil, v)...)
		if got := slices.ContainsFunc(tags, func(tag store.Tag) bool { return tag.Kind == store.TagRow }); got != want {
			t.Errorf("%s: names a row: %v", text, got)
		}
	}
}
