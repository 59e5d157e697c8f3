package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

func set(call, ret int64, v string) op { return op{call: call, ret: ret, sets: true, value: v} }

func saw(call, ret int64, v string) op { return op{call: call, ret: ret, sees: true, saw: v} }

func TestCheckFindsWhatCannotBe(t *testing.T) {
	swap := func(call, ret int64, old, v string) op {
		return op{call: call, ret: ret, sees: true, saw: old, sets: true, value: v}
	}
	tests := []struct {
		name string
		ops  []op
		bad  bool
	}{
		{"nothing", nil, false},
		{"a read sees the write before it", []op{set(1, 2, "a"), saw(3, 4, "a")}, false},
		{"a read sees a write at the same time, or not", []op{set(1, 9, "a"), saw(2, 3, "first"), saw(4, 5, "a")}, false},
		{"a stale read", []op{set(1, 2, "a"), set(3, 4, "b"), saw(5, 6, "a")}, true},
		{"a stale read of the first value", []op{set(1, 2, "a"), saw(3, 4, "first")}, true},
		{"a stale read while the write is not over", []op{set(1, 9, "b"), saw(2, 3, "b"), saw(4, 5, "first")}, true},
		{"reads see two writes in different orders", []op{set(1, 9, "a"), set(1, 9, "b"), saw(10, 11, "a"), saw(12, 13, "b")}, true},
		{"a read from the future", []op{saw(1, 2, "first"), saw(3, 4, "a"), set(5, 6, "a"), saw(7, 8, "a")}, true},
		{"an unknown write lands late", []op{set(1, never, "a"), set(2, 3, "b"), saw(4, 5, "b"), saw(6, 7, "a")}, false},
		{"an unknown write lands never", []op{set(1, never, "a"), set(2, 3, "b"), saw(4, 5, "b")}, false},
		{"an unknown write lands once", []op{set(1, never, "a"), set(2, 3, "b"), saw(4, 5, "a"), saw(6, 7, "b"), saw(8, 9, "a")}, true},
		{"an unknown write is seen before it began", []op{saw(1, 2, "first"), saw(3, 4, "a"), set(5, never, "a")}, true},
		{"absence after a delete", []op{set(1, 2, ""), saw(3, 4, ""), set(5, 6, "a"), saw(7, 8, "a"), set(9, 10, ""), saw(11, 12, "")}, false},
		{"absence while nothing is deleted", []op{set(1, 2, "a"), saw(3, 4, "a"), saw(5, 6, "")}, true},
		{"stale absence", []op{set(1, 2, ""), saw(3, 4, ""), set(5, 6, "a"), saw(7, 8, "")}, true},
		{"an unknown delete lands late", []op{set(1, 2, "a"), set(3, never, ""), saw(4, 5, "a"), saw(6, 7, "")}, false},
		{"an unknown delete lands once", []op{set(1, never, ""), saw(2, 3, ""), set(4, 5, "a"), saw(6, 7, "a"), saw(8, 9, "")}, true},
		{"an unknown delete is seen before it began", []op{saw(1, 2, ""), set(3, never, "")}, true},
		{"what returned before an unknown delete began does not follow it",
			[]op{saw(1, 20, ""), saw(2, 3, "first"), set(15, never, ""), set(16, 17, "a"), saw(18, 19, "a"), saw(21, 22, "a")}, false},
		{"nor does its reader",
			[]op{saw(1, 14, ""), saw(2, 3, "first"), set(15, never, ""), set(16, 17, "a")}, true},
		{"a deleted row comes back by itself", []op{set(1, 2, "a"), set(3, 4, ""), saw(5, 6, ""), saw(7, 8, "a")}, true},
		{"a swap of the last value", []op{set(1, 2, "a"), swap(3, 4, "a", "b"), saw(5, 6, "b")}, false},
		{"a swap of an older value", []op{set(1, 2, "a"), set(3, 4, "b"), swap(5, 6, "a", "c")}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := history{7: tt.ops}
			got := h.check()
			if bad := len(got) > 0; bad != tt.bad {
				t.Fatalf("found %v, want a violation: %v", got, tt.bad)
			}
			if tt.bad && (got[0].row != 7 || linearizable(got[0].ops)) {
				t.Errorf("%v does not explain it", got[0])
			}
		})
	}
}

// thin and explain must not change whether a history has an order.
func TestThinHistoriesSayTheSame(t *testing.T) {
	good, bad := 0, 0
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		ops := randomOps(rng)
		whole := porcupine.CheckOperations(plain, operations(ops))
		if got := linearizable(thin(ops)); got != whole {
			t.Fatalf("seed %d: %v has an order: %v; thin %v: %v", seed, ops, whole, thin(ops), got)
		}
		if whole {
			good++
			continue
		}
		bad++
		if v := explain(thin(ops)); linearizable(v.ops) {
			t.Errorf("seed %d: %v is explained by %v, which has an order", seed, ops, v.ops)
		}
	}
	if good < 300 || bad < 300 {
		t.Errorf("%d with an order and %d without: the histories are too much alike", good, bad)
	}
}

// plain is the model without any of the checker's shortcuts.
var plain = porcupine.Model{
	Init: func() any { return first },
	Step: func(state, input, _ any) (bool, any) {
		switch o := input.(op); {
		case o.sees && state != o.saw:
			return false, state
		case o.sets:
			return true, o.value
		}
		return true, state
	},
}

func operations(ops []op) []porcupine.Operation {
	all := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		all[i] = porcupine.Operation{ClientId: i, Input: o, Call: o.call, Return: o.ret}
	}
	return all
}

// randomOps plays a register, and sometimes lets a read see something else.
func randomOps(rng *rand.Rand) (ops []op) {
	values := []string{"first"}
	state, at := "first", int64(10)
	for i := range 5 + rng.IntN(15) {
		at += int64(1 + rng.IntN(4))
		o := op{call: at - int64(rng.IntN(6)), ret: at + int64(rng.IntN(6))}
		switch n := rng.IntN(10); {
		case n < 3:
			o.sets, o.value = true, fmt.Sprint("v", i)
			if rng.IntN(4) == 0 {
				o.sees, o.saw = true, state
			}
			values = append(values, o.value)
			state = o.value
		case n < 5:
			o.sets = true
			state = ""
		default:
			o.sees, o.saw = true, state
			if rng.IntN(12) == 0 {
				o.saw = values[rng.IntN(len(values))]
			}
		}
		if o.sets && rng.IntN(5) == 0 {
			o.ret, o.sees, o.saw = never, false, ""
		}
		ops = append(ops, o)
	}
	slices.SortFunc(ops, func(a, b op) int { return int(a.call - b.call) })
	return ops
}

func TestAViolationIsDescribed(t *testing.T) {
	h := history{shape: []op{
		{process: "w1", what: "UPDATE", call: 1e9, ret: 2e9, sets: true, value: "a"},
		{process: "w1", what: "UPDATE", call: 3e9, ret: 4e9, sets: true, value: "b"},
		{process: "r1", what: "SELECT 1", call: 5e9, ret: 6e9, sees: true, saw: "b"},
		{process: "r2", what: "SELECT 2", call: 7e9, ret: 8e9, sees: true, saw: "a"},
		{process: "r2", what: "SELECT 3", call: 9e9, ret: 10e9, sees: true, saw: "a"},
	}}
	got := h.check()[0].describe(0, []moment{{35e8, "harm"}, {85e8, "later harm"}})
	want := `the shape: no order of these is possible:
    1.000000 s to 2.000000 s  w1 set a: UPDATE
    3.000000 s to 4.000000 s  w1 set b: UPDATE
    3.500000 s  nemesis: harm
    7.000000 s to 8.000000 s  r2 saw a: SELECT 2
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if !strings.HasSuffix(got, "\n") {
		t.Error("the last line does not end")
	}
}
