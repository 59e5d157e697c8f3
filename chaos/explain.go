package main

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// explain finds a few operations of a history without an order that have none by
// themselves.
//
// Who takes a value out of a history, with all that set and saw it, leaves a
// history that has an order if the whole has one. So it is tried with two
// values: that which was seen or set last before it went wrong, and any other.
func explain(ops []op) violation {
	var times []int64
	for _, o := range ops {
		times = append(times, o.call)
		if o.ret != never {
			times = append(times, o.ret)
		}
	}
	slices.Sort(times)
	times = slices.Compact(times)
	last := sort.Search(len(times)-1, func(i int) bool { return !linearizable(until(ops, times[i])) })
	ops = until(ops, times[last])
	var culprits, others []string
	for _, o := range ops {
		for _, v := range o.values() {
			others = append(others, v)
			if o.call == times[last] || o.ret == times[last] {
				culprits = append(culprits, v)
			}
		}
	}
	slices.Sort(others)
	for _, culprit := range culprits {
		for _, other := range slices.Compact(others) {
			if part := only(ops, culprit, other); !linearizable(part) {
				return violation{ops: fewer(part)}
			}
		}
	}
	return violation{ops: ops[max(0, len(ops)-40):]}
}

// until returns what was known at a time: who was reading then had seen nothing.
func until(ops []op, at int64) (part []op) {
	for _, o := range ops {
		if o.call > at {
			continue
		}
		if o.ret > at {
			if !o.sets {
				continue
			}
			o.ret = never
			o.sees, o.saw = false, ""
		}
		part = append(part, o)
	}
	return part
}

// only returns the operations that see or set one of two values, as if there
// were no others.
func only(ops []op, a, b string) (part []op) {
	is := func(v string) bool { return v == a || v == b }
	for _, o := range ops {
		if o.sees = o.sees && is(o.saw); !o.sees {
			o.saw = ""
		}
		if o.sets = o.sets && is(o.value); o.sets || o.sees {
			part = append(part, o)
		}
	}
	return part
}

// fewer leaves out reads that are not needed to see that there is no order.
func fewer(ops []op) []op {
	for i := len(ops) - 1; i >= 0; i-- {
		if ops[i].sets {
			continue
		}
		if without := slices.Delete(slices.Clone(ops), i, i+1); !linearizable(without) {
			ops = without
		}
	}
	return ops
}

// values are those that the operation saw or set.
func (o op) values() (vs []string) {
	if o.sees {
		vs = append(vs, o.saw)
	}
	if o.sets {
		vs = append(vs, o.value)
	}
	return vs
}

// length is the time from the first operation's call to the last one's.
func (v violation) length() int64 {
	begin, end := v.bounds()
	return end - begin
}

func (v violation) bounds() (begin, end int64) {
	if len(v.ops) == 0 {
		return 0, 0
	}
	begin, end = never, 0
	for _, o := range v.ops {
		begin, end = min(begin, o.call), max(end, o.call)
		if o.ret != never {
			end = max(end, o.ret)
		}
	}
	return begin, end
}

// describe writes the violation down, with what the nemesis did meanwhile.
func (v violation) describe(began int64, moments []moment) string {
	name := fmt.Sprintf("row %d", v.row)
	if v.row == shape {
		name = "the shape"
	}
	if v.undecided {
		return fmt.Sprintf("%s: no order was found in %v, nor that there is none\n", name, checkTime)
	}
	type line struct {
		at   int64
		text string
	}
	var lines []line
	for _, o := range v.ops {
		end := "no response"
		if o.ret != never {
			end = "to " + seconds(o.ret-began)
		}
		lines = append(lines, line{o.call, fmt.Sprintf("%s %s  %s %s: %s", seconds(o.call-began), end, o.process, o.effect(), o.what)})
	}
	const before = int64(3 * time.Second)
	begin, end := v.bounds()
	for _, m := range moments {
		if m.at > begin-before && m.at <= end {
			lines = append(lines, line{m.at, fmt.Sprintf("%s  nemesis: %s", seconds(m.at-began), m.text)})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	var b strings.Builder
	fmt.Fprintf(&b, "%s: no order of these is possible:\n", name)
	for _, l := range lines {
		fmt.Fprintf(&b, "    %s\n", l.text)
	}
	return b.String()
}

func (o op) effect() string {
	called := func(v string) string {
		if v == "" {
			return "nothing"
		}
		return v
	}
	switch {
	case o.sets && o.sees:
		return "saw " + called(o.saw) + " and set " + called(o.value)
	case o.sets:
		return "set " + called(o.value)
	}
	return "saw " + called(o.saw)
}

func seconds(ns int64) string { return fmt.Sprintf("%.6f s", float64(ns)/float64(time.Second)) }
