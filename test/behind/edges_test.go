package behind

import (
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// The position is the driver's own affair, whoever wrote last.
func TestTheRoleOfAWriteNeedNotKnowTheQueue(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		role := roleOf(f)
		makeRole(f, role)
		f.Cleanup(func() { f.Past("DROP OWNED BY " + role + "; DROP ROLE " + role) })
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		_, conn := f.Session()
		if _, err := conn.ExecContext(f.Ctx, "SET ROLE "+role+"; SET TimeZone = 'Asia/Tokyo'"); err != nil {
			f.Fatal(err)
		}
		for i := range 2 {
			if _, err := conn.ExecContext(f.Ctx, "UPDATE hits SET n = n + 1, seen = '2026-01-02 00:00' WHERE id = 1"); err != nil {
				f.Fatal(err)
			}
			f.Drained()
			if !queues(f.Via, "UPDATE hits SET seen = '2026-01-02 00:00' WHERE id = 2") {
				f.Fatal("not queued")
			}
			f.Drained()
			if got := inPostgres(f, "SELECT n, seen = '2026-01-01 15:00Z' FROM hits WHERE id = 1"); got != []string{"1 true", "2 true"}[i] {
				f.Error(got)
			}
			if got := inPostgres(f, "SELECT a.seen - b.seen = '9h' FROM hits a, hits b WHERE a.id = 2 AND b.id = 1"); got != "true" {
				f.Error("a write has the settings of the one before it")
			}
		}
		if _, err := conn.ExecContext(f.Ctx, "RESET ROLE"); err != nil {
			f.Fatal(err)
		}
	})
}

func TestAWriteOfATemporaryTableIsNotQueuedForAnother(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		_, conn := f.Session()
		exec := func(query string) {
			f.Helper()
			if _, err := conn.ExecContext(f.Ctx, query); err != nil {
				f.Fatal(err)
			}
		}
		exec("UPDATE hits SET n = 3 WHERE id = 1")
		exec("CREATE TEMP TABLE hits (id int PRIMARY KEY, n int, seen timestamptz)")
		exec("INSERT INTO hits VALUES (1, 10)")
		exec("UPDATE hits SET n = n + 1 WHERE id = 1")
		f.Drained()
		if got := f.Read(conn, readHit, []any{1}).String(); got != "11" {
			f.Errorf("the temporary table has %s, want 11", got)
		}
		if got := inPostgres(f, readHit, 1); got != "3" {
			f.Errorf("the other has %s, want 3", got)
		}
	})
}

// What PostgreSQL checks at COMMIT is found out before it, or one such write would
// keep back all behind it.
func TestADeferredConstraintRefusesOneWriteOnly(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past("CREATE TABLE owners (id int PRIMARY KEY); ALTER TABLE hits ADD owner int REFERENCES owners DEFERRABLE INITIALLY DEFERRED")
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		release := heldQueue(f)
		if !queues(f.Via, countHit, 1) || !queues(f.Via, "UPDATE hits SET owner = 7 WHERE id = $1", 2) || !queues(f.Via, countHit, 3) {
			f.Fatal("not queued")
		}
		release()
		f.Fresh("SELECT n FROM hits ORDER BY id").Is("1, 0, 1")
		if s := cachedpg.StatsOf(f.DB).Queue; s.Dead != 1 {
			f.Errorf("%+v", s)
		}
	})
}

// What a statement reads that its text does not name comes after the queue too.
func TestCodeThatReadsAQueuedRowComesAfterIt(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past(`CREATE FUNCTION copy_hit() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN SELECT h.n INTO NEW.n FROM hits h WHERE h.id = 1; RETURN NEW; END $$;
			CREATE TABLE copies (id int PRIMARY KEY, n int);
			CREATE TRIGGER copy BEFORE INSERT ON copies FOR EACH ROW EXECUTE FUNCTION copy_hit();
			CREATE MATERIALIZED VIEW seen AS SELECT id, n FROM hits;
			CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT sum(n) FROM hits';
			CREATE TABLE totals (id int PRIMARY KEY, n bigint DEFAULT total());
			CREATE VIEW sums AS SELECT total() AS n`)
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		_, conn := f.Session()
		if _, err := conn.ExecContext(f.Ctx, "PREPARE p AS SELECT n FROM hits WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		for i, of := range []struct{ write, read string }{
			{"INSERT INTO copies VALUES (1, 0)", "SELECT n FROM copies"},
			{"REFRESH MATERIALIZED VIEW seen", "SELECT n FROM seen WHERE id = 1"},
			{"", "EXECUTE p"},
			{"INSERT INTO totals VALUES (1)", "SELECT n FROM totals"},
			{"", "SELECT n FROM sums"},
			{"CREATE TABLE own AS SELECT n FROM hits WHERE id = 1", "SELECT n FROM own"},
			{"SELECT n INTO own2 FROM hits WHERE id = 1", "SELECT n FROM own2"},
			{"INSERT INTO others SELECT 7, n FROM hits WHERE id = 1", "SELECT n FROM others WHERE id = 7"},
			{"DO $$ BEGIN UPDATE others SET n = (SELECT n FROM hits WHERE id = 1) WHERE id = 1; END $$", "SELECT n FROM others WHERE id = 1"},
		} {
			release := heldQueue(f)
			if !queues(f.Via, countHit, 1) {
				f.Fatal("the write was not queued")
			}
			got := make(chan string, 1)
			go func() {
				if of.write != "" {
					if _, err := conn.ExecContext(f.Ctx, of.write); err != nil {
						f.Errorf("%s: %v", of.write, err)
					}
				}
				got <- f.Read(conn, of.read, nil).String()
			}()
			select {
			case early := <-got:
				f.Errorf("%s %s: %s before what is queued", of.write, of.read, early)
				release()
				continue
			case <-time.After(100 * time.Millisecond):
			}
			release()
			if n := <-got; n != []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"}[i] {
				f.Errorf("%s %s: %s, want %d", of.write, of.read, n, i+1)
			}
		}
	})
}

// A role that is dropped is a reason to refuse what it wrote, and not to keep
// everybody waiting.
func TestAWriteOfARoleThatIsGoneIsRefused(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		role := roleOf(f)
		makeRole(f, role)
		_, conn := f.Session()
		if _, err := conn.ExecContext(f.Ctx, "SET ROLE "+role); err != nil {
			f.Fatal(err)
		}
		release := heldQueue(f)
		if _, err := conn.ExecContext(f.Ctx, countHit, 1); err != nil {
			f.Fatal(err)
		}
		f.Exec(countHit, 2)
		if _, err := conn.ExecContext(f.Ctx, "RESET ROLE"); err != nil {
			f.Fatal(err)
		}
		f.Past("DROP OWNED BY " + role + "; DROP ROLE " + role)
		release()
		f.Fresh("SELECT n FROM hits WHERE id < 3 ORDER BY id").Is("0, 1")
		if s := cachedpg.StatsOf(f.DB).Queue; s.Dead != 1 {
			f.Errorf("%+v", s)
		}
	})
}

func TestExplainSaysWhatAQueuedWriteRisks(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Drained()
		x, err := cachedpg.Explain(f.Ctx, f.DB, countHit)
		if err != nil {
			f.Fatal(err)
		}
		if notes := strings.Join(x.Notes, " "); !strings.Contains(notes, "It is queued") || !strings.Contains(notes, "may be lost: appendonly is off") {
			f.Errorf("%s", notes)
		}
		if x, err := cachedpg.Explain(f.Ctx, f.DB, "UPDATE others SET n = 1 WHERE id = 1"); err != nil || strings.Contains(strings.Join(x.Notes, " "), "queued") {
			f.Errorf("of another table: %v, %v", x, err)
		}
	})
}
