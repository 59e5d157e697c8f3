package backend

import (
	"testing"
	"time"
)

// PostgreSQL writes limits in the largest unit that has no fraction.
func TestLimitsAreReadAsPostgreSQLWritesThem(t *testing.T) {
	for limits, want := range map[string]time.Duration{
		"0 0": 0, "1s 0": time.Second, "0 250ms 0": 250 * time.Millisecond, "2min 1h 0": 2 * time.Minute, "1d 0 0": 24 * time.Hour,
		"": 0, "nonsense 5s": 5 * time.Second,
	} {
		if got := shortest(limits); got != want {
			t.Errorf("%q: got %v, want %v", limits, got, want)
		}
	}
}
