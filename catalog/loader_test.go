package catalog

import (
	"strings"
	"testing"
)

func TestUnexpectedRowsAreErrors(t *testing.T) {
	for _, row := range []string{
		"?",
		"r|x|public|t|r|p|false",
		"r|1|public|t|r|p|t",
		"r|4294967296|public|t|r|p|false",
		"a|1|name|32768|23|true||9|false|false",
		"a||name|1|23|true||9|false|false",
		"a|1|name|1|23|true||9|false|",
		"l|1|",
		"f|1|1|1|1,|c|c|true",
		"k|1|2|true|false|1,,2|false",
		"k|1|2|true|false||false",
	} {
		l := newLoader()
		var values [][]byte
		for field := range strings.SplitSeq(row, "|") {
			values = append(values, []byte(field))
		}
		l.row(values)
		if _, err := l.contents(); err == nil {
			t.Errorf("%s: no error", row)
		}
	}
}

// Rows refer to relations that are not read, and may refer to some that are
// not there; neither is an error, and the fact of a half-known key is dropped.
func TestRowsOfUnknownRelations(t *testing.T) {
	l := newLoader()
	for _, row := range []string{
		"r|1|public|t|r|p|false",
		"a|1|id|1|23|true||9|false|false",
		"k|9|1|true|false|1,2|false", // column 2 is not known
		"k|9|7|true|false|1|false",
		"i|7|1", "i|1|7",
		"f|7|1|1|1|c|a|true", "f|1|1|2|1|c|a|true", "l|1|2", "l|7|1",
		"w|7|3", "t|7|8|4|false|1,2", "c|7|p|8|c", "v|7|1", "d|7|p|8", "g|7|8",
	} {
		var values [][]byte
		for field := range strings.SplitSeq(row, "|") {
			values = append(values, []byte(field))
		}
		l.row(values)
	}
	c, err := l.contents()
	if err != nil {
		t.Fatal(err)
	}
	s := NewSnapshot(c)
	if r := s.ByOID(1); len(s.relations) != 1 || len(r.Keys) != 0 || len(r.Columns) != 1 || len(s.Ancestors(1)) != 1 || len(r.Foreign) != 1 || len(r.Leading) != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestTriggerCommands(t *testing.T) {
	// Row, before and instead are other bits.
	for tgtype, want := range map[int16]Commands{
		1 | 2 | 4: OnInsert, 1 | 8: OnDelete, 16: OnUpdate, 32: OnTruncate, 64 | 1 | 16: OnUpdate,
		4 | 8 | 16 | 32: OnInsert | OnUpdate | OnDelete | OnTruncate, 1 | 2: 0,
	} {
		row := tgtype&1 != 0 && tgtype&2 != 0
		if got, before := triggerCommands(tgtype); got != want || before != row {
			t.Errorf("tgtype %d: got %b, %v, want %b, %v", tgtype, got, before, want, row)
		}
	}
}
