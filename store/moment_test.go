package store

import (
	"math"
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	now := time.Now()
	m := MomentOf(now)
	if got := MomentOf(now.Add(time.Hour)); got != m.Add(time.Hour) || got.Sub(m) != time.Hour {
		t.Errorf("an hour later is %v later", got.Sub(m))
	}
	if got := Now(); got < m {
		t.Errorf("now is %v ago", m.Sub(got))
	}
	if got := m.Add(math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("beyond the end of time: %d", got)
	}
	if got := m.Add(-time.Hour); m.Sub(got) != time.Hour {
		t.Errorf("an hour earlier is %v earlier", m.Sub(got))
	}
	// For other processes the time on the wall counts, whatever it was when this one began.
	if d := m.onWall().Sub(now.Round(0)); d.Abs() > time.Second {
		t.Errorf("on the wall it is %v later", d)
	}
	if got := momentAt(m.onWall()); got != m {
		t.Errorf("there and back is %v later", got.Sub(m))
	}
}
