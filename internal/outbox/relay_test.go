package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
)

func TestARelayEndsOnlyAtWhatDoesNotPass(t *testing.T) {
	passing, lasting := errors.New("cachedpg: passing"), errors.New("cachedpg: lasting")
	o, dialled := new(Outbox), 0
	var problems []error
	err := o.Relay(t.Context(), Host{
		Dial: func(context.Context) (backend.Conn, error) {
			if dialled++; dialled == 1 {
				return nil, passing
			}
			return nil, fmt.Errorf("%w for ever", lasting)
		},
		Lasting: []error{lasting},
	}, RelayOptions{Interval: time.Millisecond, Problem: func(err error) { problems = append(problems, err) }})
	if !errors.Is(err, lasting) || dialled != 2 {
		t.Errorf("got error %v at attempt %d", err, dialled)
	}
	if len(problems) != 1 || !errors.Is(problems[0], passing) || o.Stats().Problem != err.Error() {
		t.Errorf("got problems %v, and %+v", problems, o.Stats())
	}
}

func TestAConnectionThatIsNoneOfPgxsIsClosed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in := new(foreign)
	var problem error
	err := new(Outbox).Relay(ctx, Host{
		Dial: func(context.Context) (backend.Conn, error) { return in, nil },
	}, RelayOptions{Problem: func(err error) {
		problem = err
		cancel()
	}})
	if err != context.Canceled || problem != backend.ErrNotPgx || !in.closed {
		t.Errorf("got %v, %v, closed %t", err, problem, in.closed)
	}
}

type foreign struct {
	backend.Conn
	closed bool
}

func (f *foreign) Close() error {
	f.closed = true
	return nil
}

func TestOptionsThatCannotBeMeant(t *testing.T) {
	for want, options := range map[string]RelayOptions{"batch of -1": {Batch: -1}, "interval of -1s": {Interval: -time.Second}} {
		if err := new(Outbox).Relay(t.Context(), Host{}, options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
