//go:build unix

// Package redistest gives tests Redis servers of their own: single ones,
// replicas, a Cluster, Sentinels, TLS, and a proxy that breaks connections. They
// listen on 127.0.0.1, keep their files in a temporary folder, and are gone when
// the test ends, however it ends.
//
// The program is redis-server or valkey-server from PATH. Without one the test
// is skipped, or fails when CACHEDPG_TEST_REQUIRE is 1.
//
// A method that cannot do what it says ends the test, so it must be called in
// the test's own goroutine.
package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/cachedpg/cachedpg/internal/child"
)

// Server is one Redis server.
type Server struct {
	tb       testing.TB
	dir      string
	config   [][]string
	port     int
	password string
	certs    *Certificates // nil without TLS
	process  *child.Process
	client   *redis.Client
}

// Start starts a server. The arguments are those of redis-server: "--maxmemory",
// "10mb". By default nothing is saved but by Save.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return start(tb, nil, args)
}

func start(tb testing.TB, certs *Certificates, args []string) *Server {
	tb.Helper()
	s := &Server{tb: tb, dir: tb.TempDir(), certs: certs}
	s.config = [][]string{
		{"bind", "127.0.0.1"},
		{"dir", s.dir},
		{"save", ""},
		{"appendonly", "no"},
		{"repl-diskless-sync-delay", "0"}, // a replica need not wait for others
	}
	given, err := directives(args)
	if err != nil {
		tb.Fatal(err)
	}
	for _, d := range given {
		if d[0] == "requirepass" && len(d) == 2 {
			s.password = d[1]
			s.config = append(s.config, []string{"masterauth", d[1]})
		}
	}
	s.config = append(s.config, given...)
	s.launch()
	return s
}

// launch starts a new server on a free port, with another one if somebody was
// faster.
func (s *Server) launch() {
	s.tb.Helper()
	for range 5 {
		s.port = child.Port(s.tb)
		s.writeConfig()
		s.client = s.connect()
		err := s.run()
		if err == nil {
			s.tb.Cleanup(func() { s.client.Close() })
			return
		}
		s.client.Close()
		if !errors.Is(err, errPortTaken) {
			s.tb.Fatalf("redistest: %v", err)
		}
	}
	s.tb.Fatal("redistest: no port stayed free")
}

// directives makes lines of a configuration from arguments: what begins with
// -- is a name, what follows are its values.
func directives(args []string) ([][]string, error) {
	var out [][]string
	for _, arg := range args {
		if name, ok := strings.CutPrefix(arg, "--"); ok {
			out = append(out, []string{name})
		} else if len(out) == 0 {
			return nil, fmt.Errorf("redistest: %q: want --name value…", arg)
		} else {
			out[len(out)-1] = append(out[len(out)-1], arg)
		}
	}
	return out, nil
}

// writeConfig writes a file, rather than passing arguments: Sentinel, and CONFIG
// REWRITE after a failover, change it, and a restart goes on with that.
func (s *Server) writeConfig() {
	s.tb.Helper()
	lines := [][]string{{"port", strconv.Itoa(s.port)}}
	if s.certs != nil {
		lines = [][]string{
			{"port", "0"}, {"tls-port", strconv.Itoa(s.port)}, {"tls-ca-cert-file", s.certs.CA},
			{"tls-cert-file", s.certs.ServerCert}, {"tls-key-file", s.certs.ServerKey},
			{"tls-auth-clients", "optional"}, {"tls-replication", "yes"}, // what is given comes later and counts
		}
	}
	var text strings.Builder
	for _, line := range append(lines, s.config...) {
		text.WriteString(line[0])
		for _, value := range line[1:] {
			text.WriteString(" " + strconv.Quote(value))
		}
		text.WriteByte('\n')
	}
	if err := os.WriteFile(s.file("redis.conf"), []byte(text.String()), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

var errPortTaken = errors.New("the port is taken")

// run starts the process and waits until it answers.
func (s *Server) run() error {
	s.tb.Helper()
	args := []string{s.file("redis.conf")}
	for _, d := range s.config {
		if d[0] == "sentinel" {
			args = append(args, "--sentinel")
			break
		}
	}
	s.process = child.Start(s.tb, s.dir, exec.Command(program(s.tb), args...))
	var ended error
	child.Until(s.tb, "Redis answers", func() error {
		select {
		case <-s.process.Exited():
			ended = fmt.Errorf("redis ended: %s", s.process.Log())
			if strings.Contains(s.process.Log(), "Address already in use") {
				ended = errPortTaken
			}
			return nil
		default:
		}
		// go-redis logs every dial that fails, so it comes when somebody listens.
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			return err
		}
		conn.Close()
		info, err := s.info("server")
		if err == nil && info["process_id"] != strconv.Itoa(s.process.Pid()) {
			err = errors.New("it is somebody else's server that answers")
		}
		return err
	})
	return ended
}

// program finds the server.
func program(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const hint = "redis-server is not in PATH: run `scripts/services install`"
	if os.Getenv("CACHEDPG_TEST_REQUIRE") == "1" {
		tb.Fatal(hint)
	}
	tb.Skip(hint)
	return ""
}

// info returns a section of INFO, by field. While the server loads a snapshot
// it is an error.
func (s *Server) info(section string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	text, err := s.client.Info(ctx, section, "persistence").Result()
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	if fields["loading"] == "1" {
		return nil, errors.New("it is loading")
	}
	return fields, nil
}

// Info returns one field of INFO, such as run_id or master_replid.
func (s *Server) Info(section, field string) string {
	s.tb.Helper()
	fields, err := s.info(section)
	if err != nil {
		s.tb.Fatalf("redistest: INFO %s: %v", section, err)
	}
	return fields[field]
}

// Addr returns host:port.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// URL returns the server's URL, with what is needed to reach it: password, and
// with TLS the file of the CA.
func (s *Server) URL() string { return s.urlOf(s.Addr()) }

// Client returns a client of the server, which is closed when the test ends.
// It retries, as go-redis does by default, so that it survives Restart.
func (s *Server) Client() *redis.Client { return s.client }

func (s *Server) connect() *redis.Client {
	options := &redis.Options{
		Addr:                     s.Addr(),
		Protocol:                 2,
		Password:                 s.password,
		PoolSize:                 5,
		DialTimeout:              5 * time.Second,
		DialerRetries:            1,
		ReadTimeout:              5 * time.Second,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if s.certs != nil {
		options.TLSConfig = &tls.Config{RootCAs: s.certs.pool, MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{s.certs.client}}
	}
	return redis.NewClient(options)
}

// Pause stops the process: it accepts connections and never answers.
func (s *Server) Pause() { s.process.Pause() }

// Resume ends Pause.
func (s *Server) Resume() { s.process.Resume() }

// Kill ends the process at once; nothing is saved.
func (s *Server) Kill() { s.process.Kill() }

// Restart kills the server, if it runs, and starts it again on its port, with
// its configuration as it was rewritten and the snapshot that is in its folder.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	if err := s.run(); err != nil {
		s.tb.Fatalf("redistest: %v", err)
	}
}

// Save writes a snapshot, with which the next Restart begins.
func (s *Server) Save() {
	s.tb.Helper()
	if err := s.client.Save(context.Background()).Err(); err != nil {
		s.tb.Fatalf("redistest: SAVE: %v", err)
	}
}

// CopyRDB returns the snapshot that Save wrote last, to go back to it later.
func (s *Server) CopyRDB() []byte {
	s.tb.Helper()
	rdb, err := os.ReadFile(s.file("dump.rdb"))
	if err != nil {
		s.tb.Fatal(err)
	}
	return rdb
}

// RestoreRDB kills the server and starts it again from a snapshot.
func (s *Server) RestoreRDB(rdb []byte) {
	s.tb.Helper()
	s.Kill()
	if err := os.WriteFile(s.file("dump.rdb"), rdb, 0o600); err != nil {
		s.tb.Fatal(err)
	}
	s.Restart()
}
