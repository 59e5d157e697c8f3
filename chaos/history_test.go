package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestHistoryOfLogs(t *testing.T) {
	tests := []struct {
		name string
		logs map[string][]record
		want history
	}{
		{"a read gives all its rows", map[string][]record{"r": {
			{Op: 1, At: 1, What: "q"}, {Op: 1, At: 2, Outcome: ok, Saw: values{1: "a", 2: ""}},
		}}, history{
			1: {{process: "r", what: "q", call: 1, ret: 2, sees: true, saw: "a"}},
			2: {{process: "r", what: "q", call: 1, ret: 2, sees: true}},
		}},
		{"a read that failed, or never returned, gives nothing", map[string][]record{"r": {
			{Op: 1, At: 1, What: "q"}, {Op: 1, At: 2, Outcome: failed}, {Op: 2, At: 3, What: "q"},
		}}, history{}},
		{"writes by their outcome", map[string][]record{"w": {
			{Op: 1, At: 1, What: "u", Set: values{1: "a"}},
			{Op: 2, At: 2, What: "u", Set: values{1: "b"}},
			{Op: 1, At: 3, Outcome: unknown},
			{Op: 3, At: 4, What: "u", Set: values{1: "c"}},
			{Op: 3, At: 5, Outcome: failed},
			{Op: 4, At: 6, What: "u", Set: values{1: "d"}},
			{Op: 4, At: 7, Outcome: ok},
		}}, history{1: {
			{process: "w", what: "u", call: 1, ret: never, sets: true, value: "a"},
			{process: "w", what: "u", call: 2, ret: never, sets: true, value: "b"},
			{process: "w", what: "u", call: 6, ret: 7, sets: true, value: "d"},
		}}},
		{"a write of rows that were not there is a read", map[string][]record{"w": {
			{Op: 1, At: 1, What: "u", Set: values{1: "a", 4: "a"}},
			{Op: 1, At: 2, Outcome: ok, Missed: []int{4}},
		}}, history{
			1: {{process: "w", what: "u", call: 1, ret: 2, sets: true, value: "a"}},
			4: {{process: "w", what: "u", call: 1, ret: 2, sees: true}},
		}},
		{"a swap reads and writes", map[string][]record{"w": {
			{Op: 1, At: 1, What: "u", Set: values{1: "b"}},
			{Op: 1, At: 2, Outcome: ok, Took: values{1: "a"}},
		}}, history{1: {{process: "w", what: "u", call: 1, ret: 2, sees: true, saw: "a", sets: true, value: "b"}}}},
		{"a prepared transaction counts when it is committed", map[string][]record{
			"w": {{Op: 1, At: 1, What: "PREPARE", Set: values{1: "a"}, GID: "g"}},
			"x": {
				{Op: 1, At: 5, What: "COMMIT PREPARED", GID: "g", Ends: true},
				{Op: 1, At: 6, Outcome: ok},
			},
		}, history{1: {{process: "x", what: "COMMIT PREPARED", call: 5, ret: 6, sets: true, value: "a"}}}},
		{"… not when it is rolled back, or never ended", map[string][]record{"w": {
			{Op: 1, At: 1, What: "PREPARE", Set: values{1: "a"}, GID: "g"},
			{Op: 2, At: 2, What: "PREPARE", Set: values{2: "b"}, GID: "h"},
			{Op: 3, At: 3, What: "ROLLBACK PREPARED", GID: "g", Ends: true},
			{Op: 3, At: 4, Outcome: ok},
		}}, history{}},
		{"… at any time after the first of several who are in doubt", map[string][]record{
			"w": {{Op: 1, At: 1, What: "PREPARE", Set: values{1: "a"}, GID: "g"}},
			"x": {{Op: 1, At: 7, What: "COMMIT PREPARED", GID: "g", Ends: true}},
			"y": {
				{Op: 1, At: 5, What: "COMMIT PREPARED", GID: "g", Ends: true},
				{Op: 1, At: 6, Outcome: unknown},
				{Op: 2, At: 8, What: "COMMIT PREPARED", GID: "g", Ends: true},
				{Op: 2, At: 9, Outcome: failed},
			},
		}, history{1: {{process: "y", what: "COMMIT PREPARED", call: 5, ret: never, sets: true, value: "a"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := newHistory(tt.logs); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, tt.want)
			}
		})
	}
}

// A process may be killed in the middle of a line.
func TestALogCutShortIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.log")
	r, err := newRecorder(path)
	if err != nil {
		t.Fatal(err)
	}
	op := r.invoke(record{What: "u", Set: values{3: "", shape: "x"}})
	r.respond(op, record{Outcome: ok})
	r.invoke(record{What: "cut"})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readLog(path)
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v, want two records", got, err)
	}
	if got[0].At > got[1].At || !reflect.DeepEqual(got[0].Set, values{3: "", shape: "x"}) || got[1].Outcome != ok {
		t.Errorf("got %+v", got)
	}
	if err := os.WriteFile(path, append([]byte("{\n"), whole...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readLog(path); err == nil {
		t.Error("a log that is damaged elsewhere is read")
	}
}
