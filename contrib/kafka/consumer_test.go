package kafka

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestAnEventOfAnotherRegionInvalidates(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		name := map[bool]string{false: "memory", true: "redis"}[shared]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := "memory"
			if shared {
				url = pgtest.Redis(t)
			}
			r, config := newRegion(t, url), configOf(fake(t, 3))
			p, c := producer(t, config), consume(t, r.db, config)
			c.started()
			r.warm(1, "Rome")

			e := r.moves(1, "Oslo")
			r.hits(1, "Rome") // stale, until the event is there
			send(t, p, e)
			c.await("the event", func(s ConsumerStats) bool { return s.Applied == 2 })
			r.misses(1, "Oslo")
			if s := c.Stats(); s.Lag <= 0 || s.Cold != 1 || s.Errors != 0 || s.Records != 2 {
				t.Errorf("%+v", s)
			}
		})
	}
}
