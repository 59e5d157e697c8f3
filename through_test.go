package cachedpg

import (
	"testing"
)

const usersThrough = "cache_policy=users:write-through"

// refills checks what commits have done since before.
func (v via) refills(before Stats, refilled, skipped, failed uint64) {
	v.f.Helper()
	s := StatsOf(v.db)
	got := [3]uint64{s.Refilled - before.Refilled, s.RefillSkipped - before.RefillSkipped, s.RefillFailed - before.RefillFailed}
	if want := [3]uint64{refilled, skipped, failed}; got != want {
		v.f.Fatalf("got refilled, skipped, failed %v, want %v", got, want)
	}
}

func TestACommitRefillsWhatItInvalidated(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		v := f.with(usersThrough)
		v.known(userByID, 1).is("1 ann Oslo")
		v.known(userByID, 2)
		v.known("SELECT count(*) FROM users")
		before := StatsOf(v.db)
		v.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		v.hit(userByID, 1).is("1 ann Bergen")
		v.hit("SELECT count(*) FROM users").is("3")
		v.hit(userByID, 2)
		v.refills(before, 2, 0, 0)

		tx, err := v.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		v.on(tx).exec("UPDATE users SET city = 'Paris' WHERE id = $1", 1)
		v.on(tx).exec("DELETE FROM users WHERE id = $1", 2)
		v.hit(userByID, 2)
		f.commit(tx)
		v.hit(userByID, 1).is("1 ann Paris")
		v.hit(userByID, 2).is("")
		v.hit("SELECT count(*) FROM users").is("2")
	})
}
