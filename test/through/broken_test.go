package through

import (
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// I4: a write whose answer was lost has nothing to refill: nobody knows yet what
// PostgreSQL would say.
func TestAWriteWhoseAnswerIsLostRefillsNothing(t *testing.T) {
	const setup = harness.People + `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();`
	harness.ScenarioOnce(t, setup, func(f *harness.Fixture) {
		p := harness.ThroughProxy(f, usersThrough)
		harness.AwaitCaching(f, p.DB)
		p.Known(harness.UserByID, 1)
		g := f.CloseGate()
		lost := make(chan error, 1)
		before := cachedpg.StatsOf(p.DB)
		go func() {
			_, err := p.DB.ExecContext(f.Ctx, setCity, "Bergen")
			lost <- err
		}()
		g.Await(1)
		p.Cut()
		if err := <-lost; err == nil {
			f.Error("the answer was not lost")
		}
		refills(p.Via, before, 0, 0, 0)
		p.Restore()
		g.Open()
		p.Again(harness.UserByID, 1)
		refills(p.Via, before, 0, 0, 0)
	})
}

// The connection breaks during a refill: the commit has succeeded all the same,
// and the pool has other connections.
func TestAConnectionThatBreaksInARefill(t *testing.T) {
	const setup = harness.People + "CREATE TABLE cities (name text PRIMARY KEY)"
	harness.ScenarioOnce(t, setup, func(f *harness.Fixture) {
		p := harness.ThroughProxy(f, usersThrough)
		harness.AwaitCaching(f, p.DB)
		p.Known(harness.UserByID, 1)
		p.Known("SELECT count(*) FROM users JOIN cities ON cities.name = city")
		tx, err := f.Plain.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.Exec("LOCK TABLE cities"); err != nil {
			f.Fatal(err)
		}
		done := make(chan error, 1)
		before := cachedpg.StatsOf(p.DB)
		go func() {
			tx, err := p.DB.BeginTx(f.Ctx, nil)
			if err == nil {
				_, err = tx.ExecContext(f.Ctx, setCity, "Bergen")
			}
			if err == nil {
				err = tx.Commit()
			}
			done <- err
		}()
		f.Until("the refill to wait", func() bool {
			return f.Read(f.Plain, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'cities'::regclass", nil).String() == "1"
		})
		p.Cut()
		if err := <-done; err != nil {
			f.Errorf("the commit: %v", err)
		}
		p.Restore()
		refills(p.Via, before, 0, 1, 1)
		p.Fresh(harness.UserByID, 1).Is("1 ann Bergen")
		p.Hit(harness.UserByID, 1)
		p.Runs(keying.NotRead, "UPDATE users SET name = 'bea' WHERE id = 2 RETURNING name")
	})
}
