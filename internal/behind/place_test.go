package behind

import (
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// table has a key id and a column n. pointing are the tables with a foreign key to it.
func table(oid uint32, name string, pointing ...uint32) *catalog.Relation {
	r := &catalog.Relation{OID: oid, Schema: "public", Name: name, Kind: 'r',
		Columns: []catalog.Column{
			{Name: "id", Number: 1, Type: pgtype.Int4OID, BaseType: pgtype.Int4OID, Deterministic: true},
			{Name: "n", Number: 2, Type: pgtype.Int4OID, BaseType: pgtype.Int4OID, Deterministic: true},
		},
		Keys: []catalog.Key{{Index: oid + 1, Columns: []int{0}, Primary: true}},
	}
	for _, from := range pointing {
		r.References = append(r.References, catalog.Reference{Table: from, Columns: []string{"id"}})
	}
	return r
}

func TestWhatCannotBeSeenToLeaveTheQueueAloneComesAfterIt(t *testing.T) {
	snapshot := catalog.NewSnapshot(catalog.Contents{
		Relations: []*catalog.Relation{table(100, "hits"), table(200, "part"), table(300, "others"), table(400, "parent", 100), table(600, "visits", 700), table(700, "notes")},
		Operators: []catalog.Operator{{Schema: "pg_catalog", Name: "=", Left: pgtype.Int4OID, Right: pgtype.Int4OID, Volatility: 'i', Builtin: true}},
		Types:     []catalog.Type{{OID: pgtype.Int4OID, Schema: "pg_catalog", Name: "int4", Kind: 'b', Builtin: true}},
	})
	has := func(rel *catalog.Relation) (has, own bool) {
		return rel.Name == "hits" || rel.Name == "part" || rel.Name == "visits", rel.Name != "part"
	}
	for _, tt := range []struct {
		name, sql string
		want      Place
	}{
		{"a write by key", "UPDATE hits SET n = 1 WHERE id = $1", Place{Drains: true, Queues: true}},
		{"one whose policy is that of the table it is a part of", "UPDATE part SET n = 1 WHERE id = $1", Place{Drains: true}},
		{"a read", "SELECT n FROM hits WHERE id = $1", Place{Drains: true}},
		{"a join", "SELECT o.n FROM others o JOIN hits h ON h.id = o.id", Place{Drains: true}},
		{"a write that reads it", "DELETE FROM others WHERE id IN (SELECT id FROM hits)", Place{Drains: true}},
		{"a write of the table that its rows refer to", "DELETE FROM parent WHERE id = $1", Place{Drains: true}},
		{"a write of a table that refers to it", "INSERT INTO notes (id, n) VALUES ($1, 1)", Place{Drains: true}},
		{"a call", "CALL counts()", Place{Drains: true}},
		{"a text that nobody understands", "FROB", Place{Drains: true}},
		{"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", Place{Drains: true}},
		{"a read of another table", "SELECT n FROM others WHERE id = $1", Place{}},
		{"a write of another table", "UPDATE others SET n = 1 WHERE id = $1", Place{}},
	} {
		scanned, _ := parser.Scan(tt.sql)
		statements, err := parser.Parse(tt.sql, scanned.Literals)
		if err != nil {
			statements = []*parser.Statement{parser.Unread(tt.sql)}
		}
		plan := keying.New(scanned.Text, statements, snapshot, []string{"pg_catalog", "public"})
		if got := Of(plan, snapshot, has); got != tt.want {
			t.Errorf("%s: %s: got %+v, want %+v", tt.name, tt.sql, got, tt.want)
		}
	}
}

func TestASessionInWhichTextsMayMeanSomethingElseDoesNotQueue(t *testing.T) {
	session := func(encoding, standard string) *backend.Session {
		s := &backend.Session{Values: make([]string, backend.FirstSetting+len(keying.Settings)), Reading: backend.NewReading(standard == "on", encoding, "UTF8")}
		s.Values[backend.ValueUser], s.Values[backend.ValuePath] = "app", "public"
		for i, name := range keying.Settings {
			switch name {
			case "client_encoding":
				s.Values[backend.FirstSetting+i] = encoding
			case "standard_conforming_strings":
				s.Values[backend.FirstSetting+i] = standard
			}
		}
		return s
	}
	for _, tt := range []struct {
		encoding, standard string
		want               bool
	}{{"UTF8", "on", true}, {"LATIN1", "on", false}, {"UTF8", "off", false}} {
		s := session(tt.encoding, tt.standard)
		var kept Settings
		for _, of := range []*settings{kept.of(s), kept.of(s), (*Settings)(nil).of(s)} {
			if of.readable != tt.want || of.role != "app" {
				t.Errorf("%s, %s: %+v", tt.encoding, tt.standard, of)
			}
		}
	}
}
