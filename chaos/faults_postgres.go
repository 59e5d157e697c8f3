package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/internal/redistest"
)

// switchOver puts a standby in the place of the server, as it is planned: nothing
// is lost, and clients of pgbouncer stay connected.
func (l *lane) switchOver() {
	l.slow.Lock()
	defer l.slow.Unlock()
	p := l.postgres
	standby := p.Standby()
	l.did("PostgreSQL: pgbouncer is paused, and a standby takes over")
	p.bouncer.Pause()
	p.Stop() // which sends the standby what it has not got yet
	standby.Promote()
	p.takeOver(standby)
	p.bouncer.Resume()
	l.did("PostgreSQL: the standby has taken over")
}

// promoteBehind puts a standby in the place of a server that has crashed. The
// last commits never came to it.
func (l *lane) promoteBehind() {
	l.slow.Lock()
	defer l.slow.Unlock()
	standby := l.postgres.Standby()
	l.did("PostgreSQL: a standby hears nothing any more")
	standby.Exec("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
	l.pause(100*time.Millisecond, time.Second)
	l.forgetful("PostgreSQL crashes; the standby is promoted", func(p *postgres) {
		p.Crash()
		standby.Promote()
		p.takeOver(standby)
	})
}

// crashAsync ends a server whose commits are answered before they are on disk.
func (l *lane) crashAsync() {
	l.slow.Lock()
	defer l.slow.Unlock()
	l.did("PostgreSQL: synchronous_commit=off")
	l.postgres.Exec("ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM SET wal_writer_delay = '10s'",
		"ALTER SYSTEM SET wal_writer_flush_after = '1GB'", "SELECT pg_reload_conf()")
	l.pause(500*time.Millisecond, 2*time.Second)
	l.forgetful("PostgreSQL is ended at once", func(p *postgres) {
		p.Crash()
		p.Start()
		p.Exec("ALTER SYSTEM RESET synchronous_commit", "ALTER SYSTEM RESET wal_writer_delay",
			"ALTER SYSTEM RESET wal_writer_flush_after", "SELECT pg_reload_conf()")
	})
}

// forgetful does something by which commits are lost that were answered. For the
// history each row is written once more, by nobody, with what is left of it: at
// some time until a lease after anybody can ask again, and for all at once who see it.
func (l *lane) forgetful(text string, do func(*postgres)) {
	dir := filepath.Join(l.logs, "nemesis")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.scope.Fatal(err)
	}
	log, err := newRecorder(filepath.Join(dir, "nemesis.log"))
	if err != nil {
		l.scope.Fatal(err)
	}
	defer log.file.Close()
	l.lost++
	began := now()
	l.did("%s", text)
	l.postgres.shut()
	do(l.postgres)
	left := l.postgres.rows()
	l.postgres.open()
	l.did("PostgreSQL is back, without its last commits")
	rest(context.Background(), lease) // also when the run ends
	log.write(record{Op: l.lost, At: began, What: text, Set: left})
	log.respond(l.lost, record{Outcome: ok})
}

// clone starts a copy of the server beside it, with a process that uses the same
// Redis. Neither may ever see what the other has.
func (l *lane) clone() {
	l.slow.Lock()
	copied := l.postgres.Clone()
	l.slow.Unlock()
	p := &proc{scope: l.scope, base: "clone", dir: filepath.Join(l.logs, "clones", time.Now().Format("150405.000")), link: redistest.Proxy(l.scope, copied.Addr())}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		l.scope.Fatal(err)
	}
	p.task = task{Seed: l.seed, Readers: 2, Writers: 2, Plain: copied.DSN() + "&default_query_exec_mode=exec"}
	store := storeMemory
	if l.pair != nil {
		p.proxy = redistest.Proxy(l.scope, l.pair.master.Addr())
		store = redisURL(p.proxy)
	}
	p.task.Cached = copied.DSN() + "&cache_store=" + store
	l.did("a clone of PostgreSQL is started, with a process on the same Redis")
	p.start()
	l.pause(time.Second, lease)
	for _, word := range []string{sayStop, sayFinish, saySweep} {
		p.tell(word)
		p.await(sayDone)
	}
	log := filepath.Join(p.dir, p.name()+".log")
	p.process.Kill()
	p.in.Close()
	copied.Stop()
	l.did("the clone is gone")
	records, err := readLog(log)
	if err != nil {
		l.scope.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rec := range records {
		if rec.Bad != "" {
			l.bad = append(l.bad, "on a clone: "+strings.TrimSpace(rec.Bad))
		}
	}
}
