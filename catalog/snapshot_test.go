package catalog_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
)

func TestResolve(t *testing.T) {
	s := catalog.NewSnapshot(catalog.Contents{Relations: []*catalog.Relation{
		{OID: 1, Schema: "pg_catalog", Name: "pg_class", System: true},
		{OID: 2, Schema: "a", Name: "t"},
		{OID: 3, Schema: "b", Name: "t"},
		{OID: 4, Schema: "b", Name: "only_b"},
		{OID: 5, Schema: "b", Name: "pg_class"},
		{OID: 6, Schema: "pg_temp_3", Name: "t", Temporary: true},
		{OID: 7, Schema: "pg_temp_4", Name: "other", Temporary: true},
		{OID: 8, Schema: "a", Name: "T"},
	}})
	for _, test := range []struct {
		name             string
		path             []string
		schema, relation string
		want             uint32 // 0: none
	}{
		{"the first schema that has it", []string{"pg_catalog", "a", "b"}, "", "t", 2},
		{"the order of the path decides", []string{"pg_catalog", "b", "a"}, "", "t", 3},
		{"later in the path", []string{"pg_catalog", "a", "b"}, "", "only_b", 4},
		{"not on the path", []string{"pg_catalog", "a"}, "", "only_b", 0},
		{"an empty path", nil, "", "t", 0},
		{"a schema that is gone", []string{"gone", "a"}, "", "t", 2},
		{"names are exact", []string{"a"}, "", "T", 8},
		{"pg_catalog first, as it is implicitly", []string{"pg_catalog", "b"}, "", "pg_class", 1},
		{"pg_catalog last, where a session put it", []string{"b", "pg_catalog"}, "", "pg_class", 5},
		{"a schema overrides the path", []string{"pg_catalog", "a"}, "b", "t", 3},
		{"a schema without it", []string{"pg_catalog", "b"}, "a", "only_b", 0},
		{"temporary tables come first", []string{"pg_temp_3", "pg_catalog", "a"}, "", "t", 6},
		{"those of others are not seen", []string{"pg_temp_3", "pg_catalog", "a"}, "", "other", 0},
		{"pg_temp is an alias", []string{"pg_temp_3", "pg_catalog", "a"}, "pg_temp", "t", 6},
		{"pg_temp of a session without", []string{"pg_catalog", "a"}, "pg_temp", "t", 0},
	} {
		var got uint32
		if r := s.Resolve(test.path, test.schema, test.relation); r != nil {
			got = r.OID
		}
		if got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
	if r := s.ByOID(99); r != nil {
		t.Errorf("got %v, want nil", r)
	}
}

func TestFunctions(t *testing.T) {
	s := catalog.NewSnapshot(catalog.Contents{Functions: []catalog.Function{
		{Schema: "pg_catalog", Name: "f", MinArgs: 1, MaxArgs: 1, Volatility: 'i', Builtin: true},
		{Schema: "a", Name: "f", MinArgs: 1, MaxArgs: 3, Volatility: 's'},
		{Schema: "a", Name: "f", MinArgs: 2, MaxArgs: 2, Volatility: 'v'},
		{Schema: "b", Name: "f", MinArgs: 0, MaxArgs: -1, Volatility: 'v'},
		{Schema: "a", Name: "g", Volatility: 'i'},
	}})
	for _, test := range []struct {
		name   string
		path   []string
		schema string
		args   int
		want   string // schema and volatility of each
	}{
		{"every schema of the path", []string{"pg_catalog", "a"}, "", 1, "pg_catalog i, a s"},
		{"in order of the path", []string{"a", "pg_catalog"}, "", 1, "a s, pg_catalog i"},
		{"overloads", []string{"pg_catalog", "a"}, "", 2, "a s, a v"},
		{"defaults", []string{"pg_catalog", "a"}, "", 3, "a s"},
		{"too many arguments", []string{"pg_catalog", "a"}, "", 4, ""},
		{"VARIADIC", []string{"pg_catalog", "a", "b"}, "", 100, "b v"},
		{"a schema", []string{"a"}, "pg_catalog", 1, "pg_catalog i"},
	} {
		var got string
		for i, f := range s.Functions(test.path, test.schema, "f", test.args) {
			if i > 0 {
				got += ", "
			}
			got += f.Schema + " " + string(f.Volatility)
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestOperatorsAndTypes(t *testing.T) {
	s := catalog.NewSnapshot(catalog.Contents{
		Operators: []catalog.Operator{
			{Schema: "pg_catalog", Name: "=", Left: 23, Right: 23, Volatility: 'i', Builtin: true},
			{Schema: "a", Name: "=", Left: 99, Right: 99, Volatility: 'v', Writers: []uint32{7}},
		},
		Types: []catalog.Type{
			{OID: 23, Schema: "pg_catalog", Name: "int4", Kind: 'b', Builtin: true},
			{OID: 99, Schema: "a", Name: "int4", Kind: 'd', Base: 23, Volatility: 's'},
		},
		Casts: []catalog.Cast{{Source: 23, Target: 99, Volatility: 'i'}},
	})
	if got := s.Operators([]string{"pg_catalog", "a"}, "", "="); len(got) != 2 || !got[0].Builtin || got[1].Builtin {
		t.Errorf("got %+v, want the built-in one, then the other", got)
	}
	if got := s.Operators([]string{"pg_catalog"}, "", "="); len(got) != 1 {
		t.Errorf("got %+v, want what the path shows", got)
	}
	if got := s.Operators(nil, "a", "="); len(got) != 1 || len(got[0].Writers) != 1 {
		t.Errorf("got %+v, want that of the schema", got)
	}
	if got, ok := s.Type([]string{"pg_catalog", "a"}, "", "int4"); !ok || got.OID != 23 || got.Base != 23 || got.Volatility != 'i' {
		t.Errorf("got %+v, want the built-in type with what NewSnapshot fills in", got)
	}
	if got, ok := s.Type(nil, "a", "int4"); !ok || got.OID != 99 || got.Base != 23 || got.Volatility != 's' {
		t.Errorf("got %+v, want the domain", got)
	}
	if _, ok := s.Type([]string{"a"}, "", "text"); ok {
		t.Error("found a type that is not there")
	}
	if s.UnsafeCasts() {
		t.Error("an immutable cast is not unsafe")
	}
}

func TestInheritance(t *testing.T) {
	// 1 and 2 are parents of 3; 4 inherits from 3 and from 1; 5 from 4.
	s := catalog.NewSnapshot(catalog.Contents{Relations: []*catalog.Relation{
		{OID: 5, Schema: "s", Name: "e", Parents: []uint32{4}},
		{OID: 4, Schema: "s", Name: "d", Parents: []uint32{1, 3}},
		{OID: 3, Schema: "s", Name: "c", Parents: []uint32{1, 2}},
		{OID: 2, Schema: "s", Name: "b"},
		{OID: 1, Schema: "s", Name: "a", Children: []uint32{77}}, // derived, not believed
		{OID: 8, Schema: "s", Name: "x", Parents: []uint32{9}},   // what cannot be must not hang
		{OID: 9, Schema: "s", Name: "y", Parents: []uint32{8, 10}},
	}})
	for _, test := range []struct {
		oid                    uint32
		descendants, ancestors []uint32
	}{
		{1, []uint32{3, 4, 5}, nil},
		{2, []uint32{3, 4, 5}, nil},
		{3, []uint32{4, 5}, []uint32{1, 2}},
		{5, nil, []uint32{4, 1, 3, 2}},
		{8, []uint32{9}, []uint32{9, 10}},
		{99, nil, nil},
	} {
		if got := s.Descendants(test.oid); !slices.Equal(got, test.descendants) {
			t.Errorf("descendants of %d: got %v, want %v", test.oid, got, test.descendants)
		}
		if got := s.Ancestors(test.oid); !slices.Equal(got, test.ancestors) {
			t.Errorf("ancestors of %d: got %v, want %v", test.oid, got, test.ancestors)
		}
	}
}

func TestNewSnapshotFillsIn(t *testing.T) {
	s := catalog.NewSnapshot(catalog.Contents{
		Types: []catalog.Type{{OID: 23}, {OID: 99, Base: 23}},
		Relations: []*catalog.Relation{{
			OID: 1, Schema: "s", Name: "t",
			Columns: []catalog.Column{{Name: "a", Type: 23}, {Name: "b", Type: 99}, {Name: "c", Type: 7, Number: 9}},
			Keys:    []catalog.Key{{Index: 3}, {Index: 4, Primary: true}, {Index: 2}},
		}},
		Incomplete: true,
	})
	r := s.ByOID(1)
	for i, want := range []catalog.Column{
		{Name: "a", Type: 23, BaseType: 23, Number: 1},
		{Name: "b", Type: 99, BaseType: 23, Number: 2},
		{Name: "c", Type: 7, BaseType: 7, Number: 9},
	} {
		if r.Columns[i] != want {
			t.Errorf("column %d: got %+v, want %+v", i, r.Columns[i], want)
		}
	}
	if r.Keys[0].Index != 4 || r.Keys[1].Index != 3 || r.Keys[2].Index != 2 {
		t.Errorf("keys %+v, want the primary key first and the others in their order", r.Keys)
	}
	if !s.Incomplete() || len(slices.Collect(s.Relations())) != 1 {
		t.Error("the contents are not all there")
	}
}

func TestSnapshotIsSafeForConcurrentUse(t *testing.T) {
	s := catalog.NewSnapshot(catalog.Contents{
		Relations: []*catalog.Relation{{OID: 1, Schema: "a", Name: "p"}, {OID: 2, Schema: "a", Name: "c", Parents: []uint32{1}}},
		Functions: []catalog.Function{{Schema: "a", Name: "f", MaxArgs: -1}},
		Operators: []catalog.Operator{{Schema: "a", Name: "="}},
		Types:     []catalog.Type{{OID: 5, Schema: "a", Name: "t"}},
	})
	path := []string{"a"}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { // the race detector looks on
			for range 100 {
				s.Resolve(path, "", "p")
				s.Functions(path, "", "f", 1)[0].Name = "changed" // the slice is the caller's
				s.Operators(path, "", "=")[0].Name = "changed"
				s.Type(path, "", "t")
				s.TypeByOID(5)
				s.Descendants(1)[0] = 9
				s.Ancestors(2)[0] = 9
				for r := range s.Relations() {
					s.ByOID(r.OID)
				}
			}
		})
	}
	wg.Wait()
	if s.Functions(path, "", "f", 1)[0].Name != "f" || s.Descendants(1)[0] != 2 || s.Ancestors(2)[0] != 1 {
		t.Error("a caller changed the snapshot")
	}
}
