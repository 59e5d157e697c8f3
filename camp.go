package cachedpg

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// camp are the processes that share a cache, or that share having none: what one
// of them commits, the others hear of through it. A process with its cache in
// memory is a camp of its own.
//
// A camp shows itself in PostgreSQL by advisory locks, which hold kind and id.
type camp struct {
	kind campKind
	id   uint32 // campBits of a hash
}

type campKind uint8

const (
	campUnknown campKind = iota // not connected to its store
	campMemory
	campShared
	campOff // it has nothing to mark in
)

const campBits = 28

// newCamp returns the camp of those who agree on all of facts.
func newCamp(kind campKind, facts ...string) camp {
	h := sha256.New()
	for _, f := range facts {
		h.Write(binary.AppendUvarint(nil, uint64(len(f))))
		h.Write([]byte(f))
	}
	return camp{kind, binary.BigEndian.Uint32(h.Sum(nil)) >> (32 - campBits)}
}

// The objects of a camp's locks, in lockCamps.
const campWrites = 1 << campBits

func (c camp) cacheLock() int { return int(c.kind)<<(campBits+1) | int(c.id) }
func (c camp) writeLock() int { return c.cacheLock() | campWrites }

// writing is the lock that shows that a process of the camp writes.
func (c camp) writing() guard.Lock { return guard.Lock{Class: lockCamps, Object: c.writeLock()} }

func campOf(object int) (c camp, writes bool) {
	return camp{campKind(object >> (campBits + 1)), uint32(object) & (campWrites - 1)}, object&campWrites != 0
}

// String says what a process of the camp is, for an error.
func (c camp) String() string {
	switch c.kind {
	case campMemory:
		return "a process with its cache in its own memory"
	case campShared:
		return "a process with another Redis, or of a build with another format"
	}
	return "a process with cache_store=off"
}

// census is what PostgreSQL says of the camps at one moment.
type census struct {
	young    bool   // PostgreSQL has started less than a lease ago: locks of before are gone
	notice   bool   // commits go past a shared store
	caches   []camp // that may answer from a cache
	writers  []camp // that may commit
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
		int((campWait()+time.Second-1)/time.Second), database, lockCamps, lockPolicies, lockClass, lockNotice)
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
		case strconv.Itoa(lockClass):
			s.notice = true
		case strconv.Itoa(lockPolicies):
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
func others(all []camp, own camp) []camp {
	return slices.DeleteFunc(slices.Clone(all), func(c camp) bool { return c == own })
}

// kin are the camps of each process, by the name that it has in tests. It has
// several while it is finding out that a server was replaced, or its database is
// reached under another identity; what it does then is a matter of its own.
var (
	kinMu sync.Mutex
	kin   = make(map[string][]camp) // one for each of its peers
)

// kinOf replaces one of the camps of a process.
func kinOf(process string, was, now camp) {
	if was == now {
		return
	}
	kinMu.Lock()
	defer kinMu.Unlock()
	if i := slices.Index(kin[process], was); i >= 0 {
		kin[process] = slices.Delete(kin[process], i, i+1)
	}
	if now.kind != campUnknown {
		kin[process] = append(kin[process], now)
	}
	if len(kin[process]) == 0 {
		delete(kin, process)
	}
}

func withoutKin(process string, all []camp) []camp {
	kinMu.Lock()
	defer kinMu.Unlock()
	return slices.DeleteFunc(all, func(c camp) bool { return slices.Contains(kin[process], c) })
}

// self is how a camp that never changes is asked for.
func (c camp) self() func() camp { return func() camp { return c } }

// sharedCamp gives the camp of those who mark under the same names in the same
// servers, as they are now.
func sharedCamp(s store.Shared) func() camp {
	place, ok := s.(interface{ Place() string })
	return func() camp {
		if !ok || place.Place() == "" {
			return camp{}
		}
		return newCamp(campShared, place.Place())
	}
}

// format is a part of all names in a shared store: a build that reads rows, tags or
// their values otherwise than another one neither finds what that has stored nor
// hears of what it marks, so each of the two has to see that it has not the store to itself.
func (d *connector) format() string {
	return "/" + cmp.Or(d.build, strconv.Itoa(backend.FormatVersion))
}

// agreed is what all who share a store must have alike, in one text.
func (c Config) agreed() string {
	var queued []string
	for _, p := range c.Policies {
		if p.Strategy == strategyWriteBehind {
			queued = append(queued, p.Relation)
		}
	}
	slices.Sort(queued)
	return strings.Join(append(queued, "cache_external="+c.External), ",")
}
