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
	tags store.TagSet
	sent int // that many of tags the store has acknowledged
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
	_, err := w.intend(tags, func(unsent []store.Tag) (store.Marked, error) {
		return store.Marked{Tags: unsent}, w.c.store.Intend(ctx, w.id, unsent)
	})
	return err
}

// Mark is Intend in a store that processes share, see store.Shared. If the
// store marks the schema tag as well, that becomes part of the write.
func (w *Write) Mark(ctx context.Context, s store.Shared, tags []store.Tag, catalog store.Stamp) (store.Marked, error) {
	return w.intend(tags, func(unsent []store.Tag) (store.Marked, error) {
		return s.Mark(ctx, w.id, unsent, catalog)
	})
}

func (w *Write) intend(tags []store.Tag, send func(unsent []store.Tag) (store.Marked, error)) (store.Marked, error) {
	if w.over {
		return store.Marked{}, errOver
	}
	// Remembered first: the store may have marked them although it fails.
	w.tags.Add(tags...)
	unsent := w.tags.Tags()[w.sent:]
	if len(unsent) == 0 {
		return store.Marked{}, nil
	}
	marked, err := send(unsent)
	if err != nil {
		return store.Marked{}, err
	}
	if len(marked.Tags) < len(unsent) { // what has no intent needs no release (I26)
		w.tags.Truncate(w.sent)
		w.tags.Add(marked.Tags...)
	}
	if marked.Schema {
		w.tags.Add(store.Tag{Kind: store.TagSchema})
	}
	w.sent = w.tags.Len()
	w.c.intents.Add(1)
	return marked, nil
}

// Spare takes intents back: those on tags of which it has turned out that the write has not
// changed what they name. They may be clean then with the stamps that they had, and are no part
// of the write any more. The outcome has to be known, and whatever has been changed to be
// marked by other tags (I27). Tags without an intent are left alone. So are all of them in a store
// that is not store.Sparing, and after an error: Release gives them new stamps.
func (w *Write) Spare(ctx context.Context, tags []store.Tag) error {
	s, ok := w.c.store.(store.Sparing)
	if w.over {
		return errOver
	}
	if !ok {
		return nil
	}
	spared := make([]store.Tag, 0, len(tags))
	for _, t := range tags {
		if w.tags.Has(t) && (w.sent == w.tags.Len() || slices.Contains(w.tags.Tags()[:w.sent], t)) {
			spared = append(spared, t)
		}
	}
	if len(spared) == 0 {
		return nil
	}
	if err := s.Spare(ctx, w.id, spared); err != nil {
		return err
	}
	n := w.tags.Remove(w.sent, spared...)
	w.sent -= n
	w.c.spared.Add(uint64(n))
	return nil
}

// Remember makes tags part of the write without marking them. Release then
// gives them new stamps, which is all that cache-aside in its textbook form does.
func (w *Write) Remember(tags []store.Tag) {
	w.tags.Add(tags...)
}

// Empty reports that nothing is to be released.
func (w *Write) Empty() bool { return w.tags.Len() == 0 }

// Release ends a write whose outcome is known: committed, rolled back, or never
// sent. Each tag gets a new stamp (I5), and is clean when no other writer has
// an intent on it. A release that the store does not take is repeated until it
// does.
func (w *Write) Release() { w.ReleaseTelling(nil) }

// ReleaseTelling is Release, and closes asked, unless it is nil, when the store has
// been asked for the first time: it took the release, or will be asked again.
func (w *Write) ReleaseTelling(asked chan<- struct{}) {
	switch {
	case w.end():
		w.c.settle(w, asked)
	case asked != nil:
		close(asked)
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
	w.over = true
	return w.tags.Len() > 0
}
