package feed

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/invalidation"
)

// Follow hands on what others do, from a start that makes everything cold.
func TestFollowHandsOnWhatOthersChange(t *testing.T) {
	t.Parallel()
	f := newFed(t, fedPeople)
	c, err := (&cachedpg.Driver{}).OpenConnector(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	inside.Process(c, "region") // with a store that hears of events only
	region := f.Asking(harness.OpenDB(f, c))
	region.Warm(harness.UserByID, 1)
	region.Warm(harness.UserByID, 2)
	ctx, cancel := context.WithCancel(f.Ctx)
	events := make(chan invalidation.Event, 100)
	refuse := make(chan error, 1)
	done := make(chan error, 1)
	go func() {
		done <- cachedpg.Follow(ctx, f.DB, invalidation.SinkFunc(func(ctx context.Context, batch []invalidation.Event) error {
			select {
			case err := <-refuse:
				return err
			default:
			}
			for _, e := range batch {
				events <- e
			}
			return nil
		}))
	}()
	next := func() invalidation.Event {
		f.Helper()
		select {
		case e := <-events:
			if err := cachedpg.Apply(f.Ctx, region.DB, e); err != nil {
				f.Fatal(err)
			}
			return e
		case <-f.Ctx.Done():
			f.Fatal("waited in vain for an event")
		}
		panic("unreachable")
	}
	if e := next(); !slices.Equal(e.Tags, harness.Everything) || !strings.HasPrefix(e.ID, "start/") {
		f.Errorf("the first event is %+v", e)
	}
	region.Warm(harness.UserByID, 1)
	region.Warm(harness.UserByID, 2)
	f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
	e := next()
	origin, err := cachedpg.OriginOf(f.Ctx, f.DB)
	if err != nil {
		f.Fatal(err)
	}
	if e.Source != origin.Source || time.Since(e.Time) > time.Minute || !strings.Contains(e.ID, "/") {
		f.Errorf("got event %+v", e)
	}
	region.Miss(harness.UserByID, 1).Is("1 ann Bergen")
	region.Hit(harness.UserByID, 2)

	// What a sink did not take is made up for by a start.
	refuse <- errors.New("a broker that is down")
	f.Past("UPDATE users SET city = 'Molde' WHERE id = 1")
	if e := next(); !slices.Equal(e.Tags, harness.Everything) {
		f.Errorf("after a refusal the event is %+v", e)
	}
	region.Miss(harness.UserByID, 1).Is("1 ann Molde")

	refuse <- cachedpg.ErrStop
	f.Past("UPDATE users SET city = 'Ulm' WHERE id = 1")
	if err := <-done; !errors.Is(err, cachedpg.ErrStop) {
		f.Errorf("got error %v, want ErrStop", err)
	}
	cancel()
	if err := cachedpg.Follow(ctx, f.DB, nil); !errors.Is(err, context.Canceled) {
		f.Errorf("with a context that is over: %v", err)
	}
	f.Past("DROP PUBLICATION cachedpg")
	if err := cachedpg.Follow(f.Ctx, f.DB, nil); err == nil || !strings.Contains(err.Error(), "setup --wal") {
		f.Errorf("without a publication: %v", err)
	}
}
