package store

import "testing"

func TestATagIsReadAsItWasWritten(t *testing.T) {
	for _, tag := range []Tag{
		{},
		{Relation: 16384, Kind: TagTable},
		{Relation: 16384, Kind: TagNew, Index: 16390},
		{Relation: 1<<32 - 1, Kind: TagRow, Index: 7, Value: 1<<64 - 1},
	} {
		b := AppendTag(nil, tag)
		if got, ok := ParseTag(b); !ok || got != tag || len(b) != TagBytes {
			t.Errorf("got %+v, %t of %d bytes, want %+v", got, ok, len(b), tag)
		}
	}
	if _, ok := ParseTag(make([]byte, TagBytes-1)); ok {
		t.Error("a tag that is cut off was read")
	}
	unknown := AppendTag(nil, Tag{Relation: 5, Kind: lastTagKind + 1})
	if got, ok := ParseTag(unknown); !ok || got != (Tag{Kind: TagSchema}) {
		t.Errorf("an unknown kind: got %+v, %t", got, ok)
	}
}
