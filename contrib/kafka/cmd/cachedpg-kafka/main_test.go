package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

func TestHowItIsCalledWrongly(t *testing.T) {
	t.Setenv("CACHEDPG_DSN", "postgres://u:secret@localhost/x?cache_store=redis://localhost:1/0")
	t.Setenv("CACHEDPG_KAFKA_BROKERS", "localhost:1")
	t.Setenv("CACHEDPG_KAFKA_TOPIC", "events")
	tests := []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "Usage:"},
		{[]string{"-h"}, exitOK, "Usage:"},
		{[]string{"produce", "-h"}, exitOK, "Usage:"},
		{[]string{"copy"}, exitUsage, `no command "copy"`},
		{[]string{"produce"}, exitUsage, "want outbox or wal"},
		{[]string{"produce", "--from", "table"}, exitUsage, "want outbox or wal"},
		{[]string{"produce", "--from", "wal", "--batch", "3"}, exitUsage, "for --from=outbox"},
		{[]string{"produce", "--group", "b"}, exitUsage, "group"},
		{[]string{"produce", "--from", "outbox", "more"}, exitUsage, "too many"},
		{[]string{"produce", "--from", "outbox", "--dsn", ""}, exitUsage, "no --dsn"},
		{[]string{"produce", "--from", "outbox", "--dsn", "postgres://localhost/x"}, exitUsage, "name the region's Redis"},
		{[]string{"consume"}, exitUsage, "no --group"},
		{[]string{"consume", "--group", "b", "--brokers", ""}, exitUsage, "no --brokers"},
		{[]string{"consume", "--group", "b", "--topic", ""}, exitUsage, "no --topic"},
		{[]string{"consume", "--group", "b", "--dsn", "postgres://localhost/x?cache_stor=off"}, exitUsage, "cache_stor"},
		{[]string{"consume", "--group", "b", "--dsn", "postgres://u:secret@localhost/x"}, exitUsage, "name the region's Redis"},
		{[]string{"consume", "--group", "b", "--dsn", "postgres://u:secret@localhost/x?cache_store=off"}, exitUsage, "name the region's Redis"},
		{[]string{"consume", "--group", "b", "--brokers", "kafka://a"}, exitUsage, "without a scheme"},
		{[]string{"consume", "--group", "b", "--user", "u", "--mechanism", "x"}, exitUsage, "scram-sha-512"},
		{[]string{"consume", "--group", "b", "--ca", "x"}, exitUsage, "for --tls"},
		{[]string{"consume", "--group", "b", "--tls", "--ca", "missing.pem"}, exitUsage, "missing.pem"},
		{[]string{"consume", "--group", "b", "--timeout", "100ms"}, exitFailed, "is one running"},
	}
	for _, tt := range tests {
		var out, errs bytes.Buffer
		code := run(t.Context(), tt.args, &out, &errs)
		got := out.String() + errs.String()
		if code != tt.code || !strings.Contains(got, tt.want) || strings.Contains(got, "secret") {
			t.Errorf("%q: exit code %d, want %d; got %q, want %q", tt.args, code, tt.code, got, tt.want)
		}
	}
}

// A commit in region A is seen in region B, by way of either source. One process
// has one store for a database, so region A is other processes: this test's
// program again, as cachedpg-kafka and as the application that writes.
func TestFromOneRegionToTheOther(t *testing.T) {
	for _, from := range []string{"outbox", "wal"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			a, b := regions(t, dsn)
			plain := sql.OpenDB(stdlib.GetConnector(*pgtest.Connect(t, dsn).Config()))
			t.Cleanup(func() { plain.Close() })
			if err := cachedpg.Setup(t.Context(), plain); err != nil {
				t.Fatal(err)
			}
			if from == "wal" {
				pgtest.Exec(t, dsn, cachedpg.WALSetupSQL)
			}
			pgtest.Exec(t, dsn, "CREATE TABLE people (id int PRIMARY KEY, city text); INSERT INTO people VALUES (1, 'Rome')")
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "events"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			topic := []string{"--brokers", strings.Join(cluster.ListenAddrs(), ","), "--topic", "events"}

			child(t, append([]string{"produce", "--from", from, "--dsn", a}, topic...)...)
			child(t, append([]string{"consume", "--group", "b", "--dsn", b}, topic...)...)
			reader, err := sql.Open("cachedpg", b)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { reader.Close() })
			city := func() (city string, hit bool) {
				before := cachedpg.StatsOf(reader).Hits
				if err := reader.QueryRow("SELECT city FROM people WHERE id = 1").Scan(&city); err != nil {
					t.Fatal(err)
				}
				return city, cachedpg.StatsOf(reader).Hits > before
			}
			// Each of these is seen only by way of the topic.
			for _, want := range []string{"Oslo", "Bern", "Bonn"} {
				eventually(t, "a hit", func() bool { _, hit := city(); return hit })
				write := child(t, "write", a, "UPDATE people SET city = '"+want+"' WHERE id = 1")
				if err := write.Wait(); err != nil {
					t.Fatal(err)
				}
				eventually(t, want+" in region B", func() bool { got, _ := city(); return got == want })
			}
		})
	}
}

// regions are the DSNs of region A, which writes, and of region B, which is told.
func regions(t testing.TB, dsn string) (a, b string) {
	return with(t, dsn, "cache_outbox", "always"), with(t, dsn, "cache_external", "events")
}

// with is dsn with a Redis of its own, and a setting.
func with(t testing.TB, dsn, key, value string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("cache_store", redistest.Start(t).URL())
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// role, if set, makes a program of this test be the one that is tested, or, with
// the first argument "write", or "writes", a writer.
const role = "CACHEDPG_KAFKA_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(role) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	var err error
	switch os.Args[1] {
	case "write":
		err = writes(os.Args[2], strings.NewReader(os.Args[3]), io.Discard)
	case "writes":
		err = writes(os.Args[2], os.Stdin, os.Stdout)
	default:
		main()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child runs the program until the test ends.
func child(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), role+"=1")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(os.Interrupt)
			kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
			if err := cmd.Wait(); err != nil {
				t.Errorf("%q: %v", args[0], err)
			}
		}
		if t.Failed() {
			t.Logf("%q: %s", args[0], errs.String())
		}
	})
	return cmd
}

// patience bounds what other processes have to do.
const patience = 30 * time.Second

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not seen after %v: %s", patience, what)
		}
	}
}
