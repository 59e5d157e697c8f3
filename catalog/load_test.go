package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func run(tb testing.TB, conn *pgx.Conn, sql string) {
	tb.Helper()
	if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		tb.Fatal(err)
	}
}

func load(tb testing.TB, conn *pgx.Conn) *catalog.Snapshot {
	tb.Helper()
	s, err := catalog.Load(context.Background(), conn)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// relation is a relation of the schema public that must be there.
func relation(tb testing.TB, s *catalog.Snapshot, name string) *catalog.Relation {
	tb.Helper()
	r := s.Resolve([]string{"pg_catalog", "public"}, "", name)
	if r == nil {
		tb.Fatalf("no relation %s", name)
	}
	return r
}

// session is everything about a session that Load could disturb.
func session(tb testing.TB, conn *pgx.Conn) string {
	tb.Helper()
	const sql = `SELECT string_agg(name || '=' || setting || ' by ' || source, E'\n' ORDER BY name) FROM pg_settings
		WHERE name NOT LIKE 'transaction%' UNION ALL SELECT count(*)::text FROM pg_prepared_statements`
	results, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("%s prepared %s status %c", results[0].Rows[0][0], results[0].Rows[1][0], conn.PgConn().TxStatus())
}

func TestLoadLeavesTheSessionAsItWas(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	run(t, conn, `CREATE TABLE t (id int); CREATE VIEW v AS SELECT id FROM t;
		SET search_path = nowhere, public; SET datestyle = 'SQL, DMY'; SET lock_timeout = 7777`)

	t.Run("outside a transaction", func(t *testing.T) {
		before := session(t, conn)
		load(t, conn)
		if after := session(t, conn); after != before {
			t.Errorf("the session changed:\n%s", diff(after, before))
		}
	})
	for _, begin := range []string{"BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ ONLY"} {
		t.Run("in "+begin, func(t *testing.T) {
			run(t, conn, begin+"; SET LOCAL search_path = public; SAVEPOINT cachedpg_catalog")
			if !strings.HasSuffix(begin, "ONLY") {
				run(t, conn, "CREATE TABLE own (id int); INSERT INTO t VALUES (1)")
			}
			before := session(t, conn)
			s := load(t, conn)
			if after := session(t, conn); after != before {
				t.Errorf("the session changed:\n%s", diff(after, before))
			}
			if !strings.HasSuffix(begin, "ONLY") {
				relation(t, s, "own")
				run(t, conn, "SELECT 1 / count(*) FROM t") // what was written is still there
			}
			run(t, conn, "ROLLBACK TO SAVEPOINT cachedpg_catalog; ROLLBACK") // the caller's own savepoint
		})
	}
	t.Run("in a failed transaction", func(t *testing.T) {
		run(t, conn, "BEGIN")
		if _, err := conn.PgConn().Exec(context.Background(), "SELECT 1 / 0").ReadAll(); err == nil {
			t.Fatal("no error")
		}
		if _, err := catalog.Load(context.Background(), conn); err == nil || conn.PgConn().TxStatus() != 'E' {
			t.Errorf("got error %v and status %c, want an error and a failed transaction", err, conn.PgConn().TxStatus())
		}
		run(t, conn, "ROLLBACK")
	})
}

func TestLoadNeedsNoPrivileges(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	run(t, conn, `CREATE SCHEMA hidden; CREATE TABLE hidden.t (id int PRIMARY KEY, x int CHECK (x > 0));
		CREATE VIEW hidden.v AS SELECT a.id FROM hidden.t a, hidden.t b;
		CREATE FUNCTION hidden.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
		REVOKE ALL ON FUNCTION hidden.f FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;
		ALTER TABLE hidden.t ENABLE ROW LEVEL SECURITY`)
	want := dump(load(t, conn))
	run(t, conn, "SET ROLE pg_signal_backend") // owns nothing and may see nothing
	if _, err := conn.PgConn().Exec(context.Background(), "SELECT FROM hidden.t").ReadAll(); err == nil {
		t.Fatal("the role is not an ordinary one")
	}
	if got := dump(load(t, conn)); got != want {
		t.Errorf("an ordinary role sees another schema:\n%s", diff(got, want))
	}
}

func TestLoadDoesNotWaitForLockedTables(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	conn, other := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	run(t, conn, `CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT id FROM t`)
	for _, begin := range []string{"", "BEGIN"} {
		run(t, other, "BEGIN; LOCK TABLE t")
		run(t, conn, begin)
		status := conn.PgConn().TxStatus()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		s, err := catalog.Load(ctx, conn)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if v := relation(t, s, "v"); !s.Incomplete() || v.View != "" || !slices.Equal(v.Sources, []uint32{relation(t, s, "t").OID}) {
			t.Errorf("incomplete %v, view %q, sources %v; want an incomplete snapshot without the definition", s.Incomplete(), v.View, v.Sources)
		}
		if len(relation(t, s, "t").Keys) != 1 {
			t.Error("the facts of the locked table are missing")
		}
		if got := conn.PgConn().TxStatus(); got != status {
			t.Errorf("status %c, want %c", got, status)
		}
		run(t, other, "ROLLBACK")
		if s := load(t, conn); s.Incomplete() || relation(t, s, "v").View == "" {
			t.Error("still incomplete after the lock is gone")
		}
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	conn, other := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	run(t, conn, `CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT id FROM t`)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := catalog.Load(ctx, conn); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	load(t, conn) // nothing was sent

	run(t, other, "BEGIN; LOCK TABLE t, pg_catalog.pg_cast")
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := catalog.Load(ctx, conn); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	if !conn.IsClosed() {
		t.Error("the connection is still open, in whatever state")
	}
}

func TestLoadReportsARefusal(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	conn, other := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	run(t, other, "BEGIN; LOCK TABLE pg_catalog.pg_cast")
	_, err := catalog.Load(context.Background(), conn)
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "55P03" {
		t.Errorf("got %v, want lock_not_available", err)
	}
	if got := conn.PgConn().TxStatus(); got != 'I' {
		t.Errorf("status %c, want I", got)
	}
	run(t, other, "ROLLBACK")
	load(t, conn)
}

// A transaction changes two tables alike; no snapshot may see one of the changes.
func TestLoadSeesOneMoment(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	conn, other := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	run(t, conn, "CREATE TABLE one (id int); CREATE TABLE two (id int)")
	ctx, stop := context.WithCancel(context.Background())
	changed := make(chan error, 1)
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			anew := ""
			if i%20 == 0 { // what is read stays small, however fast they are made
				anew = "DROP TABLE one, two CASCADE; CREATE TABLE one (id int); CREATE TABLE two (id int);"
			}
			sql := fmt.Sprintf("BEGIN; %s ALTER TABLE one ADD c%d int UNIQUE; CREATE TABLE o%[2]d () INHERITS (one);"+
				"ALTER TABLE two ADD c%[2]d int UNIQUE; CREATE TABLE t%[2]d () INHERITS (two); COMMIT", anew, i)
			if _, err := other.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
				changed <- err
				return
			}
		}
		changed <- nil
	}()
	for i := range 20 {
		if i == 10 {
			run(t, conn, "BEGIN ISOLATION LEVEL READ COMMITTED")
		}
		s := load(t, conn)
		one, two := relation(t, s, "one"), relation(t, s, "two")
		if len(one.Columns) != len(two.Columns) || len(one.Keys) != len(two.Keys) || len(one.Children) != len(two.Children) ||
			len(one.Keys) != len(one.Columns)-1 {
			t.Errorf("columns %d and %d, keys %d and %d, children %d and %d", len(one.Columns), len(two.Columns),
				len(one.Keys), len(two.Keys), len(one.Children), len(two.Children))
		}
	}
	run(t, conn, "COMMIT")
	stop()
	if err := <-changed; err != nil {
		t.Error(err)
	}
}
