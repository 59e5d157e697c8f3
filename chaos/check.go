package main

import (
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// state is that of a row: its value, and how many of the deletes of unknown
// outcome have happened.
type state struct {
	value string
	late  int
}

// register is a row: a value that is set and seen. late are the times at which
// deletes of unknown outcome began, in order. As operations of their own they
// would let the search try each of them everywhere. But one is as good as
// another, a later one is never better, and none need happen before somebody sees that the row
// is gone. What comes after it in the order did not return before it began.
func register(late []int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{value: first} },
		Step: func(before, input, _ any) (bool, any) {
			s, o := before.(state), input.(op)
			if o.sees && s.value != o.saw {
				if o.saw != "" || s.late == len(late) {
					return false, s
				}
				s.late++
			}
			if s.late > 0 && o.ret < late[s.late-1] {
				return false, s
			}
			if o.sets {
				s.value = o.value
			} else if o.sees {
				s.value = o.saw
			}
			return true, s
		},
		Equal: func(a, b any) bool { return a == b },
	}
}

// checkTime bounds the search for an order of one row's operations. After
// thin it takes far less.
const checkTime = time.Minute

// violation is a row's history that cannot be.
type violation struct {
	row       int
	undecided bool // no order was found in checkTime, nor that there is none
	ops       []op // a few of its operations, which cannot be
}

// check looks for an order in every row's history.
func (h history) check() (all []violation) {
	rows := make([]int, 0, len(h))
	for row := range h {
		rows = append(rows, row)
	}
	sort.Ints(rows)
	for _, row := range rows {
		ops := thin(h[row])
		switch decide(ops) {
		case porcupine.Illegal:
			v := explain(ops)
			v.row = row
			all = append(all, v)
		case porcupine.Unknown:
			all = append(all, violation{row: row, undecided: true})
		}
	}
	return all
}

// decide looks for an order of one row's operations, sorted by their call.
func decide(ops []op) porcupine.CheckResult {
	var late []int64
	var rest []porcupine.Operation
	for i, o := range ops {
		if o.sets && o.value == "" && o.ret == never {
			late = append(late, o.call)
			continue
		}
		rest = append(rest, porcupine.Operation{ClientId: i, Input: o, Call: o.call, Return: o.ret})
	}
	return porcupine.CheckOperationsTimeout(register(late), rest, checkTime)
}

func linearizable(ops []op) bool { return decide(ops) != porcupine.Illegal }

// thin drops operations that make no difference to whether there is an order,
// so that histories of any length can be checked. ops are sorted by their call.
//
//   - A write of unknown outcome whose value nobody saw can be last. If it was
//     seen, it took effect before the first who saw it returned.
//   - A value is written once, so the time for which a row has it is one
//     interval. It meets every read of it if it meets that which returned first
//     and that which was called last.
//   - Absence has many causes, so that does not hold for it. But where nothing sets a
//     value between two reads that found none, the second adds nothing.
func thin(ops []op) (kept []op) {
	ops = bound(ops)
	type reads struct{ first, last int } // by return, by call
	seen := map[string]reads{}
	var setting []op // of a value
	for i, o := range ops {
		switch {
		case o.sets && o.value != "":
			setting = append(setting, o)
		case !o.sets && o.saw != "":
			r, ok := seen[o.saw]
			if !ok || o.ret < ops[r.first].ret {
				r.first = i
			}
			r.last = i
			seen[o.saw] = r
		}
	}
	disturbed := func(from, to int64) bool {
		return slices.ContainsFunc(setting, func(o op) bool { return o.call <= to && o.ret >= from })
	}
	var absent *op // the last read kept that found nothing
	for i, o := range ops {
		switch {
		case o.sets:
		case o.saw != "":
			if r := seen[o.saw]; i != r.first && i != r.last {
				continue
			}
		default:
			if absent != nil && absent.ret <= o.call && !disturbed(absent.call, o.ret) {
				continue
			}
			absent = &o
		}
		kept = append(kept, o)
	}
	return kept
}

// bound gives writes of unknown outcome a time by which they took effect, or
// drops them.
func bound(ops []op) (kept []op) {
	seen := map[string]int64{} // when the first who saw a value returned
	for _, o := range ops {
		if at, ok := seen[o.saw]; o.sees && (!ok || o.ret < at) {
			seen[o.saw] = o.ret
		}
	}
	for _, o := range ops {
		if o.sets && o.value != "" && o.ret == never {
			at, ok := seen[o.value]
			if !ok {
				continue
			}
			o.ret = max(o.call, at)
		}
		kept = append(kept, o)
	}
	return kept
}
