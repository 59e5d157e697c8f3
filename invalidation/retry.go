package invalidation

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// retrier calls each of its tasks until it reports success, with a back-off.
// Its goroutine lives while there are tasks.
type retrier struct {
	minWait, maxWait, timeout time.Duration

	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // holds a token when tasks have changed
	done   sync.WaitGroup

	mu      sync.Mutex
	tasks   tasks
	current *task // is being tried, and not in tasks
	kicks   int
	running bool
	closed  bool
}

type task struct {
	try   func(context.Context) bool
	since time.Time
	next  time.Time
	wait  time.Duration
}

func newRetrier(ctx context.Context, o Options) *retrier {
	r := &retrier{minWait: o.MinWait, maxWait: o.MaxWait, timeout: o.Timeout, wake: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

// add has try called for the first time after the shortest back-off: what has
// just failed would fail again now. After close the task is only counted.
func (r *retrier) add(try func(context.Context) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	t := &task{try: try, since: now}
	r.postpone(t, now)
	heap.Push(&r.tasks, t)
	if r.closed {
		return
	}
	if r.running {
		r.signal()
		return
	}
	r.running = true
	r.done.Add(1)
	go r.run()
}

func (r *retrier) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// postpone sets the time of t's next try: half of the back-off and a random
// part of the other half, so that what failed together does not come back together.
func (r *retrier) postpone(t *task, now time.Time) {
	t.wait = min(r.maxWait, max(r.minWait, 2*t.wait))
	t.next = now.Add(t.wait/2 + rand.N(t.wait/2+1))
}

func (r *retrier) run() {
	defer r.done.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.tasks) > 0 && r.ctx.Err() == nil {
		t := r.tasks[0]
		if wait := time.Until(t.next); wait > 0 {
			r.mu.Unlock()
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-r.wake:
			case <-r.ctx.Done():
			}
			timer.Stop()
			r.mu.Lock()
			continue
		}
		heap.Pop(&r.tasks)
		r.current = t
		kicks := r.kicks
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(r.ctx, r.timeout)
		ok := t.try(ctx)
		cancel()
		r.mu.Lock()
		r.current = nil
		if ok {
			continue
		}
		if r.kicks != kicks { // it may have looked just before what the kick is about
			t.wait = 0
			t.next = time.Now()
		} else {
			r.postpone(t, time.Now())
		}
		heap.Push(&r.tasks, t)
	}
	r.running = false
}

// kick has all tasks tried now, and their back-off start again.
func (r *retrier) kick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kicks++
	now := time.Now()
	for _, t := range r.tasks { // all equal is in order
		t.next, t.wait = now, 0
	}
	r.signal()
}

// close lets no task start a goroutine any more and waits for the running one: to
// be done with all tasks, or at once if abort is set or when the context ends.
// It returns how many are left.
func (r *retrier) close(abort bool) int {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	if abort {
		r.cancel()
	}
	r.kick()
	r.done.Wait()
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tasks)
}

func (r *retrier) state() (n int, oldest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, t := range r.tasks {
		oldest = max(oldest, now.Sub(t.since))
	}
	n = len(r.tasks)
	if r.current != nil {
		n++
		oldest = max(oldest, now.Sub(r.current.since))
	}
	return n, oldest
}

// tasks is a heap, the next to try first.
type tasks []*task

func (t tasks) Len() int           { return len(t) }
func (t tasks) Less(i, j int) bool { return t[i].next.Before(t[j].next) }
func (t tasks) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *tasks) Push(x any)        { *t = append(*t, x.(*task)) }
func (t *tasks) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return last
}
