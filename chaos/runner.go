package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// runner is one run.
type runner struct {
	config
	scope *scope
	logs  string

	postgres *postgres
	pair     *pair
	workers  []*proc
	began    int64
}

func (r *runner) run(ctx context.Context) (good bool) {
	if err := os.Mkdir(r.logs, 0o755); err != nil {
		r.scope.Fatal(err)
	}
	fmt.Printf("chaos: seed %d, %v, variant %s, store %s\n", r.seed, r.duration, r.variant, r.store)
	r.postgres = startPostgres(r.scope)
	r.postgres.Exec(tables)
	if r.store == storeRedis && r.variant != private {
		r.pair = startPair(r.scope)
	}
	r.began = now()
	r.startWorkers()
	n := &nemesis{scope: r.scope, logs: r.logs, seed: r.seed, postgres: r.postgres, pair: r.pair, only: r.only, workers: r.workers, out: r.print}
	harm, cancel := context.WithTimeout(ctx, r.duration)
	defer cancel()
	if err := n.run(harm); err != nil {
		r.scope.Fatal(err)
	}
	<-harm.Done()
	if ctx.Err() != nil {
		r.scope.Fatal("interrupted")
	}
	r.heal()
	logs, err := r.read()
	if err != nil {
		r.scope.Fatal(err)
	}
	rep := newReport(logs)
	rep.bad = append(rep.bad, n.bad...)
	return r.judge(rep, newHistory(logs), n)
}

// print says what happens, and when.
func (r *runner) print(format string, args ...any) {
	if !r.quiet {
		fmt.Printf("  %8.3f s  %s\n", float64(now()-r.began)/1e9, fmt.Sprintf(format, args...))
	}
}

// startWorkers starts the processes: two that write and read, two that only read
// and have the referees. A memory store has one that does all.
func (r *runner) startWorkers() {
	kinds := []task{{Readers: 1, Writers: 3}, {Readers: 3, Judges: 1}, {Readers: 1, Writers: 3}, {Readers: 3, Judges: 1}}
	if r.store == storeMemory && r.variant != private {
		kinds = []task{{Readers: 4, Writers: 5, Judges: 1}}
	}
	for i, t := range kinds {
		base := fmt.Sprintf("r%d", i)
		if t.Writers > 0 {
			base = fmt.Sprintf("w%d", i)
		}
		t.Seed = r.seed + uint64(i)
		p := &proc{scope: r.scope, base: base, dir: filepath.Join(r.logs, base)}
		t.Plain = r.postgres.DSNAt(r.postgres.link().Addr()) + "&default_query_exec_mode=exec"
		if i < len(kinds)/2 || len(kinds) == 1 && r.seed%2 == 0 { // half of them by way of a pooler
			p.link = r.postgres.pooledLink()
			t.Cached = r.postgres.DSNAt(p.link.Addr()) + "&default_query_exec_mode=exec"
		} else {
			p.link = r.postgres.link()
			t.Cached = r.postgres.DSNAt(p.link.Addr())
		}
		store := storeMemory
		if r.pair != nil {
			p.proxy = r.pair.proxy()
			store = redisURL(p.proxy)
		}
		t.Cached += "&cache_store=" + store
		switch r.variant {
		case postCommit:
			t.Cached += "&cache_consistency=eventual"
		case writeThrough:
			t.Cached += "&cache_policy=item:write-through,kind:write-through,shape:write-through"
		}
		p.task = t
		if err := os.Mkdir(p.dir, 0o755); err != nil {
			r.scope.Fatal(err)
		}
		p.start()
		r.workers = append(r.workers, p)
	}
}

// heal ends all faults, lets the processes come to rest, and has each of them
// see that all is well.
func (r *runner) heal() {
	r.print("all is healed; the processes come to rest")
	for _, p := range r.workers {
		p.link.Restore()
	}
	if r.pair != nil {
		r.pair.heal()
	}
	r.all(sayStop)
	r.workers[0].tell(sayFinish)
	r.workers[0].await(sayDone)
	r.postgres.quiet()
	r.print("every process asks every query")
	r.all(saySweep)
}

// all tells every process a word, and waits until they are done.
func (r *runner) all(word string) {
	var waiting sync.WaitGroup
	errs := make([]error, len(r.workers))
	for i, p := range r.workers {
		waiting.Go(func() {
			errs[i] = r.scope.attempt(func() {
				p.tell(word)
				p.await(sayDone)
			})
		})
	}
	waiting.Wait()
	for _, err := range errs {
		if err != nil {
			r.scope.Fatal(err)
		}
	}
}

// read reads the logs of all processes, by name.
func (r *runner) read() (map[string][]record, error) {
	paths, err := filepath.Glob(filepath.Join(r.logs, "*", "*.log"))
	logs := map[string][]record{}
	for _, path := range paths {
		records, err := readLog(path)
		if err != nil {
			return nil, err
		}
		logs[strings.TrimSuffix(filepath.Base(path), ".log")] = records
	}
	return logs, err
}

// shown is how many violations are printed of each kind.
const shown = 3

// judge prints what was found, and reports whether it is what it should be.
func (r *runner) judge(rep *report, h history, n *nemesis) bool {
	begin := time.Now()
	violations := h.check()
	took := time.Since(begin)
	rep.print(n.counts)
	if rep.tally.Hits == 0 && r.variant != private { // there each withholds hits while others write, and that is what is found
		r.scope.Fatal("there was no hit, so nothing was tried")
	}
	// The shortest says most.
	slices.SortFunc(violations, func(a, b violation) int { return cmp.Compare(a.length(), b.length()) })
	for _, v := range violations[:min(len(violations), shown)] {
		fmt.Print(v.describe(r.began, n.moments))
	}
	for _, bad := range rep.bad[:min(len(rep.bad), shown)] {
		fmt.Println(bad)
	}
	found := len(violations) + len(rep.bad)
	fmt.Printf("checked in %v: %d violations\n", took.Round(time.Millisecond), found)
	replay := fmt.Sprintf("go run . -duration %v -seed %d -variant %s -store %s -only '%s'", r.duration, r.seed, r.variant, r.store, r.only)
	good := (found > 0) == r.broken()
	switch {
	case !good && r.broken():
		fmt.Printf("nothing was found of a variant that is broken: %s\n", replay)
	case !good:
		fmt.Printf("again: %s\n", replay)
	case r.broken():
		fmt.Println("passed: the variant is broken, and was found out")
	default:
		fmt.Println("passed")
	}
	return good
}
