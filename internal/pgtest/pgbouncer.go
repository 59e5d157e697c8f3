//go:build unix

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/child"
)

// Pgbouncer starts a pgbouncer in front of the test database and returns the
// DSN of the database through it. It ends with the test. poolMode is session,
// transaction or statement; in the latter two a client must not rely on prepared
// statements (default_query_exec_mode=exec). Without pgbouncer in PATH the test
// is skipped, or fails when CACHEDPG_TEST_REQUIRE is 1.
func Pgbouncer(tb testing.TB, poolMode string) string {
	tb.Helper()
	return PgbouncerTo(tb, DSN(tb), poolMode)
}

// PgbouncerTo is Pgbouncer in front of the database that dsn names, which may
// be one made by Database. Of the DSN's other settings only user and password
// are kept.
func PgbouncerTo(tb testing.TB, dsn, poolMode string) string {
	tb.Helper()
	return StartBouncer(tb, dsn, poolMode).DSN()
}

// Bouncer is a pgbouncer that can be told to lead elsewhere. It ends with the
// test. Its methods fail the test when they fail.
type Bouncer struct {
	tb             testing.TB
	config         string // the path of its configuration
	poolMode       string
	port           int
	user, database string
	owner          *syscall.Credential // nil: it runs as ourselves
}

// StartBouncer is PgbouncerTo for a test that wants more of it than the DSN.
func StartBouncer(tb testing.TB, dsn, poolMode string) *Bouncer {
	tb.Helper()
	program := findPgbouncer(tb)
	dir, owner := bouncerDir(tb)
	b := &Bouncer{tb: tb, config: filepath.Join(dir, "pgbouncer.ini"), poolMode: poolMode, owner: owner}
	for range 5 {
		b.port = child.Port(tb)
		b.write(dsn)
		cmd := exec.Command(program, b.config)
		if owner != nil { // it refuses to run as root
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
		}
		process := child.Start(tb, dir, cmd)
		if awaitBouncer(tb, process, b.DSN()) {
			return b
		}
	}
	tb.Fatal("pgtest: no port stayed free for pgbouncer")
	return nil
}

// DSN returns the URL of the database through pgbouncer.
func (b *Bouncer) DSN() string { return b.dsn(b.database) }

// Addr returns pgbouncer's host and port.
func (b *Bouncer) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

func (b *Bouncer) dsn(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(b.user), Host: b.Addr(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Pause holds what clients send from now on, until Resume, and returns when what
// is under way has ended and no server is connected any more.
func (b *Bouncer) Pause() { b.tb.Helper(); b.tell("PAUSE") }

// Pausing is Pause in two steps: it returns when what clients send is held, and
// ended when Pause would.
func (b *Bouncer) Pausing() (ended func()) {
	b.tb.Helper()
	paused := make(chan error, 1)
	go func() { paused <- runSQL(b.dsn("pgbouncer"), "PAUSE") }()
	held := make(chan error, 1)
	probe := func() { held <- runSQL(b.DSN(), "SELECT 1") }
	go probe()
	child.Until(b.tb, "pgbouncer to hold a query", func() error {
		select {
		case <-held:
			go probe()
		default:
		}
		waiting, err := b.waiting()
		if err == nil && !waiting {
			err = errors.New("not yet")
		}
		return err
	})
	return func() {
		b.tb.Helper()
		if err := <-paused; err != nil {
			b.tb.Fatalf("pgtest: pgbouncer: PAUSE: %v", err)
		}
	}
}

// waiting reports that a client waits for a server.
func (b *Bouncer) waiting() (waiting bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgconn.Connect(ctx, b.dsn("pgbouncer"))
	if err != nil {
		return false, errors.New("no connection yet") // err may hold the password
	}
	defer conn.Close(context.Background())
	results, err := conn.Exec(ctx, "SHOW CLIENTS").ReadAll()
	if err != nil {
		return false, err
	}
	state := slices.IndexFunc(results[0].FieldDescriptions, func(f pgconn.FieldDescription) bool { return f.Name == "state" })
	return slices.ContainsFunc(results[0].Rows, func(row [][]byte) bool { return string(row[state]) == "waiting" }), nil
}

// Resume sends on what was held, and returns when queries come through: after a login
// of its own that PAUSE has ended, pgbouncer refuses clients until one succeeds.
func (b *Bouncer) Resume() {
	b.tb.Helper()
	b.tell("RESUME")
	child.Until(b.tb, "a query comes through pgbouncer", func() error { return runSQL(b.DSN(), "SELECT 1") })
}

// Repoint has pgbouncer lead to the server of another DSN. Clients stay
// connected; who is in a transaction ends it where it has begun.
func (b *Bouncer) Repoint(dsn string) {
	b.tb.Helper()
	b.write(dsn)
	b.tell("RELOAD")
}

// tell runs a command of pgbouncer's console.
func (b *Bouncer) tell(command string) {
	b.tb.Helper()
	if err := runSQL(b.dsn("pgbouncer"), command); err != nil {
		b.tb.Fatalf("pgtest: pgbouncer: %s: %v", command, err)
	}
}

// write writes the configuration for the server of dsn.
func (b *Bouncer) write(dsn string) {
	b.tb.Helper()
	database, err := pgconn.ParseConfig(dsn)
	if err != nil {
		b.tb.Fatal("pgtest: the DSN of the test database cannot be read")
	}
	b.user, b.database = database.User, database.Database
	text := bouncerConfig(database, b.poolMode, b.port)
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		b.tb.Fatal(err)
	}
	if b.owner != nil {
		if err := os.Chown(b.config, int(b.owner.Uid), int(b.owner.Gid)); err != nil {
			b.tb.Fatal(err)
		}
	}
}

// awaitBouncer waits until a query comes through. It is false when somebody
// else has the port.
func awaitBouncer(tb testing.TB, process *child.Process, dsn string) (ok bool) {
	tb.Helper()
	child.Until(tb, "pgbouncer answers", func() error {
		select {
		case <-process.Exited():
			if strings.Contains(process.Log(), "Address already in use") {
				return nil
			}
			tb.Fatalf("pgtest: pgbouncer ended: %s", process.Log())
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		conn, err := pgconn.Connect(ctx, dsn)
		if err != nil {
			return errors.New("no connection yet: " + process.Log()) // err may hold the password
		}
		defer conn.Close(context.Background())
		ok = conn.Exec(ctx, "SELECT 1").Close() == nil
		if !ok {
			return errors.New("no answer yet: " + process.Log())
		}
		return nil
	})
	return ok
}

// bouncerConfig lets everybody in as the test database's user.
func bouncerConfig(database *pgconn.Config, poolMode string, port int) string {
	value := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	target := fmt.Sprintf("host=%s port=%d user=%s", value(database.Host), database.Port, value(database.User))
	if database.Password != "" { // it does not understand an empty one
		target += " password=" + value(database.Password)
	}
	return fmt.Sprintf(`[databases]
* = %s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
admin_users = %s
pool_mode = %s
default_pool_size = 20
max_client_conn = 500
ignore_startup_parameters = extra_float_digits
`, target, port, database.User, poolMode)
}

func findPgbouncer(tb testing.TB) string {
	tb.Helper()
	// Debian installs it where only root's PATH leads.
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const hint = "pgbouncer is not in PATH: run `scripts/services install`"
	if os.Getenv("CACHEDPG_TEST_REQUIRE") == "1" {
		tb.Fatal(hint)
	}
	tb.Skip(hint)
	return ""
}

// bouncerDir makes a folder for pgbouncer, and says as whom it runs: nil is as
// ourselves. It is not below tb.TempDir, which another user cannot enter.
func bouncerDir(tb testing.TB) (dir string, owner *syscall.Credential) {
	tb.Helper()
	dir, err := os.MkdirTemp("", "pgbouncer")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() != 0 {
		return dir, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if owner := userNamed(name); owner != nil {
			if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
				tb.Fatal(err)
			}
			return dir, owner
		}
	}
	tb.Fatal("pgtest: pgbouncer does not run as root, and there is no user postgres or nobody to run it as")
	return "", nil
}
