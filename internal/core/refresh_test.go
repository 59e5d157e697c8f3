package core

import (
	"math"
	"testing"
	"time"
)

func TestEarlyRefreshIsLikelierTowardsTheEnd(t *testing.T) {
	const took = time.Second
	for _, tc := range []struct {
		left time.Duration
		want float64
	}{
		{-time.Second, 1}, {0, 1}, {took / 10, math.Exp(-0.1)}, {took, math.Exp(-1)}, {3 * took, math.Exp(-3)}, {41 * took, 0}, {time.Hour, 0},
	} {
		const n = 10000
		due := 0
		for i := range n { // evenly, so that the count is what it should be
			if dueEarly(tc.left, took, func() float64 { return (float64(i) + 0.5) / n }) {
				due++
			}
		}
		if got := float64(due) / n; math.Abs(got-tc.want) > 0.001 {
			t.Errorf("%v before the end: %.3f of the hits refresh, want %.3f", tc.left, got, tc.want)
		}
	}
}
