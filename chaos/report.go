package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// report counts what the processes did.
type report struct {
	operations        int
	reads, readErrors int
	referees          int
	writes            map[outcome]int
	tally             tally
	bad               []string
}

func newReport(logs map[string][]record) *report {
	r := &report{writes: map[outcome]int{}}
	r.tally.Bypasses = map[string]uint64{}
	for process, records := range logs {
		invoked := map[int]record{}
		var last *tally
		for _, rec := range records {
			switch {
			case rec.Stats != nil:
				last = rec.Stats
			case rec.Bad != "":
				r.bad = append(r.bad, process+": "+rec.Bad)
			case rec.Outcome == "":
				invoked[rec.Op] = rec
			default:
				r.count(invoked[rec.Op], rec.Outcome)
				delete(invoked, rec.Op)
			}
		}
		for _, inv := range invoked { // without a response
			r.count(inv, unknown)
		}
		if last != nil {
			r.tally.add(last)
		}
	}
	slices.Sort(r.bad)
	return r
}

func (r *report) count(inv record, o outcome) {
	r.operations++
	switch {
	case inv.Set != nil || inv.Ends:
		r.writes[o]++
	case o != ok:
		r.readErrors++
	case strings.HasPrefix(inv.What, "referee"):
		r.referees++
	default:
		r.reads++
	}
}

func (t *tally) add(other *tally) {
	t.Hits += other.Hits
	t.Misses += other.Misses
	t.Stale += other.Stale
	t.Fills += other.Fills
	t.Unmarked += other.Unmarked
	t.Unknown += other.Unknown
	t.Refilled += other.Refilled
	for reason, n := range other.Bypasses {
		t.Bypasses[reason] += n
	}
}

func (r *report) print(faults map[string]int) {
	t := &r.tally
	fmt.Printf("reads      %d through the cache, %d by referees, %d failed\n", r.reads, r.referees, r.readErrors)
	fmt.Printf("the cache  %d hits, %d misses (%d of them stale), %d fills, %d refilled by writers\n", t.Hits, t.Misses, t.Stale, t.Fills, t.Refilled)
	fmt.Printf("bypasses   %s\n", counted(t.Bypasses))
	fmt.Printf("writes     %d done, %d refused, %d of unknown outcome; %d past the store\n",
		r.writes[ok], r.writes[failed], r.writes[unknown], t.Unmarked)
	total := 0
	for _, n := range faults {
		total += n
	}
	fmt.Printf("faults     %d: %s\n", total, counted(faults))
}

// counted lists numbers with their names, the largest first.
func counted[N int | uint64](numbers map[string]N) string {
	names := slices.SortedFunc(maps.Keys(numbers), func(a, b string) int {
		if numbers[a] != numbers[b] {
			if numbers[a] > numbers[b] {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d %s", numbers[name], name))
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}
