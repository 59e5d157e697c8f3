package session

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// More tenants by turns than anything is bounded by that is meant for few: once each of them was there, none is asked for.
func TestManySearchPathsAskNothingMore(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		const paths = 300
		database := pgtest.Database(t)
		var setup strings.Builder
		for i := range paths {
			fmt.Fprintf(&setup, "CREATE SCHEMA t%d; CREATE TABLE t%d.users (id int PRIMARY KEY, name text); INSERT INTO t%[1]d.users VALUES (1, 'of %[1]d');", i, i)
		}
		f := harness.New(t, database, "cache_statement", setup.String(), keys...)
		wire := pgtest.Listen(t, f.DSN)
		f.DB = f.Open("cachedpg", harness.WithKeys(wire.DSN, f.Keys))
		f.Via = f.Asking(f.DB)
		f.Again("SELECT 1")
		s, _ := f.Session()
		turn := func(round int) {
			for i := range paths {
				s.Exec(fmt.Sprintf("SET search_path = t%d", i))
				r := s.Read(s.Ask, "SELECT name FROM users WHERE id = $1", []any{1})
				r.TB = t
				r.Is(fmt.Sprintf("of %d", i))
				if r := s.Read(s.Ask, "SELECT id FROM users WHERE id = $1", []any{1000 + round}); r.Err != nil {
					t.Fatal(r.Err)
				}
				s.Exec("RESET search_path")
			}
		}
		turn(0)
		before, parsed := len(wire.Texts()), cachedpg.StatsOf(f.DB).Parsed
		turn(1)
		sessions, discards := outside.SessionQuestions(wire.Texts()[before:])
		if sessions != 0 || discards != 0 {
			t.Errorf("%d requests: the session was asked for %d times, and DISCARD PLANS sent %d times", paths, sessions, discards)
		}
		if n := cachedpg.StatsOf(f.DB).Parsed - parsed; n != 0 {
			t.Errorf("%d requests: %d texts were parsed again", paths, n)
		}
	})
}

// A time zone for each request, and DISCARD PLANS after it: nothing is sent that the program does not send, but for what
// has literals that the zone decides.
func TestATimeZoneForEachRequestAsksNothing(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.Clocks, keys...)
		wire := pgtest.Listen(t, f.DSN)
		f.DB = f.Open("cachedpg", harness.WithKeys(wire.DSN, f.Keys))
		f.Via = f.Asking(f.DB)
		f.Again("SELECT 1")
		s, _ := f.Session()
		absent := 1000
		request := func(zone string) {
			s.Both("SET TIME ZONE '" + zone + "'")
			for _, query := range []string{"SELECT at::text FROM clocks WHERE id = $1", "SELECT at > '2024-05-01 12:00', id FROM clocks WHERE id = $1"} {
				absent++
				s.Fresh(query, 1)
				s.Fresh(query, absent)
			}
			s.Both("DISCARD PLANS")
			s.Both("RESET TIME ZONE")
		}
		for range 2 {
			request("Asia/Tokyo")
			request("Europe/Oslo")
		}
		before := len(wire.Texts())
		for range 10 {
			request("Asia/Tokyo")
			request("Europe/Oslo")
		}
		sessions, discards := outside.SessionQuestions(wire.Texts()[before:])
		if own := discards - 20; sessions != 0 || own != 0 {
			t.Errorf("20 requests: the session was asked for %d times, and the driver sent DISCARD PLANS %d times", sessions, own)
		}
	})
}
