package judge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/sqlgen"
)

var shrinkTrials = flag.Int("differential.trials", 200, "after how many trials a reproduction is not made smaller any more")

// recording is what sessions did in a world, so that it can be done again.
type recording struct {
	seed   uint64
	kind   worldKind
	dsn    string
	schema *sqlgen.Schema
	ddl    []string

	// A broken driver, to see that it is found: sabotage is called after each
	// statement, blind makes of each world's store one that marks nothing.
	sabotage func(*actor, sqlgen.Statement)
	blind    bool

	mu    sync.Mutex // guards the fields below
	moves []move
	clock int
}

// move is one statement of one session. It may have overlapped with those of
// others: began and ended are moments of the history's own clock.
type move struct {
	session      int
	statement    sqlgen.Statement
	began, ended int
	err          error
}

func newRecording(dsn string, seed uint64, redis bool) *recording {
	h := &recording{seed: seed, dsn: dsn, kind: worldKind{redis: redis, mode: harness.Modes[seed%uint64(len(harness.Modes))]}}
	h.schema = sqlgen.New(seed).Schema()
	h.ddl = h.schema.DDL
	return h
}

// do executes a statement and notes it.
func (h *recording) do(ctx context.Context, p *actor, s sqlgen.Statement) error {
	h.mu.Lock()
	h.clock++
	i := len(h.moves)
	h.moves = append(h.moves, move{session: p.number, statement: s, began: h.clock})
	h.mu.Unlock()
	err := p.do(ctx, s)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	h.moves[i].ended, h.moves[i].err = h.clock, err
	return err
}

// count is the number of moves so far.
func (h *recording) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.moves)
}

// trial is a part of a history, tried again in a world of its own.
type trial struct {
	ddl   []string
	moves []move
}

// again does the moves one after the other and returns the violation that it
// meets, if it is like the one that is looked for, and after how many moves.
func (h *recording) again(tb testing.TB, t trial, like error) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := h.world(tb, t.ddl, false)
	defer w.close()
	actors := make(map[int]*actor)
	defer func() {
		for _, p := range actors {
			p.close()
		}
	}()
	var asked *disagreement
	ask := func() error {
		if !errors.As(like, &asked) {
			return nil
		}
		w.released(ctx)
		return w.compare(ctx, asked.query, "while nobody writes")
	}
	for range 2 {
		if err := ask(); err != nil {
			return 0, err
		}
	}
	for i, m := range t.moves {
		p := actors[m.session]
		if p == nil {
			var err error
			if p, err = w.actor(ctx, m.session); err != nil {
				return 0, nil
			}
			p.after = h.sabotage
			actors[m.session] = p
		}
		err := p.do(ctx, m.statement)
		if !alike(err, like) {
			err = nil
		}
		if _, ok := like.(uncovered); ok && err == nil && p.inTx {
			err = p.covered(ctx, new(score))
		}
		if err == nil {
			err = ask()
		}
		if err != nil {
			return i + 1, err
		}
	}
	return 0, nil
}

// alike reports that two errors are violations of one kind.
func alike(err, like error) bool {
	var a, b *disagreement
	var u, v uncovered
	return errors.As(err, &a) && errors.As(like, &b) && a.query.SQL == b.query.SQL || errors.As(err, &u) && errors.As(like, &v)
}

// together does the moves again, and again, as far as possible in the
// interleaving in which they were done, while others ask the query.
func (h *recording) together(tb testing.TB, t trial, like error) error {
	var asked *disagreement
	if !errors.As(like, &asked) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := h.world(tb, t.ddl, false)
	defer w.close()
	var first firstError
	var asking sync.WaitGroup
	var over atomic.Bool
	for i := range readers {
		asking.Go(func() {
			for !over.Load() && first.get() == nil {
				_, err := w.window(ctx, asked.query, i)
				first.set(err)
			}
		})
	}
	for range 10 { // a world costs more than what happens in it
		if first.get() == nil {
			w.interleave(ctx, h, t.moves, &first, like)
			w.released(ctx)
		}
	}
	over.Store(true)
	asking.Wait()
	first.set(w.compare(ctx, asked.query, "after the last write"))
	return first.get()
}

// interleave does the moves, each session its own: one begins when all those
// have ended that had ended before it began.
func (w *world) interleave(ctx context.Context, h *recording, moves []move, first *firstError, like error) {
	ended := make([]chan struct{}, len(moves))
	sessions := make(map[int][]int)
	for i, m := range moves {
		ended[i] = make(chan struct{})
		sessions[m.session] = append(sessions[m.session], i)
	}
	var wg sync.WaitGroup
	for number, own := range sessions {
		p, err := w.actor(ctx, number)
		if err != nil {
			continue
		}
		p.after = h.sabotage
		wg.Go(func() {
			defer p.close()
			for _, i := range own {
				patience, done := context.WithTimeout(ctx, 400*time.Millisecond) // another outcome may have it wait for ever
				for j, other := range moves {
					if other.session == number || other.ended > moves[i].began {
						continue
					}
					select {
					case <-ended[j]:
					case <-patience.Done():
					}
				}
				done()
				if err := p.do(ctx, moves[i].statement); alike(err, like) {
					first.set(err)
				}
				close(ended[i])
			}
			if p.inTx {
				_ = p.do(ctx, sqlgen.Statement{SQL: "ROLLBACK", Kind: kindEnd})
			}
		})
	}
	wg.Wait()
}

func (h *recording) world(tb testing.TB, ddl []string, strict bool) *world {
	w := newWorld(tb, h.dsn, h.kind, ddl, strict)
	if h.blind {
		w.blind()
	}
	return w
}

// firstError keeps the first of several errors.
type firstError struct {
	mu  sync.Mutex
	err error
}

func (f *firstError) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// shrunk is the smallest reproduction that was found.
type shrunk struct {
	trial
	err    error  // what it leads to
	how    string // in words
	trials int    // that were made

	repeated bool // else it is all of it, as it was found
}

// shrink looks for the smallest part of the history that leads to a violation
// like err: one after the other if that shows it, else in the interleaving in
// which it was found. It ends when nothing more can go, or soon after limit trials.
func (h *recording) shrink(tb testing.TB, err error, limit int) shrunk {
	best := shrunk{trial: trial{h.ddl, slices.Clone(h.moves)}, err: err}
	for i := range best.moves {
		if best.moves[i].ended == 0 {
			best.moves[i].ended = h.clock + 1
		}
	}
	fails := func(t trial) bool {
		best.trials++
		n, err := h.again(tb, t, best.err)
		if err == nil {
			return false
		}
		best.trial, best.err = trial{t.ddl, t.moves[:n]}, err
		return true
	}
	best.repeated = true
	if best.how = "one after the other"; !fails(best.trial) {
		best.how = "in the interleaving in which it was found"
		fails = func(t trial) bool {
			best.trials++
			err := h.together(tb, t, best.err)
			if err != nil {
				best.trial, best.err = t, err
			}
			return err != nil
		}
		repeated := false
		for try := 0; try < 10 && !repeated; try++ {
			repeated = fails(best.trial)
		}
		if best.repeated = repeated; !repeated {
			best.how = "not repeated: all of it"
			return best
		}
	}
	for last, all := 4, best.moves; last < len(all); last *= 2 { // what was done last is mostly what counts
		if fails(trial{best.ddl, all[len(all)-last:]}) {
			break
		}
	}
	enough := func() bool { return best.trials >= limit }
	for size := -1; size != len(best.moves)+len(best.ddl) && !enough(); {
		size = len(best.moves) + len(best.ddl)
		// What is not even mentioned first: a trial costs what its DDL does.
		fails(trial{needed(best.ddl, best.script()+best.err.Error()), best.moves})
		without(enough, func() []move { return best.moves }, func(some []move) bool { return fails(trial{best.ddl, some}) })
		without(enough, func() []string { return best.ddl }, func(some []string) bool { return fails(trial{some, best.moves}) })
	}
	return best
}

var subject = regexp.MustCompile(`(?i)(?:TABLE|VIEW|FUNCTION|PROCEDURE|TYPE|DOMAIN|SEQUENCE|AGGREGATE|INTO|ON) (\w+)`)

// needed guesses which DDL a text cannot do without: what makes or changes
// something that is mentioned in it, or in such DDL.
func needed(ddl []string, text string) []string {
	words := make(map[string]bool)
	mention := func(text string) {
		for _, word := range regexp.MustCompile(`\w+`).FindAllString(text, -1) {
			words[word] = true
		}
	}
	_, text, _ = strings.Cut(text, "-- session")
	mention(text)
	taken := make(map[int]bool)
	for before := -1; before != len(taken); {
		before = len(taken)
		for i, text := range ddl {
			if m := subject.FindStringSubmatch(text); !taken[i] && m != nil && words[m[1]] {
				taken[i] = true
				mention(text)
			}
		}
	}
	var kept []string
	for i, text := range ddl {
		if taken[i] {
			kept = append(kept, text)
		}
	}
	return kept
}

// without leaves out more and more, in smaller and smaller parts, of what now
// returns, where what is left fails still.
func without[T any](enough func() bool, now func() []T, fails func([]T) bool) {
	for size := max(1, len(now())/2); ; size /= 2 {
		for from := len(now()); from > 0 && !enough(); {
			from = max(0, from-size)
			if all := now(); from < len(all) {
				fails(slices.Concat(all[:from], all[min(from+size, len(all)):]))
			}
		}
		if size <= 1 {
			return
		}
	}
}

// report says what was found, how to find it again, and the least that leads to it.
func (h *recording) report(tb testing.TB, err error, command string) string {
	tb.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %v: %v\nagain: %s\n", h.seed, h.kind, err, command)
	if !alike(err, err) {
		return b.String() // not a matter of what was done
	}
	s := h.shrink(tb, err, *shrinkTrials)
	fmt.Fprintf(&b, "%d trials, %s:\n%s", s.trials, s.how, s.script())
	if s.err != err {
		fmt.Fprintf(&b, "leads to: %v\n", s.err)
	}
	return b.String()
}

func (s *shrunk) script() string {
	var b strings.Builder
	for _, text := range s.ddl {
		fmt.Fprintf(&b, "%s;\n", text)
	}
	session := -1
	for _, m := range s.moves {
		if m.session != session {
			session = m.session
			fmt.Fprintf(&b, "-- session %d\n", session)
		}
		fmt.Fprintf(&b, "%s", m.statement)
		if m.err != nil {
			fmt.Fprintf(&b, " -- %v", m.err)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
