package redis

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/store"
)

// servers is a client, or a Cluster's clients, for one incarnation of each
// server. A connection to a server that was restarted or replaced since is
// refused by its hook: whatever is done on a connection is done on the server
// that the names were made for.
type servers struct {
	close func() error
	parts []*partition

	mu       sync.Mutex // guards the fields below
	learning bool       // the first connections say who the servers are
	known    map[serverID]bool
}

// serverID is one life of one server with one history of its data.
type serverID struct{ runID, replID string }

type serverInfo struct {
	serverID
	version    string
	major      int
	master     bool
	replicated bool // it has, or had, replicas, or was one
}

// partition is a part of the tags and entries: all of them or, in a Cluster,
// those in one slot.
type partition struct {
	client  *goredis.Client
	pipe    pipe
	scripts *scripts
	id      serverID
	keys    []string // D, L and the base of all other names, as the scripts want them
	epoch   atomic.Pointer[string]
	young   bool // while an epoch is young a lease of a replaced server may stand
}

const (
	clusterPartitions = 64

	oldestMajor, oldestMinor = 6, 2
)

var (
	errIncarnation = errors.New("cachedpg: cache_store: the server was restarted or replaced")
	errReadOnly    = errors.New("cachedpg: cache_store: the server is a read-only replica; name its master")
)

// connect finds the servers of a target.
func connect(ctx context.Context, t *Target, o Options) (_ *servers, err error) {
	s := &servers{learning: true, known: make(map[serverID]bool)}
	clients := make([]*goredis.Client, 1)
	switch {
	case t.Failover != nil:
		opts := *t.Failover
		opts.OnConnect = s.onConnect
		clients[0] = goredis.NewFailoverClient(&opts)
		s.close = clients[0].Close
	case t.Cluster:
		opts := *t.ClusterOptions
		opts.OnConnect = s.onConnect
		cluster := goredis.NewClusterClient(&opts)
		s.close = cluster.Close
		clients = make([]*goredis.Client, clusterPartitions)
		for i := range clients {
			if clients[i], err = cluster.MasterForKey(ctx, base("", i, true)); err != nil {
				_ = cluster.Close()
				return nil, err
			}
		}
	default:
		opts := *t.Options
		opts.OnConnect = s.onConnect
		clients[0] = goredis.NewClient(&opts)
		s.close = clients[0].Close
	}
	infos := make(map[*goredis.Client]serverInfo)
	sets := make(map[int]*scripts)
	for i, client := range clients {
		info, ok := infos[client]
		if !ok {
			if info, err = inquire(ctx, client); err != nil {
				_ = s.close()
				return nil, err
			}
			infos[client] = info
		}
		if sets[info.major] == nil {
			sets[info.major] = newScripts(info.major)
		}
		b := base(namespace(o.Identity, info.serverID), i, t.Cluster)
		s.parts = append(s.parts, &partition{client: client, pipe: pipe{client: client, timeout: o.Timeout}, scripts: sets[info.major],
			id: info.serverID, keys: []string{b + "d", b + "l", b}, young: info.replicated || o.Young})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learning = false
	if len(s.known) != len(infos) { // one was replaced meanwhile
		_ = s.close()
		return nil, errIncarnation
	}
	return s, nil
}

func (s *servers) onConnect(ctx context.Context, conn *goredis.Conn) error {
	info, err := inquire(ctx, conn)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.learning {
		s.known[info.serverID] = true
	} else if !s.known[info.serverID] {
		return errIncarnation
	}
	return nil
}

// inquire asks a server who it is, and whether it is one to use.
func inquire(ctx context.Context, client interface {
	Info(ctx context.Context, sections ...string) *goredis.StringCmd
}) (info serverInfo, err error) {
	for _, section := range []string{"server", "replication"} {
		text, err := client.Info(ctx, section).Result()
		if err != nil {
			return info, err
		}
		for _, line := range strings.Split(text, "\r\n") {
			key, value, _ := strings.Cut(line, ":")
			switch key {
			case "redis_version":
				info.version = value
			case "run_id":
				info.runID = value
			case "role":
				info.master = value == "master"
			case "master_replid":
				info.replID = value
			case "master_repl_offset":
				info.replicated = value != "0"
			}
		}
	}
	major, rest, _ := strings.Cut(info.version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	info.major, _ = strconv.Atoi(major)
	if m, _ := strconv.Atoi(minor); info.major < oldestMajor || info.major == oldestMajor && m < oldestMinor {
		return info, fmt.Errorf("cachedpg: cache_store: Redis %s is too old, want %d.%d or newer", info.version, oldestMajor, oldestMinor)
	}
	if !info.master {
		return info, errReadOnly
	}
	return info, nil
}

// same reports that the server of a partition is who it was.
func (p *partition) same(ctx context.Context) error {
	info, err := inquire(ctx, p.client)
	if err == nil && info.serverID != p.id {
		err = errIncarnation
	}
	return err
}

// newEpoch returns the name of an epoch that never was.
func newEpoch() string {
	var b [epochSize * 3 / 4]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// of returns the partition of a tag. What everything depends on is in the first.
func (s *servers) of(t store.Tag) int { return int(t.Relation) % len(s.parts) }

// home returns the partition of an entry.
func (s *servers) home(key *store.Key) int { return int(key[0]) % len(s.parts) }

const leaseMillis = int64(store.Lease / time.Millisecond)
