package stress

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// The accounts, by slot. Each has a version that every committed write of it
// raises, and an item that refers to it.
const (
	steady = 6          // their ids stay; two groups of three
	moving = steady + 3 // their ids change and never come back
	slots  = moving + 3 // the rest are deleted and inserted again

	stressWorkers = 8
)

const stressTables = `
	CREATE TABLE account (id bigint PRIMARY KEY, slot int NOT NULL, ver bigint NOT NULL, email text UNIQUE, grp int NOT NULL);
	CREATE INDEX ON account (grp);
	CREATE TABLE item (id int PRIMARY KEY, account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE ON UPDATE CASCADE, ver bigint NOT NULL);
	CREATE TABLE grave (slot int PRIMARY KEY, ver bigint NOT NULL);
	CREATE VIEW ledger AS SELECT id, slot, ver FROM account;
	INSERT INTO account SELECT s, s, 1, s || '-a', CASE WHEN s < 6 THEN s % 2 ELSE 2 END FROM generate_series(0, 11) s;
	INSERT INTO item SELECT s, s, 1 FROM generate_series(0, 11) s;
	CREATE TABLE tick (id int PRIMARY KEY, ver bigint NOT NULL); INSERT INTO tick VALUES (1, 1);
	CREATE TABLE tock (id int PRIMARY KEY, ver bigint NOT NULL); INSERT INTO tock VALUES (1, 1);
	CREATE VIEW swing AS SELECT id, ver FROM tick;`

// stress is one run: random reads and writes, and what is known of the truth.
//
// The checker is sound because it believes only what PostgreSQL has shown. A
// floor rises when a Commit returned without an error or when a read has
// returned a value, never for an attempt. A read must then not be below the floor that it
// began with. Absence is checked by two numbers per key: seen, the highest
// version at which a row was known to have the key, and gone, the highest at
// which a write may take the key away, raised before its COMMIT is sent. Who
// finds nothing under a key is wrong if gone is not above the seen that it began with.
//
// What a transaction reads of rows that it wrote itself is checked but raises no floor.
type stress struct {
	seed  uint64
	kind  stressKind
	dbs   []*sql.DB
	plain *sql.DB
	stop  context.CancelFunc

	floors [slots]atomic.Int64 // of account.ver
	items  [slots]atomic.Int64 // of item.ver
	owners [slots]atomic.Int64 // of item.account_id of a moving account
	groups [2]atomic.Int64     // of sum(ver)
	keys   sync.Map            // string → *presence
	ids    [slots]atomic.Int64 // where the account was seen last: a hint
	swing  atomic.Int64        // floor of swing.ver

	reads, writes, failures atomic.Int64

	mu        sync.Mutex // guards violation
	violation string
}

type presence struct{ seen, gone atomic.Int64 }

func raise(floor *atomic.Int64, v int64) {
	for {
		now := floor.Load()
		if v <= now || floor.CompareAndSwap(now, v) {
			return
		}
	}
}

func (s *stress) key(name string) *presence {
	p, _ := s.keys.LoadOrStore(name, &presence{})
	return p.(*presence)
}

func (s *stress) violate(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.violation == "" {
		s.violation = fmt.Sprintf(format, args...)
	}
	s.stop()
}

func (s *stress) violated() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.violation
}

func (s *stress) floorsNow() (at [slots]int64) {
	for i := range at {
		at[i] = s.floors[i].Load()
	}
	return at
}

// stressKind is what a run is about.
type stressKind struct {
	keys  []string
	late  bool // packets are under way for a while, also after their sender gave up
	views bool // a view swings between two tables all the time
	disk  bool // somebody else's commits wait for the disk, so those that do not are there soon
}

// newStress makes the tables and opens two DBs, in modes that share no entries
// but one store.
func newStress(tb testing.TB, kind stressKind) *stress {
	tb.Helper()
	database := pgtest.Database(tb)
	pgtest.Exec(tb, database, stressTables)
	s := &stress{seed: newSeed(), kind: kind}
	dsn := harness.WithKey(database, "application_name", "stressed")
	for _, k := range kind.keys {
		key, value, _ := strings.Cut(k, "=")
		dsn = harness.WithKey(dsn, key, value)
	}
	var err error
	if s.plain, err = sql.Open("pgx", database); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.plain.Close() })
	for _, mode := range []string{"cache_statement", "exec"} {
		pgDSN, config, err := cachedpg.ParseConfig(harness.WithKey(dsn, "default_query_exec_mode", mode))
		if err != nil {
			tb.Fatal(err)
		}
		pgConfig, err := pgx.ParseConfig(pgDSN)
		if err != nil {
			tb.Fatal(err)
		}
		if kind.late {
			pgConfig.DialFunc = dialLate
		}
		db, err := cachedpg.OpenDB(*pgConfig, config)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { db.Close() })
		db.SetMaxOpenConns(stressWorkers)
		db.SetMaxIdleConns(stressWorkers)
		if err := db.Ping(); err != nil { // so that the space is there
			tb.Fatal(err)
		}
		s.dbs = append(s.dbs, db)
	}
	for slot := range slots {
		s.know(write{slot: slot, ver: 1, id: int64(slot), email: fmt.Sprintf("%d-a", slot), item: true})
	}
	return s
}
