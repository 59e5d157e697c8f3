package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/child"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// pair are two Redis servers, of which one is the master. Workers reach it
// through proxies, one for each process.
type pair struct {
	scope           *scope
	master, replica *redistest.Server
	proxies         []*redistest.Proxied
	old             []byte // a snapshot from some time ago
}

func startPair(s *scope) *pair {
	p := &pair{scope: s, master: redistest.Start(s), replica: redistest.Start(s)}
	p.follow(p.replica, p.master)
	p.inSync()
	return p
}

// proxy makes another way to the master, for one process.
func (p *pair) proxy() *redistest.Proxied {
	proxy := p.master.Proxy()
	p.proxies = append(p.proxies, proxy)
	return proxy
}

func redisURL(proxy *redistest.Proxied) string { return "redis://" + proxy.Addr() + "/0" }

func (p *pair) command(s *redistest.Server, words ...any) {
	ctx, cancel := context.WithTimeout(context.Background(), child.Wait)
	defer cancel()
	if err := s.Client().Do(ctx, words...).Err(); err != nil && err != redis.Nil {
		p.scope.Fatalf("Redis: %v: %v", words, err)
	}
}

func (p *pair) follow(s, master *redistest.Server) {
	host, port, _ := strings.Cut(master.Addr(), ":")
	p.command(s, "REPLICAOF", host, port)
}

// inSync waits until the replica follows, so that it can be promoted.
func (p *pair) inSync() {
	child.Until(p.scope, "the replica has a link", func() error {
		if status := p.replica.Info("replication", "master_link_status"); status != "up" {
			return fmt.Errorf("it is %q", status)
		}
		return nil
	})
}

// failOver promotes the replica of a master that hangs until everybody was sent
// to the new one. between is called while nobody answers.
func (p *pair) failOver(between func()) {
	p.inSync()
	p.master.Pause()
	between()
	p.command(p.replica, "REPLICAOF", "NO", "ONE")
	p.everyone(func() {})
	p.master.Resume()
	p.follow(p.master, p.replica)
	p.master, p.replica = p.replica, p.master
}

// handOver makes the master a replica of its replica. Processes follow one
// after the other, with a call of between after each.
func (p *pair) handOver(between func()) {
	p.inSync()
	p.command(p.replica, "REPLICAOF", "NO", "ONE")
	p.follow(p.master, p.replica)
	p.everyone(between)
	p.master, p.replica = p.replica, p.master
}

// split promotes the replica while the master goes on for those who have not
// followed yet. It can only be read: without its replica it refuses writes, and
// without that nothing is safe, see package invalidation.
func (p *pair) split(between func()) {
	p.inSync()
	old := p.master
	p.command(old, "CONFIG", "SET", "min-replicas-to-write", 1)
	p.command(p.replica, "REPLICAOF", "NO", "ONE")
	child.Until(p.scope, "the old master knows that it has no replica", func() error {
		if n := old.Info("replication", "connected_slaves"); n != "0" {
			return fmt.Errorf("it has %s", n)
		}
		return nil
	})
	p.everyone(between)
	p.follow(old, p.replica)
	p.command(old, "CONFIG", "SET", "min-replicas-to-write", 0)
	p.master, p.replica = p.replica, p.master
}

// everyone sends the processes to the new master.
func (p *pair) everyone(between func()) {
	for _, proxy := range p.proxies {
		proxy.SwitchTo(p.replica.Addr())
		between()
	}
}

// moveDoor has a table close that is open, and open if it is closed, in every namespace.
// See store.Closable; a list of doors is a version of 12 bytes, and 5 bytes for each relation.
func (p *pair) moveDoor(oid uint32) {
	relation := string(binary.BigEndian.AppendUint32(nil, oid))
	p.command(p.master, "EVAL", `
for _, d in ipairs(redis.call('KEYS', 'cachedpg:*:d')) do
  local doors, rest, door = redis.call('HGET', d, 'doors') or '', '', 0
  for i = 13, #doors, 5 do
    if string.sub(doors, i, i + 3) == ARGV[1] then door = string.byte(doors, i + 4) else rest = rest .. string.sub(doors, i, i + 4) end
  end
  if door % 2 == 0 and redis.call('HEXISTS', d, 'e') == 1 then
    redis.call('HSET', d, 'doors', ARGV[2] .. rest .. ARGV[1] .. string.char(door + 1))
  end
end`, 0, relation, rand.Text()[:12])
}

// squeeze leaves the server room for a share of what it holds.
func (p *pair) squeeze(policy string, percent int) {
	var used int
	if _, err := fmt.Sscan(p.master.Info("memory", "used_memory"), &used); err != nil {
		p.scope.Fatalf("Redis: used_memory: %v", err)
	}
	p.command(p.master, "CONFIG", "SET", "maxmemory-policy", policy)
	p.command(p.master, "CONFIG", "SET", "maxmemory", max(1, used*percent/100))
}

func (p *pair) release() {
	p.command(p.master, "CONFIG", "SET", "maxmemory", 0)
}

// snapshot keeps what the server holds now for restore.
func (p *pair) snapshot() {
	p.master.Save()
	p.old = p.master.CopyRDB()
}

// restore starts the master again with the last snapshot, as if it had had no
// time to write another one.
func (p *pair) restore() {
	if p.old == nil {
		p.snapshot()
	}
	p.master.RestoreRDB(p.old)
	p.old = nil
}

// heal ends everything that a fault may have left.
func (p *pair) heal() {
	for _, proxy := range p.proxies {
		proxy.Restore()
	}
	p.release()
	p.inSync()
}
