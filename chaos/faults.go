package main

import (
	"syscall"
	"time"

	"github.com/cachedpg/cachedpg/internal/step"
)

// serverFaults are those of PostgreSQL and Redis.
func (n *nemesis) serverFaults() []fault {
	faults := []fault{
		{"slow commits", (*lane).slowCommits},
		{"slow commits, some cancelled", func(l *lane) {
			l.slowCommitsThen(func() {
				l.did("PostgreSQL: the commits that wait are cancelled")
				l.postgres.Exec("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
			})
		}},
		{"PostgreSQL restarts", func(l *lane) { l.restart("PostgreSQL restarts", syscall.SIGINT) }},
		{"PostgreSQL crashes", func(l *lane) { l.restart("PostgreSQL is ended at once", syscall.SIGQUIT) }},
		{"switchover behind pgbouncer", (*lane).switchOver},
		{"promotion without the last commits", (*lane).promoteBehind},
		{"crash under synchronous_commit=off", (*lane).crashAsync},
		{"a clone on the same Redis", (*lane).clone},
		{"connections terminated", func(l *lane) {
			l.slow.Lock() // what is done under it has a connection too
			defer l.slow.Unlock()
			l.did("PostgreSQL: every connection is terminated")
			l.postgres.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
		}},
	}
	if n.pair == nil {
		return faults
	}
	redis := []fault{
		{"FLUSHALL", func(l *lane) {
			l.did("Redis: FLUSHALL")
			l.pair.command(l.pair.master, "FLUSHALL")
		}},
		{"eviction", func(l *lane) { l.squeezed("allkeys-lru", 90) }},
		{"eviction of everything", func(l *lane) { l.squeezed("allkeys-random", 0) }},
		{"Redis full", func(l *lane) { l.squeezed("noeviction", 0) }},
		{"Redis from an old snapshot", func(l *lane) {
			l.did("Redis: a snapshot is taken")
			l.pair.snapshot()
			l.pause(500*time.Millisecond, lease)
			l.did("Redis is killed and started with the snapshot")
			l.pair.restore()
		}},
		{"Redis restarts", func(l *lane) {
			l.did("Redis is killed and started again")
			l.pair.master.Restart()
		}},
		{"failover of a hung Redis", func(l *lane) {
			l.failOver("Redis hangs; its replica is promoted", (*pair).failOver, 500*time.Millisecond)
		}},
		{"handover to the replica", func(l *lane) {
			l.failOver("Redis hands over to its replica, and processes follow", (*pair).handOver, 500*time.Millisecond)
		}},
		{"failover while the old master can be read", func(l *lane) {
			l.failOver("the replica of Redis is promoted, and processes follow; the old master can be read", (*pair).split, time.Second)
		}},
		{"a table closes to the cache or opens", (*lane).doors},
		{"Redis hangs", func(l *lane) {
			l.did("Redis hangs")
			l.pair.master.Pause()
			l.pause(200*time.Millisecond, lease)
			l.did("Redis goes on")
			l.pair.master.Resume()
		}},
	}
	for _, f := range redis {
		faults = append(faults, fault{f.name, func(l *lane) {
			l.memory.Lock()
			defer l.memory.Unlock()
			f.do(l)
		}})
	}
	return faults
}

// doors takes the first step of closing the table of the rows to the cache, or of opening it, as
// a process does that has counted what it gains; processes take the others.
func (l *lane) doors() {
	l.did("Redis: the door of item moves")
	l.pair.moveDoor(l.postgres.oid("item"))
	l.pause(lease, 4*lease) // they leave each step to the one that began it, for a while
}

func (l *lane) slowCommits() { l.slowCommitsThen(func() {}) }

// slowCommitsThen lets commits wait for a standby that is not there.
func (l *lane) slowCommitsThen(do func()) {
	l.slow.Lock()
	defer l.slow.Unlock()
	l.did("PostgreSQL: commits wait for a standby")
	l.postgres.Exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
	l.pause(500*time.Millisecond, lease)
	do()
	l.pause(100*time.Millisecond, lease/2)
	l.postgres.Exec("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
	l.did("PostgreSQL: commits no longer wait")
}

func (l *lane) restart(text string, how syscall.Signal) {
	l.slow.Lock()
	defer l.slow.Unlock()
	l.did("%s", text)
	l.postgres.restart(how)
	l.did("PostgreSQL is back")
}

func (l *lane) squeezed(policy string, percent int) {
	l.did("Redis: maxmemory is %d%% of what is used, %s", percent, policy)
	l.pair.squeeze(policy, percent)
	l.pause(200*time.Millisecond, lease)
	l.pair.release()
	l.did("Redis: memory is unbounded again")
}

func (l *lane) failOver(text string, how func(*pair, func()), most time.Duration) {
	l.did("%s", text)
	how(l.pair, func() { l.pause(0, most) })
	l.did("Redis: the replica is master, the old master its replica")
}

// forget empties Redis while commits wait whose marks it had, and kills one who
// made them.
func (l *lane) forget() {
	l.slowCommitsThen(func() {
		l.did("Redis: FLUSHALL")
		l.memory.Lock()
		l.pair.command(l.pair.master, "FLUSHALL")
		l.memory.Unlock()
		l.pause(0, lease)
		p := l.worker(true)
		l.did("%s is killed", p.name())
		p.again()
	})
}

// lose breaks the connections of a process whose commits wait, and lets no
// request to cancel them through: it does not know their outcome, and they have
// an effect later.
func (l *lane) lose() {
	l.slowCommitsThen(func() {
		p := l.worker(true)
		l.did("%s loses PostgreSQL", p.name())
		p.link.Refuse()
		l.pause(lease/4, lease)
		p.link.Restore()
		l.did("%s has PostgreSQL again", p.name())
	})
}

// workerFaults are those of the worker processes.
func (n *nemesis) workerFaults() (faults []fault) {
	faults = []fault{
		{"kill anywhere", func(l *lane) {
			p := l.worker(true)
			l.did("%s is killed", p.name())
			p.again()
		}},
		{"kill while the commit waits", func(l *lane) {
			l.slowCommitsThen(func() {
				p := l.worker(true)
				l.did("%s is killed", p.name())
				p.again()
			})
		}},
		{"a writer loses PostgreSQL while its commits wait", (*lane).lose},
		{"stop anywhere", func(l *lane) {
			p := l.worker(l.rng.IntN(2) == 0)
			l.did("%s is stopped", p.name())
			p.process.Pause()
			l.pause(100*time.Millisecond, lease)
			l.goOn(p)
		}},
		{"prepared transactions left behind", func(l *lane) {
			p := l.worker(true)
			p.tell(sayPrepare)
			p.await(sayDone)
			l.did("%s has prepared a transaction, and is killed", p.name())
			p.again()
		}},
	}
	for _, at := range []string{step.Executed, step.Marked, step.Committed, step.Released} {
		faults = append(faults, fault{"kill when " + at, func(l *lane) {
			p := l.worker(true)
			name := p.name()
			l.did("%s is to be killed when %s", name, at)
			if p.killAt(at) {
				l.did("%s was killed when %s", name, at)
			} else {
				l.did("%s did not come there in %v, and was killed", name, trapTime)
			}
		}})
	}
	for _, at := range []string{step.LookedUp, step.Selected, step.Executed, step.Marked, step.Committed} {
		writes := at != step.LookedUp && at != step.Selected
		most := lease
		if !writes {
			most *= 2 // nobody waits for it
		}
		faults = append(faults, fault{"stop when " + at, func(l *lane) {
			p := l.worker(writes)
			if p.stopAt(at) {
				l.did("%s is stopped when %s", p.name(), at)
				l.pause(100*time.Millisecond, most)
			} else {
				l.did("%s did not come to be stopped when %s", p.name(), at)
			}
			l.goOn(p)
		}})
	}
	if n.pair == nil {
		return faults
	}
	return append(faults, []fault{
		{"Redis forgets the marks of commits that wait", (*lane).forget},
		{"a writer cut off from Redis", func(l *lane) { l.cut(true, "hears nothing from Redis", (*lane).hang) }},
		{"a writer that is not answered", func(l *lane) { l.cut(true, "is not answered by Redis", (*lane).mute) }},
		{"a writer refused by Redis", func(l *lane) { l.cut(true, "is refused by Redis", (*lane).refuse) }},
		{"a reader cut off from Redis", func(l *lane) { l.cut(false, "hears nothing from Redis", (*lane).hang) }},
		{"a slow network", func(l *lane) {
			l.cut(l.rng.IntN(2) == 0, "hears from Redis late", func(l *lane, p *proc) { p.proxy.Delay(time.Duration(l.rng.IntN(150)) * time.Millisecond) })
		}},
	}...)
}

func (l *lane) hang(p *proc)   { p.proxy.Cut() }
func (l *lane) mute(p *proc)   { p.proxy.CutReplies() }
func (l *lane) refuse(p *proc) { p.proxy.Refuse() }

// worker chooses a process that writes, or one that only reads if there is any.
func (l *lane) worker(writes bool) *proc {
	var some []*proc
	for _, p := range l.workers {
		if writes == (p.task.Writers > 0) {
			some = append(some, p)
		}
	}
	if some == nil {
		some = l.workers
	}
	p := some[l.rng.IntN(len(some))]
	p.alive()
	return p
}

func (l *lane) goOn(p *proc) {
	l.did("%s goes on", p.name())
	p.resume()
}

func (l *lane) cut(writes bool, how string, do func(*lane, *proc)) {
	p := l.worker(writes)
	l.did("%s %s", p.name(), how)
	do(l, p)
	l.pause(200*time.Millisecond, lease+time.Second)
	p.proxy.Restore()
	l.did("%s hears from Redis again", p.name())
}
