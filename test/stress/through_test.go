package stress

import (
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// The checker of TestStress, with writers that refill: values never go back,
// whoever refills what while connections are killed under them.
func TestStressWhileWritersRefill(t *testing.T) {
	t.Parallel()
	const policy = "cache_policy=account:write-through,item:write-through,tick:write-through,tock:write-through"
	for _, tc := range []struct {
		name string
		kind stressKind
	}{
		{"memory", stressKind{keys: []string{policy}}},
		{"memory, late packets", stressKind{keys: []string{policy}, late: true}},
		{"memory, swinging view", stressKind{keys: []string{policy}, views: true}},
		{"redis", stressKind{keys: []string{policy, "cache_store=" + pgtest.Redis(t)}}},
		{"redis, late packets", stressKind{keys: []string{policy, "cache_store=" + pgtest.Redis(t)}, late: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStress(t, tc.kind)
			for _, db := range s.dbs {
				for ; !inside.Live(db); time.Sleep(time.Millisecond) {
					if t.Context().Err() != nil {
						t.Fatal("no lease stands")
					}
				}
			}
			refilled := func() (n uint64) {
				for _, db := range s.dbs {
					n += cachedpg.StatsOf(db).Refilled
				}
				return n
			}
			s.run(t, *stressDuration/5, func() bool { return refilled() > 20 })
			if v := s.violated(); v != "" {
				t.Fatalf("%s\n%s", v, s.replay(t))
			}
			stats := cachedpg.StatsOf(s.dbs[0])
			t.Logf("refilled %d, skipped %d, failed %d", stats.Refilled, stats.RefillSkipped, stats.RefillFailed)
			if refilled() <= 20 {
				t.Errorf("little was refilled: %+v", stats)
			}
			s.sweep(t, false)
		})
	}
}
