package peers

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/store"
)

// Camp are the processes that share a cache, or that share having none: what one
// of them commits, the others hear of through it. A process with its cache in
// memory is a camp of its own.
//
// A camp shows itself in PostgreSQL by advisory locks, which hold kind and id.
type Camp struct {
	kind Kind
	id   uint32 // campBits of a hash
}

// Kind is where the cache of a camp is.
type Kind uint8

const (
	unknown Kind = iota // not connected to its store
	InMemory
	Shared
	Off // it has nothing to mark in
)

const campBits = 28

// NewCamp returns the camp of those who agree on all of facts.
func NewCamp(kind Kind, facts ...string) Camp {
	h := sha256.New()
	for _, f := range facts {
		h.Write(binary.AppendUvarint(nil, uint64(len(f))))
		h.Write([]byte(f))
	}
	return Camp{kind, binary.BigEndian.Uint32(h.Sum(nil)) >> (32 - campBits)}
}

// The objects of a camp's locks, in guard.LockCamps.
const Writes = 1 << campBits

func (c Camp) cacheLock() int { return int(c.kind)<<(campBits+1) | int(c.id) }
func (c Camp) writeLock() int { return c.cacheLock() | Writes }

// Writing is the lock that shows that a process of the camp writes.
func (c Camp) Writing() guard.Lock { return guard.Lock{Class: guard.LockCamps, Object: c.writeLock()} }

func campOf(object int) (c Camp, writes bool) {
	return Camp{Kind(object >> (campBits + 1)), uint32(object) & (Writes - 1)}, object&Writes != 0
}

// String says what a process of the camp is, for an error.
func (c Camp) String() string {
	switch c.kind {
	case InMemory:
		return "a process with its cache in its own memory"
	case Shared:
		return "a process with another Redis, or of a build with another format"
	}
	return "a process with cache_store=off"
}

// census is what PostgreSQL says of the camps at one moment.
type census struct {
	young    bool   // PostgreSQL has started less than a lease ago: locks of before are gone
	notice   bool   // commits go past a shared store
	caches   []Camp // that may answer from a cache
	writers  []Camp // that may commit
	policies []int
}

// censusOf is the question, of the database with an OID. A process's own locks
// count where another connection than the one that asks holds them.
func censusOf(database string) string {
	const eq = "OPERATOR(pg_catalog.=)"
	return fmt.Sprintf("SELECT pg_catalog.concat_ws('|', (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_postmaster_start_time() OPERATOR(pg_catalog.<) '%d seconds'::pg_catalog.interval)::pg_catalog.text,"+
		" coalesce((SELECT pg_catalog.string_agg(DISTINCT pg_catalog.concat_ws(':', classid, objid), ',') FROM pg_catalog.pg_locks"+
		" WHERE locktype "+eq+" 'advisory' AND objsubid "+eq+" 2::pg_catalog.int2 AND granted AND database "+eq+" '%s'::pg_catalog.oid"+
		" AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()"+
		" AND (classid "+eq+" '%d'::pg_catalog.oid OR classid "+eq+" '%d'::pg_catalog.oid OR classid "+eq+" '%d'::pg_catalog.oid AND objid "+eq+" '%d'::pg_catalog.oid)), ''))",
		int((Wait()+time.Second-1)/time.Second), database, guard.LockCamps, guard.LockPolicies, guard.LockClass, guard.LockNotice)
}

func parseCensus(answer string) (s census, err error) {
	field := strings.Split(answer, "|")
	if len(field) != 2 {
		return s, fmt.Errorf("cachedpg: PostgreSQL gives %d facts about other processes, not 2", len(field))
	}
	s.young = strings.HasPrefix(field[0], "t")
	if field[1] == "" {
		return s, nil
	}
	for lock := range strings.SplitSeq(field[1], ",") {
		class, object, _ := strings.Cut(lock, ":")
		n, err := strconv.Atoi(object)
		if err != nil {
			return s, fmt.Errorf("cachedpg: PostgreSQL gives %q as a lock", lock)
		}
		switch class {
		case strconv.Itoa(guard.LockClass):
			s.notice = true
		case strconv.Itoa(guard.LockPolicies):
			s.policies = append(s.policies, n)
		default:
			if c, writes := campOf(n); writes {
				s.writers = append(s.writers, c)
			} else {
				s.caches = append(s.caches, c)
			}
		}
	}
	return s, nil
}

// others are the camps of all but own.
func others(all []Camp, own Camp) []Camp {
	return slices.DeleteFunc(slices.Clone(all), func(c Camp) bool { return c == own })
}

// kin are the camps of each process, by the name that it has in tests. It has
// several while it is finding out that a server was replaced, or its database is
// reached under another identity; what it does then is a matter of its own.
var (
	kinMu sync.Mutex
	kin   = make(map[string][]Camp) // one for each of its peers
)

// kinOf replaces one of the camps of a process.
func kinOf(process string, was, now Camp) {
	if was == now {
		return
	}
	kinMu.Lock()
	defer kinMu.Unlock()
	if i := slices.Index(kin[process], was); i >= 0 {
		kin[process] = slices.Delete(kin[process], i, i+1)
	}
	if now.kind != unknown {
		kin[process] = append(kin[process], now)
	}
	if len(kin[process]) == 0 {
		delete(kin, process)
	}
}

func withoutKin(process string, all []Camp) []Camp {
	kinMu.Lock()
	defer kinMu.Unlock()
	return slices.DeleteFunc(all, func(c Camp) bool { return slices.Contains(kin[process], c) })
}

// Self is how a camp that never changes is asked for.
func (c Camp) Self() func() Camp { return func() Camp { return c } }

// SharedCamp gives the camp of those who mark under the same names in the same
// servers, as they are now.
func SharedCamp(s store.Shared) func() Camp {
	place, ok := s.(interface{ Place() string })
	return func() Camp {
		if !ok || place.Place() == "" {
			return Camp{}
		}
		return NewCamp(Shared, place.Place())
	}
}

// Wait is how long a commit waits for caches that it has seen, as for a notice.
func Wait() time.Duration { return patience.Lease + guard.NoticeMargin }
