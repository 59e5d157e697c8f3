//go:build unix

package pgtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/child"
)

// Server is a PostgreSQL server of a test's own, to be crashed, copied and
// promoted. It ends with the test. Its superuser is postgres, everybody is let in
// from 127.0.0.1, and commits are as durable as PostgreSQL makes them. Its methods
// fail the test when they fail, and are for one goroutine at a time.
type Server struct {
	tb      testing.TB
	dir     string
	data    string
	port    int
	options []string // further name=value settings of its command line
	process *child.Process
}

// StartServer makes a server and starts it. Settings are name=value, as on
// PostgreSQL's command line. Without PostgreSQL's programs the test is skipped, or
// fails when CACHEDPG_TEST_REQUIRE is 1. They are those in CACHEDPG_POSTGRES_BIN,
// or else the newest that are installed.
func StartServer(tb testing.TB, settings ...string) *Server {
	tb.Helper()
	s := newServer(tb, settings)
	s.copyNew()
	s.Start()
	return s
}

func newServer(tb testing.TB, settings []string) *Server {
	tb.Helper()
	postgresBin(tb)
	f := serverFolder(tb)
	tb.Cleanup(f.remove)
	return &Server{tb: tb, dir: f.path, data: filepath.Join(f.path, "data"), port: child.Port(tb), options: settings}
}

// Start starts a server that was stopped or has crashed, on the port that it had.
func (s *Server) Start() {
	s.tb.Helper()
	args := []string{"-D", s.data}
	// Its shared memory is in its folder too, for a server that is killed does not remove it.
	for _, setting := range slices.Concat([]string{"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(s.port), "unix_socket_directories=",
		"wal_level=logical", "max_prepared_transactions=50", "max_connections=100", "shared_buffers=32MB", "fsync=off",
		"dynamic_shared_memory_type=mmap"}, s.options) {
		args = append(args, "-c", setting)
	}
	s.process = child.Start(s.tb, s.dir, s.command("postgres", args...))
	child.Until(s.tb, "PostgreSQL answers", func() error {
		select {
		case <-s.process.Exited():
			s.tb.Fatalf("pgtest: PostgreSQL has ended:\n%s", s.process.Log())
		default:
		}
		return s.Try("SELECT")
	})
}

// Stop ends the server in order: it sends what it has to its standbys first.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

// Crash ends the server at once. What it had not written to its files is lost, and
// its next start recovers. It is the server that crashes, not the machine, so that nobody
// has to wait for a disk.
func (s *Server) Crash() { s.end(syscall.SIGQUIT) }

func (s *Server) end(how syscall.Signal) {
	s.tb.Helper()
	if err := syscall.Kill(s.process.Pid(), how); err != nil {
		s.tb.Fatalf("pgtest: PostgreSQL: %v", err)
	}
	<-s.process.Exited()
	s.process.Kill() // it is gone; what watched over it ends
}

// Pause stops the server's first process, so that nobody new gets in; sessions
// that are there go on.
func (s *Server) Pause() { s.process.Pause() }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.process.Resume() }

// StopWALWriter keeps the log from the disk for as long as nobody waits for it, until the
// test ends or the server is started again.
func (s *Server) StopWALWriter() {
	s.tb.Helper()
	var pid int
	child.Until(s.tb, "there is a WAL writer", func() (err error) {
		pid, err = strconv.Atoi(s.Query("SELECT coalesce(min(pid)::text, 'none') FROM pg_stat_activity WHERE backend_type = 'walwriter'"))
		return err
	})
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		s.tb.Fatalf("pgtest: the WAL writer: %v", err)
	}
	s.tb.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
}

// Standby returns a hot standby of the server that streams from it.
func (s *Server) Standby(settings ...string) *Server {
	s.tb.Helper()
	return s.copy(settings, "-R")
}

// Clone returns a server that was started from a base backup by itself: it has
// the system identifier, the timeline and the databases of this one.
func (s *Server) Clone(settings ...string) *Server {
	s.tb.Helper()
	return s.copy(settings)
}

func (s *Server) copy(settings []string, how ...string) *Server {
	s.tb.Helper()
	c := newServer(s.tb, settings)
	c.run("pg_basebackup", append(how, "-D", c.data, "-d", s.DSN(), "-c", "fast", "-X", "stream", "--no-sync")...)
	c.Start()
	return c
}

// Await waits until a standby has replayed everything that the server has written.
func (s *Server) Await(standby *Server) {
	s.tb.Helper()
	written := s.Query("SELECT pg_current_wal_insert_lsn()::text")
	child.Until(s.tb, "the standby has replayed "+written, func() error {
		if got := standby.Query("SELECT (pg_last_wal_replay_lsn() >= '" + written + "')::text"); got != "true" {
			return errors.New("not yet")
		}
		return nil
	})
}

// Promote makes a standby a primary, with a timeline of its own.
func (s *Server) Promote() {
	s.tb.Helper()
	s.Exec("SELECT pg_promote(true, 60)")
	child.Until(s.tb, "the standby is promoted", func() error {
		if s.Query("SELECT pg_is_in_recovery()::text") != "false" {
			return errors.New("not yet")
		}
		return nil
	})
}

// Addr returns the server's host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// DSN returns the URL of the server's database postgres.
func (s *Server) DSN() string { return s.DSNAt(s.Addr()) }

// DSNAt is DSN by other addresses: a proxy's, or those of several servers,
// separated by commas.
func (s *Server) DSNAt(addresses string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: addresses, Path: "/postgres", RawQuery: "sslmode=disable&connect_timeout=5"}
	return u.String()
}

// Exec runs statements, each by itself, on a connection of its own.
func (s *Server) Exec(statements ...string) {
	s.tb.Helper()
	if err := s.Try(statements...); err != nil {
		s.tb.Fatalf("pgtest: %v", err)
	}
}

// Try is Exec that returns the first error.
func (s *Server) Try(statements ...string) error {
	return s.with(func(ctx context.Context, conn *pgx.Conn) error {
		for _, text := range statements {
			if _, err := conn.Exec(ctx, text); err != nil {
				return fmt.Errorf("%w\nin: %s", err, text)
			}
		}
		return nil
	})
}

// Query returns the one text that a query gives.
func (s *Server) Query(query string) (answer string) {
	s.tb.Helper()
	err := s.with(func(ctx context.Context, conn *pgx.Conn) error { return conn.QueryRow(ctx, query).Scan(&answer) })
	if err != nil {
		s.tb.Fatalf("pgtest: %v\nin: %s", err, query)
	}
	return answer
}

func (s *Server) with(do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), child.Wait)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	return do(ctx, conn)
}

func (s *Server) run(name string, args ...string) {
	s.tb.Helper()
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		s.tb.Fatalf("pgtest: %s: %v\n%s", name, err, out)
	}
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(postgresBin(s.tb), name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: serverUser(s.tb)}
	// Nothing of the caller's own PostgreSQL may leak in (PGDATA, PGOPTIONS, …).
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool { return strings.HasPrefix(variable, "PG") })
	return cmd
}

func postgresBin(tb testing.TB) string {
	tb.Helper()
	if folder := os.Getenv("CACHEDPG_POSTGRES_BIN"); folder != "" {
		return folder
	}
	version := func(folder string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(folder)))
		return n
	}
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(folders, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "initdb")); err == nil {
			return folder
		}
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	const hint = "initdb is neither in /usr/lib/postgresql nor in PATH: run `scripts/services install`"
	if os.Getenv("CACHEDPG_TEST_REQUIRE") == "1" {
		tb.Fatal(hint)
	}
	tb.Skip(hint)
	return ""
}

// serverUser says as whom PostgreSQL runs, which refuses to do so as root: nil
// is as ourselves.
func serverUser(tb testing.TB) *syscall.Credential {
	tb.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	as := userNamed("postgres")
	if as == nil {
		tb.Fatal("pgtest: PostgreSQL does not run as root, and there is no user postgres to run it as")
	}
	return as
}

// userNamed returns nil if there is no such user.
func userNamed(name string) *syscall.Credential {
	u, err := user.Lookup(name)
	if err != nil {
		return nil
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32) // numbers, on Unix
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
