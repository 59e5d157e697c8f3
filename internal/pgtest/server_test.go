//go:build unix

package pgtest

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

const identity = "SELECT (SELECT system_identifier::text FROM pg_control_system()) || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"

func TestServerIsCopiedPromotedAndCrashed(t *testing.T) {
	t.Parallel()
	primary := StartServer(t)
	primary.Exec("CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
	standby := primary.Standby()
	clone := primary.Clone()
	if got, want := clone.Query(identity), primary.Query(identity); got != want {
		t.Errorf("the clone is %s, want %s", got, want)
	}
	if other := StartServer(t); other.Query(identity) == primary.Query(identity) {
		t.Error("two servers are one by their identity")
	}

	primary.Exec("INSERT INTO t VALUES (2)")
	primary.Await(standby)
	before := primary.Query(identity)
	primary.Stop()
	standby.Promote()
	if after := standby.Query(identity); after == before {
		t.Errorf("the promoted standby is %s, as the primary was", after)
	}
	standby.Exec("INSERT INTO t VALUES (3)")
	for _, c := range []struct {
		server *Server
		want   string
	}{{standby, "1,2,3"}, {clone, "1"}} {
		if got := c.server.Query("SELECT string_agg(n::text, ',' ORDER BY n) FROM t"); got != c.want {
			t.Errorf("rows %s, want %s", got, c.want)
		}
	}

	standby.Crash()
	if err := standby.Try("SELECT"); err == nil {
		t.Error("a server that has crashed answers")
	}
	standby.Start()
	if got := standby.Query("SELECT count(*)::text FROM t"); got != "3" {
		t.Errorf("after a crash %s rows, want 3", got)
	}
}

func TestBouncerKeepsItsClientsWhenItIsRepointed(t *testing.T) {
	t.Parallel()
	one := StartServer(t)
	two := one.Clone()
	one.Exec("CREATE TABLE here AS SELECT 'one' AS name")
	two.Exec("CREATE TABLE here AS SELECT 'two' AS name")
	b := StartBouncer(t, one.DSN(), "transaction")
	client := Connect(t, b.DSN()+"&default_query_exec_mode=exec")
	at := func() (name string) {
		if err := client.QueryRow(t.Context(), "SELECT name FROM here").Scan(&name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if got := at(); got != "one" {
		t.Fatalf("got %s", got)
	}
	b.Pause()
	asked, dsn := make(chan string), b.DSN()
	go func() {
		conn, err := pgconn.Connect(t.Context(), dsn)
		if err != nil {
			asked <- err.Error()
			return
		}
		defer conn.Close(t.Context())
		results, err := conn.Exec(t.Context(), "SELECT name FROM here").ReadAll()
		if err != nil {
			asked <- err.Error()
			return
		}
		asked <- string(results[0].Rows[0][0])
	}()
	b.Repoint(two.DSN())
	b.Resume()
	if got := <-asked; got != "two" {
		t.Errorf("who asked while it was paused got %s, want two", got)
	}
	if got := at(); got != "two" {
		t.Errorf("the same client got %s afterwards, want two", got)
	}
}
