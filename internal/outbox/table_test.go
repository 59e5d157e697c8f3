package outbox

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/store"
)

func TestTagsComeOutOfARowAsTheyWentIn(t *testing.T) {
	tags := []store.Tag{{Kind: store.TagSchema}, {Kind: store.TagCatalog}, {Kind: store.TagTable, Relation: 7}}
	digits, ok := strings.CutPrefix(encodeTags(tags), "pg_catalog.decode('")
	digits, ok2 := strings.CutSuffix(digits, "', 'hex')")
	b, err := hex.DecodeString(digits)
	if !ok || !ok2 || err != nil {
		t.Fatalf("got %s, %v", encodeTags(tags), err)
	}
	if got, problem := parseTags(b); !slices.Equal(got, tags) || problem != "" {
		t.Errorf("got %v, %q, want %v", got, problem, tags)
	}
	for _, garbage := range [][]byte{nil, {}, b[:store.TagBytes-1], b[:len(b)-1], append(slices.Clone(b), 0)} {
		if got, problem := parseTags(garbage); got != nil || problem == "" {
			t.Errorf("%d bytes: got %v, %q, want a problem", len(garbage), got, problem)
		}
	}
}
