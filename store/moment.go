package store

import (
	"math"
	"time"
)

// Moment is a time on the clock of this process, which nobody sets: nanoseconds since 1970
// by what the clock on the wall said when the process began. 0 is none. It takes a third of
// a time.Time, and each entry holds one.
type Moment int64

var (
	began = time.Now()
	first = Moment(began.UnixNano())
)

// MomentOf returns the moment of a time that came from time.Now in this process.
func MomentOf(t time.Time) Moment { return first.Add(t.Sub(began)) }

// Now returns the moment that it is now.
func Now() Moment { return first + Moment(time.Since(began)) }

// Add returns the moment d later, or the last one that there is.
func (m Moment) Add(d time.Duration) Moment {
	sum := m + Moment(d)
	if d > 0 && sum < m {
		return math.MaxInt64
	}
	return sum
}

// Sub returns how much later m is than from.
func (m Moment) Sub(from Moment) time.Duration { return time.Duration(m - from) }

// momentAt returns the moment for which other processes say t.
func momentAt(t time.Time) Moment { return Moment(t.UnixNano() - int64(wallSteps())) }

// onWall is the reverse.
func (m Moment) onWall() time.Time { return time.Unix(0, int64(m.Add(wallSteps()))) }

// wallSteps is how far the clock on the wall was set, or the machine slept, since the process
// began. Less than a second is none, so that there and back is the same.
func wallSteps() time.Duration {
	now := time.Now()
	if d := now.Round(0).Sub(began.Round(0)) - now.Sub(began); d.Abs() >= time.Second {
		return d
	}
	return 0
}
