//go:build unix

package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/cachedpg/cachedpg/internal/child"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

func set(t *testing.T, s *Server, key, value string) {
	t.Helper()
	if err := s.Client().Set(ctx, key, value, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Server, key string) string {
	t.Helper()
	value, err := s.Client().Get(ctx, key).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	return value
}

func TestServer(t *testing.T) {
	var s *Server
	t.Run("inside", func(t *testing.T) {
		s = Start(t, "--requirepass", "open sesame", "--maxmemory", "50mb")
		if got := s.Client().ConfigGet(ctx, "maxmemory").Val()["maxmemory"]; got != "52428800" {
			t.Errorf("maxmemory %q", got)
		}
		options, err := redis.ParseURL(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		if options.Addr != s.Addr() || options.Password != "open sesame" {
			t.Errorf("URL %s", s.URL())
		}

		set(t, s, "k", "old")
		s.Save()
		snapshot := s.CopyRDB()
		set(t, s, "k", "new")
		s.Save()
		set(t, s, "k", "not saved")
		addr, run := s.Addr(), s.Info("server", "run_id")
		s.Restart()
		if got := get(t, s, "k"); got != "new" {
			t.Errorf("after Restart %q", got)
		}
		if s.Addr() != addr || s.Info("server", "run_id") == run {
			t.Errorf("restarted on %s, with run_id %s again", s.Addr(), run)
		}
		s.RestoreRDB(snapshot)
		if got := get(t, s, "k"); got != "old" {
			t.Errorf("after RestoreRDB %q", got)
		}

		s.Pause()
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if err := s.Client().Ping(short).Err(); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
			t.Errorf("a paused server answers %v", err)
		}
		s.Resume()
		if err := s.Client().Ping(ctx).Err(); err != nil {
			t.Errorf("after Resume: %v", err)
		}
		s.Kill()
		if conn, err := net.Dial("tcp", s.Addr()); err == nil {
			conn.Close()
			t.Error("a killed server accepts")
		}
		s.Restart()
	})
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Error("the server outlived its test")
	}
}

func TestReplica(t *testing.T) {
	t.Parallel()
	master := Start(t, "--requirepass", "p")
	set(t, master, "k", "v")
	replica := Replica(t, master)
	if got := get(t, replica, "k"); got != "v" {
		t.Errorf("the replica has %q", got)
	}
	set(t, master, "k", "w")
	master.AwaitReplica(replica)
	if got := get(t, replica, "k"); got != "w" {
		t.Errorf("the replica has %q", got)
	}
	replica.Promote()
	set(t, replica, "k", "promoted")
	master.Follow(replica)
	if got := get(t, master, "k"); got != "promoted" {
		t.Errorf("the old master has %q", got)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	servers := Cluster(t, 2, 1, "--requirepass", "p")
	for i, s := range servers {
		want := "master"
		if i >= 2 {
			want = "slave"
		}
		if got := s.Info("replication", "role"); got != want {
			t.Errorf("server %d is a %s", i, got)
		}
	}
	// Slots 12182 and 5061, on the second and the first node.
	set(t, servers[1], "foo", "1")
	servers[1].AwaitReplica(servers[3])
	set(t, servers[0], "bar", "1")
	if err := servers[0].Client().Set(ctx, "foo", "1", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "MOVED ") {
		t.Errorf("a key of another node: %v", err)
	}
	servers[1].Kill()
	servers[3].TakeOver()
	if got := get(t, servers[3], "foo"); got != "1" {
		t.Errorf("after the failover %q", got)
	}
	if got := ClusterURL(servers); !strings.HasPrefix(got, "redis+cluster://:p@"+servers[0].Addr()+"?addr=") {
		t.Errorf("URL %s", got)
	}
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	master := Start(t, "--requirepass", "p")
	replica := Replica(t, master)
	s := Sentinel(t, master, replica)
	if got := s.MasterAddr(); got != master.Addr() {
		t.Errorf("the master is %s, not %s", got, master.Addr())
	}
	s.Failover()
	if got := s.MasterAddr(); got != replica.Addr() {
		t.Errorf("after the failover the master is %s, not %s", got, replica.Addr())
	}
	child.Until(t, "the replica is a master", func() error {
		return replica.Client().Set(ctx, "k", "v", 0).Err()
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := TLS(t)
	set(t, s, "k", "v")
	if !strings.HasPrefix(s.URL(), "rediss://127.0.0.1:") || !strings.Contains(s.URL(), "tls_ca=") {
		t.Errorf("URL %s", s.URL())
	}
	if _, err := tls.Dial("tcp", s.Addr(), &tls.Config{}); err == nil {
		t.Error("a client that does not know the CA trusts the server")
	}
	if got := get(t, Replica(t, s), "k"); got != "v" {
		t.Errorf("the replica has %q", got)
	}
}
