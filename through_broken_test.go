package cachedpg

import (
	"testing"

	"github.com/cachedpg/cachedpg/keying"
)

// I4: a write whose answer was lost has nothing to refill: nobody knows yet what
// PostgreSQL would say.
func TestAWriteWhoseAnswerIsLostRefillsNothing(t *testing.T) {
	const setup = people + `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();`
	scenarioOnce(t, setup, func(f *fixture) {
		p := f.proxy(usersThrough)
		awaitCaching(f, p.db)
		p.known(userByID, 1)
		g := f.closeGate()
		lost := make(chan error, 1)
		before := StatsOf(p.db)
		go func() {
			_, err := p.db.ExecContext(f.ctx, setCity, "Bergen")
			lost <- err
		}()
		g.await(1)
		p.cut()
		if err := <-lost; err == nil {
			f.Error("the answer was not lost")
		}
		p.refills(before, 0, 0, 0)
		p.restore()
		g.open()
		p.again(userByID, 1)
		p.refills(before, 0, 0, 0)
	})
}

// The connection breaks during a refill: the commit has succeeded all the same,
// and the pool has other connections.
func TestAConnectionThatBreaksInARefill(t *testing.T) {
	const setup = people + "CREATE TABLE cities (name text PRIMARY KEY)"
	scenarioOnce(t, setup, func(f *fixture) {
		p := f.proxy(usersThrough)
		awaitCaching(f, p.db)
		p.known(userByID, 1)
		p.known("SELECT count(*) FROM users JOIN cities ON cities.name = city")
		tx, err := f.plain.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.Exec("LOCK TABLE cities"); err != nil {
			f.Fatal(err)
		}
		done := make(chan error, 1)
		before := StatsOf(p.db)
		go func() {
			tx, err := p.db.BeginTx(f.ctx, nil)
			if err == nil {
				_, err = tx.ExecContext(f.ctx, setCity, "Bergen")
			}
			if err == nil {
				err = tx.Commit()
			}
			done <- err
		}()
		f.until("the refill to wait", func() bool {
			return f.read(f.plain, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'cities'::regclass", nil).String() == "1"
		})
		p.cut()
		if err := <-done; err != nil {
			f.Errorf("the commit: %v", err)
		}
		p.restore()
		p.refills(before, 0, 1, 1)
		p.fresh(userByID, 1).is("1 ann Bergen")
		p.hit(userByID, 1)
		p.runs(keying.NotRead, "UPDATE users SET name = 'bea' WHERE id = 2 RETURNING name")
	})
}
