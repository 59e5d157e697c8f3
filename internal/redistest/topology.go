//go:build unix

package redistest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/child"
)

// Replica starts a replica of a server, with its password and certificates, and
// waits until it has all of its data.
func Replica(tb testing.TB, of *Server, args ...string) *Server {
	tb.Helper()
	args = append([]string{"--replicaof", "127.0.0.1", strconv.Itoa(of.port)}, args...)
	if of.password != "" {
		args = append(args, "--requirepass", of.password)
	}
	s := start(tb, of.certs, args)
	s.awaitLink()
	return s
}

func (s *Server) awaitLink() {
	s.tb.Helper()
	child.Until(s.tb, "the replica is in sync", func() error {
		info, err := s.info("replication")
		if err == nil && (info["role"] != "slave" || info["master_link_status"] != "up") {
			err = fmt.Errorf("role %s, link %s", info["role"], info["master_link_status"])
		}
		return err
	})
}

// AwaitReplica waits until a replica has everything that the server has now.
func (s *Server) AwaitReplica(replica *Server) {
	s.tb.Helper()
	want, err := strconv.Atoi(s.Info("replication", "master_repl_offset"))
	if err != nil {
		s.tb.Fatal(err)
	}
	child.Until(s.tb, "the replica has everything", func() error {
		info, err := replica.info("replication")
		if err != nil {
			return err
		}
		if got, err := strconv.Atoi(info["slave_repl_offset"]); err != nil || got < want {
			return fmt.Errorf("offset %d of %d: %v", got, want, err)
		}
		return nil
	})
}

// Promote makes a replica a master.
func (s *Server) Promote() {
	s.tb.Helper()
	s.do("REPLICAOF", "NO", "ONE")
}

// Follow makes the server a replica of another and waits until it is in sync.
func (s *Server) Follow(master *Server) {
	s.tb.Helper()
	s.do("REPLICAOF", "127.0.0.1", master.port)
	s.awaitLink()
}

func (s *Server) do(args ...any) any {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), child.Wait)
	defer cancel()
	reply, err := s.client.Do(ctx, args...).Result()
	if err != nil {
		s.tb.Fatalf("redistest: %v: %v", args, err)
	}
	return reply
}

const slots = 16384

// Cluster starts a Redis Cluster whose masters share the slots evenly and have
// so many replicas each, and waits until every node knows the others. The masters
// come first in what it returns, in the order of their slots.
func Cluster(tb testing.TB, masters, replicas int, args ...string) []*Server {
	tb.Helper()
	args = append([]string{
		"--cluster-enabled", "yes",
		"--cluster-config-file", "nodes.conf",
		"--cluster-node-timeout", "2000",
	}, args...)
	servers := make([]*Server, masters*(1+replicas))
	for i := range servers {
		servers[i] = start(tb, nil, args)
	}
	for i, s := range servers[:masters] {
		add := []any{"CLUSTER", "ADDSLOTS"}
		for slot := i * slots / masters; slot < (i+1)*slots/masters; slot++ {
			add = append(add, slot)
		}
		s.do(add...)
	}
	for i, s := range servers {
		s.do("CLUSTER", "SET-CONFIG-EPOCH", i+1) // or they quarrel about it first
		if i > 0 {
			s.do("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
		}
	}
	for _, s := range servers {
		child.Until(tb, "the nodes have met", func() error { return s.clustered(len(servers)) })
	}
	for i, s := range servers[masters:] {
		s.do("CLUSTER", "REPLICATE", servers[i%masters].do("CLUSTER", "MYID"))
	}
	for _, s := range servers[masters:] {
		s.awaitLink()
	}
	for _, s := range servers {
		child.Until(tb, "the nodes know the replicas", func() error {
			nodes, err := s.client.ClusterNodes(context.Background()).Result()
			if got := strings.Count(nodes, "slave "); err == nil && got != len(servers)-masters {
				err = fmt.Errorf("%d replicas", got)
			}
			return err
		})
	}
	return servers
}

// clustered is nil when all slots are served and so many nodes are known and
// linked.
func (s *Server) clustered(nodes int) error {
	ctx := context.Background()
	info, err := s.client.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	list, err := s.client.ClusterNodes(ctx).Result()
	if err != nil {
		return err
	}
	linked := strings.Count(list, " connected")
	if strings.Contains(info, "cluster_state:ok") && linked == nodes && !strings.Contains(list, "handshake") {
		return nil
	}
	return fmt.Errorf("%d of %d nodes:\n%s", linked, nodes, info)
}

// TakeOver makes a replica in a Cluster the master of its slots, while the old
// master lives or after it was killed, and waits until it is.
func (s *Server) TakeOver() {
	s.tb.Helper()
	s.do("CLUSTER", "FAILOVER", "TAKEOVER")
	child.Until(s.tb, "the replica is a master", func() error {
		info, err := s.info("replication")
		if err == nil && info["role"] != "master" {
			err = fmt.Errorf("role %s", info["role"])
		}
		return err
	})
}

// ClusterURL returns the URL of a Cluster of these servers.
func ClusterURL(servers []*Server) string {
	u := url.URL{Scheme: "redis+cluster", Host: servers[0].Addr()}
	if password := servers[0].password; password != "" {
		u.User = url.UserPassword("", password)
	}
	query := url.Values{}
	for _, s := range servers[1:] {
		query.Add("addr", s.Addr())
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// Sentinels are three Sentinels that watch one master.
type Sentinels struct {
	tb      testing.TB
	master  *Server
	servers []*Server
}

const (
	masterName = "cache"
	quorum     = 2
)

// Sentinel starts three Sentinels that watch a master and its replicas, and
// waits until they know these and each other. They notice that the master is
// gone after about two seconds.
func Sentinel(tb testing.TB, master *Server, replicas ...*Server) *Sentinels {
	tb.Helper()
	s := &Sentinels{tb: tb, master: master}
	args := []string{
		"--sentinel", "monitor", masterName, "127.0.0.1", strconv.Itoa(master.port), strconv.Itoa(quorum),
		"--sentinel", "down-after-milliseconds", masterName, "2000",
		"--sentinel", "failover-timeout", masterName, "5000",
	}
	if master.password != "" {
		args = append(args, "--sentinel", "auth-pass", masterName, master.password)
	}
	for range 3 {
		s.servers = append(s.servers, startSentinel(tb, args))
	}
	for _, server := range s.servers {
		child.Until(tb, "the Sentinels know everybody", func() error {
			return s.knows(server, len(replicas), len(s.servers)-1)
		})
	}
	return s
}

// startSentinel starts a server with a configuration of nothing but what
// Sentinel takes.
func startSentinel(tb testing.TB, args []string) *Server {
	tb.Helper()
	s := &Server{tb: tb, dir: tb.TempDir()}
	given, err := directives(args)
	if err != nil {
		tb.Fatal(err)
	}
	s.config = append([][]string{{"bind", "127.0.0.1"}, {"dir", s.dir}}, given...)
	s.launch()
	return s
}

func (s *Sentinels) knows(sentinel *Server, replicas, others int) error {
	ctx, cancel := context.WithTimeout(context.Background(), child.Wait)
	defer cancel()
	// A Sentinel is asked as any server; go-redis' client for them would be one more.
	cmd := redis.NewMapStringStringCmd(ctx, "SENTINEL", "MASTER", masterName)
	if err := sentinel.client.Process(ctx, cmd); err != nil {
		return err
	}
	m := cmd.Val()
	if m["flags"] != "master" || m["num-slaves"] != strconv.Itoa(replicas) || m["num-other-sentinels"] != strconv.Itoa(others) {
		return fmt.Errorf("%s: %s replicas, %s other Sentinels", m["flags"], m["num-slaves"], m["num-other-sentinels"])
	}
	return nil
}

// Servers returns the Sentinels themselves.
func (s *Sentinels) Servers() []*Server { return s.servers }

// MasterName is the name under which the Sentinels know the master.
func (s *Sentinels) MasterName() string { return masterName }

// URL returns the URL of the master by way of the Sentinels.
func (s *Sentinels) URL() string {
	u := url.URL{Scheme: "redis+sentinel", Host: s.servers[0].Addr(), Path: "/0"}
	if s.master.password != "" {
		u.User = url.UserPassword("", s.master.password)
	}
	query := url.Values{"master_name": {masterName}}
	for _, server := range s.servers[1:] {
		query.Add("addr", server.Addr())
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// MasterAddr returns who is the master, as a Sentinel that answers has it.
func (s *Sentinels) MasterAddr() string {
	s.tb.Helper()
	var last error
	for _, server := range s.servers {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		addr, err := server.client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).StringSlice()
		cancel()
		if err == nil && len(addr) == 2 {
			return net.JoinHostPort(addr[0], addr[1])
		}
		last = err
	}
	s.tb.Fatalf("redistest: no Sentinel answers: %v", last)
	return ""
}

// Failover has the Sentinels promote a replica while the master lives, and
// waits until they name another master.
func (s *Sentinels) Failover() {
	s.tb.Helper()
	old := s.MasterAddr()
	child.Until(s.tb, "a Sentinel begins a failover", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), child.Wait)
		defer cancel()
		// It refuses while it does not know yet that the replica is good.
		return s.servers[0].client.Do(ctx, "SENTINEL", "FAILOVER", masterName).Err()
	})
	s.AwaitFailover(old)
}

// AwaitFailover waits until all Sentinels name another master than old.
func (s *Sentinels) AwaitFailover(old string) {
	s.tb.Helper()
	for _, server := range s.servers {
		child.Until(s.tb, "the Sentinels name another master", func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			addr, err := server.client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).StringSlice()
			if err == nil && net.JoinHostPort(addr[0], addr[1]) == old {
				err = fmt.Errorf("still %s", old)
			}
			return err
		})
	}
}
