package core

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/keying"
)

// The time of now as an argument is never the same again.
func TestArgumentsThatNeverComeAgainAreNotStored(t *testing.T) {
	gainless(t, func(f *harness.Fixture) {
		const query, reads = "SELECT name FROM users WHERE id = 1 AND $1::timestamptz > '2020-01-01'", 1000
		now := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
		before := statsOf(f.DB)
		for range reads {
			now = now.Add(time.Microsecond)
			if got := one(f.Via, query, now); got != "ann" {
				f.Fatalf("got %q", got)
			}
		}
		s := statsOf(f.DB)
		skipped := s.Bypasses[keying.NoGain.String()]
		if fills := s.Fills - before.Fills; fills > planning.AccountLimit+reads/8 || skipped < reads/2 {
			f.Errorf("%d of %d were stored, and %d not looked up", fills, reads, skipped)
		}
		if st := statement(f.Via, "timestamptz"); !st.NoGain || st.Reason != "" {
			f.Errorf("Stats say %+v", st)
		}
		if x := explain(f.Via, query, now); !x.Cacheable || !strings.Contains(strings.Join(x.Notes, " "), "(no-gain)") {
			f.Errorf("explained as\n%+v", x)
		}
		for range 8 * planning.SampledEvery { // from now on it stands still
			one(f.Via, query, now)
		}
		f.Hit(query, now)
		if st := statement(f.Via, "timestamptz"); st.NoGain {
			f.Errorf("Stats say %+v", st)
		}
		if x := explain(f.Via, query, now); strings.Contains(strings.Join(x.Notes, " "), "no-gain") {
			f.Errorf("explained as\n%+v", x)
		}
	})
}

func TestWithAdmissionOfAllWhatNeverComesAgainIsStored(t *testing.T) {
	gainless(t, func(f *harness.Fixture) {
		all := f.With("cache_admission=all")
		harness.AwaitCaching(t, all.DB)
		const reads = 2 * planning.AccountLimit
		for i := range reads {
			one(all, "SELECT name FROM users WHERE id = 1 AND $1::int > 0", 1+i)
		}
		if s := statsOf(all.DB); s.Bypasses[keying.NoGain.String()] != 0 || s.Fills <= planning.AccountLimit {
			f.Errorf("%d fills of %d reads, bypassed %v", s.Fills, reads, s.Bypasses)
		}
	})
}

// A row that is changed each time before it is read again gains nothing. What is
// read is right all the same, and once it is no longer changed it is cached again.
func TestARowThatIsChangedBeforeItIsReadAgainIsNotLookedUp(t *testing.T) {
	gainless(t, func(f *harness.Fixture) {
		const query, turns = "SELECT city FROM users WHERE id = $1", 400
		before := statsOf(f.DB).Fills
		for i := range turns {
			city := fmt.Sprint("city ", i)
			f.Exec("UPDATE users SET city = $2 WHERE id = $1", 1, city)
			f.Released()
			if got := one(f.Via, query, 1); got != city {
				f.Fatalf("got %q, want %q", got, city)
			}
		}
		s := statsOf(f.DB)
		if fills := s.Fills - before; fills > planning.AccountLimit+turns/8 || s.Bypasses[keying.NoGain.String()] < turns/4 {
			f.Errorf("%d fills, bypassed %v", fills, s.Bypasses)
		}
		for range 8 * planning.SampledEvery {
			one(f.Via, query, 1)
		}
		f.Hit(query, 1)
	})
}

// gainless runs a story with each store, once the cache is warm.
func gainless(t *testing.T, story func(f *harness.Fixture)) {
	t.Helper()
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		harness.AwaitCaching(t, f.DB)
		story(f)
	})
}

// one reads one value.
func one(v harness.Via, query string, args ...any) (got string) {
	v.F.Helper()
	if err := v.Ask.(*sql.DB).QueryRowContext(v.F.Ctx, query, args...).Scan(&got); err != nil {
		v.F.Fatal(err)
	}
	return got
}

func statement(v harness.Via, part string) (found StatementStats) {
	for _, st := range statsOf(v.DB).Statements {
		if strings.Contains(st.Text, part) {
			found = st
		}
	}
	return found
}
