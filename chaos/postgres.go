package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/child"
)

// postgres is a PostgreSQL server that the nemesis may do anything to.
type postgres struct {
	scope   *scope
	bin     string
	data    string
	port    int
	as      *syscall.Credential // nil: as ourselves
	process *child.Process
}

// startPostgres makes a cluster and starts it. Commits are durable, as the
// nemesis kills the server.
func startPostgres(s *scope) *postgres {
	p := &postgres{scope: s, bin: postgresBin(s), data: filepath.Join(s.TempDir(), "data"), port: child.Port(s)}
	if os.Geteuid() == 0 { // PostgreSQL refuses to run as root
		p.as = userOf(s, "postgres")
		if err := os.Chown(filepath.Dir(p.data), int(p.as.Uid), int(p.as.Gid)); err != nil {
			s.Fatal(err)
		}
	}
	if out, err := p.command("initdb", "-D", p.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions").CombinedOutput(); err != nil {
		s.Fatalf("initdb: %v\n%s", err, out)
	}
	p.start()
	return p
}

// postgresBin finds the server that CACHEDPG_POSTGRES_BIN names, or else the
// newest that is installed.
func postgresBin(s *scope) string {
	if folder := os.Getenv("CACHEDPG_POSTGRES_BIN"); folder != "" {
		return folder
	}
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(folders, func(a, b string) int { return versionOf(b) - versionOf(a) })
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "initdb")); err == nil {
			return folder
		}
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		s.Fatal("initdb is neither in /usr/lib/postgresql nor in PATH")
	}
	return filepath.Dir(path)
}

func versionOf(folder string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(folder)))
	return n
}

func userOf(s *scope, name string) *syscall.Credential {
	u, err := user.Lookup(name)
	if err != nil {
		s.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32) // numbers, on Linux
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	return cmd
}

func (p *postgres) start() {
	p.process = child.Start(p.scope, filepath.Dir(p.data), p.command("postgres", "-D", p.data,
		"-c", "listen_addresses=127.0.0.1", "-c", "port="+strconv.Itoa(p.port), "-c", "unix_socket_directories=",
		"-c", "max_prepared_transactions=50", "-c", "max_connections=100", "-c", "shared_buffers=32MB"))
	child.Until(p.scope, "PostgreSQL answers", func() error {
		select {
		case <-p.process.Exited():
			p.scope.Fatalf("PostgreSQL has ended:\n%s", p.process.Log())
		default:
		}
		return p.try("SELECT")
	})
}

// restart ends the server, by SIGINT (fast) or SIGQUIT (immediate, which leaves
// recovery to do), and starts it again.
func (p *postgres) restart(how syscall.Signal) {
	if err := syscall.Kill(p.process.Pid(), how); err != nil {
		p.scope.Fatalf("PostgreSQL: %v", err)
	}
	<-p.process.Exited()
	p.process.Kill() // it is gone; what watched over it ends
	p.start()
}

func (p *postgres) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// dsn returns the DSN of the server at an address, which may be a proxy's, with
// settings that keep faults short.
func (p *postgres) dsn(addr string) string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable&lock_timeout=1000&connect_timeout=5", addr)
}

// try runs statements on a connection of its own.
func (p *postgres) try(statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), child.Wait)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.dsn(p.addr()))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, text := range statements {
		if _, err := conn.Exec(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

// do is try, which must succeed.
func (p *postgres) do(statements ...string) {
	if err := p.try(statements...); err != nil {
		p.scope.Fatal(err)
	}
}

// quiet waits until nothing is under way that could still commit.
func (p *postgres) quiet() {
	ctx, cancel := context.WithTimeout(context.Background(), child.Wait)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.dsn(p.addr()))
	if err != nil {
		p.scope.Fatal(err)
	}
	defer conn.Close(ctx)
	child.Until(p.scope, "no transaction is open", func() error {
		var open int
		err := conn.QueryRow(ctx, "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL)"+
			" + (SELECT count(*) FROM pg_prepared_xacts)").Scan(&open)
		if err == nil && open > 0 {
			err = fmt.Errorf("%d are", open)
		}
		return err
	})
}
