package storetest

import (
	"iter"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

func cast(length int) map[string]actor {
	return map[string]actor{
		"reader 1": reader(2 * length),
		"reader 2": reader(2 * length),
		"reader 3": reader(2 * length),
		"writer 1": writer(length),
		"writer 2": writer(length),
		"server":   server(4 * length),
	}
}

// interleave runs one interleaving, chosen by seed, of a few readers and
// writers: one goroutine at a time, switching at every pause. It returns "", or
// what went wrong and how it came to that.
func interleave(s store.Store, p protocol, seed uint64) string {
	_, report := run(s, p, seed)
	return report
}

func run(s store.Store, p protocol, seed uint64) (*world, string) {
	w := newWorld(s, p)
	rng := rand.New(rand.NewPCG(seed, 0))
	var alive []func() (struct{}, bool)
	actors := cast(4)
	for _, name := range []string{"reader 1", "reader 2", "reader 3", "writer 1", "writer 2", "server"} {
		own := rand.New(rand.NewPCG(seed, uint64(len(alive)+1)))
		next, stop := iter.Pull(func(yield func(struct{}) bool) {
			actors[name](w, name, own, func() { yield(struct{}{}) })
		})
		defer stop()
		alive = append(alive, next)
	}
	for len(alive) > 0 && !w.failed() {
		i := rng.IntN(len(alive))
		// Now and then one runs for long while the others stand still.
		for range 1 + rng.IntN(4) {
			if _, ok := alive[i](); !ok {
				alive = append(alive[:i], alive[i+1:]...)
				break
			}
		}
	}
	return w, w.report
}

// race runs readers and writers at the same time until the budget is used up.
func race(s store.Store, p protocol, budget time.Duration) string {
	end := time.Now().Add(budget)
	for round := uint64(0); time.Now().Before(end); round++ {
		w := newWorld(s, p)
		var group sync.WaitGroup
		i := uint64(0)
		for name, a := range cast(40) {
			i++
			rng := rand.New(rand.NewPCG(round, i))
			group.Go(func() {
				a(w, name, rng, func() {
					if rng.IntN(3) == 0 {
						runtime.Gosched()
					}
				})
			})
		}
		group.Wait()
		if w.report != "" {
			return w.report
		}
	}
	return ""
}
