package invalidation

import (
	"context"
	"errors"
	"slices"

	"github.com/cachedpg/cachedpg/store"
)

// ErrNever is the error of a question given to Write.Abandon that will never have an
// answer: who could have given it is gone, and so is everybody who reads what the
// intents protect.
var ErrNever = errors.New("cachedpg: the outcome of a write will never be known")

var errOver = errors.New("cachedpg: the write is over")

// Write is one writer: a transaction, or a statement outside of one. Its
// methods must not be called concurrently. It ends with one call of Release
// or Abandon; later ones do nothing.
type Write struct {
	c    *Coordinator
	id   store.WriterID
	tags []store.Tag
	seen map[store.Tag]struct{} // of tags, once there are many
	told int                    // that many of tags the store has acknowledged
	over bool
}

// ID returns the id under which the store knows the write.
func (w *Write) ID() store.WriterID { return w.id }

// Intend marks tags: when it returns nil, nobody gets a result that depends on
// one of them until the write is released (I2). It may be called again to add
// tags. It copies tags.
//
// After an error the tags may be marked or not. They stay part of the write: the
// next Intend tries them again, and Release releases them (I11).
func (w *Write) Intend(ctx context.Context, tags []store.Tag) error {
	_, err := w.intend(tags, func(untold []store.Tag) (store.Marked, error) {
		return store.Marked{Tags: untold}, w.c.store.Intend(ctx, w.id, untold)
	})
	return err
}

// Mark is Intend in a store that processes share, see store.Shared. If the
// store marks the schema tag as well, that becomes part of the write.
func (w *Write) Mark(ctx context.Context, s store.Shared, tags []store.Tag, catalog store.Stamp) (store.Marked, error) {
	return w.intend(tags, func(untold []store.Tag) (store.Marked, error) {
		return s.Mark(ctx, w.id, untold, catalog)
	})
}

func (w *Write) intend(tags []store.Tag, tell func(untold []store.Tag) (store.Marked, error)) (store.Marked, error) {
	if w.over {
		return store.Marked{}, errOver
	}
	// Remembered first: the store may have marked them although it fails.
	w.tags = slices.Grow(w.tags, len(tags))
	for _, t := range tags {
		w.add(t)
	}
	if w.told == len(w.tags) {
		return store.Marked{}, nil
	}
	marked, err := tell(w.tags[w.told:])
	if err != nil {
		return store.Marked{}, err
	}
	w.tags = append(w.tags[:w.told], marked.Tags...) // what has no intent needs no release (I26)
	if marked.Schema {
		w.add(store.Tag{Kind: store.TagSchema})
	}
	w.told = len(w.tags)
	w.c.intents.Add(1)
	return marked, nil
}

// Remember makes tags part of the write without marking them. Release then
// gives them new stamps, which is all that cache-aside in its textbook form does.
func (w *Write) Remember(tags []store.Tag) {
	for _, t := range tags {
		w.add(t)
	}
}

// few is how many tags are searched faster one by one than in a map.
const few = 64

func (w *Write) add(t store.Tag) {
	if len(w.tags) < few {
		if !slices.Contains(w.tags, t) {
			w.tags = append(w.tags, t)
		}
		return
	}
	if w.seen == nil {
		w.seen = make(map[store.Tag]struct{}, 2*few)
		for _, t := range w.tags {
			w.seen[t] = struct{}{}
		}
	}
	if _, ok := w.seen[t]; !ok {
		w.seen[t] = struct{}{}
		w.tags = append(w.tags, t)
	}
}

// Empty reports that nothing is to be released.
func (w *Write) Empty() bool { return len(w.tags) == 0 }

// Release ends a write whose outcome is known: committed, rolled back, or never
// sent. Each tag gets a new stamp (I5), and is clean when no other writer has
// an intent on it. A release that the store does not take is repeated until it
// does.
func (w *Write) Release() { w.ReleaseTelling(nil) }

// ReleaseTelling is Release, and closes told, unless it is nil, when the store has
// been asked for the first time: it took the release, or will be asked again.
func (w *Write) ReleaseTelling(told chan<- struct{}) {
	switch {
	case w.end():
		w.c.settle(w, told)
	case told != nil:
		close(told)
	}
}

// Abandon ends a write of which it is not known whether its effect is visible,
// or may become so. over asks whether the write's transaction is over: whether
// everything that it may ever make visible is visible (I4). Once over reports
// true the write is released; an error is no answer. over is called from
// another goroutine, again and again but not concurrently with itself, with a
// context that ends after Options.Timeout; it must heed that.
//
// After Close the intents stay, and after an error that is ErrNever.
func (w *Write) Abandon(over func(ctx context.Context) (bool, error)) {
	if !w.end() {
		return
	}
	w.c.resolver.add(func(ctx context.Context) bool {
		ok, err := over(ctx)
		if errors.Is(err, ErrNever) {
			return true
		}
		if err != nil || !ok {
			return false
		}
		w.c.settle(w, nil)
		return true
	})
}

// end reports whether there is something to release, once.
func (w *Write) end() bool {
	if w.over {
		return false
	}
	w.over, w.seen = true, nil
	return len(w.tags) > 0
}
