package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/patience"
	goredis "github.com/redis/go-redis/v9"
)

// node is a client that belongs to one life of one server in the role of a
// master. The first connection that it makes says which; every later one must
// find the same, or is not used.
type node struct {
	client *goredis.Client
	pipe   pipe
	fills  pipe // large values, which nobody waits behind
	store  *Store
	owner  *incarnation

	mu sync.Mutex // guards id
	id serverID   // empty before the first connection

	// Set before the node is used.
	replicated bool      // it has replicated: it may be the successor of another
	since      time.Time // when it was met
	flags      bool      // it knows the flags of scripts
	version    string
}

// serverID names one life of one server: a restart changes the first, a
// promotion or a full resynchronisation the second.
type serverID struct{ run, replication string }

// unfit is why a server cannot hold the cache. It is for a person to read.
type unfit struct{ reason string }

func (e *unfit) Error() string { return "cachedpg: cache_store: " + e.reason }

func (s *Store) newNode(owner *incarnation) *node {
	n := &node{store: s, owner: owner}
	n.pipe.node = n
	n.fills.node = n
	return n
}

// send makes one round trip and tells the store how it went.
func (n *node) send(ctx context.Context, cmds []goredis.Cmder) {
	p := n.client.Pipeline()
	for _, cmd := range cmds {
		_ = p.Process(ctx, cmd)
	}
	_, err := p.Exec(ctx)
	n.blame(cmds, err)
	n.store.met(n.owner, worst(cmds))
}

// worst returns the error that says most about what comes after it.
func worst(cmds []goredis.Cmder) (err error) {
	for _, cmd := range cmds {
		if faultOf(cmd.Err()) > faultOf(err) {
			err = cmd.Err()
		}
	}
	return err
}

// blame gives every command of a pipeline its error. go-redis gives none to any
// if a connection was refused by an answer of the server's, such as NOAUTH: the
// commands would look as if they had been answered by nothing.
func (n *node) blame(cmds []goredis.Cmder, err error) {
	if err == nil {
		return
	}
	for _, cmd := range cmds {
		if cmd.Err() != nil {
			return
		}
	}
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
}

// onConnect is called for every connection before it is used.
func (n *node) onConnect(ctx context.Context, conn *goredis.Conn) error {
	info, err := readInfo(ctx, conn)
	if err != nil {
		return err
	}
	if info["redis_mode"] == "sentinel" && n.store.target.Failover != nil {
		return nil // go-redis calls this for its connections to Sentinels too
	}
	return n.meet(info)
}

// meet binds the node to the server of its first connection, and compares that
// of every later one.
func (n *node) meet(info map[string]string) error {
	id := serverID{info["run_id"], info["master_replid"]}
	if id.run == "" || id.replication == "" {
		return &unfit{"INFO gives no run_id or no master_replid, so that a server which was replaced cannot be told"}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.id == serverID{}:
		if err := n.fit(info); err != nil {
			return err
		}
		n.id = id
	case n.id != id || info["role"] != "master":
		return errReplaced
	}
	return nil
}

// fit looks at a server that is met for the first time.
func (n *node) fit(info map[string]string) error {
	n.version = info["redis_version"]
	major, minor, ok := versionOf(n.version)
	switch {
	case !ok || major < 6 || major == 6 && minor < 2:
		return &unfit{fmt.Sprintf("Redis %.20q is too old; want 6.2 or later", n.version)}
	case info["role"] != "master":
		return &unfit{fmt.Sprintf("the server's role is %.20q; want a master", info["role"])}
	}
	n.flags = major >= 7
	n.since = time.Now()
	// The offset of an idle server stays 0; a promotion leaves the second id.
	n.replicated = info["master_repl_offset"] != "0" || info["second_repl_offset"] != "-1" || info["connected_slaves"] != "0"
	return nil
}

// succeeds reports that the server may have taken another's place so lately that
// a lease of that one stands (I16). It was a master when it was met, so a lease
// later none does, however young its epoch is: it has only been emptied.
func (n *node) succeeds() bool { return n.replicated && time.Since(n.since) < patience.Lease }

func versionOf(s string) (major, minor int, ok bool) {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err == nil && err2 == nil
}

// same asks the server whether it is still what the client was made for. A
// demotion, and a server that gives up its replication id, close no connection.
func (n *node) same(ctx context.Context) error {
	cmd := goredis.NewStringCmd(ctx, "INFO", "replication")
	if err := n.pipe.do(ctx, cmd); err != nil {
		return err
	}
	info := parseInfo(cmd.Val())
	n.mu.Lock()
	defer n.mu.Unlock()
	if info["role"] != "master" || info["master_replid"] != n.id.replication {
		n.store.met(n.owner, errReplaced)
		return errReplaced
	}
	return nil
}

func readInfo(ctx context.Context, conn *goredis.Conn) (map[string]string, error) {
	// Several sections in one INFO are for version 7.
	var server, replication *goredis.StringCmd
	_, err := conn.Pipelined(ctx, func(p goredis.Pipeliner) error {
		server, replication = p.Info(ctx, "server"), p.Info(ctx, "replication")
		return nil
	})
	if err != nil {
		return nil, err
	}
	return parseInfo(server.Val() + "\r\n" + replication.Val()), nil
}

func parseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// bound sets the time-outs that the URL does not, to that of a round trip.
func (s *Store) bound(timeouts ...*time.Duration) {
	for _, d := range timeouts {
		if *d == 0 {
			*d = s.timeout
		}
	}
}

func (s *Store) dialNode(o *goredis.Options, owner *incarnation) *node {
	n := s.newNode(owner)
	own := *o
	s.bound(&own.DialTimeout, &own.PoolTimeout, &own.ReadTimeout, &own.WriteTimeout)
	own.OnConnect, own.Dialer = n.onConnect, quiet(&own)
	n.client = goredis.NewClient(&own)
	return n
}

func (s *Store) dialFailover(o *goredis.FailoverOptions, owner *incarnation) *node {
	n := s.newNode(owner)
	own := *o
	s.bound(&own.DialTimeout, &own.PoolTimeout, &own.ReadTimeout, &own.WriteTimeout)
	own.OnConnect, own.Dialer = n.onConnect, quiet(&goredis.Options{Dialer: own.Dialer, DialTimeout: own.DialTimeout, TLSConfig: own.TLSConfig})
	n.client = goredis.NewFailoverClient(&own)
	return n
}

// greet makes the first connection.
func (n *node) greet(ctx context.Context) error {
	cmd := goredis.NewStatusCmd(ctx, "PING")
	err := n.client.Process(ctx, cmd)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case errors.Is(err, goredis.ErrClosed):
		return errReplaced
	case err == nil && n.id == serverID{}:
		return &unfit{"it is a Sentinel that answers in place of a server"}
	}
	return err
}
